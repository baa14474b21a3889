"""Evaluation of saved policies: numbers, intervals, files, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from environments.formats import SUFFIXES, d4rl, read
from environments.formats.base import DemonstrationSet
from environments.reference_scores import UNKNOWN, ReferenceScores, reference_scores
from environments.vector import reset_seeds
from scripts import demonstration_recording, demonstrations, evaluation_report
from scripts.evaluate import main
from scripts.evaluation_report import bootstrap, statistics, table
from scripts.rollouts import greedy, play
from tests.scripts.helpers import assert_refused, save_policy
from tests.training.test_stable_baselines3_policy import PPO, zipped
from training import video
from training.policy import load_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("runs"), "runs=2")


def run(policy: Path, *options: str) -> int:
    return main([str(policy), "--episodes", "3", "--workers", "1", *options])


def output(policy: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert run(policy, "--json", *options) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_every_seed_plays_its_own_episodes(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = output(policy, capsys, "--seed", "4")
    starts, references = reset_seeds([4], 3, "rollouts"), reference_scores("Hopper-v4")
    for index, found in enumerate(result["runs"]):
        act = greedy(load_policy(policy), index)
        returns = [play("Hopper-v4", act, start).episode_return or 0.0 for start in starts]
        assert found["training_seed"] == index
        assert found["returns"] == pytest.approx(returns)
        assert found["return"] == pytest.approx(np.mean(returns))
        assert found["return_low"] <= found["return"] <= found["return_high"]
        assert found["score"] == pytest.approx(references.normalise(float(np.mean(returns))))
    assert result["mean"]["return"] == pytest.approx(np.mean([found["return"] for found in result["runs"]]))
    assert output(policy, capsys, "--seed", "4") == result


def test_the_run_s_folder_means_its_last_policy(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = output(policy.parent, capsys, "--run-index", "1")
    assert result["policy"] == "policy.pt" and [found["training_seed"] for found in result["runs"]] == [1]
    assert run(policy.parent, "--best") == 2
    assert "best_policy.pt" in capsys.readouterr().err


def test_sampled_and_greedy_episodes_differ(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = [output(policy, capsys, *options)["runs"][0]["returns"] for options in ((), ("--sampled",), ("--sampled",))]
    assert taken[0] != taken[1] == taken[2]


def test_several_processes_may_play(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same episodes, as test_demonstrations_record.py shows."""
    asked = []

    def recorded(source: Any, episodes: int, seed: int, workers: int, folder: Path) -> Any:
        asked.append(workers)
        return demonstration_recording.recorded(source, episodes, seed, 1, folder)

    monkeypatch.setattr("scripts.evaluate.recorded", recorded)
    assert run(policy, "--workers", "2") == 0
    assert asked == [2, 2]  # for each of two seeds


def test_another_version_of_the_environment(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = output(policy, capsys, "--env-id", "Hopper-v5")
    assert (result["trained_in"], result["environment"]) == ("Hopper-v4", "Hopper-v5")


def test_episodes_are_written_as_they_were_played(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = output(policy, capsys, "--trajectories", str(tmp_path / "episodes.hdf5"))
    for seed in (0, 1):
        content = read(tmp_path / f"episodes_seed_{seed}.hdf5")
        assert [t.episode_return for t in content.trajectories] == pytest.approx(result["runs"][seed]["returns"])
        assert content.attributes["training_seed"] == seed
        assert content.environment_id == "Hopper-v4"


def test_the_video_shows_the_first_episode(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def film(environment_id: str, act: Any, seed: int, path: Path) -> int:
        episode = play(environment_id, lambda observations: act(observations[0])[None], seed)
        seen.append(episode.episode_return)
        return 1

    monkeypatch.setattr(video, "film", film)
    monkeypatch.setattr(video, "check_rendering", lambda environment_id: None)
    for options in ((), ("--sampled",)):
        result = output(policy, capsys, "--video", str(tmp_path / "episode.mp4"), *options)
        assert seen.pop() == pytest.approx(result["runs"][0]["returns"][0])


def test_the_table_has_a_line_for_each_seed(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(policy) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["0", "1", "mean"]
    assert lines[-1] == "intervals: 95%, percentile bootstrap, 10000 resamples"


@pytest.mark.parametrize(("confidence", "shown"), [(0.995, "99.5%"), (0.57, "57%"), (0.99999, "99.999%")])
def test_the_confidence_is_not_rounded(confidence: float, shown: str) -> None:
    """100 times 0.57 is 56.99999999999999."""
    facts = {"algorithm": "SAC", "environment": "Hopper-v4", "episodes": 1, "sampled": False, "runs": []}
    assert table(facts | {"confidence": confidence, "interval": "drawn"}).endswith(f"\nintervals: {shown}, drawn")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--episodes", "0"), ["--episodes 0", "at least 1"]),
        (("--run-index", "7"), ["--run-index 7", "0 to 1"]),
        (("--confidence", "1"), ["--confidence 1", "between 0 and 1"]),
        (("--env-id", "Nope-v0"), ["Nope"]),
        (("--env-id", "CartPole-v1"), ["CartPole-v1"]),
        (("--env-id", "Ant-v4"), ["Ant-v4"]),
        (("--trajectories", "episodes.txt"), ["episodes.txt", ".hdf5"]),
        (("--trajectories", "nowhere/episodes.hdf5"), ["nowhere"]),
        (("--video", "episode.gif"), ["episode.gif", ".mp4"]),
    ],
)
def test_bad_input_is_one_line(
    options: tuple[str, ...],
    words: list[str],
    policy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(policy, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_policies_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.pt").write_bytes(b"nothing")
    for path in (tmp_path, tmp_path / "policy.pt", tmp_path / "missing.pt"):
        assert run(path) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_zip_holds_one_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(zipped(tmp_path / "theirs.zip", PPO))
    words = "--run-index 1: expected 0, the policy in theirs.zip"
    assert_refused(main, [path, "--env-id", "Pendulum-v1", "--run-index", "1"], words, capsys)
    record = ["record", path, "--env", "Pendulum-v1", "--run-index", "1", "--output", str(tmp_path / "set.hdf5")]
    assert_refused(demonstrations.main, record, words, capsys)
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.zip"]


def test_existing_files_stay(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "episodes_seed_1.hdf5"
    kept.write_text("mine")
    assert run(policy, "--trajectories", str(tmp_path / "episodes.hdf5")) == 2
    assert "--overwrite" in capsys.readouterr().err and kept.read_text() == "mine"
    assert run(policy, "--trajectories", str(tmp_path / "episodes.hdf5"), "--overwrite") == 0
    assert len(read(kept).trajectories) == 3


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 2)])
def test_a_write_that_fails_leaves_nothing(
    raised: BaseException,
    status: int,
    policy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Stopped(list[Any]):
        def __iter__(self) -> Any:
            yield self[0]
            raise raised

    def half(path: Path, content: DemonstrationSet) -> None:
        d4rl.write(path, dataclasses.replace(content, trajectories=Stopped(content.trajectories)))

    monkeypatch.setitem(SUFFIXES, ".hdf5", dataclasses.replace(d4rl.FORMAT, write=half))
    assert run(policy, "--trajectories", str(tmp_path / "episodes.hdf5")) == status
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err.count("\n") == 1


def test_bootstrap_by_hand() -> None:
    # Of episodes 0 and 1 a resample's mean is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap(np.array([[0.0, 1.0]]), 0.4) == (0.5, 0.5)
    assert bootstrap(np.array([[0.0, 1.0]]), 0.6) == (0.0, 1.0)
    # Seeds that are all alike inside: a resample's mean depends on which seeds are drawn alone.
    assert bootstrap(np.array([[0.0, 0.0], [1.0, 1.0]]), 0.95) == (0.0, 1.0)
    assert bootstrap(np.array([[3.0]]), 0.95) == (None, None)


def test_the_interval_covers_the_mean_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_report, "RESAMPLES", 1000)
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        low, high = bootstrap(generator.normal(size=(1, 40)), 0.8)
        assert low is not None and high is not None
        covered += low < 0 < high
    assert 25 <= covered <= 38  # 32 expected, deviation 2.5


def test_scores_are_unknown_without_references() -> None:
    returns = np.array([[1.0, 3.0]])
    assert statistics(returns, 0.9, UNKNOWN)["score"] is None
    known = statistics(returns, 0.9, ReferenceScores(random=0.0, expert=4.0, source=""))
    assert (known["return"], known["score"], known["return_std"]) == (2.0, 0.5, 1.0)
