"""Environments side by side: compared with single ones that are stepped by hand."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from environments.construction import EnvironmentConfig, make_environment, spaces_of
from environments.vector import VectorEnvironment, reset_seeds
from memory.batch import FIELDS, Batch
from tests.algorithms.support import WALK


def make(
    environment_id: str, seeds: tuple[int, ...] = (0,), envs: int = 1, absorbing: bool = False
) -> VectorEnvironment:
    config = EnvironmentConfig(id=environment_id, num_envs=envs)
    return VectorEnvironment(config, spaces_of(environment_id, absorbing), seeds)


def actions(envs: VectorEnvironment, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    shape = (*envs.shape, envs.spaces.action_size)
    return torch.rand(*shape, generator=generator) * 3 - 1.5  # some beyond the bounds


class ByHand:
    """Plain Gymnasium environments, one after the other."""

    def __init__(self, environment_id: str, seeds: tuple[int, ...], envs: int) -> None:
        starts = reset_seeds(seeds, envs, "environment")
        self.envs: list[gymnasium.Env[Any, Any]] = [gymnasium.make(environment_id) for _ in starts]
        self.observations = [env.reset(seed=seed)[0] for env, seed in zip(self.envs, starts, strict=True)]

    def step(self, scaled: np.ndarray) -> list[tuple[np.ndarray, float, bool, bool]]:
        results = []
        for index, (env, action) in enumerate(zip(self.envs, scaled, strict=True)):
            successor, reward, terminated, truncated, _ = env.step(action)
            results.append((successor, float(reward), terminated, truncated))
            self.observations[index] = env.reset()[0] if terminated or truncated else successor
        return results


def rows(tensor: Tensor) -> np.ndarray:
    """[runs, envs, ...] to one row per environment."""
    return tensor.flatten(0, 1).numpy()


@pytest.mark.parametrize(
    ("environment_id", "low", "high", "steps"), [(WALK, -1.0, 3.0, 60), ("Pendulum-v1", -2.0, 2.0, 210)]
)
def test_transitions_are_those_of_environments_stepped_by_hand(
    environment_id: str, low: float, high: float, steps: int
) -> None:
    seeds = (3, 4)
    envs, by_hand = make(environment_id, seeds, 2), ByHand(environment_id, seeds, 2)
    ends = {"terminated": 0, "truncated": 0}
    for step in range(steps):
        np.testing.assert_array_equal(rows(envs.observations), np.stack(by_hand.observations))
        before, chosen = envs.observations, actions(envs, step)
        batch = envs.step(chosen)
        # Scaled once: -1 is the lower limit and 1 the upper one. What lies beyond is clipped for the environment, and
        # kept as it was drawn, since its log-probability is the policy's (H18).
        expected = by_hand.step(low + (np.clip(rows(chosen), -1, 1) + 1) / 2 * (high - low))
        assert torch.equal(batch.observations, before) and torch.equal(batch.actions, chosen)
        columns = [np.array(column, np.float32) for column in zip(*expected, strict=True)]
        for name, column in zip(("next_observations", "rewards", "terminated", "truncated"), columns, strict=True):
            np.testing.assert_allclose(rows(getattr(batch, name)), column, atol=1e-5, err_msg=f"{name} at {step}")
        ends = {name: count + int(getattr(batch, name).sum()) for name, count in ends.items()}
    assert ends["truncated"] > 0  # a time limit
    assert (ends["terminated"] > 0) == (environment_id == WALK)


def test_the_last_observation_of_an_episode_is_its_own() -> None:
    envs = make(WALK)
    for _ in range(30):
        batch = envs.step(torch.ones(1, 1, 1))  # pushed by 0.4 a step, beyond 1
        ended = bool(batch.terminated)
        assert (batch.next_observations[0, 0, 0] > 1) == ended
        assert (envs.observations[0, 0, 0].abs() <= 0.5) == ended or not ended
        assert torch.equal(envs.observations, batch.next_observations) != ended


def test_termination_and_time_limit_are_never_merged() -> None:
    envs = make(WALK, (0,), 2)
    seen = set()
    for step in range(120):
        # The first one is pushed out now and then, the second one stays.
        batch = envs.step(torch.tensor([[[0.4 if step % 30 < 15 else 0.0], [0.0]]]))
        flags = zip(batch.terminated[0].tolist(), batch.truncated[0].tolist(), strict=True)
        seen |= {(index, *flag) for index, flag in enumerate(flags)}
    assert (0, 1.0, 0.0) in seen and (0, 0.0, 1.0) in seen
    assert (1, 0.0, 1.0) in seen and not any(index == 1 and terminated for index, terminated, _ in seen)


def test_batches_do_not_change_when_the_environments_go_on() -> None:
    envs = make(WALK, (0, 1), 2)
    batches = [envs.step(actions(envs, step)) for step in range(3)]
    kept = copy.deepcopy(batches)
    for step in range(40):
        envs.step(actions(envs, step))
    for batch, before in zip(batches, kept, strict=True):
        for name in FIELDS:
            assert torch.equal(getattr(batch, name), getattr(before, name)), name


def test_the_bit_of_ordinary_states() -> None:
    envs, plain = make(WALK, (0, 1), 2, absorbing=True), make(WALK, (0, 1), 2)
    for step in range(40):
        assert envs.observations.shape == (2, 2, 3)
        assert torch.equal(envs.observations[..., :2], plain.observations)
        batch, other = envs.step(actions(envs, step)), plain.step(actions(envs, step))
        for observations in (batch.observations, batch.next_observations, envs.observations):
            assert observations[..., 2].abs().sum() == 0
        # The memory, not the environment, leads ends into the absorbing state.
        assert batch.absorbing.sum() == batch.next_absorbing.sum() == 0
        assert torch.equal(batch.terminated, other.terminated)


def test_steps_and_weights() -> None:
    envs = make(WALK, (0, 1), 3)
    first, second = envs.step(actions(envs, 0)), envs.step(actions(envs, 1))
    assert (first.weights == 1).all()
    assert first.collected_at.tolist() == [[3.0] * 3] * 2 and second.collected_at.tolist() == [[6.0] * 3] * 2
    assert envs.steps == 6


def test_a_seed_is_the_same_alone_and_beside_others_and_starts_differ() -> None:
    together, alone = make(WALK, (3, 4), 2), make(WALK, (4,), 2)
    assert len({tuple(row) for row in rows(together.observations).tolist()}) == 4
    for step in range(40):
        chosen = actions(together, step)
        both, one = together.step(chosen), alone.step(chosen[1:])
        for name in FIELDS:
            assert torch.equal(getattr(both, name)[1:], getattr(one, name)), name


def test_seeds_fit_every_simulator() -> None:
    starts = reset_seeds(range(100), 3, "environment")
    assert len(set(starts)) == 300 and all(0 <= seed < 2**31 for seed in starts)
    assert starts != reset_seeds(range(100), 3, "evaluation")


def assert_same(first: Batch, second: Batch) -> None:
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize(
    ("environment_id", "steps"),
    [("Hopper-v4", 0), ("Hopper-v4", 7), ("Hopper-v4", 60), (WALK, 13), ("Pendulum-v1", 205)],
)
def test_restored_environments_go_on_exactly(environment_id: str, steps: int) -> None:
    envs = make(environment_id, (0, 1), 2, absorbing=True)
    ended = 0.0
    for step in range(steps):
        batch = envs.step(actions(envs, step))
        ended += float((batch.terminated + batch.truncated).sum())
    assert (ended > 0) == (steps > 10)  # also in a later episode, which no seed began
    other = make(environment_id, (0, 1), 2, absorbing=True)
    other.step(actions(other, 1000))  # wherever it was before
    other.load_state_dict(copy.deepcopy(envs.state_dict()))
    assert other.steps == envs.steps
    assert torch.equal(other.observations, envs.observations)
    for step in range(2000, 2040):
        assert_same(envs.step(actions(envs, step)), other.step(actions(envs, step)))
        assert torch.equal(other.observations, envs.observations)


def test_closing() -> None:
    envs = make(WALK)
    envs.close()
    make_environment(WALK).close()
