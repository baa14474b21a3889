"""What has become of a sweep's jobs: read from their folders, shown while they run."""

import csv
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from training.folder import read_status
from training.sweeps.plan import Job, own_overrides

STATES = ("finished", "failed", "interrupted", "running", "waiting")
URGENCY = ("running", "failed", "interrupted", "waiting", "finished")  # where a terminal is too small for all
ERASE = "\x1b[{lines}F\x1b[J"  # up so many lines, and clear what follows


@dataclass(frozen=True)
class JobState:
    """Of one job, now."""

    state: str  # one of STATES
    step: int = 0
    score: float | None = None  # mean over seeds of the last evaluation; of returns where no scores are known
    error: str | None = None


def job_state(folder: Path) -> JobState:
    """From what the job has written so far; a job without a folder is waiting."""
    status = read_status(folder)
    state = str(status.get("state", "waiting"))
    return JobState(state, int(status.get("step", 0)), last_score(folder), status.get("error"))


def last_score(folder: Path) -> float | None:
    """Mean over seeds of their last evaluation: the score, or the return where no score is known."""
    last: dict[str, dict[str, str]] = {}
    try:
        with (folder / "evaluations.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                last[row["seed"]] = row
        scores = [float(row["score"]) for row in last.values()]
        returns = [float(row["return_mean"]) for row in last.values()]
    except (OSError, ValueError, KeyError, TypeError):  # nothing there yet, or a row is being written
        return None
    if not scores:
        return None
    mean = sum(scores) / len(scores)
    return mean if mean == mean else sum(returns) / len(returns)  # NaN: no references are known


class LiveTable:
    """States of the jobs: redrawn in place on a terminal, otherwise a line for each change."""

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        self.stream: TextIO = sys.stderr
        self.jobs: dict[str, str] = {}  # names, and what was typed for them
        self.states: dict[str, JobState] = {}
        self.ended: set[str] = set()
        self.drawn = 0

    def add(self, jobs: Sequence[Job]) -> None:
        """Show these jobs; what they were before they begin, or begin again, is of no interest."""
        self.jobs |= own_overrides(jobs)
        for job in jobs:
            self.states[job.name] = JobState("waiting")

    def refresh(self, ended: Iterable[str] = ()) -> None:
        """Show what has changed. `ended`: jobs that will not change any more."""
        fresh = set(ended)
        for name in [name for name in self.jobs if name not in self.ended]:
            before, now = self.states[name], job_state(self.sweep / name)
            if now.state in ("failed", "interrupted") and name not in fresh:
                now = JobState("waiting")  # from an earlier attempt
            self.states[name] = now
            if not self.stream.isatty() and now.state != before.state:
                print(f"{name}: {shown(now)}  {self.jobs[name]}", file=self.stream, flush=True)
        self.ended |= fresh
        if self.stream.isatty():
            self._draw()

    def _draw(self) -> None:
        size = os.get_terminal_size(self.stream.fileno())
        order = sorted(self.jobs, key=lambda name: URGENCY.index(self.states[name].state))
        rows = [f"{name:>6} {shown(self.states[name])}  {self.jobs[name]}" for name in order[: size.lines - 3]]
        lines = [line[: size.columns - 1] for line in (counts(self.states.values()), *rows)]
        self.stream.write(ERASE.format(lines=self.drawn) if self.drawn else "")
        self.stream.write("\n".join(lines) + "\n")
        self.stream.flush()
        self.drawn = len(lines)


def shown(job: JobState) -> str:
    """A cell for a person: `finished, score 0.981`."""
    parts = [job.state]
    if job.state == "running" and job.step:
        parts.append(f"step {job.step}")
    if job.score is not None:
        parts.append(f"score {job.score:.3f}")
    if job.error:
        parts.append(" ".join(job.error.split())[:200])
    return ", ".join(parts)


def counts(states: Iterable[JobState]) -> str:
    """`3 finished, 1 failed, 2 running`."""
    found = [job.state for job in states]
    return ", ".join(f"{found.count(state)} {state}" for state in STATES if state in found)
