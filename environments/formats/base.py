"""What all formats share: the set that a reader returns, the checks of its numbers, and files that appear whole."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from tqdm import tqdm

from conf.errors import UserError
from environments.trajectories import LazyTrajectories, Trajectory, lengths_of

Attribute = str | int | float
ENVIRONMENT_KEYS = ("environment_id", "env_id", "env_name", "env")
EAGER_BYTES = 256 * 2**20  # sets below this are read at once, larger ones episode by episode


@dataclass(frozen=True)
class DemonstrationSet:
    """Episodes and what their file says about them."""

    trajectories: Sequence[Trajectory]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what the reader had to assume or leave out
    types: Mapping[str, str] = field(default_factory=dict)  # in the file, of each column

    @property
    def environment_id(self) -> str | None:
        """The Gymnasium id that the file names, if any."""
        found = (self.attributes[key] for key in ENVIRONMENT_KEYS if key in self.attributes)
        return next((str(value) for value in found), None)

    @property
    def steps(self) -> int:
        return sum(lengths_of(self.trajectories))


@dataclass(frozen=True)
class Format:
    """One way to keep demonstrations on a disk."""

    name: str
    description: str
    read: Callable[[Path], DemonstrationSet]
    write: Callable[[Path, DemonstrationSet], None]
    attributes: bool = True  # are attributes kept?
    needs: tuple[str, ...] = ()  # columns that may not be missing
    rows: bool = False  # may rows be unconnected?
    infos: int | None = None  # dimensions that infos may have beside time; None: any
    files: frozenset[str] = frozenset()  # that it writes, where it is a folder; none: it is a file itself

    def losses(self, content: DemonstrationSet) -> list[str]:
        """What this format cannot carry of a set; what would leave nothing usable is refused instead.

        Raises:
            UserError: the set cannot be kept in this format.
        """
        first = content.trajectories[0]
        missing = [name for name in self.needs if getattr(first, name) is None]
        if missing:
            raise UserError(
                f"{self.name} needs {' and '.join(missing)}, which these demonstrations do not have; "
                "d4rl, npz and csv can do without"
            )
        if not self.rows and not all(trajectory.connected for trajectory in content.trajectories):
            raise UserError(
                f"{self.name} keeps T + 1 observations for T steps, but next_observations differ from the next row's "
                "observations here; use d4rl or csv, which keep both"
            )
        kept = {key for key in content.attributes if key in ENVIRONMENT_KEYS}
        lost = [] if self.attributes else sorted(set(content.attributes) - kept)
        limit = np.inf if self.infos is None else self.infos
        wide = [name for name, values in first.infos.items() if values.ndim - 1 > limit]
        lines = [f"attributes ({', '.join(lost)})"] if lost else []
        return lines + ([f"infos of several dimensions ({', '.join(wide)})"] if wide else [])


def refuse(path: Path, what: str, expected: str) -> UserError:
    return UserError(f"demonstrations {path}{what}; expected {expected}")


def numbers(values: Any, dimensions: int, path: Path, name: str, rows: int | None = None) -> Float32[np.ndarray, "..."]:
    """A column of finite 32-bit numbers.

    Raises:
        UserError: it is something else. The first dimension has to be `rows` where that is given.
    """
    where = f", '{name}'"
    values = np.asarray(values)
    check_column(values, dimensions, path, name, rows)
    with np.errstate(over="ignore"):
        result: np.ndarray = values.astype(np.float32, copy=False)
    finite = np.isfinite(result).reshape(len(result), -1).all(1)
    if not finite.all():
        row = int(finite.argmin())
        raise refuse(path, f"{where}, row {row}: {not_finite(result[row])}", "finite numbers (32 bits)")
    return result


def not_finite(row: Any) -> str:
    """Where in a row numbers are missing."""
    columns = np.flatnonzero(~np.isfinite(np.atleast_1d(row)))
    where = f" in column {', '.join(map(str, columns[:10]))}" if np.ndim(row) else ""
    return f"NaN or infinite value{where}"


def check_column(values: Any, dimensions: int, path: Path, name: str, rows: int | None, kinds: str = "iuf") -> None:
    """Type and shape of an array or HDF5 dataset, before its numbers are looked at."""
    where = f", '{name}'"
    if values.dtype.kind == "O":
        raise refuse(
            path,
            f"{where}: objects, which are pickled and may run programs when read",
            "an array of numbers: save it again from the program that made it, as one array of all rows",
        )
    if values.dtype.kind not in kinds:
        raise refuse(path, f"{where}: type {values.dtype}", "flags" if "b" in kinds else "numbers")
    if values.shape is None or len(values.shape) != dimensions:
        found = "nothing" if values.shape is None else f"shape {values.shape}"
        raise refuse(path, f"{where}: {found}", f"{dimensions} dimension(s), the first of them steps")
    if 0 in values.shape:
        raise refuse(path, f"{where}: shape {values.shape} holds no data", "at least one row and column")
    if rows is not None and len(values) != rows:
        raise refuse(path, f"{where}: {len(values)} rows", f"{rows}, to agree with the others")


def flags(values: Any, path: Path, name: str, rows: int | None = None) -> np.ndarray:
    """A column of booleans, in whatever type they are kept."""
    values = np.asarray(values)
    check_column(values, 1, path, name, rows, "biuf")
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise refuse(path, f", '{name}', row {wrong.argmax()}: {values[wrong.argmax()]}", "0 or 1")
    return np.asarray(values, bool)


def discrete(values: Any) -> bool:
    """Are these stored actions integers, one per step? Several integers per step are taken as numbers."""
    single = len(values.shape) == 1 or (len(values.shape) == 2 and values.shape[1] == 1)
    return values.dtype.kind in "iu" and single


def actions_of(
    values: Any, path: Path, name: str, rows: int | None = None
) -> Float32[np.ndarray, "time action"] | Int64[np.ndarray, "time"]:
    """A column of actions: integers, [time], where they are discrete."""
    values = np.asarray(values)
    if discrete(values):
        check_column(values, values.ndim, path, name, rows)
        integers: np.ndarray = values.reshape(-1).astype(np.int64)
        return integers
    return numbers(values, 2, path, name, rows)


def episode_lengths(values: Any, path: Path, name: str) -> list[int]:
    """Steps of each episode, from a file.

    Raises:
        UserError: there is none, or one of them is not at least 1.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise refuse(path, f", '{name}': type {values.dtype}, shape {values.shape}", "one integer per episode")
    if len(values) == 0:
        raise refuse(path, " hold no episodes", "at least one")
    if values.min() < 1:
        raise refuse(path, f", '{name}', episode {values.argmin()}: {values.min()} steps", "at least 1")
    return [int(value) for value in values]


def alike(trajectories: Sequence[Trajectory], path: Path) -> Sequence[Trajectory]:
    """Episodes that were read one by one; they have to have the same columns of the same widths.

    Raises:
        UserError: one of them differs from the first.
    """
    expected: dict[str, tuple[int, ...]] | None = None
    for index, trajectory in enumerate(tqdm(trajectories, "checking", leave=False, disable=None)):
        found = columns_of(trajectory)
        if expected is not None and found != expected:
            name = min(name for name, _ in found.items() ^ expected.items())
            raise refuse(
                path, f", episode {index}: '{name}' differs from that of episode 0", "the same in all episodes"
            )
        expected = found
    return trajectories


def columns_of(trajectory: Trajectory) -> dict[str, tuple[int, ...]]:
    """The shape of a row in each column that is there."""
    named = {"observations": trajectory.observations, "actions": trajectory.actions, "rewards": trajectory.rewards}
    shapes = {name: values.shape[1:] for name, values in named.items() if values is not None}
    return shapes | {f"infos/{name}": values.shape[1:] for name, values in trajectory.infos.items()}


def gathered(lengths: Sequence[int], load: Callable[[int], Trajectory], size: int) -> Sequence[Trajectory]:
    """All episodes at once where `size` bytes are few, and otherwise lazily."""
    if size > EAGER_BYTES:
        return LazyTrajectories(lengths, load)
    return [load(index) for index in range(len(lengths))]


def plain(attributes: Mapping[str, Any]) -> dict[str, Attribute]:
    """Text and numbers among the attributes of a file."""
    kept: dict[str, Attribute] = {}
    for name, value in attributes.items():
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, str | int | float):
            kept[str(name)] = value
    return kept


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write a file or folder, which takes its name when all is written: nothing partial is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        check_replaceable(path, _files_in(partial) if partial.is_dir() else frozenset())
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
        raise


def check_replaceable(path: Path, files: Set[str] = frozenset()) -> None:
    """Before a file, or a folder of these `files`, takes a name: a folder gives way to one of the same kind alone.

    Raises:
        UserError: what is there is a folder that holds anything else, or is no folder where one is to be.
    """
    if not files and path.is_dir():
        raise UserError(f"{path} is a folder, which a file does not replace: choose another output")
    if files and path.exists() and (path.is_symlink() or not path.is_dir() or not _files_in(path) <= files):
        raise UserError(
            f"{path} is not the folder of a dataset of this format and nothing else, so it is not replaced: choose "
            "another output"
        )


def _files_in(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in files}


def first_bytes(path: Path, expected: str) -> bytes:
    """The beginning of a file that is there, is a file, may be read, and holds something.

    Raises:
        UserError: one of these does not hold.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise UserError(f"cannot read demonstrations {path}: {error.strerror}; expected {expected}") from error
    if not start:
        raise refuse(path, " are empty (0 bytes)", expected)
    if start[:1] == b"\x80":
        what = " are a pickle, which can run programs when it is read and never is here"
        raise refuse(path, what, f"{expected}: save plain arrays with numpy.savez in the program that made it")
    return start


def damaged(path: Path, error: BaseException) -> UserError:
    """What a library said about a file that it could not read, in one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"demonstrations {path} are damaged or truncated ({reason}); fetch the file again")


def split(
    lengths: Sequence[int], columns: Mapping[str, np.ndarray], terminated: Sequence[bool], seeds: Sequence[int] | None
) -> list[Trajectory]:
    """Episodes as views of columns of all steps; of observations there is one more than steps in each."""
    infos = {name.removeprefix("infos/"): values for name, values in columns.items() if name.startswith("infos/")}
    trajectories = []
    start = 0
    for index, length in enumerate(lengths):
        stop = start + length
        own = {name: columns[name][start:stop] if name in columns else None for name in ("actions", "rewards")}
        trajectories.append(
            Trajectory.from_observations(
                columns["observations"][start + index : stop + index + 1],
                own["actions"],
                own["rewards"],
                bool(terminated[index]),
                {name: values[start:stop] for name, values in infos.items()},
                None if seeds is None else int(seeds[index]),
            )
        )
        start = stop
    return trajectories
