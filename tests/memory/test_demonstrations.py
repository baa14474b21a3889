"""Demonstrations: rows, weights, subsampling and sampling, with numbers worked out by hand."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from conf.errors import UserError
from environments.trajectories import Trajectory
from memory.batch import FIELDS
from memory.demonstrations import Demonstrations, first_row, subsampled
from tests.algorithms.support import make_spaces

LOW, HIGH = np.array([-2.0], np.float32), np.array([6.0], np.float32)


def episode(length: int, terminated: bool, offset: float = 0.0, actions: bool = True) -> Trajectory:
    """Steps offset, offset + 1...; the action is the step / 100 in environment units of [-2, 6]."""
    steps = np.arange(offset, offset + length, dtype=np.float32)
    observations = np.stack([steps, -steps], 1)
    successors = np.stack([steps + 1, -steps - 1], 1)
    return Trajectory(observations, steps[:, None] / 100 if actions else None, steps, successors, terminated)


def build(*trajectories: Trajectory, **options: Any) -> Demonstrations:
    defaults: dict[str, Any] = {
        "limit": 0,
        "subsample": 1,
        "seeds": [0],
        "device": "cpu",
        "spaces": make_spaces(2, 1, options.pop("absorbing", False), action_low=LOW, action_high=HIGH),
    }
    return Demonstrations(trajectories, **(defaults | options))


def steps(demonstrations: Demonstrations) -> list[float]:
    return demonstrations.rows().observations[0, :, 0].tolist()


def test_rows_without_absorbing_states() -> None:
    demonstrations = build(episode(3, True), episode(2, False, 10.0))
    rows = demonstrations.rows()
    assert rows.shape == (1, 5) and len(demonstrations) == 5
    assert rows.observations[0].tolist() == [[0, 0], [1, -1], [2, -2], [10, -10], [11, -11]]
    assert rows.next_observations[0, :, 0].tolist() == [1, 2, 3, 11, 12]
    assert rows.terminated[0].tolist() == [0, 0, 1, 0, 0]
    assert rows.truncated[0].tolist() == [0, 0, 0, 0, 1]
    assert rows.weights[0].tolist() == [1] * 5
    assert rows.collected_at[0].tolist() == [-1] * 5
    assert rows.absorbing.sum() == rows.next_absorbing.sum() == 0
    assert rows.rewards.isnan().all()  # the true reward is hidden
    assert demonstrations.trajectory_lengths == [3, 2] and demonstrations.trajectory_count == 2
    assert not demonstrations.state_only and demonstrations.held_out is None


def test_only_true_ends_get_the_absorbing_state() -> None:  # K13, K15
    demonstrations = build(episode(2, True), episode(2, False, 10.0), absorbing=True)
    rows = demonstrations.rows()
    assert rows.observations[0].tolist() == [[0, 0, 0], [1, -1, 0], [0, 0, 1], [10, -10, 0], [11, -11, 0]]
    assert rows.next_observations[0].tolist() == [[1, -1, 0], [0, 0, 1], [0, 0, 1], [11, -11, 0], [12, -12, 0]]
    assert rows.terminated[0].tolist() == [0, 0, 0, 0, 0]
    assert rows.truncated[0].tolist() == [0, 0, 0, 0, 1]
    assert rows.absorbing[0].tolist() == [0, 0, 1, 0, 0]
    assert rows.next_absorbing[0].tolist() == [0, 1, 1, 0, 0]
    assert rows.actions[0, 2].tolist() == [0]
    assert rows.collected_at[0].tolist() == [-1] * 5
    assert rows.weights[0].tolist() == [1] * 5
    assert rows.rewards.isnan().all()
    assert demonstrations.trajectory_count == 2  # although no terminated row is left
    assert demonstrations.trajectory_lengths == [3, 2]


def test_actions_are_rescaled_and_clipped() -> None:  # H6
    observations = np.zeros((4, 2), np.float32)
    actions = np.array([[-2.0, 1.0], [2.0, 0.5], [6.0, 0.0], [7.0, 1.00001]], np.float32)
    trajectory = Trajectory(observations, actions, None, observations, True)
    demonstrations = build(
        trajectory, spaces=make_spaces(2, 2, action_low=np.array([-2.0, -1.0]), action_high=np.array([6.0, 1.0]))
    )
    assert demonstrations.rows().actions[0].tolist() == [[-1, 1], [0, 0.5], [1, 0], [1, 1]]
    assert demonstrations.clipped_share == pytest.approx(1 / 8)  # 7.0 only: 1.00001 is within the tolerance


def test_subsampled_rows_and_weights() -> None:
    kept, weights = subsampled(length=7, factor=3, start=1, forced=0)
    assert (kept.tolist(), weights.tolist()) == ([1, 4], [1, 1])
    # The stride meets 1 and 4; rows 5 and 6 are kept on purpose.
    kept, weights = subsampled(length=7, factor=4, start=1, forced=2)
    assert (kept.tolist(), weights.tolist()) == ([1, 5, 6], [1, 0.25, 0.25])  # 5 is met and forced: once, 1/4
    kept, weights = subsampled(length=3, factor=4, start=3, forced=2)
    assert (kept.tolist(), weights.tolist()) == ([1, 2], [0.25, 0.25])
    kept, weights = subsampled(length=2, factor=1, start=0, forced=2)
    assert (kept.tolist(), weights.tolist()) == ([0, 1], [1, 1])


@pytest.mark.parametrize("forced", [0, 2])
@pytest.mark.parametrize("length", [2, 5, 12])
def test_every_row_has_the_same_expected_weight(length: int, forced: int) -> None:
    factor = 4
    mass = torch.zeros(length)
    for start in range(factor):
        kept, weights = subsampled(length, factor, start, forced)
        mass[kept] += weights / factor
    assert mass.tolist() == [1 / factor] * length


def test_starts_are_random_per_trajectory_and_leave_a_row() -> None:
    starts = [first_row(index, factor=10, length=100, forced=0) for index in range(200)]
    assert set(starts) == set(range(10))
    assert starts == [first_row(index, factor=10, length=100, forced=0) for index in range(200)]
    assert {first_row(index, factor=10, length=2, forced=0) for index in range(50)} == {0, 1}


def test_subsampling_keeps_absorbing_rows_with_reduced_weight_for_true_ends_only() -> None:  # K13, K15
    factor = 4
    demonstrations = build(episode(9, True), episode(9, False, 100.0), subsample=factor, absorbing=True)
    ended, cut = first_row(0, factor, 10, 2), first_row(1, factor, 9, 0)
    strided = list(range(ended, 8, factor))
    rows = demonstrations.rows()
    # Rows 8 (the last real step) and 9 (the self-loop, whose first feature is 0) stay; the other has no such rows.
    assert steps(demonstrations) == [*strided, 8, 0, *(100 + row for row in range(cut, 9, factor))]
    loop = len(strided) + 1
    assert rows.weights[0].tolist() == [1] * len(strided) + [0.25, 0.25] + [1] * (len(rows.weights[0]) - loop - 1)
    assert rows.absorbing[0].nonzero().flatten().tolist() == [loop]
    assert rows.next_absorbing[0].nonzero().flatten().tolist() == [loop - 1, loop]
    assert demonstrations.trajectory_lengths == [loop + 1, len(range(cut, 9, factor))]


def test_flags_travel_with_their_rows() -> None:
    for index in range(20):
        trajectories = [episode(5, False)] * index + [episode(5, True)]
        demonstrations = build(*trajectories, subsample=3)
        rows, length = demonstrations.rows(), demonstrations.trajectory_lengths[-1]
        assert rows.terminated[0, -length:].tolist() == [float(step == 4) for step in steps(demonstrations)[-length:]]


@pytest.mark.parametrize("absorbing", [False, True])
@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_factor_beyond_the_length_leaves_rows(length: int, terminated: bool, absorbing: bool) -> None:
    trajectories = [episode(length, terminated)] * 20
    demonstrations = build(*trajectories, subsample=50, absorbing=absorbing)
    smallest = 2 if absorbing and terminated else 1
    assert demonstrations.trajectory_count == 20
    assert set(demonstrations.trajectory_lengths) <= {smallest, smallest + 1}
    assert len(demonstrations) == sum(demonstrations.trajectory_lengths)


def test_the_first_trajectories_are_used_and_the_others_held_out() -> None:
    trajectories = [episode(2, True, 10.0 * index) for index in range(3)]
    demonstrations = build(*trajectories, limit=1, absorbing=True)
    assert steps(demonstrations) == [0, 1, 0]
    assert demonstrations.trajectory_count == 1
    held_out = demonstrations.held_out
    assert held_out is not None and held_out.observations[0, :, 0].tolist() == [10, 11, 0, 20, 21, 0]
    assert held_out.absorbing[0].tolist() == [0, 0, 1, 0, 0, 1]
    assert build(*trajectories, limit=3).held_out is None


def test_held_out_rows_are_subsampled_as_if_they_were_used() -> None:
    trajectories = [episode(50, False, 100.0 * index) for index in range(4)]
    every = steps(build(*trajectories, subsample=7))
    some = build(*trajectories, subsample=7, limit=2)
    assert some.held_out is not None
    assert steps(some) + some.held_out.observations[0, :, 0].tolist() == every


def test_every_row_can_be_drawn_also_the_first_and_the_last() -> None:  # K11
    drawn = build(episode(5, True)).sample(2000).observations[0, :, 0]
    counts = torch.bincount(drawn.long(), minlength=5)
    assert len(counts) == 5
    assert (counts - 400).abs().max() < 100  # more than 5 standard deviations (18)
    assert build(episode(1, True)).sample(3).observations.tolist() == [[[0, 0]] * 3]


def test_fewer_rows_than_a_batch() -> None:  # K12
    demonstrations = build(episode(2, True), seeds=[0, 1, 2])
    batch = demonstrations.sample(256)
    assert batch.shape == (3, 256)
    assert set(batch.observations[..., 0].flatten().tolist()) == {0, 1}
    assert demonstrations.sample_like(batch.map(lambda column: column[:, :17])).shape == (3, 17)


def test_samples_keep_all_fields_of_their_row() -> None:
    demonstrations = build(episode(6, True), episode(6, False, 20.0), subsample=2, absorbing=True)
    rows = demonstrations.layout.pack(demonstrations.rows())[0].nan_to_num(nan=-5.0)
    batch = demonstrations.layout.pack(demonstrations.sample(100))[0].nan_to_num(nan=-5.0)
    assert (batch[:, None] == rows[None]).all(-1).any(1).all()


def test_a_seed_draws_the_same_alone_and_beside_others() -> None:
    trajectories = [episode(100, True)]
    together = build(*trajectories, seeds=[3, 4]).sample(50).observations
    assert torch.equal(together[1:], build(*trajectories, seeds=[4]).sample(50).observations)
    assert not torch.equal(together[0], together[1])


def test_the_data_does_not_depend_on_the_seed() -> None:
    trajectories = [episode(30, False), episode(30, True)]
    one, other = (build(*trajectories, subsample=7, seeds=[seed]) for seed in (0, 1))
    assert steps(one) == steps(other)


def test_state_continues_the_stream() -> None:
    first = build(episode(100, True), seeds=[0, 1])
    first.sample(10)
    state = first.state_dict()
    second = build(episode(100, True), seeds=[0, 1])
    second.load_state_dict(state)
    assert torch.equal(first.sample(10).observations, second.sample(10).observations)


def test_with_rewards_returns_a_copy() -> None:
    before = build(episode(3, True), absorbing=True)
    after = before.with_rewards(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert after.rows().rewards.tolist() == [[1, 2, 3, 4]]
    assert before.rows().rewards.isnan().all()
    for name in FIELDS:
        if name != "rewards":
            assert torch.equal(getattr(before.rows(), name), getattr(after.rows(), name)), name
    batch = after.sample(50)
    step = torch.where(batch.absorbing.bool(), 3.0, batch.observations[..., 0])
    assert torch.equal(batch.rewards, step + 1)


def test_state_only_data_has_zero_actions() -> None:
    demonstrations = build(episode(3, True, 200.0, actions=False))
    assert demonstrations.state_only
    assert demonstrations.rows().actions.tolist() == [[[0]] * 3]
    assert demonstrations.clipped_share == 0


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(UserError, match=r"imitation.trajectories=3, but the demonstrations hold 2 trajectories"):
        build(episode(2, True), episode(2, True), limit=3)
    with pytest.raises(UserError, match="hold 0 trajectories"):
        build()
    with pytest.raises(UserError, match="observations of the demonstrations have 2 numbers; the environment expects 4"):
        build(episode(2, True), spaces=make_spaces(4, 1))
    with pytest.raises(UserError, match="actions of the demonstrations have 1 numbers; the environment expects 3"):
        build(episode(2, True), spaces=make_spaces(2, 3))


def test_statistics_are_weighted_and_leave_the_absorbing_state_out() -> None:
    """Rows 0 and 1, then the absorbing state: mean 0.5, deviation 0.5; the second feature never changes."""
    trajectory = episode(2, True)
    observations = np.stack([trajectory.observations[:, 0], np.full(2, 3, np.float32)], 1)
    trajectory = dataclasses.replace(trajectory, observations=observations)
    mean, std = build(trajectory, absorbing=True).observation_statistics()
    assert mean.tolist() == [0.5, 3.0]
    assert std.tolist() == [0.5, 1.0]
    # Every second row, from the first on, and the forced last step and self-loop at half the weight.
    mean, _ = build(episode(4, True), absorbing=True, subsample=2).observation_statistics()
    start = first_row(0, 2, 5, 2)
    kept = {0: [(0, 1.0), (2, 1.0), (3, 0.5)], 1: [(1, 1.0), (3, 0.5)]}[start]
    assert mean[0] == pytest.approx(sum(x * w for x, w in kept) / sum(w for _, w in kept))


def test_normalised_rows() -> None:
    spaces = make_spaces(2, 1, True, action_low=LOW, action_high=HIGH)
    spaces = spaces.normalised(np.array([1.0, 0.0]), np.array([0.5, 0.1]))
    rows = build(episode(2, True), spaces=spaces).rows()
    assert rows.observations[0].tolist() == [[-2, 0, 0], [0, -5, 0], [-2, 0, 1]]  # -10 is cut to -5
    assert rows.next_observations[0].tolist() == [[0, -5, 0], [-2, 0, 1], [-2, 0, 1]]
