"""MuJoCo's robots stepped together, against Gymnasium's own step: the same bits."""

import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest

from environments.construction import make_environment
from environments.robots import Robots, kind_of
from environments.vector import GymnasiumBackend, OneByOne

NAMES = ["Ant", "HalfCheetah", "Hopper", "Swimmer", "Walker2d"]
IDS = [f"{name}-v4" for name in NAMES] + [f"seals/{name}-v1" for name in NAMES]


def random_actions(step: int, count: int, size: int) -> np.ndarray:
    return np.random.default_rng(step).uniform(-1, 1, (count, size)).astype(np.float32)


@pytest.mark.parametrize(("environment_id", "threads"), [*((name, 1) for name in IDS), ("Hopper-v4", 2)])
def test_episodes_are_gymnasiums_bit_for_bit(environment_id: str, threads: int) -> None:
    seeds = [3, 4, 5]
    together, alone = (GymnasiumBackend(environment_id, seeds, threads) for _ in range(2))
    assert isinstance(together.simulation, Robots)
    alone.simulation = OneByOne(alone.envs)
    size = alone.envs[0].action_space.shape[0]  # type: ignore[index]  # a vector
    for step in range(150):
        actions = random_actions(step, 3, size)
        results = [backend.simulation.step(actions) for backend in (together, alone)]
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        for index in np.flatnonzero(results[0][2]):
            np.testing.assert_array_equal(together.envs[index].reset()[0], alone.envs[index].reset()[0])
    together.close()


@pytest.mark.parametrize("name", ["Ant", "Hopper", "Walker2d"])
def test_health_is_gymnasiums_at_every_limit(name: str) -> None:
    backend = GymnasiumBackend(f"{name}-v4", [0])
    robot: Any = backend.envs[0].unwrapped
    robots = backend.simulation
    assert isinstance(robots, Robots)
    state, size = robot.state_vector(), robot.model.nq
    found = []
    limits = (0.7, 0.2, -0.2, 0.8, 2.0, 1.0, -1.0, 100.0, -100.0, np.inf, -np.inf)
    for index, value in itertools.product(range(len(state)), limits):
        for changed in (np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)):
            state = robot.init_qpos.tolist() + robot.init_qvel.tolist()
            state[index] = changed
            robot.data.qpos[:], robot.data.qvel[:] = state[:size], state[size:]
            ours = bool(robots.healthy(np.array([state]))[0])
            found.append(ours)
            assert ours == bool(robot.is_healthy), (index, changed)
    assert {True, False} == set(found)


@pytest.mark.parametrize("environment_id", ["Hopper-v4", "Walker2d-v4"])
def test_the_time_limit_is_gymnasiums(environment_id: str) -> None:
    gymnasium.register("Short-v0", entry_point=gymnasium.spec(environment_id).entry_point, max_episode_steps=7)
    try:
        together, alone = (GymnasiumBackend("Short-v0", [0, 1]) for _ in range(2))
    finally:
        gymnasium.registry.pop("Short-v0")
    alone.simulation = OneByOne(alone.envs)
    size = together.envs[0].action_space.shape[0]  # type: ignore[index]  # a vector
    cut = 0
    for step in range(30):
        actions = 0.1 * random_actions(step, 2, size)
        results = together.step(actions), alone.step(actions)
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(together.observations, alone.observations)
        cut += results[0][3].sum()
    assert cut == 8


def test_falling_in_the_last_step_is_both() -> None:
    gymnasium.register("Short-v0", entry_point="gymnasium.envs.mujoco.hopper_v4:HopperEnv", max_episode_steps=40)
    try:
        backend = GymnasiumBackend("Short-v0", [0])
    finally:
        gymnasium.registry.pop("Short-v0")
    assert isinstance(backend.simulation, Robots)
    length, fell = 0, False
    while not fell:
        _, _, terminated, truncated = backend.step(np.full((1, 3), -1.0, np.float32))
        length, fell = length + 1, bool(terminated[0])
        assert not truncated[0]
    backend.simulation.horizon = length
    backend.envs[0].reset(seed=0)
    for _ in range(length):
        _, _, terminated, truncated = backend.step(np.full((1, 3), -1.0, np.float32))
    assert terminated[0] and truncated[0]


def test_others_are_stepped_one_by_one() -> None:
    assert kind_of(make_environment("Hopper-v5")) is None
    assert kind_of(make_environment("Pendulum-v1")) is None
    assert isinstance(GymnasiumBackend("Pendulum-v1", [0]).simulation, OneByOne)
    gymnasium.register(
        "Forces-v0", entry_point="gymnasium.envs.mujoco.ant_v4:AntEnv", kwargs={"use_contact_forces": True}
    )
    assert kind_of(make_environment("Forces-v0")) is None
    gymnasium.registry.pop("Forces-v0")
