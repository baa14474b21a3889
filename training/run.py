"""Opening the folder of a new run or of one to go on with, and saying in it how the run ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conf.errors import UserError
from training import checkpoint
from training.config import Config
from training.folder import mark_ended, new_folder, write_atomically
from training.loop import RunInterruptedError

# What may differ between a run and its continuation; nothing of it changes what has been computed so far.
CHANGEABLE = ("steps", "resume", "threads", "device", "debug", "save_trajectories", "render", "output_folder")
CHANGEABLE_SECTIONS = ("logging.", "checkpoint.", "evaluation.")


@contextmanager
def open_run(config: Config, composed: DictConfig) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """The run's folder and, with `resume`, its checkpoint. However the run ends, `status.json` says so.

    Raises:
        UserError: the folder cannot be made, or the run in `resume` cannot be continued with this configuration.
    """
    if config.resume:
        folder = Path(config.resume)
        check_unchanged(OmegaConf.load(folder / ".hydra" / "config.yaml"), composed)
        resumed = checkpoint.load(folder / "checkpoint.pt", config.device)
    else:
        folder, resumed = _new_run(config, composed), None
    try:
        yield folder, resumed
    except RunInterruptedError:
        mark_ended(folder, "interrupted", None)
        raise
    except BaseException as error:
        mark_ended(folder, "failed", f"{type(error).__name__}: {error}")
        raise
    else:
        mark_ended(folder, "finished", None)


def _new_run(config: Config, composed: DictConfig) -> Path:
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra and hydra.mode == RunMode.MULTIRUN:
        folder = Path(hydra.sweep.dir) / hydra.sweep.subdir
        if (folder / "status.json").exists():
            raise UserError(f"{folder} already holds a run: nothing is overwritten; choose another hydra.sweep.dir")
        folder.mkdir(parents=True, exist_ok=True)
    else:
        environment = config.env.name.replace("/", "-")
        folder = new_folder(Path(config.output_folder) / f"{config.algorithm}_{environment}")
    (folder / ".hydra").mkdir()
    overrides = list(hydra.overrides.task) if hydra else []
    write_atomically(folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(composed, resolve=True))
    write_atomically(folder / ".hydra" / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))
    if hydra:
        write_atomically(folder / ".hydra" / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
    return folder


def check_unchanged(saved: Any, composed: DictConfig, prefix: str = "") -> None:
    """Refuse to continue a run with a configuration that it was not started with."""
    saved_leaves = _leaves(saved)
    new_leaves = _leaves(OmegaConf.create(OmegaConf.to_yaml(composed, resolve=True)))
    for key in sorted({*saved_leaves, *new_leaves}):
        if key in CHANGEABLE or key.startswith(CHANGEABLE_SECTIONS):
            continue
        before, now = saved_leaves.get(key), new_leaves.get(key)
        if before != now:
            raise UserError(
                f"{key}={now} does not fit the run that is to be resumed, which has {key}={before}; only "
                f"{', '.join(CHANGEABLE)} and {', '.join(section + '*' for section in CHANGEABLE_SECTIONS)} may change"
            )


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, DictConfig) else {f"{prefix}{key}": value}
    return leaves
