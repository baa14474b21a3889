"""Trials of an optimisation: what was tried, what came of it, and the file that keeps both."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from conf.errors import UserError
from training.folder import write_json
from training.sweeps.space import Value

FORMAT = 1
NAME = "optimisation.json"


@dataclass
class Trial:
    """One set of values, and its scores on some seeds."""

    number: int | None  # Ax's; None: the configuration that was typed, without the search
    values: dict[str, Value]
    seeds: list[int]
    state: str = "running"  # completed, failed
    scores: list[float] = field(default_factory=list)  # of each seed
    mean: float | None = None
    standard_error: float | None = None  # of the mean; None for one seed
    error: str | None = None

    @property
    def name(self) -> str:
        return "default" if self.number is None else str(self.number)


@dataclass
class Record:
    """Everything that an optimisation has to remember, in one file that is replaced as a whole."""

    folder: Path
    algorithm: str
    environments: list[str]
    fixed: list[str]  # what the search space fixes
    trials: list[Trial]  # in the order in which they ended; those that run come last
    finals: list[Trial]  # the best of them and the default, on fresh seeds
    ax: dict[str, Any]

    def save(self) -> None:
        content = {"format": FORMAT, **asdict(self)}
        del content["folder"]
        write_json(self.folder / NAME, content)

    @property
    def completed(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "completed"]

    def best(self, count: int = 1) -> list[Trial]:
        return sorted(self.completed, key=score, reverse=True)[:count]

    def ended(self, trial: Trial) -> None:
        """Move a trial behind those that ended before."""
        self.trials.remove(trial)
        running = [other for other in self.trials if other.state == "running"]
        self.trials = [*(other for other in self.trials if other.state != "running"), trial, *running]


def score(trial: Trial) -> float:
    return -math.inf if trial.mean is None else trial.mean


def load_record(folder: Path) -> Record:
    """Raises UserError where there is no optimisation in `folder`, or its file is damaged."""
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of an optimisation: there is no {NAME}")
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise UserError(f"{path} is of another format: this version reads format {FORMAT}")
        trials, finals = ([_trial(**trial) for trial in content.pop(name)] for name in ("trials", "finals"))
        return Record(folder=folder, trials=trials, finals=finals, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): expected the state of an optimisation") from error


def _trial(**content: Any) -> Trial:
    """Raises TypeError where a part of it is of another kind."""
    trial = Trial(**content)
    numbers = (trial.mean, trial.standard_error, *trial.scores)
    if not isinstance(trial.values, dict) or not all(n is None or isinstance(n, (int, float)) for n in numbers):
        raise TypeError("values or scores of a trial")
    return trial


def without_improvement(trials: Sequence[Trial]) -> int:
    """Completed trials since the highest mean so far, in the order in which they ended; higher is better."""
    best, count = -math.inf, 0
    for trial in trials:
        if trial.state == "completed":
            improved = score(trial) > best
            best, count = max(best, score(trial)), 0 if improved else count + 1
    return count
