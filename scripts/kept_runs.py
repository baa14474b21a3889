"""Runs whose raw files are kept in docs/results: reading them, and the numbers that claims rest on."""

import json
import math
import re
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from conf.errors import UserError
from training.sweeps.results import Evaluation, read_evaluations

REACHED = 0.9  # of the demonstrations' mean return
LAST = 5  # evaluations whose mean is less a matter of luck than the last one alone
UNCOMPARED = ("seed", "output_folder", "resume", "debug", "logging")  # may differ between runs of one row


@dataclass(frozen=True)
class SeedRun:
    """One seed of a run: its evaluations, in order, beside what they are compared with."""

    run_id: str
    seed: int
    evaluations: tuple[Evaluation, ...]
    demonstrations: float | None = None  # mean return
    expert: float | None = None

    @property
    def final(self) -> Evaluation:
        return self.evaluations[-1]

    @property
    def best(self) -> Evaluation:
        return max(self.evaluations, key=lambda evaluation: evaluation.episode_return)

    @property
    def last_phase(self) -> tuple[Evaluation, ...]:
        return tuple(evaluation for evaluation in self.evaluations if evaluation.phase == self.final.phase)

    @property
    def last_mean(self) -> float:
        """Mean of the last five evaluations of the last phase, or of all where there are fewer."""
        return statistics.fmean(evaluation.episode_return for evaluation in self.last_phase[-LAST:])

    @property
    def reached(self) -> Evaluation | None:
        """The first evaluation at or above 90% of the demonstrations' mean return."""
        if not self.comparable:
            return None
        threshold = REACHED * (self.demonstrations or 0.0)
        return next((found for found in self.evaluations if found.episode_return >= threshold), None)

    @property
    def seconds_to_reach(self) -> float:
        """Infinity where it was never reached."""
        return math.inf if self.reached is None else self.reached.seconds

    @property
    def steps_to_reach(self) -> float:
        """Steps of the last phase: 0 where pretraining was enough, infinity where it was never reached."""
        if self.reached is None:
            return math.inf
        return self.reached.step if self.reached.phase == self.final.phase else 0

    @property
    def comparable(self) -> bool:
        """Fractions of a return that is not positive say nothing."""
        return self.demonstrations is not None and self.demonstrations > 0

    def fraction(self, episode_return: float) -> float:
        """Of the demonstrations' mean return; NaN where that says nothing."""
        return episode_return / self.demonstrations if self.demonstrations and self.comparable else math.nan


@dataclass(frozen=True)
class KeptRun:
    """One program that trained one or several seeds side by side."""

    run_id: str
    config: dict[str, Any]
    overrides: tuple[str, ...]
    status: dict[str, Any]
    result: dict[str, Any]
    note: str
    seeds: tuple[SeedRun, ...]

    @property
    def name(self) -> str:
        return f"{self.config['algorithm']} on {self.config['env']['id']}"

    @property
    def state(self) -> str:
        return str(self.status["state"])

    @property
    def wall_seconds(self) -> float:
        """Of the whole run; up to the last evaluation where it did not finish."""
        found = known(self.result.get("wall_seconds"))
        return max(seed.final.seconds for seed in self.seeds) if found is None else float(found)

    @property
    def steps_per_second(self) -> float:
        """Of the last phase, over the whole run; NaN where it did not finish."""
        return self.seeds[0].final.step / self.wall_seconds if known(self.result.get("wall_seconds")) else math.nan

    @property
    def own_overrides(self) -> dict[str, str]:
        """Without those that may differ between the runs of a row."""
        pairs = [item.partition("=") for item in self.overrides]
        return {key: value for key, _, value in pairs if key.lstrip("+").split(".")[0] not in UNCOMPARED}

    @property
    def command(self) -> str:
        return shlex.join(["python", "train.py", *(f"{key}={value}" for key, value in self.own_overrides.items())])

    @cached_property
    def row_key(self) -> str:
        """The same for runs that share everything but the seed."""
        compared = {name: value for name, value in self.config.items() if name not in UNCOMPARED}
        demonstrations = known(self.result.get("demonstration_return"))
        rounded = None if demonstrations is None else round(demonstrations, 1)
        return json.dumps([compared, self.state, rounded], sort_keys=True)


def load_experiment(folder: Path) -> list[list[KeptRun]]:
    """The rows of an experiment: runs that share everything but the seed, in the order of their names."""
    folders = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: natural(path.name))
    rows: dict[str, list[KeptRun]] = {}
    for run in map(load_run, folders):
        rows.setdefault(run.row_key, []).append(run)
    return [sorted(runs, key=lambda run: (run.seeds[0].seed, natural(run.run_id))) for runs in rows.values()]


def natural(name: str) -> list[tuple[int, str]]:
    """Sorts 10 after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def load_run(folder: Path) -> KeptRun:
    """Raises UserError where a file is missing or damaged."""
    result = read_result(folder / "result.json") if (folder / "result.json").exists() else {}
    config = read_config(folder / "config.yaml")
    seeds = seeds_of(config)
    evaluations = evaluations_of(folder / "evaluations.csv", seeds)
    demonstrations = known(result.get("demonstration_return"))
    expert = known(result.get("references", {}).get("expert"))
    note = folder / "note.txt"
    return KeptRun(
        run_id=folder.name,
        config=config,
        overrides=tuple(read_overrides(folder / "overrides.yaml")),
        status={"state": "unknown", **read_json(folder / "status.json")},
        result=result,
        note=note.read_text().strip() if note.exists() else "",
        seeds=tuple(
            SeedRun(folder.name, seed, own, demonstrations, expert)
            for seed, own in zip(seeds, evaluations, strict=True)
        ),
    )


def known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: expected names and values")
    return content


def read_result(path: Path) -> dict[str, Any]:
    """Raises UserError where the file is missing or damaged."""
    content = read_json(path)
    references = content.get("references", {})
    if not isinstance(references, dict):
        raise UserError(f"{path} is damaged: references is {references!r}, expected expert and random")
    numbers = {name: references.get(name) for name in ("expert", "random")}
    numbers |= {name: content.get(name) for name in ("demonstration_return", "wall_seconds", "steps_per_second")}
    for name, value in numbers.items():
        if not isinstance(value, int | float | None):
            raise UserError(f"{path} is damaged: {name} is {value!r}, expected a number")
    return content


def read_config(path: Path) -> dict[str, Any]:
    content = _read_yaml(path)
    if not isinstance(content, dict) or not {"algorithm", "seed", "runs", "env"} <= set(content):
        raise UserError(f"{path} is damaged: expected a run's settings")
    env = content["env"]
    if not isinstance(env, dict) or not all(isinstance(env.get(name), str) for name in ("name", "id")):
        raise UserError(f"{path} is damaged: env is {env!r}, expected settings with a name and an id")
    return content


def read_overrides(path: Path) -> list[str]:
    content = _read_yaml(path)
    if not isinstance(content, list):
        raise UserError(f"{path} is damaged: expected a list of key=value")
    return [str(item) for item in content]


def _read_yaml(path: Path) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:  # whatever a YAML parser may raise
        raise UserError(f"{path} is missing or damaged ({type(error).__name__})") from error


def seeds_of(config: dict[str, Any]) -> list[int]:
    """Raises UserError where the configuration is damaged."""
    first, runs = config.get("seed"), config.get("runs")
    if not isinstance(first, int) or not isinstance(runs, int) or runs < 1:
        raise UserError(f"seed={first} and runs={runs} in a kept configuration: expected whole numbers, runs from 1")
    return list(range(first, first + runs))


def evaluations_of(path: Path, seeds: Sequence[int]) -> list[tuple[Evaluation, ...]]:
    """The evaluations of each seed, at least one.

    Raises:
        UserError: the table is missing or damaged, or is of other seeds.
    """
    found, damage = read_evaluations(path)
    if damage:
        raise UserError(f"{path} is missing or damaged ({damage})")
    if missing := [seed for seed in seeds if seed not in found]:
        raise UserError(f"{path} has no evaluation of seed {missing[0]}")
    if others := sorted(found.keys() - set(seeds)):
        raise UserError(f"{path} has evaluations of seed {others[0]}: expected {seeds[0]} to {seeds[-1]}")
    return [tuple(found[seed]) for seed in seeds]
