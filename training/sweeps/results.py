"""Runs of any folders, read back for tables: each seed with its evaluations, its references, and how it ended."""

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from conf.errors import UserError
from environments.reference_scores import reference_scores
from training.folder import read_status
from training.sweeps.job import ATTEMPTS

MEASURES = ("final", "best", "mean")
# What may differ between the seeds of one group.
UNGROUPED = (
    "seed", "runs", "threads", "device", "debug", "resume", "output_folder", "logging", "checkpoint",
    "save_trajectories", "render",
)  # fmt: skip
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
    error: str | None
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
        scores = [evaluation.score for evaluation in self.last_phase]
        if measure == "final":
            return scores[-1]
        return max(scores) if measure == "best" else sum(scores) / len(scores)

    @property
    def final_return(self) -> float:
        return self.evaluations[-1].episode_return

    @property
    def steps(self) -> int:
        return self.evaluations[-1].step

    @cached_property
    def group(self) -> str:
        """The same for runs that share everything but the seed."""
        return json.dumps({k: v for k, v in self.config.items() if k not in UNGROUPED}, sort_keys=True, default=str)

    @property
    def group_over_environments(self) -> str:
        """The same for runs that share everything but seed and environment."""
        compared = {k: v for k, v in self.config.items() if k not in UNGROUPED and k != "env"}
        return json.dumps(compared, sort_keys=True, default=str)


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Folders of runs in and below `folders`, each once; abandoned attempts left out.

    Raises:
        UserError: one of the folders does not exist, or holds no run.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: expected one of runs, or of a sweep")
        below = [path.parent for path in sorted(folder.rglob("status.json")) if ATTEMPTS not in path.parts]
        if not below:
            raise UserError(f"there is no run in {folder}: expected status.json somewhere below")
        found |= dict.fromkeys(path.resolve() for path in below)
    return list(found)


def read_run(folder: Path) -> list[SeedResult]:
    """Every seed of a run, however far it came; nothing where not even its configuration can be read."""
    status = read_status(folder)
    try:
        config = yaml.load((folder / ".hydra" / "config.yaml").read_text(), Loader)
        first, runs = int(config["seed"]), int(config["runs"])
        config["algorithm"], config["env"]["name"], config["imitation"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return []
    evaluations = read_evaluations(folder / "evaluations.csv")
    state = str(status.get("state", "damaged"))
    return [
        SeedResult(folder, seed, state, status.get("error"), config, tuple(evaluations.get(seed, ())))
        for seed in range(first, first + runs)
    ]


def read_evaluations(path: Path) -> dict[int, list[Evaluation]]:
    """Evaluations of each seed, up to the first damaged row."""
    found: dict[int, list[Evaluation]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                values = [float(row[name]) for name in ("return_mean", "score", "seconds")]
                found.setdefault(int(row["seed"]), []).append(Evaluation(row["phase"], int(row["step"]), *values))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return found


def expert_return(environment_id: str) -> float:
    return reference_scores(environment_id).expert


def grouped(results: Iterable[SeedResult]) -> list[list[SeedResult]]:
    """By everything but the seed, in the order of first appearance; the seeds in order."""
    groups: dict[str, list[SeedResult]] = {}
    for result in results:
        groups.setdefault(result.group, []).append(result)
    return [sorted(group, key=lambda result: result.seed) for group in groups.values()]


def duplicates(group: Sequence[SeedResult]) -> list[SeedResult]:
    """Finished runs of a seed beyond its first one."""
    seen: set[int] = set()
    again = []
    for result in group:
        if result.finished:
            if result.seed in seen:
                again.append(result)
            seen.add(result.seed)
    return again


def labels(groups: Sequence[Sequence[SeedResult]]) -> list[str]:
    """What tells groups apart: algorithm and environment, and the keys in which they differ."""
    flat = [_leaves(group[0].config) for group in groups]
    keys = [key for key in sorted({key for leaves in flat for key in leaves}) if _telling(key)]
    different = [key for key in keys if len({json.dumps(leaves.get(key), default=str) for leaves in flat}) > 1]
    names = []
    for group, leaves in zip(groups, flat, strict=True):
        peers = [f for g, f in zip(groups, flat, strict=True) if _subject(g[0]) == _subject(group[0])]
        own = [k for k in different if len({json.dumps(f.get(k), default=str) for f in peers}) > 1]
        names.append(" ".join([_subject(group[0]), *(f"{key}={leaves.get(key)}" for key in own)]))
    return names


def _subject(result: SeedResult) -> str:
    return f"{result.algorithm} {result.environment}"


def _telling(key: str) -> bool:
    return key.split(".")[0] not in UNGROUPED and key not in ("algorithm", "env.name", "env.id")


def _leaves(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def known(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
