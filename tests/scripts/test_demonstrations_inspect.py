"""Inspection: what it says of sets with one known fault each, in numbers and in words."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from environments.formats import read
from environments.formats.base import DemonstrationSet
from environments.trajectories import LazyTrajectories, Trajectory
from scripts.demonstration_inspection import inspected
from scripts.demonstration_report import SAMPLED, Report, Statistics, described
from scripts.demonstrations import main
from tests.scripts.test_demonstrations import hopper, saved

GOOD = [hopper(40, seed=seed) for seed in range(3)]


def report(*episodes: Trajectory, env: str | None = "hopper", **attributes: str) -> Report:
    return inspected(DemonstrationSet(list(episodes), attributes), "mine", env)


def found(result: Report) -> list[str]:
    return [*result.problems, *result.warnings]


def test_a_good_set_has_nothing_to_complain_about() -> None:
    high = [dataclasses.replace(t, rewards=np.full(t.length, 80, np.float32)) for t in GOOD]
    result = report(*high, environment_id="Hopper-v4", env=None)
    assert (result.problems, result.warnings, result.verdict) == ([], [], "good to train on")
    assert (result.environment, result.episodes, result.steps) == ("Hopper-v4", 3, 120)
    assert result.returns == {"mean": 3200, "std": 0, "minimum": 3200, "median": 3200, "maximum": 3200}
    assert result.ends == {"terminated": 0, "cut": 3}
    assert (result.alignment.kind, result.duplicate_episodes, result.duplicate_rows) == ("connected", 0, 0)
    assert "verdict: good to train on" in described(result)


def test_columns_by_hand() -> None:
    statistics = Statistics(["a", "b"], 4)
    for rows in ([[1.0, 1e6], [3.0, 1e6 + 1]], [[5.0, 1e6 + 2], [7.0, 1e6 + 3]]):
        statistics.add(np.array(rows, np.float32))
    first, second = statistics.columns()
    assert (first.minimum, first.maximum, first.mean) == (1, 7, 4)
    assert first.deviation == pytest.approx(5**0.5)  # (9 + 1 + 1 + 9) / 4
    assert second.deviation == pytest.approx(1.25**0.5, rel=1e-6)  # although the values are large
    assert not first.constant and np.concatenate(statistics.sample).shape == (4, 2)
    long = Statistics(["a"], 3 * SAMPLED)
    for start in range(0, 3 * SAMPLED, 1000):
        long.add(np.arange(start, start + 1000, dtype=np.float32)[:, None])
    kept = np.concatenate(long.sample)[:, 0]
    assert kept.tolist() == list(range(0, 3 * SAMPLED, 3))


def test_shares_of_actions() -> None:
    actions = np.array([[0, 0, 1], [0, 0, 1], [0, 2, 0], [0, 0, -1]], np.float32)
    episode = dataclasses.replace(hopper(4), actions=actions)
    result = report(episode)
    assert result.actions_at_limit == pytest.approx(4 / 12) and result.actions_outside == pytest.approx(1 / 12)
    assert any(line.startswith("8.33% of the action values lie outside the action space") for line in found(result))


def test_successors_off_by_one_are_problems() -> None:
    off = [dataclasses.replace(t, next_observations=t.observations) for t in GOOD]
    result = report(*off)
    assert result.alignment.kind == "same" and result.alignment.share == 0
    assert result.problems[0].startswith("off by one: next_observations[t] equals observations[t], not")
    assert result.verdict == "not as it is: 1 problem to put right first"
    thin = [dataclasses.replace(t, next_observations=t.next_observations + 1) for t in GOOD]
    assert "the rows are not consecutive steps (0.0% connect)" in report(*thin).problems[0]


def test_time_limits_that_are_called_ends() -> None:
    result = report(hopper(1000, True), hopper(900, True, seed=1))
    assert result.problems == [
        "1 of 2 true ends fall on the time limit of Hopper-v4, 1000 steps: probably time limits; "
        "`import --time-limit 1000` marks them as cuts"
    ]
    result = report(hopper(50, True), hopper(50, True, seed=1), env=None)
    assert "all episodes end truly after 50 steps: probably a time limit" in " ".join(result.warnings)
    assert "the file names none" in result.warnings[0]
    assert "longer than the 1000 steps" in " ".join(found(report(hopper(1001))))


def test_copies_and_constant_columns() -> None:
    result = report(GOOD[0], GOOD[1], GOOD[0])
    assert result.duplicate_episodes == 1 and result.duplicate_rows == pytest.approx(1 / 3)
    assert "1 episodes are copies of others" in result.warnings
    still = GOOD[0].all_observations.copy()
    still[:, [2, 7]] = 4
    episode = Trajectory.from_observations(still, GOOD[0].actions, GOOD[0].rewards, False)
    assert "constant: observation 2, observation 7" in report(episode).warnings
    twice = [np.concatenate([values, values]) for values in (GOOD[0].observations, GOOD[0].next_observations)]
    halves = Trajectory(twice[0], None, None, twice[1], False)
    assert report(halves).duplicate_rows == pytest.approx(0.5)


def test_rows_that_all_are_ends() -> None:
    result = report(*(hopper(1, True, seed) for seed in range(3)))
    assert len(result.problems) == 1 and result.problems[0].startswith("every episode has one step")
    assert report(hopper(1, True)).problems == []


def test_infos_that_are_not_finite() -> None:
    qpos = GOOD[0].infos["qpos"].copy()
    qpos[3:5, 1] = np.nan, np.inf
    broken = dataclasses.replace(GOOD[0], infos={**GOOD[0].infos, "qpos": qpos})
    (problem,) = report(broken, GOOD[1]).problems
    assert problem.startswith("NaN or infinite values in 2 rows of infos/qpos: ")


def test_another_environment() -> None:
    assert "observations have 11 numbers, Walker2d-v4 has 17" in report(*GOOD, env="walker2d").problems[0]
    cart = Trajectory.from_observations(np.eye(4, dtype=np.float32), np.array([0, 1, 2]), None, True)
    assert "33.33% of the actions are none of the integers from 0 to 1" in report(cart, env="cartpole").problems[0]
    continuous = dataclasses.replace(cart, actions=np.zeros((3, 2), np.float32))
    assert (
        "actions are 2 numbers, CartPole-v1 has integers from 0 to 1" in report(continuous, env="cartpole").problems[0]
    )
    result = report(*GOOD, environment_id="Unheard/Of-v0", env=None)
    assert "no environment to compare with (Unheard/Of-v0 cannot be made here)" in result.warnings[0]


def test_weak_episodes_and_what_is_missing() -> None:
    rewards = [np.full(40, value, np.float32) for value in (60, 70, 5)]
    result = report(*(dataclasses.replace(t, rewards=own) for t, own in zip(GOOD, rewards, strict=True)))
    assert "1 of 3 episodes have less than half of the median return" in result.warnings
    weak = report(*(dataclasses.replace(t, rewards=np.ones(40, np.float32)) for t in GOOD))
    assert "the mean return is a score of 0.02 only (0: random, 1: expert)" in weak.warnings
    bare = report(*(dataclasses.replace(t, rewards=None, actions=None) for t in GOOD))
    assert bare.returns is None and bare.actions_outside is None
    assert "no rewards" in " ".join(bare.warnings) and "no actions: for training with" in " ".join(bare.warnings)
    assert bare.verdict == "usable; look at the warnings"
    assert "unknown: no rewards" in described(bare)


def test_lazily_read_sets_give_the_same() -> None:
    lazy = LazyTrajectories([t.length for t in GOOD], lambda index: GOOD[index])
    assert inspected(DemonstrationSet(lazy), "mine", "hopper") == report(*GOOD)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.hdf5", *GOOD, environment_id="Hopper-v4")
    picture = tmp_path / "pictures" / "a.png"
    assert main(["inspect", str(path), "--json", "--picture", str(picture)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["episodes"], content["steps"], content["types"]["observations"]) == (3, 120, "float32")
    assert content["alignment"] == {"kind": "connected", "share": 1.0} and content["verdict"].startswith("usable")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "3 episodes, 120 steps of Hopper-v4" in text and "observation 10" in text and "infos     qpos, qvel" in text
    assert main(["inspect", str(path), "--env", "ant"]) == 2
    assert len(read(path).trajectories) == 3


@pytest.mark.parametrize("name", ["a.hdf5", "b.foo", "b", "folder.png", "set.png"])
def test_pictures_are_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = saved(tmp_path / "a.hdf5", *GOOD).rename(tmp_path / "set.png")
    (tmp_path / "folder.png").mkdir()
    before = path.read_bytes()
    assert main(["inspect", str(path), "--picture", str(tmp_path / name)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: --picture") and printed.err.count("\n") == 1 and printed.out == ""
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2
