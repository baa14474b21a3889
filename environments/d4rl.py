"""Demonstration files in D4RL's HDF5 layout (Fu et al. 2020, "D4RL").

Datasets of one row per step, episodes one after the other: observations, actions, rewards, next_observations,
terminals (the episode truly ended after this step), timeouts (it was cut off after this step), infos/*.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float32

from conf.errors import UserError
from environments.trajectories import Trajectory

DIMENSIONS = {
    "observations": 2,
    "actions": 2,
    "rewards": 1,
    "next_observations": 2,
    "terminals": 1,
    "timeouts": 1,
}
REQUIRED = ("observations", "terminals")
FLAGS = ("terminals", "timeouts")


def read_d4rl(path: str | Path) -> list[Trajectory]:
    """The complete episodes of a file, in its order; their arrays are views into one array per dataset.

    - A step that is both terminal and timeout is a true termination, and one end.
    - Rows after the last end are a partial episode and dropped. Without `timeouts` and without a single terminal
      there is no end to go by, and the whole file is one episode that a time limit cut.
    - Without `next_observations` the successor is the next row's observation. The last row of an episode has none:
      after a true end it does not matter (the observation is repeated), after a timeout that row is dropped.
    - Without `actions` the data is state-only; without `rewards` returns are unknown.

    Raises UserError for anything that is not such a file.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise UserError(f"cannot read demonstrations {path}: {error.strerror}; expected a D4RL HDF5 file") from error
    if empty:
        raise UserError(f"demonstrations {path} are empty (0 bytes); expected a D4RL HDF5 file")
    if not h5py.is_hdf5(path):
        raise UserError(f"demonstrations {path} are not HDF5; expected a D4RL HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            columns = _read_columns(file, path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # h5py raises each of these for damaged files
        reason = " ".join(str(error).split())
        raise UserError(f"demonstrations {path} are damaged or truncated ({reason}); fetch the file again") from error
    trajectories = list(_trajectories(columns))
    if not trajectories:
        raise UserError(
            f"demonstrations {path} hold {len(columns['terminals'])} rows but no complete episode; "
            "expected terminals or timeouts to mark where episodes end"
        )
    return trajectories


def _read_columns(file: h5py.File, path: Path) -> dict[str, np.ndarray]:
    present = [name for name in DIMENSIONS if isinstance(file.get(name), h5py.Dataset)]
    for name in REQUIRED:
        if name not in present:
            raise UserError(
                f"demonstrations {path} have no dataset '{name}'; expected {' and '.join(REQUIRED)}, "
                f"found {', '.join(sorted(map(str, file))) or 'nothing'}"
            )
    rows = _check_shapes({name: file[name] for name in present}, path)
    columns = {}
    for name in present:
        columns[name] = _read_flags(file[name], path) if name in FLAGS else _read_numbers(file[name], rows, path)
    return columns


def _check_shapes(datasets: Mapping[str, h5py.Dataset], path: Path) -> int:
    """The number of rows, which all datasets share. Looks at shapes and types only, before anything is read."""
    for name, dataset in datasets.items():
        where = f"demonstrations {path}, dataset '{name}'"
        if dataset.dtype.kind not in ("biuf" if name in FLAGS else "iuf"):
            kind = "flags" if name in FLAGS else "numbers"
            raise UserError(f"{where}: type {dataset.dtype}; expected {kind}")
        if dataset.shape is None or len(dataset.shape) != DIMENSIONS[name]:
            found = "nothing" if dataset.shape is None else f"shape {dataset.shape}"
            raise UserError(f"{where}: {found}; expected {DIMENSIONS[name]} dimension(s), the first of them steps")
    shape = datasets["observations"].shape
    for name, dataset in datasets.items():
        where = f"demonstrations {path}, dataset '{name}'"
        if 0 in dataset.shape:
            raise UserError(f"{where}: shape {dataset.shape} holds no data; expected at least one row and column")
        if len(dataset) != shape[0]:
            raise UserError(f"{where}: {len(dataset)} rows; expected {shape[0]}, as in 'observations'")
        if name == "next_observations" and dataset.shape != shape:
            raise UserError(f"{where}: {dataset.shape[1]} columns; expected {shape[1]}, as in 'observations'")
    return int(shape[0])


def _read_numbers(dataset: h5py.Dataset, rows: int, path: Path) -> Float32[np.ndarray, "..."]:
    values = np.empty(dataset.shape, np.float32)
    dataset.read_direct(values)  # converts on the way, without a second copy in the file's type
    finite = np.isfinite(values).reshape(rows, -1).all(1)
    if not finite.all():
        where = f"demonstrations {path}, dataset '{dataset.name[1:]}', row {finite.argmin()}"
        raise UserError(f"{where}: NaN or infinite value; expected finite numbers (32 bits)")
    return values


def _read_flags(dataset: h5py.Dataset, path: Path) -> np.ndarray:
    values: np.ndarray = dataset[()]
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        where = f"demonstrations {path}, dataset '{dataset.name[1:]}', row {wrong.argmax()}"
        raise UserError(f"{where}: {values[wrong.argmax()]}; expected 0 or 1")
    return np.asarray(values, bool)


def _trajectories(columns: Mapping[str, np.ndarray]) -> Iterator[Trajectory]:
    observations = columns["observations"]
    actions, rewards, successors = (columns.get(name) for name in ("actions", "rewards", "next_observations"))
    for start, end, terminated in episodes(columns["terminals"], columns.get("timeouts")):
        # Without successors the last row of an episode that was cut has to go.
        stop = end if terminated or successors is not None else end - 1
        if start == stop:
            continue
        if successors is not None:
            next_observations = successors[start:stop]
        elif terminated:
            next_observations = np.concatenate([observations[start + 1 : stop], observations[stop - 1 : stop]])
        else:
            next_observations = observations[start + 1 : end]
        yield Trajectory(
            observations=observations[start:stop],
            actions=None if actions is None else actions[start:stop],
            rewards=None if rewards is None else rewards[start:stop],
            next_observations=next_observations,
            terminated=terminated,
        )


def episodes(terminals: np.ndarray, timeouts: np.ndarray | None) -> list[tuple[int, int, bool]]:
    """(first row, last row + 1, truly terminated?) of each complete episode."""
    if timeouts is None and not terminals.any():
        return [(0, len(terminals), False)]
    # The union of the flags, not the two lists of rows: a step that has both ends one episode.
    ends = np.flatnonzero(terminals if timeouts is None else terminals | timeouts)
    starts = [0, *(ends + 1)]
    return [(int(start), int(end) + 1, bool(terminals[end])) for start, end in zip(starts, ends, strict=False)]


def write_d4rl(
    path: str | Path,
    trajectories: Sequence[Trajectory],
    attributes: Mapping[str, str | float | int],
    infos: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write episodes so that `read_d4rl` returns them; `infos` (such as qpos, qvel) have one row per step.

    The file appears whole or not at all: a partial one never carries the final name.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w") as file:
            file.attrs.update(attributes)
            for name, values in _columns(trajectories, infos or {}).items():
                file.create_dataset(name, data=values, compression="gzip", shuffle=True)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _columns(trajectories: Sequence[Trajectory], infos: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    columns = {}
    for name in ("observations", "actions", "rewards", "next_observations"):
        parts = [getattr(trajectory, name) for trajectory in trajectories]
        if all(part is not None for part in parts):
            columns[name] = np.concatenate(parts).astype(np.float32, copy=False)
        elif any(part is not None for part in parts):
            raise ValueError(f"some trajectories have {name} and some do not")
    lasts = np.cumsum([trajectory.length for trajectory in trajectories]) - 1
    terminated = np.array([trajectory.terminated for trajectory in trajectories])
    for name, ends in (("terminals", lasts[terminated]), ("timeouts", lasts[~terminated])):
        columns[name] = np.zeros(lasts[-1] + 1, bool)
        columns[name][ends] = True
    for name, values in infos.items():
        if len(values) != lasts[-1] + 1:
            raise ValueError(f"infos/{name} has {len(values)} rows and the trajectories have {lasts[-1] + 1} steps")
        columns[f"infos/{name}"] = np.asarray(values, np.float32)
    return columns
