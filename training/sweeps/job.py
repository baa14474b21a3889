"""One job of a sweep, in a process of its own: begins it, goes on with it, or leaves a finished one alone."""

import ctypes
import fcntl
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError
from train import train
from training import checkpoint
from training.explain import explain
from training.folder import mark_ended, new_folder, read_status, running_process
from training.sweeps.plan import composed_with_hydra, load_plan, without_hydra

PR_SET_PDEATHSIG = 1  # of prctl(2)
LOGS = "logs"  # what jobs print
ATTEMPTS = "attempts"  # begun, and of no more use: no checkpoint to go on from


def run_job(sweep: Path, name: str, extra: Sequence[str] = ()) -> int:
    """Exit status as of train.py; whatever happens is also in the job's `status.json`."""
    with _alone(sweep, name):
        if read_status(sweep / name).get("state") == "finished":
            return 0
        return _run(sweep, name, extra)


def _run(sweep: Path, name: str, extra: Sequence[str]) -> int:
    folder = sweep / name
    try:
        resumable = _resumable(folder)
        if not resumable:
            _put_away(sweep, name)
        configuration = composed_job(sweep, name, extra)
        if resumable:
            configuration.resume = str(folder)
        result = _train(configuration)
        if math.isfinite(result):
            return 0
        # Nobody can use it, and a sweep has to say so.
        mark_ended(folder, "failed", f"the last evaluation gave {result}")
        return 1
    except KeyboardInterrupt as error:
        print(f"interrupted: {error}", file=sys.stderr)
        return int(getattr(error, "exit_status", 130))
    except (UserError, HydraException, OmegaConfBaseException) as error:
        message = str(error) if isinstance(error, UserError) else explain(error, None)
        print(f"error: {message}", file=sys.stderr)
        _mark_failed(folder, message)
        return 2
    except Exception as error:
        traceback.print_exc()
        _mark_failed(folder, f"{type(error).__name__}: {error}")
        return 1


@contextmanager
def _alone(sweep: Path, name: str) -> Iterator[None]:
    """Wait for another process that is at work on this job.

    An earlier process of the sweep may have been killed a moment ago, and its jobs may be writing their checkpoints,
    or be about to say in `status.json` that they exist. Hence a lock, which ends with whoever holds it.
    """
    path = log_path(sweep, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        while running_process(read_status(sweep / name)):  # somebody has resumed it by hand
            time.sleep(1)
        yield


def log_path(sweep: Path, name: str) -> Path:
    return sweep / LOGS / f"{name.replace('/', '_')}.txt"


def quoted(path: Path) -> str:
    """For Hydra's grammar, in which a path may hold anything."""
    return QuotedString(str(path), Quote.single).with_quotes()


def _resumable(folder: Path) -> bool:
    """Whether there is a checkpoint that can be read."""
    try:
        checkpoint.load(folder / "checkpoint.pt")
        return (folder / ".hydra" / "config.yaml").is_file()
    except UserError:
        return False


def _put_away(sweep: Path, name: str) -> None:
    """A run that was begun and cannot go on is kept elsewhere: the job begins anew under its own name."""
    folder = sweep / name
    if (folder / ".hydra").exists() or (folder / "status.json").exists():
        kept = new_folder(sweep / ATTEMPTS, name.replace("/", "_"))
        os.rename(folder, kept)  # over an empty folder


def composed_job(sweep: Path, name: str, extra: Sequence[str]) -> DictConfig:
    """The configuration of a job, with Hydra's. `extra`: overrides of the launcher, behind which what was typed counts.

    Raises:
        UserError, HydraException, OmegaConfBaseException: what is wrong with it.
    """
    configuration = composed_with_hydra([*extra, *load_plan(sweep).job(name).overrides])
    configuration.hydra.mode = RunMode.MULTIRUN
    configuration.hydra.sweep.dir = str(sweep)
    configuration.hydra.sweep.subdir = name
    return configuration


def _train(configuration: DictConfig) -> float:
    HydraConfig.instance().set_config(configuration)
    return train(without_hydra(configuration.copy()))


def _mark_failed(folder: Path, error: str) -> None:
    if read_status(folder).get("state") not in ("failed", "finished"):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        mark_ended(folder, "failed", error)


def end_with_parent(parent: int) -> None:
    """Be asked to stop, with a checkpoint, when the process that this one belongs to is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


if __name__ == "__main__":
    end_with_parent(os.getppid())
    sys.exit(run_job(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
