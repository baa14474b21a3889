"""The command line around Hydra: help for newcomers, and one line for whatever was typed wrong."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError, did_you_mean

CONF = Path(__file__).resolve().parents[1] / "conf"

HELP = """\
{usage}

Give options as key=value. Most used:
  algorithm=<name>                   what to train (below); required
  env=<name>                         where (below); env.id=<id> takes any continuous Gymnasium environment
  optimised_hyperparameters=<name>   a preset on top of the algorithm (below)
  seed=<n>  runs=<n>                 first seed, and how many seeds to train side by side
  steps=<n>                          environment steps
  env.demonstrations=<file>          D4RL HDF5 file of your own; otherwise the bundled set
  imitation.trajectories=<n>         demonstrations to use, 0 for all
  imitation.subsample=<n>            keep every n-th row of each
  imitation.state_only=true          learn from observations alone
  bc_pretraining.iterations=<n>      behavioural cloning first
  training.batch_size=<n>  training.learning_rate=<x>  reinforcement.discount=<x>
  evaluation.interval=<n>  evaluation.episodes=<n>  checkpoint.interval=<n>
  device=cpu|cuda  threads=<n>  precision=fp32|bf16
  resume=<folder>                    go on with a run that was interrupted; may extend steps=<n>
  save_trajectories=true  render=true  logging.wandb=true
  output_folder=<folder>             where results go, by default outputs/
  debug=true                         show tracebacks
  -m key=1,2,3                       one run for each value
  --cfg job                          print every key with its value instead of training

Algorithms:
{algorithms}

Environments:
{environments}

Presets (optimised_hyperparameters):
{presets}
"""


def command_line(task: Callable[[DictConfig], float | None], config_name: str = "config") -> None:
    """Run `task` under Hydra. Exit status: 0 done, 1 failed, 2 wrong input, 128 + n stopped by signal n."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text())
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us as they are
    debug = any(re.fullmatch(r"debug=(true|True|1)", argument) for argument in sys.argv[1:])
    try:
        sys.argv[1:] = with_saved_overrides(sys.argv[1:])
        from training.config import register_schemas  # needs PyTorch

        register_schemas()
        hydra.main(config_path=str(CONF), config_name=config_name)(task)()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _stop(str(error) if isinstance(error, UserError) else explain(error), 2, debug)
    except Exception as error:
        from training.loop import RunInterruptedError

        if isinstance(error, RunInterruptedError):
            _stop(f"stopped by {error}; go on with resume=<folder>", error.exit_status, False, "interrupted")
        _stop(f"{type(error).__name__}: {error} (debug=true shows where)", 1, debug, "failed")


def _stop(message: str, status: int, debug: bool, kind: str = "error") -> None:
    if debug:
        traceback.print_exc()
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def with_saved_overrides(arguments: list[str]) -> list[str]:
    """With resume=<folder>, the overrides of that run come first, then the new ones."""
    folders = [argument.removeprefix("resume=") for argument in arguments if argument.startswith("resume=")]
    if not folders or folders[-1] in ("null", ""):
        return arguments
    path = Path(folders[-1]) / ".hydra" / "overrides.yaml"
    try:
        saved = OmegaConf.to_object(OmegaConf.load(path))
    except OSError:
        raise UserError(f"resume={folders[-1]} is not the folder of a run: there is no .hydra/overrides.yaml") from None
    except Exception:  # whatever a YAML parser may raise
        saved = None
    if not isinstance(saved, list) or not all(isinstance(item, str) for item in saved):
        raise UserError(f"{path} is damaged: expected a list of overrides")
    return saved + arguments


def explain(error: Exception) -> str:
    """Hydra's and OmegaConf's errors in one line: what, where, what is allowed."""
    text = str(error)
    if match := re.search(r"Could not find '(\w+)/([^']+)'", text):
        group, name = match.groups()
        options = _options(group)
        return f"{group}={name} is not known{did_you_mean(name, options)} Expected one of: {', '.join(options)}"
    if match := re.search(r"You must specify '(\w+)'", text):
        return f"{match[1]}=<name> is missing. Expected one of: {', '.join(_options(match[1]))}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return f"{match[1]} is not a key{did_you_mean(match[1], _keys())} See --cfg job for all keys"
    if match := re.search(r"Key '([^']+)' (?:is )?not in '(\w+)'", text):
        full = re.search(r"full_key: (\S+)", text)
        key = full[1] if full else match[1]
        return f"{key} is not a key{did_you_mean(key, _keys())} See --cfg job for all keys"
    full = re.search(r"full_key: (\S+)", text)
    first = text.strip().split("\n")[0]
    return f"{full[1]}: {first}" if full and full[1] not in first else first


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _keys() -> list[str]:
    """Every key of every learner and imitation module."""
    from algorithms import IMITATION_MODULES, LEARNERS
    from training.config import Config

    keys = _leaves("", OmegaConf.structured(Config))
    for learner in LEARNERS.values():
        keys += _leaves("reinforcement.", OmegaConf.structured(learner.config_class))
    for module in IMITATION_MODULES.values():
        keys += _leaves("imitation.", OmegaConf.structured(module.config_class))
    return sorted({*keys, "learner", "optimised_hyperparameters"})


def _leaves(prefix: str, node: DictConfig) -> list[str]:
    keys: list[str] = []
    for key in map(str, node):
        child = None if OmegaConf.is_missing(node, key) else node[key]
        keys += _leaves(f"{prefix}{key}.", child) if isinstance(child, DictConfig) else [f"{prefix}{key}"]
    return keys


def help_text() -> str:
    """What a newcomer needs, from the comments in conf/, without importing PyTorch."""
    usage = "usage: python train.py algorithm=<name> env=<name> [key=value ...]"
    groups = {"algorithms": "algorithm", "environments": "env", "presets": "optimised_hyperparameters"}
    return HELP.format(usage=usage, **{section: _described(group) for section, group in groups.items()})


def _described(group: str) -> str:
    lines = []
    for name in _options(group):
        comments = (line for line in (CONF / group / f"{name}.yaml").read_text().splitlines() if line.startswith("# "))
        first = next((line[2:] for line in comments if "@package" not in line), "")
        lines.append(f"  {name:<24} {first}".rstrip())
    return "\n".join(lines) or "  none yet"
