"""Replay memory: the ring, what is sampled, absorbing states, the schedule of updates, saving."""

import copy
from typing import Any

import pytest
import torch

from memory.batch import FIELDS, Batch, Layout
from memory.replay import ReplayMemory
from tests.algorithms.support import absorbing_state, make_batch

LAYOUT = Layout(3, 1)


def memory(capacity: int = 5, runs: int = 1, **options: object) -> ReplayMemory:
    return ReplayMemory(LAYOUT, capacity, range(runs), **options)  # type: ignore[arg-type]  # of several types


def step(number: float, runs: int = 1, envs: int = 1, **fields: Any) -> Batch:
    """One step in every environment, named by its reward; the observation carries the bit of ordinary states."""
    names = number + torch.arange(runs * envs).view(runs, envs) / 10
    observations = torch.tensor([1.0, 2.0, 0.0]).expand(runs, envs, 3)
    return make_batch(runs, envs, 3, 1, **{"rewards": names, "observations": observations, **fields})


def stored(ring: ReplayMemory, run: int = 0) -> list[float]:
    """Rewards in the order of the ring."""
    rewards: list[float] = LAYOUT.unpack(ring.rows).rewards[run, : ring.size[run]].tolist()
    return [round(reward, 3) for reward in rewards]


def test_the_oldest_rows_are_overwritten() -> None:
    ring = memory(3)
    for number in range(5):
        ring.add(step(number))
    assert stored(ring) == [3, 4, 2]
    assert (ring.size, ring.position) == ([3], [2])


def test_more_rows_than_fit_leave_the_newest() -> None:
    ring = memory(3)
    ring.add(step(0))
    ring.add(step(1, envs=5))  # 1.0 ... 1.4
    assert sorted(stored(ring)) == [1.2, 1.3, 1.4]


def test_rows_that_run_over_the_end_go_on_at_the_start() -> None:
    ring = memory(5)
    for number in range(3):
        ring.add(step(number, envs=2))
    assert stored(ring) == [2.1, 0.1, 1.0, 1.1, 2.0]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_every_stored_row_is_sampled_the_newest_too_and_nothing_else(count: int) -> None:  # K11
    ring = memory(5)
    for number in range(count):
        ring.add(step(number + 1))
    drawn = ring.sample(1000).rewards[0].unique().tolist()
    assert drawn == sorted(float(number + 1) for number in range(max(0, count - 5), count))


def test_samples_are_uniform() -> None:
    ring = memory(4)
    for number in range(4):
        ring.add(step(number))
    counts = torch.bincount(ring.sample(4000).rewards[0].long())
    assert (counts - 1000).abs().max() < 140  # five standard deviations of 27.4


def test_one_stored_row_is_enough() -> None:  # K11
    ring = memory(5)
    row = step(7, weights=[[0.5]], collected_at=[[3.0]], truncated=[[1.0]])
    ring.add(row)
    batch = ring.sample(4)
    for name in FIELDS:
        assert torch.equal(getattr(batch, name), getattr(row, name).expand_as(getattr(batch, name))), name


def test_runs_have_rings_and_streams_of_their_own() -> None:
    together = memory(50, runs=2)
    alone = ReplayMemory(LAYOUT, 50, [1])
    for number in range(20):
        both = step(number, runs=2)
        together.add(both)
        alone.add(both.map(lambda column: column[1:]))
    both = together.sample(30)
    assert torch.equal(both.rewards[1:], alone.sample(30).rewards)
    assert not torch.equal(both.rewards[0], both.rewards[1] - 0.1)
    assert both.rewards[0].frac().max() == 0  # rows of run 0 only


def test_samples_do_not_share_storage_with_the_ring() -> None:
    ring = memory(2)
    ring.add(step(1))
    batch = ring.sample(2)
    ring.add(step(2))
    ring.add(step(3))
    assert batch.rewards.tolist() == [[1, 1]]


def test_a_true_termination_leads_into_the_absorbing_state() -> None:
    ring = memory(5, absorbing_state=absorbing_state(3))
    ring.add(step(1, terminated=[[1.0]], collected_at=[[9.0]]))
    rows = LAYOUT.unpack(ring.rows)
    assert ring.size == [2]
    assert rows.observations[0, :2].tolist() == [[1, 2, 0], [0, 0, 1]]
    assert rows.next_observations[0, :2].tolist() == [[0, 0, 1], [0, 0, 1]]
    assert rows.terminated[0, :2].tolist() == [0, 0]
    assert (rows.absorbing[0, :2].tolist(), rows.next_absorbing[0, :2].tolist()) == ([0, 1], [1, 1])
    # The self-loop: zero action, zero reward, weight 1, and the step at which the episode ended.
    assert (rows.actions[0, 1].tolist(), rows.rewards[0, :2].tolist()) == ([0], [1, 0])
    assert (rows.weights[0, :2].tolist(), rows.collected_at[0, :2].tolist()) == ([1, 1], [9, 9])


def test_a_time_limit_does_not() -> None:
    ring = memory(5, absorbing_state=absorbing_state(3))
    before = step(1, truncated=[[1.0]])
    ring.add(before)
    assert ring.size == [1]
    for name in FIELDS:
        assert torch.equal(getattr(LAYOUT.unpack(ring.rows), name)[:, :1], getattr(before, name)), name


def test_both_at_once_is_a_termination() -> None:
    ring = memory(5, absorbing_state=absorbing_state(3))
    ring.add(step(1, terminated=[[1.0]], truncated=[[1.0]]))
    assert ring.size == [2] and LAYOUT.unpack(ring.rows).next_absorbing[0, :2].tolist() == [1, 1]


def test_without_absorbing_states_a_termination_stays_one() -> None:
    ring = memory(5)
    ring.add(step(1, terminated=[[1.0]]))
    assert ring.size == [1] and LAYOUT.unpack(ring.rows).terminated[0, 0] == 1


def test_runs_and_environments_end_at_different_times() -> None:
    ring = memory(10, runs=2, absorbing_state=absorbing_state(3))
    ring.add(step(1, runs=2, envs=3, terminated=[[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    ring.add(step(5, runs=2, envs=3, terminated=[[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert ring.size == [8, 7]
    assert stored(ring, 0) == [1, 1.1, 1.2, 0, 0, 5, 5.1, 5.2]
    assert stored(ring, 1) == [1.3, 1.4, 1.5, 5.3, 5.4, 5.5, 0]
    assert LAYOUT.unpack(ring.rows).absorbing[0, :8].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_an_absorbing_row_that_runs_over_the_end() -> None:
    ring = memory(2, absorbing_state=absorbing_state(3))
    ring.add(step(1))
    ring.add(step(2, terminated=[[1.0]]))
    assert stored(ring) == [0, 2]


def batches_after_each_step(ring: ReplayMemory, steps: int, envs: int = 1) -> list[int]:
    counts = []
    for number in range(steps):
        ring.add(step(number, envs=envs))
        counts.append(len(list(ring.batches())))
    return counts


@pytest.mark.parametrize(
    ("start", "interval", "envs", "expected"),
    [
        (3, 1, 1, [0, 0, 1, 1, 1, 1]),  # from the third step on, one a step
        (0, 1, 1, [1, 1, 1, 1, 1, 1]),
        (1, 1, 1, [1, 1, 1, 1, 1, 1]),
        (2, 3, 1, [0, 1, 0, 0, 1, 0]),  # at 2, 5, 8, ...
        (5, 1, 4, [0, 4, 4, 4, 4, 4]),  # at 5, 6, 7, 8; then 9 to 12; four a call
        (4, 4, 4, [1, 1, 1, 1, 1, 1]),
        (3, 8, 4, [1, 0, 1, 0, 1, 0]),  # at 3, 11, 19
        (1, 3, 4, [2, 1, 1, 2, 1, 1]),  # at 1, 4; 7; 10; 13, 16; 19; 22
        (100, 1, 1, [0] * 6),
    ],
)
def test_the_schedule_of_updates(start: int, interval: int, envs: int, expected: list[int]) -> None:
    ring = memory(100, start=start, interval=interval, batch_size=7)
    assert batches_after_each_step(ring, 6, envs) == expected


def test_batches_have_the_size_that_was_asked_for_however_few_rows_there_are() -> None:
    ring = memory(100, runs=2, batch_size=7)
    ring.add(step(1, runs=2))
    (batch,) = ring.batches()
    assert batch.shape == (2, 7) and batch.observations.shape == (2, 7, 3)


def test_prefilled_rows_keep_their_weights_and_count_as_no_steps() -> None:  # K15
    ring = memory(10, runs=2, start=2)
    demonstrations = make_batch(1, 3, 3, 1, weights=[[1.0, 0.05, 0.05]], collected_at=torch.full((1, 3), -1.0))
    ring.prefill(demonstrations)
    assert ring.size == [3, 3] and ring.steps == 0 and list(ring.batches()) == []
    for run in range(2):
        for name in FIELDS:
            assert torch.equal(getattr(LAYOUT.unpack(ring.rows), name)[run, :3], getattr(demonstrations, name)[0]), name
    ring.add(step(1, runs=2))
    assert ring.sample(500).weights.unique().tolist() == pytest.approx([0.05, 1.0])


def assert_continues_alike(first: ReplayMemory, second: ReplayMemory) -> None:
    for number in range(100, 112):
        for ring in (first, second):
            ring.add(step(number, runs=2, terminated=[[float(number % 3 == 0)], [0.0]]))
        for one, other in zip(first.batches(), second.batches(), strict=True):
            assert torch.equal(LAYOUT.pack(one), LAYOUT.pack(other))


@pytest.mark.parametrize("steps", [1, 4, 8, 11])
def test_saved_state_continues_exactly(steps: int) -> None:
    first, second = (memory(8, runs=2, absorbing_state=absorbing_state(3), start=3, interval=2) for _ in range(2))
    for number in range(steps):
        first.add(step(number, runs=2, terminated=[[float(number % 2)], [0.0]]))
        list(first.batches())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert_continues_alike(first, second)


def test_saved_state_does_not_change_afterwards() -> None:
    ring = memory(5)
    ring.add(step(1))
    state = ring.state_dict()
    kept = copy.deepcopy(state)
    ring.add(step(2))
    assert (state["size"], state["position"], state["steps"]) == (kept["size"], kept["position"], kept["steps"])
    assert torch.equal(state["rows"], kept["rows"]) and state["rows"].shape[1] == 1  # only what is filled


@pytest.mark.parametrize("steps", [2, 4, 5, 6, 11])
def test_saved_state_fits_into_a_larger_memory(steps: int) -> None:
    small, large = (memory(size, runs=2, absorbing_state=absorbing_state(3)) for size in (4, 9))
    for number in range(1, steps + 1):  # run 0 has more rows than run 1
        small.add(step(number, runs=2, terminated=[[float(number == 2)], [0.0]]))
    kept = [sorted(stored(small, run)) for run in range(2)]
    large.load_state_dict(copy.deepcopy(small.state_dict()))
    for number in range(50, 54):
        large.add(step(number, runs=2))
        for run in range(2):
            new = [round(n + run / 10, 1) for n in range(50, number + 1)]
            assert sorted(stored(large, run)) == sorted(kept[run] + new)  # no row lost, and none that was never written
    for number in range(54, 64):  # then the oldest go first
        large.add(step(number, runs=2))
    for run in range(2):
        assert sorted(stored(large, run)) == [round(n + run / 10, 1) for n in range(55, 64)]


def test_the_order_survives_a_larger_memory() -> None:
    small, large = memory(3), memory(4)
    for number in range(1, 6):
        small.add(step(number))  # ring: 4, 5, 3
    large.load_state_dict(copy.deepcopy(small.state_dict()))
    assert stored(large) == [3, 4, 5]
    large.add(step(6))
    large.add(step(7))
    assert stored(large) == [7, 4, 5, 6]
