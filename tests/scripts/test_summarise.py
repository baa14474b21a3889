"""Reports of runs with known scores."""

import csv
from pathlib import Path

import numpy as np
import pytest

from scripts import compare, print_plot_sweep_results, summarise
from tests.training.sweeps.helpers import written_run
from training.folder import read_table
from training.sweeps.trials import Record, Trial


def test_a_report_of_a_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written_run(tmp_path / "runs" / "a", {0: [0.0, 0.1], 1: [0.9, 0.2], 2: [0.3, 0.3], 3: [0.4, 0.4]})
    written_run(tmp_path / "runs" / "again", {0: [0.7]})
    written_run(tmp_path / "runs" / "b", {5: [0.5]}, "env=hopper")
    written_run(tmp_path / "runs" / "lost", {6: [0.5]}, "env=hopper", state="failed", error="no disk")
    written_run(tmp_path / "runs" / "other", {7: [1.5]}, "env=hopper", "steps=7")
    (tmp_path / "runs" / "half").mkdir()
    (tmp_path / "runs" / "half" / "status.json").write_text("{")
    assert summarise.main([str(tmp_path / "runs"), "--output", str(tmp_path / "report")]) == 0
    text = capsys.readouterr().out
    assert text.strip() == (tmp_path / "report.md").read_text().strip()
    # 0.1 0.2 0.3 0.4: mean 0.25, sample deviation 0.129, without the ends 0.25
    assert "| SAC pendulum | 4 | 0.250 | 0.129 | 0.250 |" in text
    # with Hopper's 0.5: of 0.1 0.2 0.3 0.4 0.5 the middle three; a run with other steps is not mixed in
    assert "| SAC steps=1000000 | 2 | 0.300 |" in text or "| SAC | 2 | 0.300 |" in text
    assert "seed 0: another run of it is left out" in text
    assert "seed 6: incomplete (failed: no disk)" in text
    assert "half: its configuration cannot be read" in text
    assert "fewer than 5 seeds" in text
    rows = read_table(tmp_path / "report.csv")
    assert len(rows) == 8
    assert {row["score"] for row in rows if row["state"] == "failed"} == {""}
    assert summarise.main([str(tmp_path / "runs"), "--output", str(tmp_path / "best"), "--measure", "best"]) == 0
    assert "| SAC pendulum | 4 | 0.425 |" in capsys.readouterr().out  # 0.1 0.9 0.3 0.4


def test_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = [0.5, 0.7, 0.9], [0.1, 0.6, 0.2]
    written_run(tmp_path / "a" / "0", {seed: [score] for seed, score in enumerate(first)})
    written_run(tmp_path / "b" / "0", {seed: [score] for seed, score in enumerate(second)}, "steps=5")
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "probability of improvement 0.889" in said  # 8 of 9 pairs
    assert f"Welch's test p = {stats.ttest_ind(first, second, equal_var=False).pvalue:.3g}" in said
    written_run(tmp_path / "a" / "1", {9: [1.0]}, "steps=6")
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "several configurations for pendulum" in capsys.readouterr().err


def test_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main in (summarise.main, lambda words: print_plot_sweep_results.main(["--path", *words])):
        for folder in (tmp_path, tmp_path / "nowhere"):
            assert main([str(folder)]) == 2
            assert capsys.readouterr().err.count("\n") == 1


def test_trials_of_an_optimisation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [
        Trial(n, {"x": x, "word": word}, [0], "completed", [score], score, 0.1)
        for n, (x, word, score) in enumerate([(1.0, "a", 0.1), (2.0, "b", 0.4), (3.0, "a", 0.9), (4.0, "b", 1.6)])
    ]
    trials.append(Trial(4, {"x": 5.0, "word": "a"}, [0], "failed", error="planted"))
    Record(tmp_path, "BC", ["hopper"], [], trials, [], {}).save()
    assert print_plot_sweep_results.main(["--path", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "100% of the ranks' variance: x" in said  # scores rise with x
    assert " 20% of the ranks' variance: word" in said  # ranks 1 3 and 2 4: between 1, over all 5
    assert "planted" in said
    with (tmp_path / "trials.csv").open() as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["completed"] * 4 + ["failed"]
    assert (tmp_path / "trials.png").stat().st_size > 1000


def test_ranks_share_ties() -> None:
    assert print_plot_sweep_results.ranks([5.0, 1.0, 5.0]).tolist() == [2.5, 1.0, 2.5]
    assert print_plot_sweep_results.explained([1, 1, 1], np.array([1.0, 2.0, 3.0])) == 0.0
