"""Everyone's demonstrations: which format a file has, and readers and writers for each. Nothing is ever unpickled."""

import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import gymnasium

from conf.errors import UserError, did_you_mean
from environments.formats import d4rl, imitation, imitation_npz, minari, npz, table
from environments.formats.alignment import repaired
from environments.formats.base import DemonstrationSet, Format, first_bytes
from environments.formats.remote import is_remote
from environments.trajectories import Trajectory

FORMATS = {
    f.name: f for f in (d4rl.FORMAT, npz.FORMAT, table.FORMAT, minari.FORMAT, imitation.FORMAT, imitation_npz.FORMAT)
}
SUFFIXES = {".hdf5": d4rl.FORMAT, ".h5": d4rl.FORMAT, ".npz": npz.FORMAT, ".csv": table.FORMAT}
EXPECTED = "D4RL HDF5, npz, CSV, or the folder of a Minari or `imitation` dataset"
HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK"


def read(path: Path, name: str | None = None) -> DemonstrationSet:
    """The demonstrations in a file or folder, or a local Minari dataset by its id; of the named format or its own.

    Raises:
        UserError: it cannot be read, is damaged, or holds something else.
    """
    if not path.exists() and minari.data_folder(minari.local_datasets() / path):
        path = minari.local_datasets() / path
    return (named(name) if name else detected(path)).read(path)


def named(name: str) -> Format:
    """A format by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in FORMATS:
        raise UserError(f"there is no format '{name}'{did_you_mean(name, FORMATS)}; expected {', '.join(FORMATS)}")
    return FORMATS[name]


def for_output(path: Path, name: str | None = None) -> Format:
    """The format to write, by its name or by the ending of the file.

    Raises:
        UserError: neither says one.
    """
    if name:
        return named(name)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: expected an ending of {', '.join(SUFFIXES)}, or --format with {', '.join(FORMATS)}")
    return SUFFIXES[path.suffix]


def detected(path: Path) -> Format:
    """What a file or folder is, by its content and, for text, by its name.

    Raises:
        UserError: it cannot be read, or is none of the formats.
    """
    if path.is_dir():
        if minari.data_folder(path):
            return minari.FORMAT
        if imitation.data_files(path):
            return imitation.FORMAT
        raise UserError(
            f"demonstrations {path} are a folder without data of Minari or `imitation`; expected {EXPECTED}"
        )
    start = first_bytes(path, EXPECTED)
    if start.startswith(HDF5):
        return d4rl.FORMAT
    if start.startswith(ZIP):
        return _archive(path)
    if path.suffix == ".csv" or b"observation_0" in start:
        return table.FORMAT
    return SUFFIXES.get(path.suffix) or _unknown(path)


def _archive(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as file:
            names = set(file.namelist())
    except (zipfile.BadZipFile, OSError):
        return npz.FORMAT  # which says what is wrong with it
    if "data" in names and "policy.pth" in names:
        raise UserError(f"{path} is a policy of Stable-Baselines3 and no demonstrations: give it to `record`")
    if any(name.endswith("data.pkl") for name in names):
        raise UserError(f"{path} is a PyTorch file and no demonstrations; a policy.pt of ours goes to `record`")
    return imitation_npz.FORMAT if {"obs.npy", "acts.npy"} <= names else npz.FORMAT


def _unknown(path: Path) -> Format:
    raise UserError(f"demonstrations {path} have none of the known formats; expected {EXPECTED}")


def of_another_environment(content: DemonstrationSet, environment_id: str) -> bool:
    """Does the file name an environment that is known, and is not another version of this one?"""

    def without_version(identity: str | None) -> str:
        return re.sub(r"-v\d+$", "", identity or "")

    named = content.environment_id
    return named in gymnasium.registry and without_version(named) != without_version(environment_id)


def read_demonstrations(path: str | Path, environment_id: str) -> Sequence[Trajectory]:
    """Episodes to train on in an environment, from any format; successors that are off by one are put right.

    What was assumed, left out or put right is printed as a warning.

    Raises:
        UserError: there is nothing to train on at that path, or it is of another environment.
    """
    if is_remote(str(path)):
        raise UserError(f"{path} is not on this machine; first: python scripts/demonstrations.py import {path} x.hdf5")
    content = read(Path(path))
    if of_another_environment(content, environment_id):
        raise UserError(
            f"{path} says that it was recorded in {content.environment_id}, not in {environment_id}: "
            f"`scripts/demonstrations.py import --env {environment_id} --rename` takes it for that"
        )
    named, notes = content.environment_id, []
    if named in gymnasium.registry and named != environment_id:
        notes.append(f"recorded in {named}, and used in {environment_id}, another version of it")
    content = repaired(content)
    for note in (*notes, *content.notes):
        print(f"warning: {path}: {note}", file=sys.stderr)
    return content.trajectories
