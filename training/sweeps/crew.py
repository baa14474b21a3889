"""Jobs in hand: submitted to a launcher, watched, and accounted for when they end."""

import fcntl
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conf.errors import UserError
from training.folder import mark_ended
from training.signals import SIGNALS, answered_by
from training.sweeps.launchers import Launcher
from training.sweeps.plan import Job
from training.sweeps.states import LiveTable, job_state

POLL = 0.5  # seconds between looks at what runs


class SweepInterruptedError(KeyboardInterrupt):
    """SIGTERM or Ctrl-C came; the jobs have been asked to write checkpoints."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        super().__init__(f"{signal.Signals(signal_number).name}; go on with resume_sweep={folder}")
        self.exit_status = 128 + signal_number


class Crew:
    """Runs jobs of one sweep to their ends; a job's failure concerns no other."""

    def __init__(self, sweep: Path, launcher: Launcher, table: LiveTable) -> None:
        self.sweep, self.launcher, self.table = sweep, launcher, table
        self.submitted: set[str] = set()

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin, go on with, or retry what has not finished."""
        unfinished = [job for job in jobs if job_state(self.sweep / job.name).state != "finished"]
        self.table.add(unfinished)
        names = [job.name for job in unfinished]
        self.submitted |= set(names)
        self.launcher.submit(names)

    def wait(self) -> set[str]:
        """Names of jobs that have ended, some time after the first of them did; none where none is left."""
        while self.submitted:
            ended = self.launcher.ended(POLL)
            for name, reason in ended.items():
                self._account_for(name, reason)
            self.submitted -= set(ended)
            self.table.refresh(ended)
            if ended:
                return set(ended)
        return set()

    def _account_for(self, name: str, reason: str | None) -> None:
        folder = self.sweep / name
        state = job_state(folder).state
        if state in ("running", "waiting"):  # it could not say so itself
            folder.mkdir(parents=True, exist_ok=True)
            mark_ended(folder, "failed", reason or "the process ended without a word; see logs/")


@contextmanager
def alone(sweep: Path) -> Iterator[None]:
    """Hold the sweep's folder: two processes would run its jobs twice. Let go whatever happens to this one.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    path = sweep / ".lock"
    try:
        file = path.open("w")
    except OSError as error:
        raise UserError(f"cannot write to {sweep}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{sweep}: another process is at work on this sweep") from None
        except OSError as error:  # a network's file system, for one
            raise UserError(f"cannot lock {path}: {error.strerror}; expected a file system that can") from error
        yield


@contextmanager
def interruptible(sweep: Path) -> Iterator[None]:
    """SIGTERM and Ctrl-C raise SweepInterruptedError."""

    def stop(number: int, frame: object) -> None:
        for ignored in SIGNALS:
            signal.signal(ignored, signal.SIG_IGN)  # jobs are writing their checkpoints
        raise SweepInterruptedError(number, sweep)

    with answered_by(stop):
        yield
