"""EnvPool against Gymnasium's own environments, where it is installed; and what is said where it is not."""

import copy
import dataclasses
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from conf.errors import UserError
from environments.construction import EnvironmentConfig, spaces_of
from environments.envpool import REQUIREMENT, EnvPoolBackend
from environments.vector import GymnasiumBackend, VectorEnvironment
from tests.algorithms.support import WALK
from tests.training.helpers import SMALL, configured

HOPPER = "Hopper-v4"


def test_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UserError, match=f"env.backend=envpool is not installed: pip install {REQUIREMENT}") as error:
        configured(*SMALL, "algorithm=SAC", "env.backend=envpool")
    assert "env.backend=gymnasium" in str(error.value)


def test_the_version_is_that_of_the_requirements() -> None:
    lines = (Path(__file__).parents[2] / "requirements-envpool.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [REQUIREMENT]


def backend(*seeds: int, environment_id: str = HOPPER) -> EnvPoolBackend:
    pytest.importorskip("envpool")
    return EnvPoolBackend(environment_id, seeds)


def random_actions(step: int, count: int, size: int = 3) -> np.ndarray:
    return np.random.default_rng(step).uniform(-1, 1, (count, size)).astype(np.float32)


def test_unknown_environments_are_refused() -> None:
    pytest.importorskip("envpool")
    with pytest.raises(UserError, match=rf"env.id={WALK} is not in EnvPool .* env.backend=gymnasium"):
        EnvPoolBackend(WALK, [0])


@pytest.mark.parametrize(("environment_id", "other"), [(HOPPER, "CartPole-v1"), ("CartPole-v1", HOPPER)])
def test_what_differs_from_gymnasiums_is_refused(
    environment_id: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("envpool")
    spaces = dataclasses.replace(spaces_of(other), observation_size=spaces_of(environment_id).observation_size)
    monkeypatch.setattr("environments.envpool.spaces_of", lambda _: spaces)
    with pytest.raises(UserError, match=rf"{environment_id} differs between EnvPool and Gymnasium: .*=gymnasium"):
        EnvPoolBackend(environment_id, [0])


Policy = str  # "random", or "fixed": one that stands for a while before it falls


def episodes(envs: EnvPoolBackend | GymnasiumBackend, policy: Policy, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the first `count` episodes of each environment."""
    envs_count = len(envs.observations)
    gains = np.random.default_rng(1).normal(0, 0.3, (11, 3))
    returns, lengths = np.zeros(envs_count), np.zeros(envs_count)
    finished: list[list[tuple[float, float]]] = [[] for _ in range(envs_count)]
    generator = np.random.default_rng(2)
    while min(map(len, finished)) < count:
        noise = generator.uniform(-1, 1, (envs_count, 3))
        actions = noise if policy == "random" else np.tanh(envs.observations @ gains)
        _, rewards, terminated, truncated = envs.step(actions.astype(np.float32))
        returns, lengths = returns + rewards, lengths + 1
        for index in np.flatnonzero(terminated | truncated):
            finished[index].append((returns[index], lengths[index]))
            returns[index] = lengths[index] = 0
    table = np.array([episode for column in finished for episode in column[:count]])
    return table[:, 0], table[:, 1]


@pytest.mark.parametrize("name", ["Ant", "HalfCheetah", "Hopper", "Swimmer", "Walker2d"])
def test_environments_of_fixed_length_are_ours(name: str) -> None:
    """The same observations, nothing ends early, and rewards of random actions as in Gymnasium's."""
    environment_id, seeds = f"seals/{name}-v1", list(range(8))
    size = spaces_of(environment_id).action_size
    means = []
    for envs in (backend(*seeds, environment_id=environment_id), GymnasiumBackend(environment_id, seeds)):
        total = np.zeros(len(seeds))
        for step in range(1000):
            _, rewards, terminated, truncated = envs.step(random_actions(step, len(seeds), size))
            total += rewards
            assert not terminated.any() and truncated.all() == (step == 999)
        means.append((total.mean(), total.std() / len(seeds) ** 0.5))
    (ours, error), (theirs, other) = means
    assert abs(ours - theirs) < 4 * (error**2 + other**2) ** 0.5


@pytest.mark.parametrize(("environment_id", "limit"), [("CartPole-v1", 500), ("MountainCar-v0", 200)])
def test_discrete_actions_do_what_they_do_in_gymnasium(environment_id: str, limit: int) -> None:
    """From the same state: EnvPool's own, which classic control shows whole."""
    envs = backend(*range(4), environment_id=environment_id)
    one = gymnasium.make(environment_id).unwrapped
    choices, ages, ended = spaces_of(environment_id).action_size, np.zeros(4), 0
    one.reset()
    for step in range(2 * limit):
        actions = np.random.default_rng(step).integers(choices, size=4)
        before = envs.observations
        successors, rewards, terminated, truncated = envs.step(actions)
        one.state = before[0].astype(np.float64)  # type: ignore[attr-defined]  # of classic control
        one.steps_beyond_terminated = None  # type: ignore[attr-defined]
        observation, reward, end, _, _ = one.step(actions[0])
        np.testing.assert_allclose(successors[0], observation, atol=1e-5)
        assert (rewards[0], terminated[0]) == (reward, end)
        ages += 1
        np.testing.assert_array_equal(truncated, ages == limit)
        ended += (terminated | truncated).sum()
        ages[terminated | truncated] = 0
    assert ended > 4


@pytest.mark.parametrize("policy", ["random", "fixed"])
def test_returns_and_lengths_are_gymnasiums(policy: Policy) -> None:
    """Within 3 standard errors of the difference."""
    seeds = list(range(100, 110))
    results = [episodes(envs, policy, 20) for envs in (backend(*seeds), GymnasiumBackend(HOPPER, seeds))]
    for ours, theirs in zip(*results, strict=True):
        error = np.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
        assert abs(ours.mean() - theirs.mean()) < 3 * error, (ours.mean(), theirs.mean(), error)
        assert error > 0


def test_successors_at_the_end_of_an_episode_are_true() -> None:
    """A fallen hopper lies outside the healthy range; the episode goes on near the upright start."""
    envs, ends = backend(0, 1, 2), 0
    for step in range(200):
        successors, _, terminated, truncated = envs.step(random_actions(step, 3))
        assert not truncated.any()
        fallen = (successors[:, 0] <= 0.7) | (np.abs(successors[:, 1]) >= 0.2)
        np.testing.assert_array_equal(terminated, fallen)
        for index in range(3):
            if terminated[index]:
                ends += 1
                assert abs(envs.observations[index, 0] - 1.25) < 0.006
                assert np.abs(envs.observations[index, 1:]).max() < 0.006
            else:
                np.testing.assert_array_equal(envs.observations[index], successors[index])
    assert ends > 5


def test_earlier_successors_are_not_overwritten() -> None:
    envs = backend(0, 1)
    seen = [envs.step(random_actions(step, 2))[0] for step in range(40)]
    copies = copy.deepcopy(seen)
    for step in range(40, 80):
        envs.step(random_actions(step, 2))
    np.testing.assert_array_equal(seen, copies)


def test_time_limit_and_termination_are_kept_apart() -> None:
    """Pendulum never terminates; a Hopper that falls in the very last step is both."""
    pendulum = backend(0, 1, environment_id="Pendulum-v1")
    for step in range(401):
        _, _, terminated, truncated = pendulum.step(random_actions(step, 2, 1))
        assert not terminated.any() and truncated.all() == truncated.any() == (step in (199, 399))
    lengths = [0, 0]
    for attempt in range(2):
        hopper = backend(0)
        hopper.horizon = lengths[0] or hopper.horizon
        ended = False
        while not ended:
            _, _, terminated, truncated = hopper.step(random_actions(lengths[attempt], 1))
            lengths[attempt] += 1
            ended = bool(terminated[0] | truncated[0])
        assert terminated[0] and truncated[0] == (attempt == 1)
    assert lengths[0] == lengths[1]


def test_each_environment_follows_its_own_seed() -> None:
    """Alone or beside others, in any place, over resets; and different seeds differ."""
    alone, others = backend(7), backend(3, 7, 3)
    for step in range(100):
        np.testing.assert_array_equal(alone.observations[0], others.observations[1])
        np.testing.assert_array_equal(others.observations[0], others.observations[2])
        assert not np.array_equal(others.observations[0], others.observations[1])
        action = random_actions(step, 1)
        alone.step(action)
        others.step(action.repeat(3, 0))


def test_new_episodes_with_new_seeds_after_a_resumption() -> None:
    first = backend(0, 1)
    starts = [first.observations]
    state = first.state_dict()
    for _ in range(2):
        resumed, again = backend(5, 6), backend(0, 1)
        resumed.load_state_dict(copy.deepcopy(state))
        again.load_state_dict(copy.deepcopy(state))
        np.testing.assert_array_equal(resumed.observations, again.observations)
        assert all(not np.isclose(resumed.observations, start).all(1).any() for start in starts)
        starts.append(resumed.observations)
        resumed.step(random_actions(0, 2))
        state = resumed.state_dict()


def test_in_a_vector_environment_with_absorbing_bit() -> None:
    pytest.importorskip("envpool")
    config = EnvironmentConfig(id=HOPPER, num_envs=2, backend="envpool")
    envs = VectorEnvironment(config, spaces_of(HOPPER, absorbing=True), (0, 1, 2))
    assert envs.observations.shape == (3, 2, 12)
    ended = 0.0
    for step in range(60):
        before: Tensor = envs.observations
        batch = envs.step(torch.from_numpy(random_actions(step, 6)).view(3, 2, 3))
        assert torch.equal(batch.observations, before)
        assert batch.next_observations.dtype == batch.rewards.dtype == torch.float32
        ended += float(batch.terminated.sum())
    assert ended > 0
    envs.close()
