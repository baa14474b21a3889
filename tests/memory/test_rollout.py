"""Rollouts: given away once and whole, in the order of collection; saved half-way."""

from dataclasses import replace

import pytest
import torch

from memory.batch import FIELDS, Batch, Layout
from memory.rollout import RolloutMemory
from tests.algorithms.support import make_batch

LENGTH, ENVS, RUNS = 3, 2, 2


def memory() -> RolloutMemory:
    return RolloutMemory(Layout(3, 1), LENGTH)


def step(number: int) -> Batch:
    """It begins where the one before it has ended."""
    following = make_batch(RUNS, ENVS, 3, 1, seed=number + 1)
    return replace(make_batch(RUNS, ENVS, 3, 1, seed=number), next_observations=following.observations)


def test_a_rollout_is_given_away_once_when_it_is_complete() -> None:
    rollouts, taken = memory(), []
    for number in range(7):
        rollouts.add(step(number))
        taken.append(len(list(rollouts.batches())))
    assert taken == [0, 0, 1, 0, 0, 1, 0]


def test_rows_lie_step_by_step_with_environments_side_by_side() -> None:
    rollouts = memory()
    for number in range(LENGTH):
        rollouts.add(step(number))
    (batch,) = rollouts.batches()
    kept = {name: getattr(batch, name).clone() for name in FIELDS}
    for name in FIELDS:
        expected = torch.cat([getattr(step(number), name) for number in range(LENGTH)], 1)
        assert torch.equal(getattr(batch, name), expected), name
    rollouts.add(step(50))  # the next one
    assert all(torch.equal(getattr(batch, name), value) for name, value in kept.items())


def test_what_was_collected_is_saved() -> None:
    first, second = memory(), memory()
    first.add(step(0))
    second.load_state_dict(first.state_dict())
    for number in (1, 2):
        for rollouts in (first, second):
            rollouts.add(step(number))
    (one,), (two,) = first.batches(), second.batches()
    assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in FIELDS)
    assert first.state_dict()["rows"] is None


def test_episodes_that_could_not_be_gone_on_with_were_cut() -> None:
    """EnvPool begins new ones; here in the second environment, and in the first one of run 1, which had ended."""
    first, second = memory(), memory()
    terminated = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    first.add(replace(step(0), terminated=terminated, truncated=torch.zeros(RUNS, ENVS)))
    second.load_state_dict(first.state_dict())
    begun = step(1).observations.clone()
    begun[:, 1] += 1.0
    begun[1, 0] += 1.0
    second.add(replace(step(1), observations=begun, truncated=torch.zeros(RUNS, ENVS)))
    second.add(replace(step(2), truncated=torch.zeros(RUNS, ENVS)))  # resumed no more: compared with nothing
    (batch,) = second.batches()
    assert batch.truncated.tolist() == [[0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]
    assert torch.equal(batch.terminated[:, :ENVS], terminated)


def test_demonstrations_cannot_be_put_in() -> None:
    with pytest.raises(NotImplementedError):
        memory().prefill(step(0))
