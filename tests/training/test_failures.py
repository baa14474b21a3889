"""What goes wrong during a run: the last good state stays, status.json says why, and the run can go on."""

import errno
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from omegaconf import DictConfig

from algorithms.learners.sac import SAC
from environments.vector import GymnasiumBackend
from tests.scripts.helpers import full_disk
from tests.training.commands import QUICK, Outcome, assert_refused, fingerprint, run, run_folders, status_of
from tests.warm import Process
from training import checkpoint, report
from training.evaluation import Evaluator
from training.folder import read_table

ROOT = Path(__file__).resolve().parents[2]


class Fault:
    """Stands in for a method and breaks from its n-th call on."""

    def __init__(self, original: Callable[..., Any], calls: int, broken: Callable[..., Any]) -> None:
        self.original, self.calls_left, self.broken = original, calls, broken

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls_left -= 1
        return (self.original if self.calls_left >= 0 else self.broken)(*arguments, **options)

    def __get__(self, instance: Any, owner: Any) -> Callable[..., Any]:
        return lambda *arguments, **options: self(instance, *arguments, **options)


def short_run(folder: Path) -> Outcome:
    return run("algorithm=SAC", "steps=60", *QUICK, f"output_folder={folder}")


def assert_failed(outcome: Outcome, outputs: Path, reason: str, last_good_step: int) -> Path:
    """Exit status 1 with one line, the reason in status.json, and a whole checkpoint of the last good step."""
    assert outcome.status == 1
    assert outcome.error.startswith("failed: ")
    assert outcome.error.count("\n") == 1
    assert reason in outcome.error
    [folder] = run_folders(outputs)
    status = status_of(folder)
    assert status["state"] == "failed"
    assert reason in str(status["error"])
    assert checkpoint.load(folder / "checkpoint.pt")["step"] == last_good_step
    assert not list(folder.rglob("*.part"))
    return folder


def assert_goes_on(folder: Path) -> None:
    outcome = run(f"resume={folder}")
    assert outcome.status == 0, outcome.error
    assert status_of(folder)["state"] == "finished"
    assert checkpoint.load(folder / "checkpoint.pt")["step"] == 60


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_written(content: object, file: Any) -> None:
        file.write(b"half of a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", Fault(torch.save, 2, half_written))
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    assert_goes_on(assert_failed(outcome, tmp_path, "No space left on device", 40))


def test_a_file_that_cannot_be_grown_says_why(tmp_path: Path) -> None:
    """PyTorch reports what writing a file raises as an error of its own archive."""
    checkpoint.save(tmp_path / "checkpoint.pt", {"step": 1})
    with full_disk(100_000), pytest.raises(OSError, match="File too large"):
        checkpoint.save(tmp_path / "checkpoint.pt", {"step": 2, "rows": torch.zeros(100_000)})
    assert checkpoint.load(tmp_path / "checkpoint.pt")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_an_observation_that_is_not_finite_is_never_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = GymnasiumBackend.step

    def poisoned(backend: GymnasiumBackend, actions: Any) -> Any:
        successors, rewards, terminated, truncated = step(backend, actions)
        successors[0, 1] = math.nan
        return successors, rewards, terminated, truncated

    monkeypatch.setattr(GymnasiumBackend, "step", Fault(step, 45, poisoned))
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    assert_goes_on(assert_failed(outcome, tmp_path, "an observation is not finite", 40))


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an evaluation that never ends."""
    monkeypatch.setattr(SAC, "update", Fault(SAC.update, 25, endless))
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    assert outcome.status == 130
    [folder] = run_folders(tmp_path)
    assert status_of(folder)["state"] == "interrupted"
    assert_goes_on(folder)


def endless(*batches: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    raise AssertionError("it goes on")


def test_a_signal_before_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the parts of the loop are made. The second SIGTERM, as a sweep's jobs get it, changes nothing."""
    monkeypatch.setattr(Evaluator, "__init__", terminated_twice)
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    [folder] = run_folders(tmp_path)
    assert outcome.status == 143
    assert outcome.error == f"interrupted: stopped by SIGTERM; before a checkpoint was written in {folder}\n"
    assert status_of(folder)["state"] == "interrupted"


def test_a_signal_behind_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "summary", terminated_twice)
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    [folder] = run_folders(tmp_path)
    assert outcome.status == 143
    assert outcome.error == f"interrupted: stopped by SIGTERM; go on with resume={folder}\n"
    assert status_of(folder)["state"] == "interrupted"
    assert_goes_on(folder)
    assert (folder / "result.json").is_file()


def terminated_twice(*arguments: object) -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def test_not_a_number_in_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = SAC.update

    def poisoned(learner: SAC, *batches: Any) -> dict[str, torch.Tensor]:
        metrics = update(learner, *batches)
        with torch.no_grad():
            next(learner.policy.parameters()).mul_(math.nan)
        return {name: value * math.nan for name, value in metrics.items()}

    monkeypatch.setattr(SAC, "update", Fault(update, 26, poisoned))  # the first update is after step 20
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    folder = assert_failed(outcome, tmp_path, "an action is not finite", 40)
    assert all(
        torch.isfinite(value).all() for value in checkpoint.load(folder / "checkpoint.pt")["best_policy"].values()
    )
    assert_goes_on(folder)


def test_interrupted_with_a_damaged_state_keeps_the_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = SAC.update

    def poisoned(learner: SAC, *batches: Any) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {name: value * math.nan for name, value in update(learner, *batches).items()}

    monkeypatch.setattr(SAC, "update", Fault(update, 26, poisoned))
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    assert_failed(outcome, tmp_path, "is not finite at step 46", 40)


def test_crash_inside_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("the simulator is unstable")

    monkeypatch.setattr(PendulumEnv, "step", Fault(PendulumEnv.step, 45, crash))
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    assert_goes_on(assert_failed(outcome, tmp_path, "the simulator is unstable", 40))


def test_the_machine_loses_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left but what had been brought to the disk: the run goes on to the same end."""
    on_disk: dict[str, bytes] = {}
    sync, replace = os.fsync, os.replace
    outputs, left = tmp_path / "outputs", tmp_path / "left"

    def noted_sync(descriptor: int) -> None:
        sync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        on_disk[path] = Path(path).read_bytes()

    def noted_replace(source: Path, target: Path) -> None:
        replace(source, target)
        on_disk[str(target)] = on_disk.pop(str(source), b"")

    def lose_power(*_: object) -> None:
        [folder] = run_folders(outputs)
        for path in (path for path in folder.rglob("*") if path.is_file()):
            target = left / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(on_disk.get(str(path), b""))
        raise RuntimeError("the end of the test's run")

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(PendulumEnv, "step", Fault(PendulumEnv.step, 45, lose_power))
    short_run(outputs)
    monkeypatch.undo()
    assert run(f"resume={left}").status == 0
    assert short_run(tmp_path / "straight").status == 0
    [straight] = run_folders(tmp_path / "straight")
    for name in ("evaluations.csv", "metrics.csv"):
        rows = [read_table(folder / name) for folder in (left, straight)]
        for row in (*rows[0], *rows[1]):
            row.pop("seconds", None)
        assert rows[0] == rows[1]


def test_failure_before_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(PendulumEnv, "step", Fault(PendulumEnv.step, 5, crash))
    outcome = short_run(tmp_path)
    assert outcome.status == 1
    [folder] = run_folders(tmp_path)
    assert status_of(folder)["state"] == "failed"
    before = fingerprint(folder)
    assert_refused(run(f"resume={folder}"), "there is no checkpoint.pt")
    assert fingerprint(folder) == before


def test_disk_full_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    outcome = short_run(tmp_path)
    monkeypatch.undo()
    assert_refused(outcome, "cannot write results", "No space left on device")


def start_endless_run(outputs: Path) -> tuple[Process, Path]:
    """A real process, and its folder, once it has written a checkpoint."""
    process = Process("train.py", "algorithm=SAC", *QUICK, f"output_folder={outputs}", start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(outputs.glob("*/*/checkpoint.pt")):
        assert process.poll() is None, process.error
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, run_folders(outputs)[0]


@pytest.mark.parametrize(("number", "exit_status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_from_outside(number: int, exit_status: int, tmp_path: Path) -> None:
    process, folder = start_endless_run(tmp_path)
    before = checkpoint.load(folder / "checkpoint.pt")["step"]
    process.send_signal(number)
    assert process.wait(120) == exit_status
    name = signal.Signals(number).name
    said = "stopping behind this step or evaluation; Ctrl-C again does not wait"
    waits = ["", said] if number == signal.SIGINT else []
    assert process.error.splitlines() == [*waits, f"interrupted: stopped by {name}; go on with resume={folder}"]
    assert status_of(folder)["state"] == "interrupted"
    assert checkpoint.load(folder / "checkpoint.pt")["step"] > before


def test_no_second_process_in_a_folder_and_a_kill(tmp_path: Path) -> None:
    process, folder = start_endless_run(tmp_path)
    try:
        assert_refused(run(f"resume={folder}"), f"process {process.pid} is still at work")
    finally:
        process.kill()
        process.wait()
    assert status_of(folder)["state"] == "running"
    step = checkpoint.load(folder / "checkpoint.pt")["step"]
    assert run(f"resume={folder}", f"steps={step + 10}").status == 0
    assert status_of(folder)["state"] == "finished"


def test_too_little_memory(tmp_path: Path) -> None:
    sizes = "reinforcement.actor.hidden_size=3000000"
    outcome = run("algorithm=SAC", *QUICK, sizes, f"output_folder={tmp_path}")
    assert_refused(outcome, "not enough memory", "smaller networks")
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_of_a_gpu(tmp_path: Path) -> None:
    def full(composed: DictConfig) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    outcome = run("algorithm=SAC", *QUICK, f"output_folder={tmp_path}", task=full)
    assert_refused(outcome, "not enough memory", "smaller networks")
