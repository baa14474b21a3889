"""One algorithm on several environments, judged together: `train_all.py algorithm=<name>`."""

import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override

from conf.errors import UserError
from training.explain import parse_overrides
from training.folder import write_json
from training.sweeps.crew import alone
from training.sweeps.grid import ended, opened, run_jobs, sweep_folder
from training.sweeps.job import quoted
from training.sweeps.options import JointConfig
from training.sweeps.plan import JOINT, Job, Plan, planned
from training.sweeps.results import SeedResult, read_run
from training.sweeps.summary import summarise

BENCHMARK = ("ant", "halfcheetah", "hopper", "walker2d")
Overrides = tuple[str, ...]


def run_joint(typed: Sequence[Override]) -> int:
    """Exit status: 0 all environments finished, 1 some did not.

    Raises:
        UserError, HydraException, OmegaConfBaseException: what was typed is wrong; nothing has been started.
        SweepInterruptedError: a signal came.
    """
    own, options, plan = opened(typed, JointConfig, JOINT)
    assert isinstance(options.sweep, JointConfig)
    if options.sweep.pack_seeds != 1:
        raise UserError("pack_seeds joins the runs of a grid: here runs=<n> trains n seeds of each environment")
    environments, shared = chosen_environments(own, options.sweep.demonstrations)
    for override in parse_overrides(shared):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} gives several values: runs=<n> trains n seeds; -m optimises")
    jobs = new_jobs(environments, shared, plan, options.sweep.demonstrations)
    if plan.folder == Path():
        plan.folder = sweep_folder(own, "", "all")
    with alone(plan.folder):
        plan.jobs += jobs
        plan.save()
        run_jobs(plan, plan.jobs, options)
        print(summarise(plan.folder, plan.jobs))
        report(plan, options.sweep)
        return ended(plan, plan.jobs)


def new_jobs(
    environments: Mapping[str, Overrides], shared: Sequence[str], plan: Plan, demonstrations: str | None
) -> list[Job]:
    """Jobs of environments that are not planned yet.

    Raises:
        UserError: one was planned with other settings, so that a score of all would mean nothing.
    """
    before = {job.name: job.key for job in plan.jobs}
    everywhere = {name: environment(name, demonstrations) for name in before} | dict(environments)
    jobs = [planned(name, [*shared, *extra]) for name, extra in everywhere.items()]
    for job in jobs:
        if before.get(job.name, job.key) != job.key:
            raise UserError(
                f"env={job.name} was planned in {plan.folder} with other settings: expected those, or a new sweep"
            )
    return [job for job in jobs if job.name not in before]


def chosen_environments(
    overrides: Iterable[Override], demonstrations: str | None
) -> tuple[dict[str, Overrides], list[str]]:
    """Overrides that choose each environment, by name, and those that all share.

    Raises:
        UserError: an environment's demonstrations are not in the folder, or an id cannot be used here.
    """
    names: list[str] = []
    shared = []
    for override in overrides:
        if override.key_or_group == "env.id":
            raise UserError(f"{override.input_line}: choose environments by env=<name>,<name>; without env: all")
        if override.key_or_group == "env":
            values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
            names += map(str, values)
        else:
            shared.append(str(override.input_line))
    if not names:
        names = list(BENCHMARK)
    return {name: environment(name, demonstrations) for name in names}, shared


def environment(name: str, demonstrations: str | None) -> Overrides:
    """Its overrides, with its own file of the folder `demonstrations`. Raises UserError where there is not one."""
    return (f"env={name}",) if demonstrations is None else (f"env={name}", own_demonstrations(name, demonstrations))


def own_demonstrations(name: str, folder: str) -> str:
    """The override that names an environment's file in a folder. Raises UserError where there is not one."""
    files = sorted(path for path in Path(folder).glob("*") if re.match(rf"{re.escape(name)}([^a-z0-9]|$)", path.name))
    if len(files) != 1:
        raise UserError(f"demonstrations={folder}: expected one file {name}*, found {len(files)}")
    return f"env.demonstrations={quoted(files[0].resolve())}"


def report(plan: Plan, config: JointConfig) -> None:
    """Print the joint score, and write it with its parts into `result.json`."""
    results = [result for job in plan.jobs for result in read_run(plan.folder / job.name)]
    parts = {job.name: score_of(plan.folder / job.name, config.measure) for job in plan.jobs}
    seeds = joint_scores(results, [job.name for job in plan.jobs], config.objective, config.measure)
    score = statistics.fmean(seeds.values()) if seeds and all(map(math.isfinite, parts.values())) else math.nan
    content = {
        "objective": config.objective,
        "measure": config.measure,
        "score": score if math.isfinite(score) else None,
        "environments": {name: part if math.isfinite(part) else None for name, part in parts.items()},
    }
    write_json(plan.folder / "result.json", content)
    said = f"{score:.3f}" if math.isfinite(score) else "unknown, for not every environment has one"
    print(f"joint score ({config.objective} over environments, {config.measure}): {said}", file=sys.stderr)


def score_of(folder: Path, measure: str) -> float:
    """Mean over the seeds of a finished run; NaN where there is none."""
    results = read_run(folder)
    return statistics.fmean(value(result, measure) for result in results) if results else math.nan


def value(result: SeedResult, measure: str) -> float:
    return result.measured(measure) if result.finished else math.nan


def joint_scores(
    results: Iterable[SeedResult], environments: Sequence[str], objective: str, measure: str
) -> dict[int, float]:
    """By seed: minimum or mean over the environments of the seed's scores; NaN where one is missing."""
    found: dict[int, dict[str, float]] = {}
    for result in results:
        found.setdefault(result.seed, {})[result.environment] = value(result, measure)
    return {seed: joint_score(scores, environments, objective) for seed, scores in sorted(found.items())}


def joint_score(scores: Mapping[str, float], environments: Sequence[str], objective: str) -> float:
    values = [scores.get(name, math.nan) for name in environments]
    if not all(map(math.isfinite, values)):
        return math.nan
    return min(values) if objective == "min" else statistics.fmean(values)
