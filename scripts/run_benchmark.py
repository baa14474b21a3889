"""A whole suite, every algorithm on every environment with every number of trajectories and every seed, and its report.

    python scripts/run_benchmark.py algorithm=BC,GAIL,PWIL env=hopper,pendulum imitation.trajectories=5 seed=1,2,3,4,5
    python scripts/run_benchmark.py algorithm=BC,GAIL env=hopper seed=range(1,6) presets=true --dry-run
    python scripts/run_benchmark.py resume_sweep=outputs/benchmark/<time>

Words are those of `train.py -m`, and a suite is such a sweep, in outputs/benchmark/<time>/<number>/: it can be killed
and resumed, and a job that fails concerns no other. What an algorithm has no use for is left out of its jobs: `steps`
where it takes none (BC), `imitation.trajectories` where it needs no demonstrations (SAC). Options of a suite, besides
those of every sweep:

  presets=true             for each algorithm its preset of this environment, or of this number of trajectories
  demonstrations=<folder>  for each environment its file <environment>* there; otherwise the bundled set
  measure=final|best|mean  what the report counts of each seed

--dry-run starts nothing. The plan with an estimated time goes to stderr, and to stdout a command for each job, one a
line: `... --dry-run | parallel -j 4` runs them, and scripts/summarise.py reads what they leave.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hydra.core.override_parser.types import Override

from conf.errors import UserError
from scripts import summarise
from scripts.command_line import Parser, duration
from scripts.run_times import estimated_seconds
from training.build import needs_demonstrations
from training.cli import errors_in_one_line
from training.config import parse, register_schemas
from training.explain import parse_overrides
from training.folder import new_folder
from training.sweeps.command import checked
from training.sweeps.crew import alone
from training.sweeps.grid import ended, opened, planned_jobs, run_jobs
from training.sweeps.joint import own_demonstrations
from training.sweeps.launchers import cores
from training.sweeps.options import BenchmarkConfig, LauncherConfig, LocalConfig, Options, RayConfig, SlurmConfig
from training.sweeps.plan import BENCHMARK, Job, composed, fixed_value, grid, packed
from training.sweeps.preset import PRESETS
from training.sweeps.states import job_state

SEED, STEPS, TRAJECTORIES, PRESET = "seed", "steps", "imitation.trajectories", "optimised_hyperparameters"
Overrides = tuple[str, ...]


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py -m; several values: a,b,c")
    parser.add_argument("--dry-run", action="store_true", help="print plan, estimated time and commands")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit status: 0 all jobs finished, 1 some did not, 2 refused with one line that says why, 128 + n by signal n."""
    with errors_in_one_line(lambda: True):
        options = parser().parse_intermixed_args(arguments)
        sys.exit(run_benchmark(options.overrides, options.dry_run))


def run_benchmark(overrides: Sequence[str], dry_run: bool) -> int:
    """Exit status: 0, or 1 where a job did not finish, or could not even begin.

    Raises:
        UserError, HydraException, OmegaConfBaseException: what was typed is wrong; nothing has been started.
        SweepInterruptedError: a signal came.
    """
    register_schemas()
    own, options, plan = opened(checked(parse_overrides(overrides)), BenchmarkConfig, BENCHMARK)
    assert isinstance(options.sweep, BenchmarkConfig)
    jobs = planned_jobs(packed(suite(own, options.sweep), options.sweep.pack_seeds), plan)
    if dry_run:
        new = plan.folder == Path()  # a folder of its own comes later: nothing of it has finished
        left = [job for job in [*plan.jobs, *jobs] if new or job_state(plan.folder / job.name).state != "finished"]
        return show(left, options)
    if plan.folder == Path():
        plan.folder = new_folder(Path(fixed_value(own, "output_folder", "outputs")) / "benchmark").resolve()
    with alone(plan.folder):
        plan.jobs += jobs
        plan.save()
        run_jobs(plan, plan.jobs, options)
        report = [str(plan.folder), "--output", str(plan.folder / "report"), "--measure", options.sweep.measure]
        return max(summarise.main(report), ended(plan, plan.jobs))


def suite(overrides: Sequence[Override], config: BenchmarkConfig) -> list[Overrides]:
    """The overrides of each run, each once."""
    runs: dict[Overrides, None] = {}
    fitted: dict[Overrides, Overrides] = {}
    for run in grid(overrides):
        rest, seed = without(run, SEED), tuple(override for override in run if key(override) == SEED)
        if rest not in fitted:
            fitted[rest] = fitting(rest, config)
        runs[(*fitted[rest], *seed)] = None
    return list(runs)


def fitting(run: Overrides, config: BenchmarkConfig) -> Overrides:
    """Without what the algorithm has no use for, with its preset and the environment's demonstrations.

    Raises:
        UserError, HydraException, OmegaConfBaseException: what is wrong with the rest; or a file is missing.
    """
    itself = parse(composed(without(run, STEPS, TRAJECTORIES)), elsewhere=True)
    if itself.steps == 0:
        run = without(run, STEPS)
    demonstrated = needs_demonstrations(itself)
    if not demonstrated:
        run = without(run, TRAJECTORIES)
    if config.presets:
        if any(key(override) == PRESET for override in run):
            raise UserError(f"presets=true chooses {PRESET}: expected one of the two")
        typed = [override.partition("=")[2] for override in run if key(override) == TRAJECTORIES]
        found = preset(itself.algorithm, itself.env.name, typed[-1] if typed else "0")
        run += (f"{PRESET}={found}",) if found else ()
    if config.demonstrations and demonstrated:
        run += (own_demonstrations(itself.env.name, config.demonstrations),)
    return run


def preset(algorithm: str, environment: str, trajectories: str) -> str | None:
    """The name of the one tuned for an environment, or for a number of trajectories (0: all); None where none was."""
    number = "all" if trajectories == "0" else trajectories
    names = (f"{algorithm}_{environment}", f"{algorithm}_{number}_trajectories")
    return next((name for name in names if (PRESETS / f"{name}.yaml").is_file()), None)


def key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def without(run: Sequence[str], *keys: str) -> Overrides:
    return tuple(override for override in run if key(override) not in keys)


def show(jobs: Sequence[Job], options: Options) -> int:
    """The plan with an estimated time on stderr, then commands on stdout.

    Exit status: 1 where a job could not even begin.
    """
    kinds: dict[Overrides, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(without(job.overrides, SEED), []).append(job)
    tell(f"{len(jobs)} jobs to run, in {len(kinds)} configurations (jobs, time of each):")
    seconds: list[float] = []
    refused = False
    for kind, own in kinds.items():
        try:
            each = estimated_seconds(own[0].overrides, not isinstance(options.launcher, LocalConfig))
            seconds += [each] * len(own)
            tell(f"{len(own):>5}  {duration(each):>8}  {' '.join(kind)}")
        except UserError as error:
            refused = True
            tell(f"{len(own):>5}  cannot begin  {' '.join(kind)}: {error}")
    known = [value for value in seconds if math.isfinite(value)]
    if known:
        tell(f"about {duration(sum(known))} of computing{at_once(known, options.launcher)}")
        tell("from a second of each phase and one evaluation of each configuration, just now, one at a time, with")
        tell("episodes at full length; not counted are starting, checkpoints, and what is unknown: DAgger, whose")
        tell("rounds grow, and devices that are not here")
    for job in jobs:
        print(shlex.join(["python", "train.py", *job.overrides]))
    return 1 if refused else 0


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def at_once(seconds: Sequence[float], launcher: LauncherConfig) -> str:
    """What it comes to where jobs run side by side, each on a core of its own; nothing for Ray, whose size varies."""
    if isinstance(launcher, RayConfig):
        return ""
    slots = launcher.array if isinstance(launcher, SlurmConfig) else launcher.workers or cores()
    slots = min(slots, len(seconds))
    return f", {duration(max(sum(seconds) / slots, *seconds))} with {slots} jobs at once"


if __name__ == "__main__":
    main()
