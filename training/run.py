"""Opening the folder of a new run or of one to go on with, and saying in it how the run ended."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conf.errors import UserError
from training import checkpoint
from training.config import Config
from training.folder import mark_ended, new_folder, read_status, running_process, sweep_folder, write_atomically
from training.loop import RunInterruptedError
from training.phases import Interaction
from training.signals import answered_by

# What may differ between a run and its continuation; nothing of it changes what has been computed so far.
CHANGEABLE = (
    "steps",
    "threads",
    "device",
    "debug",
    "save_trajectories",
    "render",
    "output_folder",
    "env.demonstrations",  # where they are: what they are is compared with the checkpoint
    "env.threads",
    "resume",
)
CHOICES = ("algorithm", "env.name", "env.id")  # other keys follow from them: named first
CHANGEABLE_SECTIONS = ("logging.", "checkpoint.", "evaluation.")
SCHEDULES = (  # over all steps of a run
    "training.learning_rate_schedule",
    "reinforcement.clip_range_schedule",
    "imitation.cloning.learning_rate_schedule",
)
CHECKPOINT_KEYS = {"phase", "step", "seconds", "warned", "log_due", "best_returns", "best_policy", "records", "parts"}


@contextmanager
def open_run(config: Config, composed: DictConfig) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """The run's folder and, with `resume`, its checkpoint. However the run ends, `status.json` says so.

    Raises:
        UserError: the folder cannot be made, or the run in `resume` cannot be continued with this configuration;
            its folder stays as it was.
    """
    with _alone(config.resume):
        folder, resumed = _resumed_run(config, composed) if config.resume else (_new_run(config, composed), None)
        with _ended_by_signals(folder):
            refused = False
            try:
                yield folder, resumed
            except KeyboardInterrupt:  # also RunInterruptedError
                mark_ended(folder, "interrupted", None)
                raise
            except BaseException as error:
                refused = resumed is not None and isinstance(error, UserError) and not _has_begun(folder)
                if not refused:
                    mark_ended(folder, "failed", f"{type(error).__name__}: {error}")
                raise
            else:
                mark_ended(folder, "finished", None)
            finally:
                if resumed is not None and not refused:
                    with suppress(OSError):  # how the run ended is said already, and may not be hidden by a full disk
                        _write_configuration(folder, composed)  # it may have more steps than the run was begun with


@contextmanager
def _alone(resume: str | None) -> Iterator[None]:
    """Hold the folder of a run that is to go on: its `status.json` says so only seconds later.

    The lock ends with this process. Where a file system has none, `status.json` has to do.

    Raises:
        UserError: another process holds it.
    """
    with ExitStack() as held:
        try:
            if resume:
                descriptor = os.open(resume, os.O_RDONLY)
                held.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"resume={resume}: another process goes on with this run; wait for it or stop it") from None
        except OSError:  # no locks; or no folder, which is said when it is read
            pass
        yield


@contextmanager
def _ended_by_signals(folder: Path) -> Iterator[None]:
    """SIGTERM and Ctrl-C end a run at once before its loop and behind it; the loop itself waits for its step.

    A second SIGTERM changes nothing: the jobs of a sweep may get two.
    """

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise RunInterruptedError(number, folder)

    with answered_by(stop):
        yield


def _has_begun(folder: Path) -> bool:
    """Whether this process has trained it."""
    status = read_status(folder)
    return status.get("state") == "running" and status.get("process") == os.getpid()


def _new_run(config: Config, composed: DictConfig) -> Path:
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra and hydra.mode == RunMode.MULTIRUN:
        folder = sweep_folder(Path(hydra.sweep.dir), hydra.sweep.subdir)
    else:
        environment = config.env.name.replace("/", "-")
        folder = new_folder(Path(config.output_folder) / f"{config.algorithm}_{environment}")
        (folder / ".hydra").mkdir()
    try:
        _write_configuration(folder, composed)
    except OSError as error:
        mark_ended(folder, "failed", str(error))
        raise UserError(f"cannot write results to {folder}: {error.strerror}") from error
    return folder


def _write_configuration(folder: Path, composed: DictConfig) -> None:
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    overrides = [word for word in (hydra.overrides.task if hydra else []) if not word.startswith("resume=")]
    contents = {"config": OmegaConf.to_yaml(composed, resolve=True)}
    if hydra:
        contents["overrides"] = OmegaConf.to_yaml(OmegaConf.create(overrides))
        contents["hydra"] = OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra}))
    for name, text in contents.items():
        write_atomically(folder / ".hydra" / f"{name}.yaml", text)


def _resumed_run(config: Config, composed: DictConfig) -> tuple[Path, dict[str, Any]]:
    """The folder and checkpoint of a run that can go on. Only reads."""
    folder = Path(str(config.resume))
    saved = _saved_configuration(folder)
    if not os.access(folder, os.W_OK):
        raise UserError(f"resume={folder}: cannot write to this folder")
    check_unchanged(saved, composed)
    status = read_status(folder)
    if process := running_process(status):
        raise UserError(f"resume={folder}: process {process} is still at work on this run; wait for it or stop it")
    content = checkpoint.load(folder / "checkpoint.pt")
    check_checkpoint(folder, content)
    taken = content["step"] if content["phase"] == Interaction.name else 0
    if config.steps <= taken - config.env.num_envs:  # the last step of several environments may go beyond
        raise UserError(f"steps={config.steps}: the run in {folder} has taken {taken} steps; expected more than that")
    if status.get("state") == "finished" and config.steps <= max(taken, saved.steps):
        extend = f"; to go on, give steps=<more than {taken}>" if taken else ""
        raise UserError(f"resume={folder}: this run has finished, nothing is left to do{extend}")
    return folder, content


def _saved_configuration(folder: Path) -> DictConfig:
    path = folder / ".hydra" / "config.yaml"
    try:
        saved = OmegaConf.load(path)
        if isinstance(saved, DictConfig) and isinstance(saved.steps, int):
            return saved
    except Exception as error:  # whatever a YAML parser may raise
        raise UserError(f"{path} is missing or damaged ({type(error).__name__}): expected a run's settings") from error
    raise UserError(f"{path} is damaged: expected a run's settings")


def check_checkpoint(folder: Path, content: dict[str, Any]) -> None:
    """Raises UserError where something is missing that the rest of the folder has to have, too."""
    if missing := CHECKPOINT_KEYS - set(content):
        raise UserError(f"{folder / 'checkpoint.pt'} is not a run's checkpoint: {', '.join(sorted(missing))} missing")
    for name in ("evaluations", "metrics"):
        table, expected = folder / f"{name}.csv", content["records"].get(name, 0)
        found = table.stat().st_size if table.is_file() else 0
        if found < expected:
            raise UserError(f"{table} is missing or cut off: {found} bytes, expected {expected} or more")


def check_unchanged(saved: DictConfig, composed: DictConfig) -> None:
    """Refuse to continue a run with a configuration that it was not started with."""
    saved_leaves = _leaves(saved)
    new_leaves = _leaves(OmegaConf.create(OmegaConf.to_yaml(composed, resolve=True)))
    by_steps = any(saved_leaves.get(name, "constant") != "constant" for name in SCHEDULES)
    # Those that both have come first: another learner has other keys, too, and is no other version.
    keys = sorted({*saved_leaves, *new_leaves}, key=lambda key: ((key in saved_leaves) != (key in new_leaves), key))
    for key in (*CHOICES, *keys):
        scheduled = key == "steps" and by_steps  # then the past would change
        if (key in CHANGEABLE and not scheduled) or key.startswith(CHANGEABLE_SECTIONS):
            continue
        before, now = saved_leaves.get(key), new_leaves.get(key)
        if before != now and (key in saved_leaves) != (key in new_leaves):
            knows, misses = ("the run", "this version") if key in saved_leaves else ("this version", "the run")
            raise UserError(
                f"{misses} has no {key}, which {knows} has: the run that is to be resumed was begun by another version "
                "of this program, `commit` in its status.json; resume it with that one"
            )
        if before != now:
            raise UserError(
                f"{key}={now} does not fit the run that is to be resumed, which has {key}={before}; only "
                f"{', '.join(CHANGEABLE[:-1])} and {', '.join(section + '*' for section in CHANGEABLE_SECTIONS)} "
                "may change"
            )


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, DictConfig) else {f"{prefix}{key}": value}
    return leaves
