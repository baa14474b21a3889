"""Demonstrations that are larger than memory: read one by one, and nothing but their rows stays."""

import weakref

import numpy as np
import pytest
import torch

from conf.errors import UserError
from environments.trajectories import LazyTrajectories, Trajectory
from memory.demonstrations import Demonstrations
from tests.algorithms.support import make_spaces
from tests.memory.test_demonstrations import HIGH, LOW, build, episode


def test_trajectories_are_read_one_by_one() -> None:
    alive: list[weakref.ref[Trajectory]] = []
    most = 0

    def load(index: int) -> Trajectory:
        nonlocal most
        most = max(most, sum(reference() is not None for reference in alive))
        trajectory = episode(3 + index, index % 2 == 0, 10.0 * index)
        alive.append(weakref.ref(trajectory))
        return trajectory

    whole = build(*(load(index) for index in range(6)), absorbing=True, subsample=2)
    most = 0
    lazy = LazyTrajectories([3 + index for index in range(6)], load)
    spaces = make_spaces(2, 1, True, action_low=LOW, action_high=HIGH)
    demonstrations = Demonstrations(lazy, limit=0, subsample=2, seeds=[0], device="cpu", spaces=spaces)
    assert most <= 2  # the one before, and one that a check of types may look at
    assert torch.equal(demonstrations.rows().observations, whole.rows().observations)
    assert torch.equal(demonstrations.rows().weights, whole.rows().weights)
    assert demonstrations.mean_return == whole.mean_return
    assert demonstrations.trajectory_lengths == whole.trajectory_lengths


def test_statistics_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    demonstrations = build(episode(3, True), episode(4, False, 10.0), absorbing=True, subsample=2)
    whole = demonstrations.observation_statistics()
    monkeypatch.setattr("memory.demonstrations.PIECE_ROWS", 1)
    for before, after in zip(whole, demonstrations.observation_statistics(), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-12)


def test_some_with_and_some_without_actions() -> None:
    with pytest.raises(UserError, match="some of the demonstrations have actions and some do not"):
        build(episode(3, True), episode(2, False, actions=False))


def test_no_more_are_held_out_than_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory.demonstrations.HELD_OUT", 2)
    held_out = build(*(episode(2, False, 10.0 * index) for index in range(5)), limit=1).held_out
    assert held_out is not None and held_out.observations[0, :, 0].tolist() == [10, 11, 20, 21]
