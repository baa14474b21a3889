"""A grid of runs: `train.py -m key=1,2,3`, begun, or gone on with by `resume_sweep=<folder>`."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.override_parser.types import Override

from conf.errors import UserError
from training.explain import parse_overrides
from training.folder import new_folder
from training.sweeps import plan as planning
from training.sweeps.crew import Crew, alone, interruptible
from training.sweeps.launchers import make_launcher, on_devices, require
from training.sweeps.options import Options, SweepConfig, parse_options, split
from training.sweeps.plan import GRID, Job, Plan, grid, packed, planned, resumed_plan
from training.sweeps.states import LiveTable, counts, job_state
from training.sweeps.summary import summarise, unfinished


def run_grid(typed: Sequence[Override]) -> int:
    """Exit status: 0 all runs finished, 1 some did not.

    Raises:
        UserError, HydraException, OmegaConfBaseException: what was typed is wrong; nothing has been started.
        SweepInterruptedError: a signal came.
    """
    own, options, plan = opened(typed, SweepConfig, GRID)
    jobs = planned_jobs(packed(grid(own), options.sweep.pack_seeds), plan)
    if plan.folder == Path():
        plan.folder = sweep_folder(own, "sweep")
    with alone(plan.folder):
        plan.jobs += jobs
        plan.save()
        run_jobs(plan, plan.jobs, options)
        print(summarise(plan.folder, plan.jobs))
        return ended(plan, plan.jobs)


def opened(typed: Sequence[Override], schema: type[SweepConfig], maker: str) -> tuple[list[Override], Options, Plan]:
    """Overrides of the runs, options of the sweep, and its plan: a new one, or that of `resume_sweep`.

    What is typed now replaces what was typed when the sweep began.

    Raises:
        UserError: an option of the sweep is wrong, its launcher cannot be used, or has not the device of the runs; or
            it is not one of this program's.
    """
    saved = resumed_plan(typed)
    if saved and saved.maker != maker:
        raise UserError(f"resume_sweep={saved.folder}: this sweep was begun by {saved.maker}, which goes on with it")
    settings, own = split(replaced(saved.overrides if saved else [], typed))
    options = parse_options(settings, schema, "a sweep")
    require(options.launcher)
    options = replace(options, launcher=on_devices(options.launcher, planning.values(own, "device")))
    lines = [str(override.input_line) for override in (*own, *settings) if override.key_or_group != "resume_sweep"]
    if saved:
        saved.overrides = lines
        return own, options, saved
    return own, options, Plan(Path(), maker, shlex.join(sys.argv), lines, [])


def replaced(saved: Iterable[str], typed: Sequence[Override]) -> list[Override]:
    keys = {override.key_or_group for override in typed}
    return [*(old for old in parse_overrides(saved) if old.key_or_group not in keys), *typed]


def planned_jobs(wanted: Sequence[tuple[str, ...]], plan: Plan) -> list[Job]:
    """Jobs from the overrides of runs, numbered on from those that are planned already; all of them checked."""
    before = {job.overrides for job in plan.jobs}
    runs = [run for run in wanted if run not in before]
    first = len(plan.jobs)
    keys = {job.key for job in plan.jobs}
    jobs: list[Job] = []
    for run in runs:
        job = planned(str(first + len(jobs)), run)
        if job.key not in keys:
            keys.add(job.key)
            jobs.append(job)
    if len(jobs) < len(runs):
        print(f"{len(runs) - len(jobs)} runs are the same as others, and left out", file=sys.stderr)
    return jobs


def sweep_folder(overrides: Sequence[Override], kind: str, environment: str | None = None) -> Path:
    """A new folder `<output_folder>/<ALGORITHM>_<ENVIRONMENT>_<kind>/<time>`."""
    algorithm = planning.fixed_value(overrides, "algorithm", "")
    named = planning.fixed_value(overrides, "env.id", "") or planning.fixed_value(overrides, "env", "hopper")
    output = planning.fixed_value(overrides, "output_folder", "outputs")
    name = "_".join(filter(None, [algorithm, (environment or named).replace("/", "-"), kind]))
    return new_folder(Path(output) / name).resolve()


def run_jobs(plan: Plan, jobs: Sequence[Job], options: Options) -> None:
    """Run to their ends those jobs that have not finished."""
    left = [job for job in jobs if job_state(plan.folder / job.name).state != "finished"]
    print(f"{len(jobs)} jobs, {len(jobs) - len(left)} of them finished; results in {plan.folder}", file=sys.stderr)
    if not left:
        return
    with interruptible(plan.folder):
        launcher = make_launcher(options.launcher, plan.folder, len(left))
        try:
            crew = Crew(plan.folder, launcher, LiveTable(plan.folder))
            crew.start(left)
            while crew.wait():
                pass
        finally:
            launcher.close()


def ended(plan: Plan, jobs: Sequence[Job]) -> int:
    """Exit status of a sweep; says on stderr what did not finish, and why."""
    print(counts(job_state(plan.folder / job.name) for job in jobs), file=sys.stderr)
    problems = unfinished(plan.folder, jobs)
    for line in problems:
        print(f"not finished: {line}", file=sys.stderr)
    if problems:
        print(f"retry with resume_sweep={plan.folder}", file=sys.stderr)
    return 1 if problems else 0


def refuse_hydra(overrides: Iterable[Override]) -> None:
    """Raises UserError for options of Hydra's own sweeps, which these are not."""
    for override in overrides:
        key = override.key_or_group
        if key == "hydra/launcher":
            raise UserError(f"{override.input_line}: choose where jobs run by launcher=local, slurm or ray")
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            raise UserError(f"{override.input_line} has no effect on a sweep: leave it out")
