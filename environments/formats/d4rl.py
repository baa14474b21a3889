"""Demonstration files in D4RL's HDF5 layout (Fu et al. 2020, "D4RL").

Datasets of one row per step, episodes one after the other: observations, actions, rewards, next_observations,
terminals (the episode truly ended after this step), timeouts (it was cut off after this step), infos/*. Discrete
actions are integers, one per step. Of our own: `seeds`, one per episode; and next_observations that are a view of
observations (a virtual dataset), but for the last of each episode, which are stored in `last_observations`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from conf.errors import UserError
from environments.formats.base import (
    EAGER_BYTES,
    Attribute,
    DemonstrationSet,
    Format,
    check_column,
    columns_of,
    damaged,
    discrete,
    first_bytes,
    flags,
    gathered,
    not_finite,
    plain,
    refuse,
    whole,
)
from environments.formats.hdf5 import created
from environments.trajectories import LazyTrajectories, Trajectory

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
EXPECTED = "a D4RL HDF5 file"
PIECE_BYTES = 16 * 2**20  # what is checked at a time
CHUNK_BYTES = 2**18  # what is compressed together
VIEWED_EPISODES = 1000  # more make a virtual dataset slow: each adds two pieces
CACHE_BYTES = 64 * 2**20  # several episodes lie in one compressed chunk, which is then decompressed once


def read_d4rl(path: str | Path) -> Sequence[Trajectory]:
    """The complete episodes of a file, in its order; see `read`."""
    return read(Path(path)).trajectories


def read(path: Path) -> DemonstrationSet:
    """The complete episodes of a file, in its order, and its attributes. Large files are read episode by episode.

    - A step that is both terminal and timeout is a true termination, and one end.
    - Rows after the last end are a partial episode and dropped. Without `timeouts` and without a single terminal
      there is no end to go by, and the whole file is one episode that a time limit cut.
    - Without `next_observations` the successor is the next row's observation. The last row of an episode has none:
      after a true end it does not matter (the observation is repeated), after a timeout that row is dropped.
    - Without `actions` the data is state-only; without `rewards` returns are unknown.

    Raises UserError for anything that is not such a file.
    """
    first_bytes(path, EXPECTED)
    if not h5py.is_hdf5(path):
        raise refuse(path, " are not HDF5", EXPECTED)
    try:
        with ExitStack() as stack:
            file = stack.enter_context(h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES))
            content = _read(file, path)
            if isinstance(content.trajectories, LazyTrajectories):
                stack.pop_all()  # it stays open for as long as they are used
            return content
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # h5py raises each for damaged files
        raise damaged(path, error) from error


def _read(file: h5py.File, path: Path) -> DemonstrationSet:
    datasets = _datasets(file, path)
    rows = len(datasets["observations"])
    ends = {name: flags(datasets.pop(name)[()], path, name) for name in FLAGS if name in datasets}
    types = {name: str(dataset.dtype) for name, dataset in datasets.items()}
    size = sum(4 * int(np.prod(dataset.shape)) for dataset in datasets.values())
    lazy = size > EAGER_BYTES
    for name in [name for name in DIMENSIONS if name in datasets]:  # in this order: the first mistake is named
        _check_numbers(datasets[name], path, name)
    columns = {name: dataset if lazy else _numbers(dataset, 0, rows) for name, dataset in datasets.items()}
    found = episodes(ends["terminals"], ends.get("timeouts"))
    # Without successors the last row of an episode that was cut has to go.
    short = 0 if "next_observations" in datasets else 1
    spans = [(start, end if terminated else end - short, terminated) for start, end, terminated in found]
    spans = [span for span in spans if span[0] < span[1]]
    if not spans:
        raise UserError(
            f"demonstrations {path} hold {rows} rows but no complete episode; "
            "expected terminals or timeouts to mark where episodes end"
        )
    seeds = _seeds(file, path)

    def load(index: int) -> Trajectory:
        seed = int(seeds[index]) if len(seeds) == len(found) == len(spans) else None
        return _trajectory(columns, *spans[index], seed)

    trajectories = gathered([stop - start for start, stop, _ in spans], load, size)
    return DemonstrationSet(trajectories, plain(file.attrs), tuple(_notes(ends, found, rows, short)), types)


def _seeds(file: h5py.File, path: Path) -> Sequence[int]:
    dataset = file.get("seeds")
    if not isinstance(dataset, h5py.Dataset):
        return ()
    if dataset.shape is None or len(dataset.shape) != 1 or dataset.dtype.kind not in "iu":
        raise refuse(path, f", 'seeds': type {dataset.dtype}, shape {dataset.shape}", "an integer for each episode")
    return [int(seed) for seed in dataset[()]]


def _datasets(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """All that are of use, after a look at their names, shapes and types only."""
    present = {name: file[name] for name in DIMENSIONS if isinstance(file.get(name), h5py.Dataset)}
    for name in REQUIRED:
        if name not in present:
            if any(str(key).startswith("episode_") for key in file):
                raise refuse(path, " are the data of a Minari dataset", "its folder, which holds metadata.json")
            raise UserError(
                f"demonstrations {path} have no dataset '{name}'; expected {' and '.join(REQUIRED)}, "
                f"found {', '.join(sorted(map(str, file))) or 'nothing'}"
            )
    rows = None
    for name, dataset in present.items():
        dimensions = dataset.ndim if name == "actions" and discrete(dataset) else DIMENSIONS[name]
        check_column(dataset, dimensions, path, name, rows, "biuf" if name in FLAGS else "iuf")
        rows = len(dataset)
    shape, successors = present["observations"].shape, present.get("next_observations")
    if successors is not None and successors.shape != shape:
        what = f", 'next_observations': {successors.shape[1]} columns"
        raise refuse(path, what, f"{shape[1]}, as in 'observations'")
    infos = file.get("infos")
    for name in infos if isinstance(infos, h5py.Group) else ():
        dataset = infos[name]
        if isinstance(dataset, h5py.Dataset) and dataset.dtype.kind in "biuf" and dataset.shape[:1] == (rows,):
            present[f"infos/{name}"] = dataset
    return present


def _notes(ends: Mapping[str, np.ndarray], found: list[tuple[int, int, bool]], rows: int, short: int) -> Iterator[str]:
    if "timeouts" not in ends:
        marked = "episodes end at terminals only" if ends["terminals"].any() else "the whole file is one episode"
        yield f"there are no timeouts: {marked}"
    if short:
        yield "there are no next_observations: the next row's observations are taken, and rows without one left out"
    if found and found[-1][1] < rows:
        yield f"{rows - found[-1][1]} rows behind the last end are a partial episode and left out"


def _numbers(values: Any, start: int, stop: int) -> np.ndarray:
    """Rows of a dataset or of an array, as 32-bit numbers or, where they are discrete actions, 64-bit integers."""
    if isinstance(values, np.ndarray):
        return values[start:stop]
    if values.name == "/actions" and discrete(values):
        integers: np.ndarray = values[start:stop].reshape(-1).astype(np.int64)
        return integers
    result = np.empty((stop - start, *values.shape[1:]), np.float32)
    values.read_direct(result, np.s_[start:stop])  # converts on the way, without a second copy in the file's type
    return result


def _check_numbers(dataset: h5py.Dataset, path: Path, name: str) -> None:
    """Piece by piece, so that nothing large has to be in memory."""
    step = max(1, PIECE_BYTES // (4 * int(np.prod(dataset.shape[1:]))))
    pieces = range(0, len(dataset), step)
    for start in tqdm(pieces, f"checking {name}", leave=False, disable=None if len(pieces) > 1 else True):
        values = _numbers(dataset, start, min(start + step, len(dataset)))
        finite = np.isfinite(values).reshape(len(values), -1).all(1)
        if not finite.all():
            bad = int(finite.argmin())
            what = f", '{name}', row {start + bad}: {not_finite(values[bad])}"
            raise refuse(path, what, "finite numbers (32 bits)")


def _trajectory(columns: Mapping[str, Any], start: int, stop: int, terminated: bool, seed: int | None) -> Trajectory:
    own = {name: _numbers(values, start, stop) for name, values in columns.items()}
    observations = own.pop("observations")
    successors = own.pop("next_observations", None)
    if successors is None and terminated:
        successors = np.concatenate([observations[1:], observations[-1:]])
    elif successors is None:
        successors = _numbers(columns["observations"], start + 1, stop + 1)
    return Trajectory(
        observations=observations,
        actions=own.pop("actions", None),
        rewards=own.pop("rewards", None),
        next_observations=successors,
        terminated=terminated,
        infos={name.removeprefix("infos/"): values for name, values in own.items()},
        seed=seed,
    )


def episodes(terminals: np.ndarray, timeouts: np.ndarray | None) -> list[tuple[int, int, bool]]:
    """(first row, last row + 1, truly terminated?) of each complete episode."""
    if timeouts is None and not terminals.any():
        return [(0, len(terminals), False)]
    # The union of the flags, not the two lists of rows: a step that has both ends one episode.
    ends = np.flatnonzero(terminals if timeouts is None else terminals | timeouts)
    starts = [0, *(ends + 1)]
    return [(int(start), int(end) + 1, bool(terminals[end])) for start, end in zip(starts, ends, strict=False)]


def write_d4rl(path: str | Path, trajectories: Sequence[Trajectory], attributes: Mapping[str, Attribute]) -> None:
    """Write episodes so that `read_d4rl` returns them."""
    write(Path(path), DemonstrationSet(trajectories, attributes))


def write(path: Path, content: DemonstrationSet) -> None:
    """Write a set so that `read` returns it, episode by episode. The file appears whole or not at all."""
    trajectories, total = content.trajectories, content.steps
    rows = columns_of(trajectories[0])
    types = {"actions": np.int64} if trajectories[0].discrete else {}
    ends = {name: np.zeros(total, bool) for name in FLAGS}
    seeds: list[int | None] = []
    last: list[np.ndarray] = []
    connected = len(trajectories) <= VIEWED_EPISODES
    with whole(path) as partial, created(partial, rdcc_nbytes=CACHE_BYTES) as file:
        file.attrs.update(content.attributes)
        datasets = {name: _create(file, name, (total, *row), types.get(name, np.float32)) for name, row in rows.items()}
        start = 0
        for trajectory in tqdm(trajectories, f"writing {path.name}", leave=False, disable=None):
            if columns_of(trajectory).keys() != rows.keys():
                raise ValueError("some trajectories have other columns than the first")
            stop = start + trajectory.length
            for name, dataset in datasets.items():
                info = name.removeprefix("infos/")
                dataset[start:stop] = trajectory.infos[info] if info != name else getattr(trajectory, name)
            ends["terminals" if trajectory.terminated else "timeouts"][stop - 1] = True
            seeds.append(trajectory.seed)
            last.append(trajectory.next_observations[-1])
            connected &= np.array_equal(trajectory.observations[1:], trajectory.next_observations[:-1])
            start = stop
        if connected:
            _view_successors(file, ends["terminals"] | ends["timeouts"], np.array(last, np.float32))
        else:
            _write_successors(file, trajectories, (total, *rows["observations"]))
        for name, values in ends.items():
            file.create_dataset(name, data=values, compression="gzip", shuffle=True)
        if None not in seeds:
            file.create_dataset("seeds", data=np.array(seeds, np.int64))


def _view_successors(file: h5py.File, ends: np.ndarray, last: np.ndarray) -> None:
    """next_observations without storing them: the next row's observation, at an episode's end one of `last`."""
    shape = file["observations"].shape
    file.create_dataset("last_observations", data=last, compression="gzip", shuffle=True)
    rows, own = h5py.VirtualSource(".", "observations", shape), h5py.VirtualSource(".", "last_observations", last.shape)
    layout, start = h5py.VirtualLayout(shape, np.float32), 0
    layout.dcpl.set_obj_track_times(False)  # the same content makes the same file
    for episode, end in enumerate(np.flatnonzero(ends)):
        if start < end:
            layout[start:end] = rows[start + 1 : end + 1]
        layout[end] = own[episode]
        start = int(end) + 1
    file.create_virtual_dataset("next_observations", layout)


def _write_successors(file: h5py.File, trajectories: Sequence[Trajectory], shape: tuple[int, ...]) -> None:
    dataset, start = _create(file, "next_observations", shape, np.float32), 0
    for trajectory in tqdm(trajectories, "writing next_observations", leave=False, disable=None):
        dataset[start : start + trajectory.length] = trajectory.next_observations
        start += trajectory.length


def _create(file: h5py.File, name: str, shape: tuple[int, ...], dtype: type) -> h5py.Dataset:
    rows = min(shape[0], max(1, CHUNK_BYTES // (4 * int(np.prod(shape[1:])))))
    return file.create_dataset(name, shape, dtype, chunks=(rows, *shape[1:]), compression="gzip", shuffle=True)


FORMAT = Format("d4rl", "HDF5 in D4RL's layout, a row per step", read, write, rows=True)
