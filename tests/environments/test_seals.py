"""Environments of fixed length: what differs from Gymnasium's, and what does not."""

import gymnasium
import numpy as np
import pytest
import torch

from conf.errors import UserError
from environments.construction import EnvironmentConfig, make_environment, spaces_of
from environments.vector import VectorEnvironment

SIZES = {"Ant": (29, 8), "HalfCheetah": (18, 6), "Hopper": (12, 3), "Swimmer": (10, 2), "Walker2d": (18, 6)}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_length(name: str) -> None:
    spaces = spaces_of(f"seals/{name}-v1")
    assert (spaces.observation_size, spaces.action_size) == SIZES[name]
    assert spaces.horizon == 1000
    assert spaces.action_low.tolist() == [-1.0] * spaces.action_size


def test_hopper_falls_and_goes_on() -> None:
    """The dynamics are Hopper-v4's; the healthy reward of 1 stops with the fall, the episode does not."""
    fixed, plain = make_environment("seals/Hopper-v1"), make_environment("Hopper-v4")
    observation, other = fixed.reset(seed=3)[0], plain.reset(seed=3)[0]
    np.testing.assert_array_equal(observation[1:], other)  # the position comes first
    generator, over, steps, rewards = np.random.default_rng(0), False, 0, []
    while True:
        action = generator.uniform(-1, 1, 3).astype(np.float32)
        observation, reward, terminated, truncated, _ = fixed.step(action)
        steps += 1
        assert not terminated
        if over:
            rewards.append(float(reward))
        else:
            other, expected, over, _, _ = plain.step(action)
            np.testing.assert_array_equal(observation[1:], other)
            assert reward == pytest.approx(float(expected) - (1.0 if over else 0.0))
        if truncated:
            break
    assert steps == 1000 and over
    assert np.mean(rewards) < 0.5


def test_cartpole_pays_while_the_pole_stands() -> None:
    fixed, plain = make_environment("seals/CartPole-v0"), make_environment("CartPole-v1")
    fixed.reset(seed=1)
    plain.reset(seed=1)
    paid, over, steps = [], False, 0
    while True:
        observation, reward, terminated, truncated, _ = fixed.step(np.int64(1))
        steps += 1
        paid.append(float(reward))
        assert observation.dtype == np.float32 and abs(observation[2]) <= np.float32(np.pi)
        if not over:
            other, _, over, _, _ = plain.step(np.int64(1))
            np.testing.assert_allclose(observation, other, atol=1e-6)
            assert reward == (0.0 if over else 1.0)
        assert not terminated
        if truncated:
            break
    assert steps == 500
    assert 5 < sum(paid) < 20


def test_cartpole_is_paid_again_when_it_stands_again() -> None:
    env = make_environment("seals/CartPole-v0")
    env.reset(seed=0)
    rewards = []
    for angle in (0.0, 1.0, 1.0, 0.0):
        env.unwrapped.state = np.array([0.0, 0.0, angle, 0.0])  # type: ignore[attr-defined]  # CartPole's own
        rewards.append(env.step(np.int64(0))[1])
    assert rewards == [1.0, 0.0, 0.0, 1.0]


def test_mountain_car_stays_at_the_goal() -> None:
    env = make_environment("seals/MountainCar-v0")
    observation = env.reset(seed=0)[0]
    rewards, goal = [], None
    for _ in range(200):  # pushes along its speed, which reaches the goal
        observation, reward, terminated, truncated, _ = env.step(np.int64(2 if observation[1] >= 0 else 0))
        rewards.append(float(reward))
        assert not terminated
        if reward == 0:
            assert goal is None or np.array_equal(observation, goal)
            goal = observation
    assert truncated and goal is not None and goal[0] >= 0.5
    assert rewards == sorted(rewards) and -160 < sum(rewards) < -90
    assert env.reset(seed=0)[0][0] < 0 and env.step(np.int64(0))[1] == -1  # a new episode


def test_an_early_end_where_none_may_be_is_an_error() -> None:
    config = EnvironmentConfig(id="CartPole-v1", fixed_horizon=True)
    envs = VectorEnvironment(config, spaces_of("CartPole-v1"), (0,))
    right = torch.tensor([[[0.0, 1.0]]])
    with pytest.raises(UserError, match=r"env\.fixed_horizon=true is wrong here"):
        for _ in range(50):
            envs.step(right)


def test_names_are_registered_once() -> None:
    assert sum(name.startswith("seals/") for name in gymnasium.registry) == 7
