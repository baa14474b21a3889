"""What a run leaves behind: its folder, status, tables and TensorBoard events. Nothing is ever overwritten."""

import csv
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from conf.errors import UserError

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "hydra-core", "h5py")


def new_folder(parent: Path) -> Path:
    """A folder `<month>-<day>_<hour>-<minute>-<second>` that did not exist, numbered if that second is taken.

    Raises:
        UserError: nothing can be written there.
    """
    name = datetime.now().strftime("%m-%d_%H-%M-%S")
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


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file as a whole, so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    os.replace(temporary, path)


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
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in PACKAGES},
        }

    def update(self, **values: Any) -> None:
        self.content.update(values, updated=datetime.now().isoformat(timespec="seconds"))
        write_json(self.path, self.content)


def mark_ended(folder: Path, state: str, error: str | None) -> None:
    """Say how a run ended, whatever happened to the program that ran it."""
    path = folder / "status.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {**content, "state": state, "error": error})


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Table:
    """A CSV file that grows by rows, and that can be cut back to where a checkpoint was taken."""

    def __init__(self, path: Path, columns: tuple[str, ...], length: int = 0) -> None:
        """`length`: bytes to keep of an existing file (those written before the checkpoint)."""
        self.path, self.columns = path, columns
        if length:
            os.truncate(path, length)
        else:
            path.write_text(",".join(columns) + "\n")

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerows(rows)

    @property
    def length(self) -> int:
        return self.path.stat().st_size


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
