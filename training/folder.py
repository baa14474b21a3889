"""A run's folder, which is never another run's, and in it status and tables."""

import csv
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from conf.errors import UserError

STATES = ("running", "finished", "failed", "interrupted")
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "hydra-core", "h5py")


def new_folder(parent: Path, name: str | None = None) -> Path:
    """A folder that did not exist: `name`, or `<month>-<day>_<hour>-<minute>-<second>`; numbered if that is taken.

    Raises:
        UserError: nothing can be written there.
    """
    name = name or datetime.now().strftime("%m-%d_%H-%M-%S")
    for attempt in range(1, 1000):
        folder = parent / (name if attempt == 1 else f"{name}_{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not parent.is_dir():
                raise UserError(f"cannot write results to {parent}: it is not a folder") from None
        except OSError as error:
            raise UserError(f"cannot write results to {parent}: {error.strerror}") from error
    raise UserError(f"cannot find a free name for results in {parent}")


def sweep_folder(parent: Path, name: str) -> Path:
    """The folder `name` that Hydra has made for a run of a sweep, unless a run is in it; with an empty `.hydra/`."""
    folder = parent / name
    try:
        (folder / ".hydra").mkdir(parents=True)
        return folder
    except FileExistsError:
        folder = new_folder(parent, name)
        (folder / ".hydra").mkdir()
        return folder
    except OSError as error:
        raise UserError(f"cannot write results to {folder}: {error.strerror}") from error


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file as a whole: nobody ever sees half of it, not even after the machine has lost power."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2) + "\n")


class Status:
    """`status.json`: running, finished, failed or interrupted, how far, and with what."""

    def __init__(self, folder: Path, device: str) -> None:
        self.path = folder / "status.json"
        self.content: dict[str, Any] = {
            "state": "running",
            "phase": None,
            "step": 0,
            "error": None,
            "host": platform.node(),
            "device": device,
            "process": os.getpid(),
            "process_start": process_start(os.getpid()),
            "commit": git_commit(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in PACKAGES},
        }

    def update(self, **values: Any) -> None:
        self.content.update(values, updated=datetime.now().isoformat(timespec="seconds"))
        write_json(self.path, self.content)


def read_status(folder: Path) -> dict[str, Any]:
    """`status.json`, or nothing where there is none or it is damaged."""
    try:
        content = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    sound = isinstance(content, dict) and content.get("state") in STATES and isinstance(content.get("step", 0), int)
    return content if sound else {}


def mark_ended(folder: Path, state: str, error: str | None) -> None:
    """Say how a run ended, whatever happened to the program that ran it; on a full disk perhaps not even that."""
    with suppress(OSError):
        write_json(folder / "status.json", {**read_status(folder), "state": state, "error": error})


def running_process(status: dict[str, Any]) -> int | None:
    """The process that is still at work on a run, if there is one on this machine."""
    process, start = status.get("process"), status.get("process_start")
    if status.get("state") != "running" or status.get("host") != platform.node() or process == os.getpid():
        return None
    return process if process and start is not None and process_start(process) == start else None


def process_start(process: int) -> int | None:
    """When it began, in clock ticks since the machine did: another process with its number began at another time.

    None where it has ended, or the system does not tell.
    """
    try:
        # Behind the name, which may hold anything: the state is field 3 of proc(5), the start is field 22.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@cache  # what has been imported is of the commit that was there then
def git_commit() -> str:
    """The commit of this program, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "*.yaml")
        return git("rev-parse", "HEAD") + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Table:
    """A CSV file that grows by rows, and that can be cut back to where a checkpoint was taken."""

    def __init__(self, path: Path, columns: tuple[str, ...], length: int = 0) -> None:
        """`length`: bytes to keep of an existing file (those written before the checkpoint), once there is more."""
        self.path, self.columns, self.kept = path, columns, length
        if not length:
            path.write_text(",".join(columns) + "\n")

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        self._cut_back()
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerows(rows)

    def sync(self) -> int:
        """Its length in bytes, all of which are on the disk: a checkpoint counts on them."""
        self._cut_back()
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        return self.path.stat().st_size

    def _cut_back(self) -> None:
        if self.kept:
            os.truncate(self.path, self.kept)
            self.kept = 0


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
