"""Reports of runs with known scores."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts import print_plot_sweep_results, summarise
from tests.training.sweeps.helpers import written_run
from training.folder import mark_ended, read_table
from training.sweeps.plan import GRID, Job, Plan
from training.sweeps.trials import Record, Trial


def test_a_report_of_a_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written_run(tmp_path / "runs" / "a", {0: [0.0, 0.1], 1: [0.9, 0.2], 2: [0.3, 0.3], 3: [0.4, 0.4]})
    written_run(tmp_path / "runs" / "again", {0: [0.7]})
    written_run(tmp_path / "runs" / "b", {5: [0.5]}, "env=hopper")
    written_run(tmp_path / "runs" / "lost", {6: [0.5]}, "env=hopper", state="failed", error="no disk")
    written_run(tmp_path / "runs" / "other", {7: [1.5]}, "env=hopper", "steps=7")
    (tmp_path / "runs" / "half").mkdir()
    (tmp_path / "runs" / "half" / "status.json").write_text("{")
    (tmp_path / "runs" / "refused").mkdir()  # a job of a sweep, before it had a configuration
    mark_ended(tmp_path / "runs" / "refused", "failed", "no such file")
    assert summarise.main([str(tmp_path / "runs"), "--output", str(tmp_path / "report")]) == 0
    text = capsys.readouterr().out
    assert text.strip() == (tmp_path / "report.md").read_text().strip()
    # 0.1 0.2 0.3 0.4: mean 0.25, sample deviation 0.129, without the ends 0.25
    assert "| SAC pendulum | 4 | 0.250 | 0.129 | 0.250 |" in text
    # with Hopper's 0.5: of 0.1 0.2 0.3 0.4 0.5 the middle three; a run with other steps is not mixed in
    assert "| SAC steps=1000000 | hopper, pendulum | 5 | 0.300 | 0.300 |" in text
    # of 0.1 0.2 0.3 0.4 one half, of 0.5 all are above 0.25: the mean over environments is three quarters
    assert "| 0.75 | 0.00 | 0.00 | 0.00 | 0.00 |" in text
    assert "| SAC pendulum | 0 | another run of this seed is counted | runs/again |" in text
    assert "| SAC hopper steps=1000000 | 6 | incomplete (failed: no disk) | runs/lost |" in text
    assert "| - | - | incomplete (its configuration cannot be read) | runs/half |" in text
    assert "| - | - | incomplete (failed: no such file) | runs/refused |" in text
    assert "fewer than 5 seeds" in text
    rows = read_table(tmp_path / "report.csv")
    assert len(rows) == 10
    assert {row["score"] for row in rows if row["state"] == "failed"} == {""}
    assert [row["run"] for row in rows if not row["left_out"]] == ["runs/a"] * 4 + ["runs/b", "runs/other"]
    assert summarise.main([str(tmp_path / "runs"), "--output", str(tmp_path / "best"), "--measure", "best"]) == 0
    assert "| SAC pendulum | 4 | 0.425 |" in capsys.readouterr().out  # 0.1 0.9 0.3 0.4
    best = [row for row in read_table(tmp_path / "best.csv") if row["seed"] == "1" and not row["left_out"]]
    assert [(row["measure"], row["score"], row["return"]) for row in best] == [("best", "0.9", "90")]


def test_sample_efficiency(tmp_path: Path) -> None:
    """Evaluations are 10 steps apart."""
    written_run(tmp_path / "a", {0: [0.5, 0.9], 1: [0.1, 0.6, 0.95], 2: [0.4, 0.4, 0.4, 0.5]})
    summarise.main([str(tmp_path / "a"), "--output", str(tmp_path / "report")])
    # 0.5 after 10, 20 and 40 steps; 0.9 after 20, 30 and never
    said = "| SAC pendulum | environment steps | 20 (3 of 3) | 30 (2 of 3) |"
    assert said in (tmp_path / "report.md").read_text()


def test_environments_of_different_kinds_are_not_mixed(tmp_path: Path) -> None:
    """Two configurations share an environment, and differ in nothing but what makes up an environment."""
    written_run(tmp_path / "a", {0: [0.1], 1: [0.1]}, "env=hopper")
    written_run(tmp_path / "b", {0: [0.2], 1: [0.2]}, "env=hopper", "env.version=v5")
    written_run(tmp_path / "c", {0: [0.3], 1: [0.3]})
    written_run(tmp_path / "d", {0: [0.4], 1: [0.4]}, "env.normalise_observations=true", "env.demonstrations=x.hdf5")
    text = summarise.summarise([tmp_path], tmp_path / "report", "final")
    assert "| hopper, pendulum | 4 | 0.200 |" in text  # 0.1 0.1 0.3 0.3
    assert "| hopper | 2 | 0.200 |" in text
    assert "| pendulum | 2 | 0.400 |" in text


def test_threads_of_a_simulator_make_no_group(tmp_path: Path) -> None:
    written_run(tmp_path / "a", {0: [0.1]})
    written_run(tmp_path / "b", {1: [0.3]}, "env.threads=2")
    assert "| 2 | 0.200 |" in summarise.summarise([tmp_path], tmp_path / "report", "final")


def test_labels_tell_groups_apart_without_telling_all(tmp_path: Path) -> None:
    few = ("training.learning_rate=0.1", "training.batch_size=8", "steps=5")
    written_run(tmp_path / "few" / "a", {0: [0.1]})
    written_run(tmp_path / "few" / "b", {0: [0.2]}, *few)
    text = summarise.summarise([tmp_path / "few"], tmp_path / "report", "final")
    assert "| SAC pendulum steps=5 training.batch_size=8 training.learning_rate=0.1 | 1 | 0.200 |" in text

    for number, more in enumerate(((), ("training.weight_decay=1",), ("training.weight_decay=2",))):
        written_run(tmp_path / "many" / str(number), {0: [0.1 * number]}, *few, *more)
    written_run(tmp_path / "many" / "3", {0: [0.4]})
    text = summarise.summarise([tmp_path / "many"], tmp_path / "report", "final")
    # Four settings differ. The weight decay makes three of the four groups, and the steps, told first, the last.
    assert "| SAC pendulum training.weight_decay=2.0 steps=5 (and 2 more settings) | 1 | 0.200 |" in text
    assert "| SAC pendulum training.weight_decay=0.0 steps=1000000 (and 2 more settings) | 1 | 0.400 |" in text


def test_returns_where_no_scores_are_known(tmp_path: Path) -> None:
    written_run(tmp_path / "a", {0: [math.nan], 1: [math.nan]})
    table = tmp_path / "a" / "evaluations.csv"
    table.write_text(table.read_text().replace("1,nan,0", "1,7.5,0"))
    text = summarise.summarise([tmp_path / "a"], tmp_path / "report", "final")
    assert "| SAC pendulum | 2 | - | - | - | - | 7.5 |" in text
    assert text.count("no score: no reference returns are known") == 2
    assert "return per episode" in (tmp_path / "report.html").read_text()


def test_seeds_that_share_no_step_have_no_curve(tmp_path: Path) -> None:
    """After 1730 and 2140 steps: no curve of their own, and none over environments; a profile, and those of others."""
    for seed, step in enumerate((1730, 2140)):
        table = written_run(tmp_path / str(seed), {seed: [0.5]}) / "evaluations.csv"
        table.write_text(table.read_text().replace("interaction,10,", f"interaction,{step},"))
    pictures = '<svg role="img" aria-label='
    summarise.summarise([tmp_path], tmp_path / "report", "final")
    page = (tmp_path / "report.html").read_text()
    assert page.count(pictures) == page.count(f'{pictures}"pendulum"') == 1  # the profile
    written_run(tmp_path / "hopper", {0: [0.4], 1: [0.6]}, "env=hopper")
    written_run(tmp_path / "other", {0: [0.4], 1: [0.6]}, "steps=5")
    summarise.summarise([tmp_path], tmp_path / "report", "final")
    page = (tmp_path / "report.html").read_text()
    found = [page.count(f'{pictures}"{title}"') for title in ("hopper", "pendulum", "hopper, pendulum")]
    assert found == [1, 2, 1]  # a curve; a curve and the profile of other steps; a profile without a curve
    assert page.count("1 more curves are left out") == 1


def test_half_written_runs_are_rows(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    torn = written_run(runs / "torn", {0: [0.1, 0.2]})
    torn.joinpath("evaluations.csv").write_text(torn.joinpath("evaluations.csv").read_text() + "interaction,30,0,1,0.")
    bytes_of_others = written_run(runs / "bytes", {1: [0.3]})
    bytes_of_others.joinpath("evaluations.csv").write_bytes(b"phase,step\xff\x00\n")
    written_run(runs / "empty", {2: [0.3]}).joinpath("evaluations.csv").unlink()
    written_run(runs / "begun", {3: [0.3]}).joinpath("status.json").unlink()  # killed before it wrote one
    written_run(runs / "going", {4: [0.3]}, state="running")
    written_run(runs / "status", {5: [0.3]}).joinpath("status.json").write_text("[]")
    for name, text in {"null": "imitation: null", "list": "[1]", "words": "seed: many", "yaml": "{"}.items():
        written_run(runs / name, {6: [0.3]}).joinpath(".hydra", "config.yaml").write_text(text)
    written_run(runs / "good", {7: [0.3]})
    assert summarise.main([str(runs), "--output", str(tmp_path / "report")]) == 0
    rows = read_table(tmp_path / "report.csv")
    assert {row["seed"]: row["left_out"] for row in rows if row["seed"]} == {
        "0": "incomplete (damaged: evaluations.csv is damaged in line 4)",
        "1": "incomplete (damaged: evaluations.csv is damaged in line 0)",
        "2": "incomplete (damaged: evaluations.csv: No such file or directory)",
        "3": "incomplete (damaged)",
        "4": "incomplete (running)",
        "5": "incomplete (damaged)",
        "7": "",
    }
    unread = {row["run"]: (row["state"], row["left_out"]) for row in rows if not row["seed"]}
    assert set(unread) == {f"runs/{name}" for name in ("null", "list", "words", "yaml")}
    assert set(unread.values()) == {("unknown", "incomplete (its configuration cannot be read)")}


def test_jobs_that_never_began_are_rows(tmp_path: Path) -> None:
    written_run(tmp_path / "attempts" / "sweep" / "0", {0: [0.3]})  # a folder of users may be called like ours
    written_run(tmp_path / "attempts" / "sweep" / "attempts" / "1", {0: [0.1]})
    jobs = [Job(str(number), (f"seed={number}",), str(number)) for number in range(2)]
    Plan(tmp_path / "attempts" / "sweep", GRID, "train.py", [], jobs).save()
    (tmp_path / "attempts" / "other").mkdir()
    (tmp_path / "attempts" / "other" / "sweep.json").write_text("{")
    text = summarise.summarise([tmp_path / "attempts"], tmp_path / "report", "final")
    assert "| SAC pendulum | 1 | 0.300 |" in text
    assert "| - | - | incomplete (never begun) | attempts/sweep/1 |" in text
    assert "| - | - | the plan of this sweep cannot be read | attempts/other/sweep.json |" in text


def test_kept_results_are_runs_too(tmp_path: Path) -> None:
    """As scripts/keep_results.py keeps them: the configuration lies beside the rest."""
    run = written_run(tmp_path / "kept", {0: [0.3]})
    (run / ".hydra" / "config.yaml").rename(run / "config.yaml")
    (run / ".hydra").rmdir()
    assert "| SAC pendulum | 1 | 0.300 |" in summarise.summarise([run], tmp_path / "report", "final")


def test_names_of_others_stay_text(tmp_path: Path) -> None:
    written_run(tmp_path / "a", {0: [0.3]}, state="failed", error="a | b\n\\ <b>")
    summarise.summarise([tmp_path / "a"], tmp_path / "report", "final")
    assert r"incomplete (failed: a \| b \\ &lt;b>)" in (tmp_path / "report.md").read_text()


def test_where_no_report_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(written_run(tmp_path / "run", {0: [0.3]}))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "README.md").write_text("mine")
    for output in (tmp_path / "file" / "report", tmp_path / "README", Path("/proc/report")):
        assert summarise.main([run, "--output", str(output)]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert said.err.startswith("error: ")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "file", "README.md"}
    assert (tmp_path / "README.md").read_text() == "mine"
    # A folder that does not exist is made; a report replaces its predecessor, and keeps it where there is no run.
    for _ in range(2):
        assert summarise.main([run, "--output", str(tmp_path / "new" / "report.html")]) == 0
    before = (tmp_path / "new" / "report.md").read_bytes()
    assert summarise.main([str(tmp_path / "new"), "--output", str(tmp_path / "new" / "report")]) == 2
    assert (tmp_path / "new" / "report.md").read_bytes() == before
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"report.csv", "report.md", "report.html"}


# Copies of one run with other seeds and learning rates, in 20 groups; the report of all; what that took.
MANY = """
import contextlib, io, resource, sys
from pathlib import Path
from scripts import summarise
folder, template = Path(sys.argv[1]), Path(sys.argv[2])
settings = (template / ".hydra" / "config.yaml").read_text()
assert settings.count("seed: 0\\n") == 1 and settings.count("learning_rate: 0.0003\\n") == 1
for number in range(200):
    run = folder / str(number)
    (run / ".hydra").mkdir(parents=True)
    own = settings.replace("seed: 0\\n", f"seed: {number % 10}\\n")
    own = own.replace("learning_rate: 0.0003\\n", f"learning_rate: {number // 10 + 1}e-4\\n")
    (run / ".hydra" / "config.yaml").write_text(own)
    table = (template / "evaluations.csv").read_text()
    (run / "evaluations.csv").write_text(table.replace(",0,1,", f",{number % 10},1,"))
    (run / "status.json").write_text((template / "status.json").read_text())
before = resource.getrusage(resource.RUSAGE_SELF)
with contextlib.redirect_stdout(io.StringIO()):
    assert summarise.main([str(folder), "--output", str(folder / "report")]) == 0
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 2**20)
"""


def test_many_runs_are_quick_and_small(tmp_path: Path) -> None:
    """200 runs, 100 evaluations each: a fifth of what may take a minute and 1 GiB."""
    template = written_run(tmp_path / "template", {0: list(np.linspace(0, 1, 100))})
    command = [sys.executable, "-c", MANY, str(tmp_path / "runs"), str(template)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = map(float, said.stdout.split())
    assert seconds < 12
    assert memory < 1  # GiB
    rows = read_table(tmp_path / "runs" / "report.csv")
    assert len(rows) == 200
    assert not any(row["left_out"] for row in rows)
    assert (tmp_path / "runs" / "report.html").stat().st_size < 1e6


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


def test_orders_of_magnitude_are_seen() -> None:
    assert print_plot_sweep_results.spans_decades([1e-4, 3e-3, 1e-2])
    assert not print_plot_sweep_results.spans_decades([64.0, 640.0])
    assert not print_plot_sweep_results.spans_decades([0.0, 1.0, 100.0])  # 0 has no place on such an axis
