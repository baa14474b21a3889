"""Sweeps of real runs: failures stay alone, and nothing is lost or done twice when the sweep is killed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.commands import QUICK, assert_refused, fingerprint, run, status_of
from tests.warm import Process, run_apart
from training.folder import read_status, read_table, running_process

LONG = 600  # steps that take seconds
AT_MOST = 300  # seconds, on a busy machine


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + AT_MOST
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_failure_stays_alone_and_is_retried(tmp_path: Path) -> None:
    typed = ("-m", "algorithm=SAC", "steps=40", *QUICK, f"output_folder={tmp_path}")
    first = run_apart(*typed, "seed=1", "training.learning_rate=1e30,1e-3")
    assert first.status == 1, first.error
    (sweep,) = tmp_path.glob("SAC_pendulum_sweep/*")
    assert [status_of(sweep / name)["state"] for name in ("0", "1")] == ["failed", "finished"]
    assert "not finished: 0 (training.learning_rate=1e+30)" in first.error
    assert "is not finite" in first.error
    assert "retry with resume_sweep=" in first.error
    assert "is not finite" in (sweep / "summary.md").read_text()
    rows = read_table(sweep / "summary.csv")
    assert [(row["seeds"], row["unfinished"]) for row in rows] == [("0", "1"), ("1", "0")]

    before = fingerprint(sweep / "1")
    again = run_apart(f"resume_sweep={sweep}", "seed=1,2", "training.learning_rate=1e-3", "pack_seeds=1")
    assert again.status == 1  # the first run still belongs to the sweep, and fails again
    assert fingerprint(sweep / "1") == before
    assert [status_of(sweep / name)["state"] for name in ("0", "1", "2")] == ["failed", "finished", "finished"]
    assert (sweep / "attempts" / "0" / "metrics.csv").exists()
    assert (sweep / "curves.png").stat().st_size > 1000


def test_seeds_are_packed_into_one_process(tmp_path: Path) -> None:
    typed = ("-m", "algorithm=SAC", "steps=30", "seed=3,4", "pack_seeds=2", *QUICK, f"output_folder={tmp_path}")
    outcome = run_apart(*typed)
    assert outcome.status == 0, outcome.error
    (table,) = tmp_path.glob("SAC_pendulum_sweep/*/*/evaluations.csv")
    assert [row["seed"] for row in read_table(table)] == ["3", "4"]


def test_killed_and_resumed_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    """The sweep's own process is killed; its jobs write checkpoints and end; a job is killed, too."""
    typed = ["algorithm=SAC", "seed=1,2", f"steps={LONG}", *QUICK, "launcher.workers=2"]
    process = Process("train.py", "-m", *typed, f"output_folder={tmp_path}")
    try:
        wait_for(lambda: len(list(tmp_path.glob("*/*/[01]/checkpoint.pt"))) == 2)
        (sweep,) = tmp_path.glob("*/*")
        pids = [int(str(status_of(sweep / name)["process"])) for name in ("0", "1")]
        os.kill(pids[0], signal.SIGKILL)
        wait_for(lambda: status_of(sweep / "0")["state"] == "failed")
    finally:
        process.kill()
        process.wait()
    assert "SIGKILL" in str(status_of(sweep / "0")["error"])
    wait_for(lambda: running_process(read_status(sweep / "1")) is None)
    assert status_of(sweep / "1")["state"] == "interrupted"

    resumed = run_apart(f"resume_sweep={sweep}")
    assert resumed.status == 0, resumed.error
    assert not (sweep / "attempts").exists()
    straight = tmp_path / "straight"
    single = [argument for argument in typed if not argument.startswith(("seed=", "launcher"))]
    assert run_apart(*single, "seed=1", f"output_folder={straight}").status == 0
    (whole,) = straight.glob("*/*")
    for name in ("evaluations.csv", "metrics.csv"):
        rows = [read_table(folder / name) for folder in (whole, sweep / "0")]
        for row in (*rows[0], *rows[1]):
            row.pop("seconds", None)
        assert rows[0] == rows[1]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    typed = ["-m", "algorithm=SAC", "seed=1,2", f"steps={100 * LONG}", *QUICK, f"output_folder={tmp_path}"]
    typed.append("launcher.workers=1")
    process = Process("train.py", *typed)
    try:
        wait_for(lambda: bool(list(tmp_path.glob("*/*/0/status.json"))))
        (sweep,) = tmp_path.glob("*/*")
        assert_refused(run(f"resume_sweep={sweep}"), "another process is at work")
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert status == 128 + signal.SIGTERM
    assert f"go on with resume_sweep={sweep}" in process.error.splitlines()[-1]
    assert status_of(sweep / "0")["state"] == "interrupted"
    assert not (sweep / "1").exists()  # it does not go on


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("-m algorithm=SAC launcher=slum", ["launcher=slum", "local, ray, slurm", "did you mean 'slurm'?"]),
        ("-m algorithm=SAC launcher.partition=x", ["launcher.partition", "launcher=local", "workers"]),
        ("-m algorithm=SAC launcher.workers=0", ["launcher.workers=0", "at least 1"]),
        (
            "-m algorithm=GAIL,BC optimised_hyperparameters=BC_5_trajectories",
            ["is for algorithm=BC, not"],
        ),
        ("-m algorithm=SAC pack_seeds=many", ["pack_seeds=many", "whole number"]),
        ("-m algorithm=SAC pack_seeds=2 runs=2", ["leave runs out"]),
        ("-m algorithm=SAC pack_seeds=1,2", ["pack_seeds=1,2", "expected one"]),
        ("-m algorithm=SAC seed=range(1,1)", ["no values"]),
        ("-m algorithm=SAC hydra/launcher=joblib", ["launcher=local"]),
        ("-m algorithm=SAC hydra.sweep.dir=x", ["hydra.sweep.dir=x", "no effect"]),
        ("-m algorithm=SAC seed=1,2 steps=many", ["steps=many", "whole number"]),
        ("algorithm=SAC launcher=slurm", ["launcher=slurm", "add -m"]),
        ("resume_sweep=nowhere", ["nowhere", "no sweep.json"]),
    ],
)
def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*typed.split()), *words)
    assert not list(tmp_path.iterdir())
