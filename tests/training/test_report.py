"""What a run leaves: a valid result, the episodes that were asked for, and nothing lost when an extra fails."""

import json
import math
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from conf.errors import UserError
from environments.formats.d4rl import read_d4rl
from environments.reference_scores import UNKNOWN
from tests.training.helpers import SMALL, configured, make_loop
from tests.training.test_pictures import ALL
from training import checkpoint, pictures, video
from training.build import build
from training.folder import read_table
from training.loop import Loop, RunInterruptedError
from training.report import check_extras, objective, run_and_report, save_trajectories, summary, table

SAC = (*SMALL, "algorithm=SAC", "steps=120", "evaluation.interval=60", "evaluation.episodes=2")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As in training: these networks are too small for more."""
    torch.set_num_threads(1)


def make(tmp_path: Path, *overrides: str) -> Loop:
    return make_loop(configured(*SAC, *overrides), tmp_path / "runs")


def read_strictly(path: Path) -> dict[str, Any]:
    """JSON without NaN or infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content: dict[str, Any] = json.loads(path.read_text(), parse_constant=refuse)
    return content


def write_evaluations(loop: Loop, rows: list[tuple[str, int, int, float, float]]) -> None:
    header = (loop.folder / "evaluations.csv").read_text().splitlines()[0]
    lines = [f"{phase},{step},{seed},2,{value},0.5,{score},10,9,11,1.0" for phase, step, seed, value, score in rows]
    (loop.folder / "evaluations.csv").write_text("\n".join([header, *lines]) + "\n")


@pytest.mark.usefixtures("drawn_pictures")
def test_a_run_leaves_result_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = make(tmp_path, "runs=2")
    value = run_and_report(loop)
    result = read_strictly(loop.folder / "result.json")
    last = [row for row in read_table(loop.folder / "evaluations.csv") if row["step"] == "120"]
    assert [run["final"]["return"] for run in result["runs"]] == [float(row["return_mean"]) for row in last]
    assert value == pytest.approx(np.mean([float(row["score"]) for row in last]))
    assert {path.stem for path in loop.folder.glob("*.png")} == ALL
    printed = capsys.readouterr().out
    assert "mean" in printed
    assert "expert 3234.3 (score 1), random -20.3 (score 0)" in printed
    assert f"results in {loop.folder}" in printed


def test_evaluations_begin_elsewhere_each_time_and_alike_in_every_run(tmp_path: Path) -> None:
    loops = [make(tmp_path) for _ in range(2)]
    starts: list[list[np.ndarray]] = [[], []]
    for loop, found in zip(loops, starts, strict=True):
        for loop.step in (60, 120, 60):
            loop._evaluate(loop.parts.phases[0])
            found.append(loop.episodes[0][0].observations[0])
    for one, other in zip(*starts, strict=True):
        assert (one == other).all()
    assert (starts[0][0] == starts[0][2]).all() and (starts[0][0] != starts[0][1]).any()


def test_a_warning_is_given_once_also_beyond_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.loop.diagnose", lambda parts, episodes: {"diagnosis/gap": torch.ones(1)})
    loop = make(tmp_path)
    again = Loop(loop.config, build(loop.config), loop.folder)
    for one in (loop, again):
        monkeypatch.setattr(one.parts.imitation, "warning", lambda metrics: "saturated")
    for loop.step in (60, 120):
        loop._evaluate(loop.parts.phases[0])
    loop.save_checkpoint()
    again._load(checkpoint.load(loop.folder / "checkpoint.pt"))
    again._evaluate(again.parts.phases[0])
    assert capsys.readouterr().err == "warning: step 60: saturated\n"


def test_final_and_best_are_apart_and_averaged(tmp_path: Path) -> None:
    loop = make(tmp_path, "runs=2")
    rows = [
        ("behavioural_cloning", 500, 0, 9.0, 0.9),
        ("behavioural_cloning", 500, 1, 1.0, 0.1),
        ("interaction", 60, 0, 3.0, 0.3),
        ("interaction", 60, 1, 8.0, 0.8),
        ("interaction", 120, 0, 5.0, 0.5),
        ("interaction", 120, 1, 7.0, 0.7),
    ]
    write_evaluations(loop, rows)
    result = summary(loop)
    finals, bests = [run["final"] for run in result["runs"]], [run["best"] for run in result["runs"]]
    assert [(row["step"], row["return"], row["score"]) for row in finals] == [(120, 5.0, 0.5), (120, 7.0, 0.7)]
    assert [(row["phase"], row["step"], row["return"]) for row in bests] == [
        ("behavioural_cloning", 500, 9.0),
        ("interaction", 60, 8.0),
    ]
    assert result["mean"]["final"] == {"return": 6.0, "score": pytest.approx(0.6)}
    assert result["mean"]["best"] == {"return": 8.5, "score": pytest.approx(0.85)}
    assert objective(result) == pytest.approx(0.6)
    printed = table(result, loop.folder).splitlines()
    assert printed[2].split() == ["0", "5.0", "0.500", "9.0", "0.900", "500", "of", "behavioural", "cloning"]
    assert printed[3].split() == ["1", "7.0", "0.700", "8.0", "0.800", "60"]
    assert printed[4].split() == ["mean", "6.0", "0.600", "8.5", "0.850"]


def test_without_references_there_is_no_nan(tmp_path: Path) -> None:
    loop = make(tmp_path)
    loop.references = UNKNOWN
    value = run_and_report(loop)
    result = read_strictly(loop.folder / "result.json")
    assert result["runs"][0]["final"]["score"] is None
    assert result["references"] == {"random": None, "expert": None, "source": "not measured"}
    assert math.isfinite(value)
    assert value == result["runs"][0]["final"]["return"]
    assert "nan" not in table(result, loop.folder)


@pytest.mark.usefixtures("drawn_pictures")
def test_the_result_survives_pictures_that_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "draw", full)
    loop = make(tmp_path)
    assert math.isfinite(run_and_report(loop))
    assert (loop.folder / "result.json").is_file()
    printed = capsys.readouterr()
    assert "warning: no pictures: OSError: [Errno 28] No space left on device" in printed.err
    assert "results in" in printed.out


@pytest.mark.usefixtures("drawn_pictures")
def test_an_interrupted_run_has_pictures_and_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make(tmp_path)
    evaluate = loop.evaluator.play

    def stop_after(*arguments: Any) -> Any:
        loop.signal_number = 15
        return evaluate(*arguments)

    monkeypatch.setattr(loop.evaluator, "play", stop_after)
    with pytest.raises(RunInterruptedError):
        run_and_report(loop)
    assert (loop.folder / "returns.png").is_file()
    assert not (loop.folder / "result.json").exists()
    assert read_strictly(loop.folder / "status.json")["state"] == "interrupted"


@pytest.mark.parametrize(
    ("runs", "names"), [(1, ["trajectories"]), (2, ["trajectories_seed_0", "trajectories_seed_1"])]
)
def test_episodes_of_the_last_evaluation_are_kept(tmp_path: Path, runs: int, names: list[str]) -> None:
    loop = make(tmp_path, f"runs={runs}", "save_trajectories=true")
    run_and_report(loop)
    assert [path.stem for path in sorted(loop.folder.glob("*.hdf5"))] == names
    for name, kept in zip(names, loop.episodes, strict=True):
        read = read_d4rl(loop.folder / f"{name}.hdf5")
        assert len(read) == len(kept) == 2
        for first, second in zip(read, kept, strict=True):
            for column in ("observations", "actions", "rewards", "next_observations"):
                assert np.array_equal(getattr(first, column), getattr(second, column))
            assert first.terminated == second.terminated
    final = [run["final"]["return"] for run in read_strictly(loop.folder / "result.json")["runs"]]
    means = [np.mean([t.episode_return for t in read_d4rl(loop.folder / f"{name}.hdf5")]) for name in names]
    assert means == pytest.approx(final)


def test_a_finished_run_can_still_keep_its_episodes(tmp_path: Path) -> None:
    loop = make(tmp_path)
    loop.run()
    expected = [trajectory.episode_return for trajectory in loop.episodes[0]]
    resumed = Loop(loop.config, build(loop.config), loop.folder, checkpoint.load(loop.folder / "checkpoint.pt"))
    resumed.run()
    assert resumed.episodes == []
    (path,) = save_trajectories(resumed)
    assert [trajectory.episode_return for trajectory in read_d4rl(path)] == expected


def test_render_films_a_greedy_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make(tmp_path, "runs=2", "render=true")
    # What is drawn is tested with the film itself; here no OpenGL is needed.
    monkeypatch.setattr(video, "_frame", lambda env: np.zeros((16, 16, 3), np.uint8))
    run_and_report(loop)
    assert imageio_ffmpeg.count_frames_and_secs(str(loop.folder / "episode.mp4"))[0] > 1


def test_what_the_end_needs_is_checked_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(environment_id: str) -> None:
        raise UserError("render=true: no OpenGL")

    monkeypatch.setattr(video, "check_rendering", missing)
    check_extras(configured(*SAC))
    with pytest.raises(UserError, match="no OpenGL"):
        check_extras(configured(*SAC, "render=true"))
