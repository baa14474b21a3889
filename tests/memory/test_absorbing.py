"""Absorbing states: what changes at a true end, and what must not change anywhere else."""

import torch

from memory.absorbing import append_bit, lead_into_absorbing, self_loops
from memory.batch import FIELDS, Batch

STATE = torch.tensor([0.5, 0.0, 1.0])


def batch() -> Batch:
    """One run, three rows with the bit: an ordinary one, a true end, a time limit."""
    observations = append_bit(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]))
    zeros = torch.zeros(1, 3)
    return Batch(
        observations=observations,
        actions=torch.full((1, 3, 1), 0.5),
        rewards=torch.ones(1, 3),
        next_observations=observations + torch.tensor([10.0, 10.0, 0.0]),
        terminated=torch.tensor([[0.0, 1.0, 0.0]]),
        truncated=torch.tensor([[0.0, 0.0, 1.0]]),
        weights=torch.tensor([[1.0, 0.5, 1.0]]),
        collected_at=torch.tensor([[7.0, 8.0, 9.0]]),
        absorbing=zeros,
        next_absorbing=zeros,
    )


def test_bit() -> None:
    assert append_bit(torch.tensor([[3.0, -1.0]])).tolist() == [[3, -1, 0]]


def test_only_true_ends_lead_into_the_absorbing_state() -> None:
    before = batch()
    after = lead_into_absorbing(before, STATE)
    assert after.next_observations.tolist() == [[[11, 12, 0], [0.5, 0, 1], [15, 16, 0]]]
    assert after.terminated.tolist() == [[0, 0, 0]]
    assert after.truncated.tolist() == [[0, 0, 1]]
    assert after.next_absorbing.tolist() == [[0, 1, 0]]
    assert after.absorbing.tolist() == [[0, 0, 0]]
    for name in ("observations", "actions", "rewards", "weights", "collected_at"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name
    assert before.terminated.tolist() == [[0, 1, 0]]  # the input stays as it was


def test_leading_in_twice_changes_nothing_more() -> None:
    once = lead_into_absorbing(batch(), STATE)
    twice = lead_into_absorbing(once, STATE)
    for name in FIELDS:
        assert torch.equal(getattr(once, name), getattr(twice, name)), name


def test_self_loop() -> None:
    loop = self_loops(batch(), STATE)
    assert loop.observations.tolist() == loop.next_observations.tolist() == [[[0.5, 0, 1]] * 3]
    assert loop.actions.tolist() == [[[0]] * 3]
    for name in ("rewards", "terminated", "truncated"):
        assert getattr(loop, name).tolist() == [[0, 0, 0]], name
    for name in ("weights", "absorbing", "next_absorbing"):
        assert getattr(loop, name).tolist() == [[1, 1, 1]], name
    assert loop.collected_at.tolist() == [[7, 8, 9]]  # the step at which the episode ended
