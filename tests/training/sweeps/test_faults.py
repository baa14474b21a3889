"""What goes wrong in a sweep and around it: bugs, NaN, jobs that are killed, and kills of the sweep itself."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.training.commands import QUICK, Outcome, fingerprint, status_of
from tests.training.sweeps.test_sweep import AT_MOST, LONG, wait_for
from tests.warm import Process, run_apart
from training.folder import read_table

KILLS = int(os.environ.get("SWEEP_KILLS", "2"))  # ten and more take minutes
KILLED = ["algorithm=SAC", "seed=1,2,3", f"steps={LONG // 4}", *QUICK, "launcher.workers=2"]


def test_faults_are_reported_and_stay_alone(tmp_path: Path) -> None:
    faulty = [f"tests.training.sweeps.faulty:{name}-v0" for name in ("Raising", "NaN", "Killed")]
    ids = f"env.id={','.join([*faulty, 'Pendulum-v1'])}"  # colons: Hydra writes them with a backslash
    # Rewards are hidden from this algorithm: a NaN is seen by the evaluation alone.
    typed = ("algorithm=constant", "seed=1", "steps=40", *QUICK[1:], ids, f"output_folder={tmp_path}")
    assert_reported(run_apart("-m", *typed), tmp_path)
    (sweep,) = tmp_path.glob("*/*")
    before = fingerprint(sweep / "3")
    assert_reported(run_apart(f"resume_sweep={sweep}"), tmp_path)
    assert fingerprint(sweep / "3") == before


def assert_reported(outcome: Outcome, outputs: Path) -> None:
    assert outcome.status == 1
    (sweep,) = outputs.glob("*/*")
    assert [status_of(sweep / str(job))["state"] for job in range(4)] == ["failed", "failed", "failed", "finished"]
    reasons = {
        "0": ("Raising-v0", "RuntimeError: planted"),
        "1": ("NaN-v0", "the last evaluation gave nan"),
        "2": ("Killed-v0", "the process was killed by SIGKILL (out of memory?)"),
    }
    listed = [line.removeprefix("not finished: ") for line in outcome.error.splitlines() if "not finished:" in line]
    assert len(listed) == 3
    for line, (job, (name, reason)) in zip(listed, reasons.items(), strict=True):
        assert line.startswith(f"{job} (env.id=tests.training.sweeps.faulty")
        assert line.endswith(f"{name}) failed: {reason}")
    assert all(f"- {line}" in (sweep / "summary.md").read_text() for line in listed)
    assert "3 failed" in outcome.error
    assert "RuntimeError: planted" in (sweep / "logs" / "0.txt").read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A sweep, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    started = time.monotonic()
    assert run_apart("-m", *KILLED, f"output_folder={folder}").status == 0
    (sweep,) = folder.glob("*/*")
    return sweep, time.monotonic() - started


@pytest.mark.parametrize("machine", [False, True], ids=["the sweep's process", "all of its processes"])
def test_killed_at_random_moments(tmp_path: Path, uninterrupted: tuple[Path, float], machine: bool) -> None:
    """However often that is, the sweep that is finished at last is the uninterrupted one."""
    expected, seconds = uninterrupted
    generator = random.Random(KILLS)
    kills = 0
    for number in range(KILLS + 1):  # sweeps: one that ends before it is killed is followed by another
        outputs = tmp_path / str(number)
        finished: dict[Path, dict[str, str]] = {}
        ended = False
        while not ended:
            ended = end_or_kill(outputs, generator.uniform(0, seconds) if kills < KILLS else AT_MOST, machine)
            kills += not ended
            assert all(fingerprint(job) == before for job, before in finished.items())  # nothing is done twice
            finished = {job: fingerprint(job) for job in finished_jobs(outputs)}
        (sweep,) = (path.parent for path in outputs.glob("*/*/sweep.json"))
        assert_same(sweep, expected)
        if kills == KILLS:
            return


def end_or_kill(outputs: Path, seconds: float, machine: bool) -> bool:
    """Begin the sweep or go on with it, and kill it after so long. Returns whether it ended by itself before."""
    begun = [path.parent for path in outputs.glob("*/*/sweep.json")]
    arguments = [f"resume_sweep={begun[0]}"] if begun else ["-m", *KILLED, f"output_folder={outputs}"]
    process = Process("train.py", *arguments)
    try:
        assert process.wait(seconds) == 0, process.error
        return True
    except subprocess.TimeoutExpired:
        victims = [process.pid, *(descendants(process.pid) if machine else ())]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: all of them at one moment
            for victim in victims:
                with suppress(ProcessLookupError):  # it ended a moment ago
                    os.kill(victim, number)
        process.wait()
        return False


def descendants(process: int) -> Iterator[int]:
    for child in map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()):
        yield child
        yield from descendants(child)


def finished_jobs(outputs: Path) -> list[Path]:
    return [
        path.parent for path in outputs.glob("*/*/[0-9]/status.json") if status_of(path.parent)["state"] == "finished"
    ]


def assert_same(sweep: Path, expected: Path) -> None:
    """The same jobs with the same tables, and nothing of worth among the attempts that were given up."""
    for folder in (sweep, expected):
        jobs = {path.parent.name for path in folder.glob("*/.hydra")}
        assert jobs == {"0", "1", "2"}
    for job in ("0", "1", "2"):
        for name in ("evaluations.csv", "metrics.csv"):
            assert rows(sweep / job / name) == rows(expected / job / name)
    assert not list(sweep.glob("attempts/*/checkpoint.pt"))


def rows(table: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_table(table)]


def test_without_the_process_that_starts_jobs(tmp_path: Path) -> None:
    """It is killed: the jobs are asked to stop, and the sweep says how to go on."""
    typed = ["-m", "algorithm=SAC", "seed=1", f"steps={LONG}", "threads=1", *QUICK, f"output_folder={tmp_path}"]
    process = Process("train.py", *typed)
    wait_for(lambda: bool(list(tmp_path.glob("*/*/0/checkpoint.pt"))))
    (sweep,) = tmp_path.glob("*/*")
    server = next(descendants(process.pid))
    os.kill(server, signal.SIGKILL)
    assert process.wait(60) == 1
    assert process.error.splitlines()[-1].startswith("failed: ")
    assert f"resume_sweep={sweep}" in process.error.splitlines()[-1]
    wait_for(lambda: status_of(sweep / "0")["state"] == "interrupted")
    assert run_apart(f"resume_sweep={sweep}").status == 0
