"""Runs of any folders, read back for tables: each seed with its evaluations, its references, and how it ended."""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from conf.errors import UserError
from environments.reference_scores import reference_scores
from training.folder import read_status
from training.sweeps.job import ATTEMPTS
from training.sweeps.plan import load_plan

MEASURES = ("final", "best", "mean")
# What may differ between the seeds of one group.
UNGROUPED = (
    "seed", "runs", "threads", "device", "debug", "resume", "output_folder", "logging", "checkpoint",
    "save_trajectories", "render",
)  # fmt: skip
MOST_TOLD = 3  # settings that a label tells in any case
TOLD_FIRST = ("imitation.trajectories", "steps")
NO_SCORE = "no score: no reference returns are known"
# Of `env`, what says which environment it is.
IDENTITY = ("name", "id", "version", "fixed_horizon", "demonstrations")
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it has been compiled


@dataclass(frozen=True)
class Evaluation:
    """One row of `evaluations.csv`. `score` is NaN where no references are known."""

    phase: str
    step: int
    episode_return: float
    score: float
    seconds: float


@dataclass(frozen=True)
class SeedResult:
    """One seed of a run."""

    folder: Path
    seed: int
    state: str
    error: str  # empty where there is none
    config: dict[str, Any]
    evaluations: tuple[Evaluation, ...]

    @property
    def algorithm(self) -> str:
        return str(self.config["algorithm"])

    @property
    def environment(self) -> str:
        return str(self.config["env"]["name"])

    @property
    def trajectories(self) -> int:
        return int(self.config["imitation"].get("trajectories", 0))

    @property
    def finished(self) -> bool:
        return self.state == "finished" and bool(self.evaluations)

    @property
    def last_phase(self) -> tuple[Evaluation, ...]:
        phase = self.evaluations[-1].phase
        return tuple(evaluation for evaluation in self.evaluations if evaluation.phase == phase)

    def measured(self, measure: str) -> float:
        """The score by one of `MEASURES`: the last evaluation, the highest, or the mean of those of the last phase."""
        return _measured([evaluation.score for evaluation in self.last_phase], measure)

    def measured_return(self, measure: str) -> float:
        """As `measured`, of returns."""
        return _measured([evaluation.episode_return for evaluation in self.last_phase], measure)

    @property
    def scored(self) -> bool:
        """Whether every evaluation of the last phase has a score."""
        return all(math.isfinite(evaluation.score) for evaluation in self.last_phase)

    @property
    def final_return(self) -> float:
        return self.evaluations[-1].episode_return

    @property
    def steps(self) -> int:
        return self.evaluations[-1].step

    @cached_property
    def group(self) -> str:
        """The same for runs that share everything but the seed."""
        return self._compared(())

    @cached_property
    def group_over_environments(self) -> str:
        """The same for runs that share everything but seed and environment."""
        return self._compared(IDENTITY)

    def _compared(self, ignored: Sequence[str]) -> str:
        """Of the configuration, without what changes no number and, of the environment, what is ignored."""
        compared = {k: v for k, v in self.config.items() if k not in UNGROUPED}
        compared["env"] = {k: v for k, v in self.config["env"].items() if k not in ("threads", *ignored)}
        return json.dumps(compared, sort_keys=True, default=str)


def _measured(values: Sequence[float], measure: str) -> float:
    if measure == "final":
        return values[-1]
    return max(values) if measure == "best" else sum(values) / len(values)


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Folders of runs in and below `folders`, each once; abandoned attempts left out.

    Raises:
        UserError: one of the folders does not exist, or holds no run.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: expected one of runs, or of a sweep")
        # A run that was killed at once has nothing but its configuration.
        below = [path for path, names in _walk(folder) if names & {"status.json", ".hydra"}]
        if not below:
            raise UserError(f"there is no run in {folder}: expected status.json somewhere below")
        found |= dict.fromkeys(sorted(path.resolve() for path in below))
    return list(found)


def missing_jobs(folders: Iterable[Path]) -> list[Path]:
    """Folders that the jobs of sweeps in and below `folders` would have, and that are not there, each once.

    Where a sweep's plan is damaged, the plan.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        for sweep in sorted(path.resolve() for path, names in _walk(folder) if "sweep.json" in names):
            try:
                jobs = [sweep / job.name for job in load_plan(sweep).jobs]
            except UserError:
                jobs = [sweep / "sweep.json"]
            found |= dict.fromkeys(path for path in jobs if not path.is_dir())
    return list(found)


def _walk(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every folder in and below `folder`, with the names of what is in it."""
    for path, folders, files in os.walk(folder):
        yield Path(path), {*folders, *files}
        folders[:] = [name for name in folders if name != ATTEMPTS]


def read_run(folder: Path) -> list[SeedResult]:
    """Every seed of a run, however far it came; nothing where not even its configuration can be read."""
    status = read_status(folder)
    try:
        config = _read_config(folder)
        seeds = range(int(config["seed"]), int(config["seed"]) + int(config["runs"]))
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError):
        return []
    evaluations, damage = read_evaluations(folder / "evaluations.csv")
    state, error = str(status.get("state", "damaged")), str(status.get("error") or "")
    if state == "finished" and damage:
        state, error = "damaged", damage
    return [SeedResult(folder, seed, state, error, config, tuple(evaluations.get(seed, ()))) for seed in seeds]


def _read_config(folder: Path) -> dict[str, Any]:
    """With everything that is asked for of a result. Raises what a damaged file may lead to."""
    path = folder / ".hydra" / "config.yaml"
    if not path.exists():
        path = folder / "config.yaml"  # of runs that are kept in docs/results
    config: dict[str, Any] = yaml.load(path.read_text(), Loader)
    config["algorithm"], config["env"]["name"], config["env"]["id"]
    int(config["imitation"].get("trajectories", 0))
    return config


def read_evaluations(path: Path) -> tuple[dict[int, list[Evaluation]], str]:
    """Evaluations of each seed, up to the first damaged row; and what is wrong, empty where nothing is."""
    found: dict[int, list[Evaluation]] = {}
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            for row in rows:
                values = [float(row[name]) for name in ("return_mean", "score", "seconds")]
                found.setdefault(int(row["seed"]), []).append(Evaluation(row["phase"], int(row["step"]), *values))
    except OSError as error:
        return found, f"{path.name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, csv.Error):
        return found, f"{path.name} is damaged in line {rows.line_num}"
    return found, ""


def expert_return(environment_id: str) -> float:
    return reference_scores(environment_id).expert


def grouped(results: Iterable[SeedResult]) -> list[list[SeedResult]]:
    """By everything but the seed, in the order of first appearance; the seeds in order."""
    groups: dict[str, list[SeedResult]] = {}
    for result in results:
        groups.setdefault(result.group, []).append(result)
    return [sorted(group, key=lambda result: result.seed) for group in groups.values()]


def left_out(group: Sequence[SeedResult]) -> list[str]:
    """Of each result, why no statistic counts it; empty where it is counted."""
    seen: set[int] = set()
    reasons = []
    for result in group:
        if result.state != "finished":
            why = f": {' '.join(result.error.split())}" if result.error else ""
            reasons.append(f"incomplete ({result.state}{why})")
        elif not result.evaluations:
            reasons.append("incomplete (no evaluations)")
        elif result.seed in seen:
            reasons.append("another run of this seed is counted")
        else:
            seen.add(result.seed)
            reasons.append("" if result.scored else NO_SCORE)
    return reasons


def counted(group: Sequence[SeedResult]) -> list[SeedResult]:
    """Finished seeds with known scores, each once."""
    return [result for result, reason in zip(group, left_out(group), strict=True) if not reason]


def labels(groups: Sequence[Sequence[SeedResult]], over_environments: bool = False) -> list[str]:
    """What tells groups apart: algorithm and environment, and settings in which those that share both differ.

    `over_environments`: without the environment, and all that comes with it.
    """
    ignored = ("algorithm", *(f"env.{name}" for name in (IDENTITY if over_environments else ("name", "id"))))
    names = [group[0].algorithm + ("" if over_environments else f" {group[0].environment}") for group in groups]
    settings = [
        {k: v for k, v in leaves(group[0].config).items() if k.split(".")[0] not in UNGROUPED and k not in ignored}
        for group in groups
    ]
    found = list(names)
    for name in set(names):
        members = [index for index, other in enumerate(names) if other == name]
        told, more = _telling([settings[index] for index in members])
        for index in members:
            words = [f"{key}={settings[index].get(key)}" for key in told]
            found[index] = " ".join([name, *words, *([f"(and {more} more settings)"] if more else [])])
    return found


def _telling(configurations: Sequence[dict[str, Any]]) -> tuple[list[str], int]:
    """Keys whose values tell configurations apart, and how many more differ: all where those are few."""
    same = shared(configurations)
    different = sorted({key for settings in configurations for key in settings} - set(same))
    if len(different) <= MOST_TOLD:
        return different, 0

    def told_apart(keys: Sequence[str]) -> int:
        return len({tuple(str(settings.get(key)) for key in keys) for settings in configurations})

    candidates = sorted(different, key=lambda key: key not in TOLD_FIRST)  # of equals, max takes the first
    chosen: list[str] = []
    while told_apart(chosen) < len(configurations):
        best = max(candidates, key=lambda key: told_apart([*chosen, key]))
        if told_apart([*chosen, best]) == told_apart(chosen):
            break
        chosen.append(best)
    return chosen, len(different) - len(chosen)


def leaves(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration as single values, by keys with dots."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def shared(configurations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is the same in all configurations, of single values."""
    first, *others = configurations
    return {key: value for key, value in first.items() if all(key in o and str(o[key]) == str(value) for o in others)}


def known(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
