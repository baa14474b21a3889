"""Successors that are off by one: recognised, put right, and said."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from environments.formats import read_demonstrations
from environments.formats.alignment import alignment, repaired
from environments.formats.base import DemonstrationSet
from environments.formats.d4rl import write_d4rl
from environments.trajectories import LazyTrajectories, Trajectory
from tests.environments.formats.episodes import assert_same, episode

WHOLE = [episode(6, False), episode(4, True, 50.0), episode(1, True, 80.0), episode(1, False, 90.0)]


def shifted(trajectory: Trajectory, by: int) -> Trajectory:
    """`next_observations[t]` becomes `observations[t + 1 + by]`, and behind the end whatever comes next in a file."""
    all_observations = trajectory.all_observations
    padded = np.concatenate([all_observations, all_observations[:1] + 1000])
    start = 1 + by
    return dataclasses.replace(trajectory, next_observations=padded[start : start + trajectory.length])


def test_whole_sets_are_as_they_were() -> None:
    content = DemonstrationSet(WHOLE)
    assert alignment(WHOLE).kind == "connected"
    assert repaired(content) is content
    assert alignment(WHOLE[2:]).kind == "connected"  # nothing to compare


def test_successors_that_are_the_observations_themselves() -> None:
    content = repaired(DemonstrationSet([shifted(trajectory, -1) for trajectory in WHOLE]))
    assert alignment([shifted(trajectory, -1) for trajectory in WHOLE]).kind == "same"
    assert [trajectory.length for trajectory in content.trajectories] == [5, 4, 1]  # cut episodes lose their last row
    assert content.trajectories[0].next_observations.tolist() == WHOLE[0].next_observations[:5].tolist()
    second = content.trajectories[1].next_observations
    assert second[:3].tolist() == WHOLE[1].next_observations[:3].tolist()
    assert second[3].tolist() == WHOLE[1].observations[3].tolist()  # nowhere in the file, and it does not matter
    assert "off by one" in content.notes[0]


def test_successors_that_are_one_ahead() -> None:
    content = repaired(DemonstrationSet([shifted(trajectory, 1) for trajectory in WHOLE]))
    assert_same(WHOLE[:2], content.trajectories[:2])  # the last successor stands in the row before
    assert [trajectory.length for trajectory in content.trajectories] == [6, 4, 1]
    assert alignment(content.trajectories).kind == "connected"


def test_thinned_rows_are_kept_and_said() -> None:
    thin = [
        dataclasses.replace(
            trajectory,
            observations=trajectory.observations[::2],
            actions=trajectory.actions[::2] if trajectory.actions is not None else None,
            rewards=trajectory.rewards[::2] if trajectory.rewards is not None else None,
            next_observations=trajectory.next_observations[::2],
            infos={},
        )
        for trajectory in WHOLE
    ]
    content = repaired(DemonstrationSet(thin))
    assert content.trajectories is thin
    assert "not consecutive" in content.notes[0] and "(0.0% of them connect)" in content.notes[0]


def test_training_takes_what_was_put_right_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_d4rl(tmp_path / "d.hdf5", [shifted(trajectory, 1) for trajectory in WHOLE[:2]], {})
    assert_same(WHOLE[:2], read_demonstrations(tmp_path / "d.hdf5", "Hopper-v4"))
    assert capsys.readouterr().err == (
        f"warning: {tmp_path / 'd.hdf5'}: next_observations are off by one: taken from the observations instead\n"
    )


def test_another_version_of_the_environment_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.hdf5"
    write_d4rl(path, WHOLE[:1], {"environment_id": "Hopper-v4"})
    read_demonstrations(path, "Hopper-v4")
    assert capsys.readouterr().err == ""
    read_demonstrations(path, "Hopper-v5")
    said = "recorded in Hopper-v4, and used in Hopper-v5, another version of it"
    assert capsys.readouterr().err == f"warning: {path}: {said}\n"


@pytest.mark.parametrize("by", [-1, 1])
def test_lazily_read_sets_stay_lazy(by: int) -> None:
    off = [shifted(trajectory, by) for trajectory in WHOLE]
    lazy = LazyTrajectories([trajectory.length for trajectory in off], lambda index: off[index])
    content = repaired(DemonstrationSet(lazy))
    assert isinstance(content.trajectories, LazyTrajectories)
    assert_same(repaired(DemonstrationSet(off)).trajectories, content.trajectories)
