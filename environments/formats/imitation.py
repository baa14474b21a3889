"""The `imitation` library's saved trajectories: a folder of the Hugging Face `datasets` library, a row per episode.

Columns obs [T + 1, observation], acts [T, action] or integers [T], infos (T texts), terminal and, if known, rews [T].
The texts are made with jsonpickle, which can run programs when it decodes; here they are read as plain JSON only, and
lists of numbers among them are kept. Of our own: demonstrations.json beside the data, with attributes and seeds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tqdm import tqdm

from conf.errors import UserError
from environments.formats.base import (
    DemonstrationSet,
    Format,
    actions_of,
    alike,
    damaged,
    gathered,
    numbers,
    plain,
    refuse,
    whole,
)
from environments.trajectories import Trajectory

EXPECTED = "a Hugging Face datasets folder with columns obs, acts, infos and terminal"
OWN = "demonstrations.json"
DATA, STATE, INFO = "data-00000-of-00001.arrow", "state.json", "dataset_info.json"
FILES = frozenset({DATA, STATE, INFO, OWN})
NAMES = {"obs": "observations", "acts": "actions", "rews": "rewards"}
BATCH = 16  # episodes that are written together
ENDS = "`terminal` also marks episodes that a time limit ended: see --time-limit"


def pyarrow() -> ModuleType:
    """The library that reads these files.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise UserError(
            "the imitation library's folders need pyarrow: pip install -r requirements-formats.txt"
        ) from error
    module: ModuleType = pyarrow
    return module


def data_files(folder: Path) -> list[Path]:
    """Arrow or Parquet files of a `datasets` folder in order; none where it is something else."""
    state = folder / STATE
    if state.is_file():
        try:
            named = [folder / Path(part["filename"]).name for part in json.loads(state.read_text())["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(state, error) from error
        return named
    found = [path for path in folder.rglob("*") if path.suffix in (".arrow", ".parquet") and path.is_file()]
    return sorted(path for path in found if not path.name.startswith("cache-"))


def read(path: Path) -> DemonstrationSet:
    """All episodes of a folder. Large ones are read episode by episode.

    Raises:
        UserError: it is not such a folder, or pyarrow is not installed.
    """
    pa = pyarrow()
    files = data_files(path)
    if not files:
        raise refuse(path, " have no Arrow or Parquet file", EXPECTED)
    try:
        table = pa.concat_tables([_read_file(pa, file) for file in files], promote_options="permissive")
        table.validate(full=True)  # offsets in a damaged file may point anywhere
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error
    missing = [name for name in ("obs", "acts", "terminal") if name not in table.column_names]
    if missing:
        raise refuse(path, f" have no column '{missing[0]}'", f"{EXPECTED}, found {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise refuse(path, " hold no episodes", "at least one")
    own = _own(path)
    if not isinstance(own.get("attributes", {}), dict):
        raise refuse(path / OWN, f", 'attributes': {str(own['attributes'])[:40]}", "names with values")
    names = _info_names(table)
    lengths = pa.compute.list_value_length(table["acts"]).to_pylist()

    def load(index: int) -> Trajectory:
        return _trajectory(table, index, names, own, path)

    trajectories = gathered(lengths, load, table.nbytes)
    alike(trajectories, path)
    notes = [ENDS] if not own and any(table["terminal"].to_pylist()) else []
    types = {NAMES[name]: str(table.schema.field(name).type) for name in NAMES if name in table.column_names}
    return DemonstrationSet(trajectories, plain(own.get("attributes", {})), tuple(notes), types)


def _read_file(pa: ModuleType, file: Path) -> Any:
    if file.suffix == ".parquet":
        return pa.parquet.read_table(file)
    return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


def _own(path: Path) -> dict[str, Any]:
    file = path / OWN
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise damaged(file, error) from error


def _info_names(table: Any) -> list[str]:
    """Infos of the first step of the first episode that are numbers."""
    first = table["infos"][0].as_py() if "infos" in table.column_names else None
    content = _json(first[0]) if first else {}
    return [name for name, value in content.items() if _numeric(value)]


def _json(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _numeric(value: Any) -> bool:
    if isinstance(value, list) and value:
        return all(_numeric(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _trajectory(table: Any, index: int, names: list[str], own: dict[str, Any], path: Path) -> Trajectory:
    where = f"episode {index}"
    actions = actions_of(_array(table["acts"][index], path, where), path, f"acts of {where}")
    observations = _array(table["obs"][index], path, where)
    observations = numbers(observations, 2, path, f"obs of {where}", len(actions) + 1)
    rewards = None
    if "rews" in table.column_names and table["rews"][index].is_valid:
        rewards = numbers(_array(table["rews"][index], path, where), 1, path, f"rews of {where}", len(actions))
    terminated = table["terminal"][index].as_py()
    if not isinstance(terminated, bool):
        raise refuse(path, f", 'terminal' of {where}: {terminated}", "true or false")
    texts = table["infos"][index].as_py() if "infos" in table.column_names else None
    if texts and _json(texts[-1]).get("TimeLimit.truncated") is True:
        terminated = False
    seeds = own.get("seeds")
    try:
        parsed = [_json(text) for text in texts] if names and texts else []
        infos = {name: np.array([item[name] for item in parsed], np.float32) for name in names} if parsed else {}
        seed = int(seeds[index]) if seeds else None
        return Trajectory.from_observations(observations, actions, rewards, terminated, infos, seed)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise refuse(path, f", infos of {where} ({error})", "the same numbers for every step") from error


def _array(value: Any, path: Path, where: str) -> np.ndarray:
    """Nested lists of equal lengths as one array, without a Python object for each number."""
    if not value.is_valid:
        raise refuse(path, f", {where}: nothing", "a list of numbers")
    values, shape = value.values, [len(value.values)]
    while hasattr(values, "flatten") and str(values.type).startswith(("list", "large_list", "fixed_size_list")):
        inner = len(values.flatten())
        width = inner // max(1, len(values))
        if any(len(item) != width for item in values):
            raise refuse(path, f", {where}: rows of unequal lengths", "the same number of values in each row")
        shape.append(width)
        values = values.flatten()
    if values.null_count:
        raise refuse(path, f", {where}: missing values", "numbers")
    result: np.ndarray = np.asarray(values).reshape(shape)
    return result


def write(path: Path, content: DemonstrationSet) -> None:
    """Write a set of connected rows so that `read`, `datasets.load_from_disk` and `imitation` can read it."""
    pa = pyarrow()
    trajectories = content.trajectories
    first = trajectories[0]
    row = pa.list_(pa.float32())
    fields = [
        ("obs", pa.list_(row)),
        ("acts", pa.list_(pa.int64() if first.discrete else row)),
        ("infos", pa.list_(pa.string())),
        ("terminal", pa.bool_()),
        *([("rews", row)] if first.rewards is not None else []),
    ]
    schema = pa.schema(fields)
    with whole(path) as folder:
        folder.mkdir()
        data = folder / DATA
        with pa.OSFile(str(data), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for start in tqdm(range(0, len(trajectories), BATCH), f"writing {path.name}", leave=False, disable=None):
                rows = [_row(trajectory) for trajectory in trajectories[start : start + BATCH]]
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
        empty = {"citation": "", "description": "", "homepage": "", "license": ""}
        (folder / INFO).write_text(json.dumps(empty))
        state: dict[str, Any] = {
            "_data_files": [{"filename": data.name}],
            "_fingerprint": "0" * 16,
            "_format_columns": None,
        }
        state |= {"_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": None}
        (folder / STATE).write_text(json.dumps(state))
        seeds = [trajectory.seed for trajectory in trajectories]
        own = {"attributes": dict(content.attributes), "seeds": None if None in seeds else seeds}
        (folder / OWN).write_text(json.dumps(own))


def _row(trajectory: Trajectory) -> dict[str, Any]:
    actions = trajectory.actions
    assert actions is not None  # `needs` of the format
    row = {
        "obs": list(trajectory.all_observations),
        "acts": list(actions),
        "infos": list(_texts(trajectory)),
        "terminal": trajectory.terminated,
    }
    return row if trajectory.rewards is None else row | {"rews": trajectory.rewards}


def _texts(trajectory: Trajectory) -> Iterator[str]:
    infos = {name: values.tolist() for name, values in trajectory.infos.items()}
    for step in range(trajectory.length):
        yield json.dumps({name: values[step] for name, values in infos.items()})


FORMAT = Format(
    "imitation", "the imitation library's Hugging Face folder", read, write, needs=("actions",), files=FILES
)
