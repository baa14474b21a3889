"""The result of an optimisation as a preset for `optimised_hyperparameters=<name>`."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from conf.errors import UserError
from training.cli import CONF
from training.sweeps.trials import Record, Trial

PRESETS = CONF / "optimised_hyperparameters"
TRAJECTORIES = "imitation.trajectories="


def preset_name(algorithm: str, shared: Sequence[str]) -> str:
    """`<ALGORITHM>_<n>_trajectories.yaml`; `all` where nothing was typed, or 0."""
    typed = [line.removeprefix(TRAJECTORIES) for line in shared if line.startswith(TRAJECTORIES)]
    number = typed[-1] if typed and typed[-1] != "0" else "all"
    return f"{algorithm}_{number}_trajectories.yaml"


def preset_text(
    record: Record, searched: Trial, winner: Trial, default: Trial | None, command: str, shared: Sequence[str]
) -> str:
    """YAML with the winner's values, and where they come from."""
    content = OmegaConf.create({})
    for line in (*record.fixed, *(line for line in shared if line.startswith(TRAJECTORIES))):
        key, _, value = line.partition("=")
        OmegaConf.update(content, key, OmegaConf.create(f"value: {value}").value)
    for key, chosen in winner.values.items():
        OmegaConf.update(content, key, chosen)
    origin = [
        f"{record.algorithm} tuned on {', '.join(record.environments)}: trial {winner.name} of {len(record.trials)}.",
        f"Search: {_measured(searched)}. Fresh seeds {winner.seeds[0]} to {winner.seeds[-1]}: {_measured(winner)}"
        + (f"; the default there: {_measured(default)}." if default else "."),
        f"Command: {command}",
        f"Origin: {record.folder.parent.name}/{record.folder.name}",
    ]
    return "# @package _global_\n" + "".join(f"# {line}\n" for line in origin) + OmegaConf.to_yaml(content)


def _measured(trial: Trial) -> str:
    spread = "" if trial.standard_error is None else f" +- {trial.standard_error:.4g}"
    return f"{trial.mean:.4g}{spread} ({len(trial.seeds)} seeds)"


def install(folder: Path, presets: Path = PRESETS) -> Path:
    """Copy the preset of an optimisation to where runs find it.

    Raises:
        UserError: there is none, or another one has its name.
    """
    found = sorted(folder.glob("*_trajectories.yaml"))
    if not found:
        raise UserError(f"there is no preset in {folder}: the optimisation has not ended, or nothing beat the default")
    target = presets / found[0].name
    if target.exists() and target.read_text() != found[0].read_text():
        raise UserError(f"{target} exists: rename it, or the preset in {folder}, first")
    shutil.copyfile(found[0], target)
    return target
