"""The command line around Hydra: help for newcomers, and one line for whatever was typed wrong."""

import os
import re
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError

CONF = Path(__file__).resolve().parents[1] / "conf"

HELP = """\
{usage}

Give options as key=value. Most used:
  algorithm=<name>                   what to train (below); required
  env=<name>                         where (below), by default hopper
  env.id=<id>                        instead of env: any Gymnasium environment
  optimised_hyperparameters=<name>   a preset on top of the algorithm (below)
  seed=<n>  runs=<n>                 first seed, and how many seeds to train side by side
  steps=<n>                          environment steps
  env.demonstrations=<path>          your own, HDF5, npz, CSV, Minari ...; otherwise the bundled set
  imitation.trajectories=<n>         demonstrations to use, 0 for all
  imitation.subsample=<n>            keep every n-th row of each
  imitation.state_only=true          learn from observations alone
  bc_pretraining.iterations=<n>      behavioural cloning first
  training.batch_size=<n>  training.learning_rate=<x>  reinforcement.discount=<x>
  evaluation.interval=<n>  evaluation.episodes=<n>  checkpoint.interval=<n>
  device=cpu|cuda  threads=<n>  precision=fp32|bf16|auto
  resume=<folder>                    go on with a run that was interrupted; may extend steps=<n>
  save_trajectories=true  render=true  logging.wandb=true
  output_folder=<folder>             where results go, by default outputs/
  debug=true                         show tracebacks
  -m key=1,2,3                       one run for each value, side by side (docs/sweeps.md)
  -m ... launcher=local|slurm|ray    where the runs of a sweep take place; pack_seeds=<n> seeds in each process
  resume_sweep=<folder>              finish, retry or extend a sweep
  --cfg job                          print every key with its value instead of training

Algorithms:
{algorithms}

Environments:
{environments}

Presets (optimised_hyperparameters):
{presets}
"""


def command_line(task: Callable[[DictConfig], float | None]) -> None:
    """Run `task` under Hydra, or a sweep of runs.

    Exit status: 0 done, 1 failed, 2 wrong input, 128 + n stopped by signal n.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print_help(help_text())
        return
    sys.argv[1:] = with_home(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us as they are
    started = False
    failures: list[Exception] = []

    def job(composed: DictConfig) -> float | None:
        nonlocal started
        started = True
        try:
            return task(composed)
        except Exception as error:  # past Hydra, which would print a line of its own
            failures.append(error)
            return None

    with errors_in_one_line(lambda: started):
        if prepare_arguments():
            from training.sweeps.command import train_sweep

            started = True
            sys.exit(train_sweep(sys.argv[1:]))
        hydra.main(config_path=str(CONF), config_name="config")(job)()
        if failures:
            raise failures[0]


@contextmanager
def errors_in_one_line(started: Callable[[], bool]) -> Iterator[None]:
    """Whatever is raised ends the program with one line. `started`: whether it had been accepted as right."""
    debug = any(re.fullmatch(r"debug=(true|True|1)", argument) for argument in sys.argv[1:])
    try:
        yield
    except KeyboardInterrupt as error:
        status = getattr(error, "exit_status", 130)  # of RunInterruptedError, SweepInterruptedError
        _stop(f"stopped by {error}" if str(error) else "stopped", status, False)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _stop(_explained(error), 2, debug)
    except Exception as error:
        of_torch = "allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError"  # a CPU's, a GPU's
        if of_torch or isinstance(error, MemoryError):
            advice = "try smaller networks, a smaller memory.size, or fewer runs"
            _stop(f"there is not enough memory for this configuration; {advice} ({error})", 2, debug)
        status = 1 if started() else 2
        _stop(f"{type(error).__name__}: {error} (debug=true shows where)", status, debug)


def _stop(message: str, status: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    kind = {1: "failed", 2: "error"}.get(status, "interrupted")
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _explained(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    from training.explain import explain

    chosen = [argument.partition("=")[2] for argument in sys.argv[1:] if argument.startswith("algorithm=")]
    return explain(error, chosen[-1] if chosen else None)


def prepare_arguments() -> bool:
    """Check what was typed, and complete it: the overrides of a run that is resumed, and `env=custom` for an id.

    Returns whether it asks for a sweep (-m, or resume_sweep).
    """
    options = options_parser().parse_intermixed_args(sys.argv[1:])
    from training.config import check_preset, register_schemas  # needs PyTorch
    from training.explain import check_overrides, parse_overrides
    from training.sweeps.options import refuse_sweep_keys

    register_schemas()
    if options.hydra_help or options.shell_completion:
        return False
    overrides = parse_overrides(options.overrides)
    if options.cfg and options.multirun:
        raise UserError("--cfg prints one configuration: leave -m out, and give one value for each key")
    if not options.cfg and (options.multirun or any(found.key_or_group == "resume_sweep" for found in overrides)):
        return True
    if options.install:
        raise UserError("--install keeps the result of an optimisation: expected it with -m hydra/sweeper=ax")
    refuse_sweep_keys(overrides)
    check_overrides(overrides, several=False)
    typed = {override.key_or_group: override.value() for override in overrides if not override.is_sweep_override()}
    keys = {override.key_or_group for override in overrides}
    check_preset(typed.get("optimised_hyperparameters"), typed.get("algorithm"))
    if typed.get("resume"):
        sys.argv[1:1] = saved_overrides(Path(str(typed["resume"])))
    elif "env.id" in keys and "env" not in keys:
        sys.argv[1:1] = ["env=custom"]
    return False


def with_home(arguments: list[str]) -> list[str]:
    """`~/` at the beginning of a value as the home directory: a shell does so only at the beginning of a word."""
    return [re.sub(r"(?<=[=,'\"])~(?=/)", str(Path.home()), argument) for argument in arguments]


def options_parser() -> ArgumentParser:
    """Hydra's, but an error is one line."""
    parser: ArgumentParser = get_args_parser()
    parser.add_argument("--install", action="store_true", help="copy an optimisation's preset to conf/")

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}: expected key=value, or an option of --hydra-help")

    parser.error = refuse  # type: ignore[method-assign]  # argparse would print its usage, too
    return parser


def saved_overrides(folder: Path) -> list[str]:
    """What the run in `folder` was started with; new overrides come after it."""
    path = folder / ".hydra" / "overrides.yaml"
    try:
        saved = OmegaConf.to_object(OmegaConf.load(path))
    except OSError:
        raise UserError(f"resume={folder} is not the folder of a run: there is no .hydra/overrides.yaml") from None
    except Exception:  # whatever a YAML parser may raise
        saved = None
    if not isinstance(saved, list) or not all(isinstance(item, str) for item in saved):
        raise UserError(f"{path} is damaged: expected a list of overrides")
    return saved


def print_help(text: str) -> None:
    """A reader that has seen enough, as `head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end


def help_text(usage: str = "python train.py algorithm=<name> env=<name>") -> str:
    """What a newcomer needs, from the comments in conf/, without importing PyTorch."""
    groups = {"algorithms": "algorithm", "environments": "env", "presets": "optimised_hyperparameters"}
    return HELP.format(
        usage=f"usage: {usage} [key=value ...]", **{section: _described(group) for section, group in groups.items()}
    )


def _described(group: str) -> str:
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    width = max(map(len, names), default=0) + 1
    lines = []
    for name in names:
        comments = (line for line in (CONF / group / f"{name}.yaml").read_text().splitlines() if line.startswith("# "))
        first = next((line[2:] for line in comments if "@package" not in line), "")
        lines.append(f"  {name:<{width}} {first}".rstrip())
    return "\n".join(lines) or "  none yet"
