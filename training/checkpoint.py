"""Checkpoints: one file with everything that is needed to continue exactly."""

import os
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from conf.errors import UserError

FORMAT = 1  # raised whenever older checkpoints can no longer be read


def save(path: Path, content: dict[str, Any]) -> None:
    """Write to a temporary file, flush it to the disk, and rename: a crash or a full disk keeps the previous one."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            _write(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(content: dict[str, Any], file: IO[bytes]) -> None:
    """PyTorch hides why a file cannot be written, as a full disk, behind a message of its own."""
    try:
        torch.save({"format": FORMAT, **content}, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint or a policy, on the CPU, without running anything that it contains.

    Raises:
        UserError: the file is missing, damaged, or of another format.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: expected a file that a run has written, as policy.pt")
    if not path.is_file():
        raise UserError(f"there is no {path.name} in {path.parent}: expected a file that a run has written")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare checksums
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise UserError(f"{path} is damaged or not a checkpoint ({type(error).__name__})") from error
    if not isinstance(content, dict) or "format" not in content:
        raise UserError(f"{path} is not a checkpoint of this program")
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {content['format']}: this version reads format {FORMAT}")
    return content
