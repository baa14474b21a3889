"""NumPy archives, written with nothing but arrays of numbers and one text: no pickles, neither written nor read.

| array | shape | |
|---|---|---|
| observations | [steps + episodes, observation] | T + 1 of each episode of T steps, episodes one after the other |
| lengths | [episodes] | steps of each |
| terminated | [episodes] | 1: a true end; 0: a time limit or a cut |
| actions | [steps, action], or integers [steps] | optional: state-only without |
| rewards | [steps] | optional |
| infos/<name> | [steps, ...] | optional, such as infos/qpos and infos/qvel |
| seeds | [episodes] | optional, of the environment's resets |
| attributes | a text, JSON | optional, such as {"environment_id": "Hopper-v4"} |

`numpy.savez_compressed("mine.npz", observations=..., lengths=..., terminated=...)` makes such a file.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import UserError
from environments.formats.base import (
    DemonstrationSet,
    Format,
    actions_of,
    columns_of,
    damaged,
    episode_lengths,
    first_bytes,
    flags,
    numbers,
    plain,
    refuse,
    split,
    whole,
)

EXPECTED = "an npz file with observations, lengths and terminated"
REQUIRED = ("observations", "lengths", "terminated")


@contextmanager
def archive(path: Path, expected: str) -> Iterator[Any]:
    """The arrays of a file by name, without unpickling any.

    Raises:
        UserError: it is not such a file, is damaged, or an array that was asked for is pickled.
    """
    first_bytes(path, expected)
    try:
        with path.open("rb") as stream:  # np.load would leave a damaged one open
            arrays = np.load(stream, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise refuse(path, " are a single array", expected)
            with arrays:
                yield arrays
    # zipfile raises NotImplementedError for an entry whose compression or version it does not know.
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if "allow_pickle" in str(error):
            raise refuse(
                path,
                " hold objects, which are pickled and may run programs when read",
                "arrays of numbers: in the program that made it, join the episodes and save plain arrays",
            ) from error
        raise damaged(path, error) from error


def read(path: Path) -> DemonstrationSet:
    """All episodes of a file.

    Raises:
        UserError: it is not such a file.
    """
    with archive(path, EXPECTED) as arrays:
        missing = [name for name in REQUIRED if name not in arrays]
        if missing:
            found = ", ".join(arrays.files) or "nothing"
            raise refuse(path, f" have no array '{missing[0]}'", f"{', '.join(REQUIRED)}, found {found}")
        lengths = episode_lengths(arrays["lengths"], path, "lengths")
        terminated = flags(arrays["terminated"], path, "terminated", len(lengths))
        observations = numbers(arrays["observations"], 2, path, "observations", sum(lengths) + len(lengths))
        columns = {"observations": observations}
        types = {name: str(arrays[name].dtype) for name in ("observations", "actions", "rewards") if name in arrays}
        if "actions" in arrays:
            columns["actions"] = actions_of(arrays["actions"], path, "actions", sum(lengths))
        if "rewards" in arrays:
            columns["rewards"] = numbers(arrays["rewards"], 1, path, "rewards", sum(lengths))
        for name in (name for name in arrays.files if name.startswith("infos/")):
            columns[name] = info(arrays[name], path, name, sum(lengths))
        seeds = arrays.get("seeds")
        if seeds is not None and (seeds.shape != (len(lengths),) or seeds.dtype.kind not in "iu"):
            raise refuse(path, f", 'seeds': shape {seeds.shape}", "an integer for each episode")
        seeds = None if seeds is None else seeds.tolist()
        text = str(arrays["attributes"]) if "attributes" in arrays else "{}"
    trajectories = split(lengths, columns, terminated.tolist(), seeds)
    return DemonstrationSet(trajectories, attributes(text, path), types=types)


def info(values: np.ndarray, path: Path, name: str, rows: int) -> np.ndarray:
    """A column of any further numbers."""
    if values.dtype.kind not in "biuf" or values.shape[:1] != (rows,):
        raise refuse(path, f", '{name}': type {values.dtype}, shape {values.shape}", f"{rows} rows of numbers")
    return values.astype(np.float32, copy=False)


def attributes(text: str, path: Path) -> dict[str, str | int | float]:
    """Of a JSON text."""
    try:
        return plain(dict(json.loads(text)))
    except (ValueError, TypeError) as error:
        raise UserError(f"demonstrations {path}: the attributes are not JSON ({error})") from error


def write(path: Path, content: DemonstrationSet) -> None:
    """Write a set of connected rows so that `read` returns it. The file appears whole or not at all."""
    trajectories = content.trajectories
    names = [name for name in columns_of(trajectories[0]) if name != "observations"]

    def columns() -> Iterator[tuple[str, np.ndarray]]:  # one after the other, so that only one is in memory
        yield "lengths", np.array([trajectory.length for trajectory in trajectories])
        yield "terminated", np.array([trajectory.terminated for trajectory in trajectories])
        yield "observations", np.concatenate([trajectory.all_observations for trajectory in trajectories])
        for name in names:
            own = name.removeprefix("infos/")
            parts = [t.infos[own] if own != name else getattr(t, name) for t in trajectories]
            yield name, np.concatenate(parts)
        seeds = [trajectory.seed for trajectory in trajectories]
        if None not in seeds:
            yield "seeds", np.array(seeds, np.int64)
        if content.attributes:
            yield "attributes", np.array(json.dumps(dict(content.attributes)))

    with whole(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as file:
        for name, values in columns():
            with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)


FORMAT = Format("npz", "a NumPy archive of plain arrays", read, write)
