"""Trajectories: T + 1 observations, rows that disagree, and sets that are read when they are needed."""

import numpy as np
import pytest

from environments.trajectories import LazyTrajectories, Trajectory, lengths_of, mapped

STATES = np.arange(8, dtype=np.float32).reshape(4, 2)


def test_rows_from_one_observation_more_than_steps() -> None:
    trajectory = Trajectory.from_observations(STATES, np.zeros((3, 1), np.float32), None, True)
    assert trajectory.length == 3
    assert trajectory.observations.base is trajectory.next_observations.base  # views: nothing is copied
    assert trajectory.connected
    np.testing.assert_array_equal(trajectory.all_observations, STATES)


def test_rows_that_do_not_connect_are_kept() -> None:
    trajectory = Trajectory(STATES[:2], None, None, STATES[:2], False)  # successors off by one
    assert not trajectory.connected
    assert Trajectory(STATES[:1], None, None, STATES[:1], False).connected  # one row has nothing to connect to


def test_discrete_actions() -> None:
    assert Trajectory.from_observations(STATES, np.array([1, 0, 1]), None, True).discrete
    assert not Trajectory.from_observations(STATES, np.zeros((3, 1), np.float32), None, True).discrete
    assert not Trajectory.from_observations(STATES, None, None, True).discrete


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Trajectory(STATES[:0], None, None, STATES[:0], True)
    with pytest.raises((ValueError, TypeError), match="actions"):  # the shapes of arguments are checked in tests
        Trajectory(STATES[:3], np.zeros((2, 1), np.float32), None, STATES[1:], True)
    with pytest.raises(ValueError, match="qpos: 4 rows for 3 steps"):
        Trajectory.from_observations(STATES, None, None, True, {"qpos": STATES})


def test_lazy_trajectories_are_read_when_asked_for() -> None:
    def load(index: int) -> Trajectory:
        return Trajectory.from_observations(STATES[: index + 2], None, None, True)

    lazy = LazyTrajectories([1, 2, 3], load)
    assert (len(lazy), len(lazy[1:]), len(lazy[::2])) == (3, 2, 2)
    assert (lengths_of(lazy), lengths_of(lazy[1:]), lengths_of(lazy[::2])) == ([1, 2, 3], [2, 3], [1, 3])
    assert (lazy[-1].length, lazy[1:][0].length, [trajectory.length for trajectory in lazy]) == (3, 2, [1, 2, 3])
    doubled = mapped(lazy, lambda t: Trajectory(t.observations * 2, None, None, t.next_observations, t.terminated))
    assert isinstance(doubled, LazyTrajectories)
    assert [trajectory.observations[-1, 0] for trajectory in doubled] == [0, 4, 8]
    with pytest.raises(IndexError):
        lazy[3]
    assert mapped([lazy[0]], lambda t: t)[0].length == 1
