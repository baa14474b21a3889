"""Minari datasets (Farama Foundation), as they lie on a disk: metadata.json beside main_data.hdf5, a group per episode.

Each group holds observations [T + 1, observation], actions [T, action] or integers [T], rewards, terminations and
truncations [T], infos of T or T + 1 rows, and in its attributes the seed of the reset. Read and written with h5py: the
minari package is needed for its Arrow and Parquet variants and for downloads only.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from gymnasium.spaces import Discrete
from tqdm import tqdm

from conf.errors import UserError
from environments.construction import make_environment
from environments.formats.base import (
    DemonstrationSet,
    Format,
    actions_of,
    alike,
    damaged,
    first_bytes,
    flags,
    gathered,
    numbers,
    plain,
    refuse,
    whole,
)
from environments.formats.hdf5 import created
from environments.trajectories import LazyTrajectories, Trajectory, lengths_of

EXPECTED = "the folder of a Minari dataset"
METADATA, DATA = "metadata.json", "main_data.hdf5"
FILES = frozenset({f"data/{METADATA}", f"data/{DATA}"})
VERSION = "0.5.4"  # of the layout that is written
KEPT = ("dataset_id", "author", "algorithm_name", "code_permalink", "minari_version", "requirements", "description")
OWN = "demonstration_attributes"  # among the metadata


def local_datasets() -> Path:
    """Where Minari keeps what it downloads."""
    return Path(os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")).expanduser()


def data_folder(path: Path) -> Path | None:
    """The folder with the metadata, from itself or from the one above; None where it is no Minari dataset."""
    candidates = (path, path / "data")
    return next((folder for folder in candidates if _is_minari(folder / METADATA)), None)


def _is_minari(metadata: Path) -> bool:
    try:
        content = json.loads(metadata.read_text()) if metadata.is_file() else None
    except (ValueError, OSError):
        return False
    return isinstance(content, dict) and "data_format" in content


def read(path: Path) -> DemonstrationSet:
    """All episodes of a dataset. Large ones are read episode by episode.

    Raises:
        UserError: it is not such a folder, or has observations or actions that are not vectors.
    """
    folder = data_folder(path)
    if folder is None:
        raise refuse(path, f" have no {METADATA} of Minari", EXPECTED)
    metadata = json.loads((folder / METADATA).read_text())
    attributes = _attributes(metadata, folder / METADATA)
    if metadata["data_format"] != "hdf5":
        return _read_with_minari(folder, metadata, attributes)
    first_bytes(folder / DATA, EXPECTED)
    try:
        with ExitStack() as stack:
            file = stack.enter_context(h5py.File(folder / DATA, "r"))
            names = sorted(file, key=lambda name: int(re.sub(r"\D", "", name) or -1))
            names = [name for name in names if re.fullmatch(r"episode_\d+", name)]
            if not names:
                raise refuse(path, " hold no episodes", "at least one")
            for name in names:
                if not isinstance(file[name], h5py.Group):
                    raise refuse(path, f", {name} is no group", "a group for each episode")
            trajectories, notes = _episodes(file, names, path)
            columns = (name for name in file[names[0]] if name in ("observations", "actions", "rewards"))
            types = {name: str(file[names[0]][name].dtype) for name in columns}
            if isinstance(trajectories, LazyTrajectories):
                stack.pop_all()  # the file stays open for as long as they are used
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # h5py raises each of these for damaged files
        raise damaged(path, error) from error
    return DemonstrationSet(trajectories, attributes, notes, types)


def _attributes(metadata: dict[str, Any], path: Path) -> dict[str, str | int | float]:
    attributes = plain({name: metadata[name] for name in KEPT if isinstance(metadata.get(name), str)})
    if OWN in metadata:
        if not isinstance(metadata[OWN], dict):
            raise refuse(path, f", '{OWN}': {str(metadata[OWN])[:40]}", "names with values")
        attributes = plain(metadata[OWN])
    identity = _environment_id(metadata.get("env_spec"), path)
    return {"environment_id": identity, **attributes} if identity else attributes


def _environment_id(specification: Any, path: Path) -> str | None:
    """Of a specification of Gymnasium, which is a text of JSON; None where it is none."""
    try:
        content = json.loads(specification) if isinstance(specification, str) and specification else {}
    except ValueError:
        return None
    if (specification and not isinstance(specification, str)) or not isinstance(content, dict):
        raise refuse(path, f", 'env_spec': {str(specification)[:40]}", "a text of JSON with the environment's id")
    return str(content["id"]) if content.get("id") else None


def _episodes(file: h5py.File, names: list[str], path: Path) -> tuple[Any, tuple[str, ...]]:
    first = file[names[0]]
    if not isinstance(first.get("observations"), h5py.Dataset) or not isinstance(first.get("actions"), h5py.Dataset):
        raise refuse(path, ": observations or actions are dictionaries or missing", "vectors of numbers")
    lengths = [len(file[name]["rewards"]) for name in names]
    width = sum(int(np.prod(first[name].shape[1:])) for name in ("observations", "actions"))

    def load(index: int) -> Trajectory:
        return _trajectory(file[names[index]], path)

    trajectories = gathered(lengths, load, 4 * sum(lengths) * width)
    alike(trajectories, path)
    infos = _infos(first)
    long = any(isinstance(values, h5py.Dataset) and len(values) == lengths[0] + 1 for values in infos.values())
    left = sorted(name for name in infos if name not in trajectories[0].infos)
    notes = [f"infos that are not numbers were left out: {', '.join(left)}"] if left else []
    return trajectories, (*notes, *(["infos behind each last step were left out"] if long else []))


def _trajectory(group: h5py.Group, path: Path) -> Trajectory:
    where = group.name[1:]
    content = {name: values[()] for name, values in group.items() if isinstance(values, h5py.Dataset)}
    for name in ("observations", "actions", "rewards", "terminations"):
        if name not in content:
            raise refuse(path, f", {where}: no '{name}'", "observations, actions, rewards and terminations")
    actions = actions_of(content["actions"], path, f"{where}/actions")
    steps = len(actions)
    terminations = flags(content["terminations"], path, f"{where}/terminations", steps)
    seed = group.attrs.get("seed")
    if seed is not None and not isinstance(seed, int | np.integer):
        raise refuse(path, f", {where}: seed {str(seed)[:40]}", "an integer")
    kept = {
        name: values[:steps].astype(np.float32)
        for name, values in _infos(group).items()
        if isinstance(values, h5py.Dataset) and values.dtype.kind in "biuf" and values.shape[:1] >= (steps,)
    }
    return Trajectory.from_observations(
        numbers(content["observations"], 2, path, f"{where}/observations", steps + 1),
        actions,
        numbers(content["rewards"], 1, path, f"{where}/rewards", steps),
        bool(terminations[-1]),
        kept,
        None if seed is None else int(seed),
    )


def _infos(group: h5py.Group) -> Mapping[str, Any]:
    infos = group.get("infos")
    return infos if isinstance(infos, h5py.Group) else {}


def _read_with_minari(
    folder: Path, metadata: dict[str, Any], attributes: dict[str, str | int | float]
) -> DemonstrationSet:
    """The other variants, by the package itself, which reads them with pyarrow."""
    try:
        import minari
    except ModuleNotFoundError as error:
        form = metadata["data_format"]
        raise UserError(
            f"demonstrations {folder} are a Minari dataset in {form}: pip install -r requirements-formats.txt"
        ) from error
    try:
        episodes = list(minari.MinariDataset(folder))
    except Exception as error:  # of many kinds
        raise damaged(folder, error) from error
    if not episodes:
        raise refuse(folder, " hold no episodes", "at least one")
    trajectories = [
        Trajectory.from_observations(
            numbers(episode.observations, 2, folder, f"observations of episode {index}", len(episode) + 1),
            actions_of(episode.actions, folder, f"actions of episode {index}", len(episode)),
            numbers(episode.rewards, 1, folder, f"rewards of episode {index}"),
            bool(episode.terminations[-1]),
        )
        for index, episode in enumerate(episodes)
    ]
    return DemonstrationSet(alike(trajectories, folder), attributes, ("infos and seeds were left out",))


def write(path: Path, content: DemonstrationSet) -> None:
    """Write a set of connected rows so that `read` and `minari.MinariDataset` return it.

    To load it by its id, put the folder under Minari's own: ~/.minari/datasets/<id>.
    """
    trajectories = content.trajectories
    with whole(path) as partial:
        folder = partial / "data"
        folder.mkdir(parents=True)
        with created(folder / DATA, track_order=True) as file:
            for index, trajectory in enumerate(tqdm(trajectories, f"writing {path.name}", leave=False, disable=None)):
                _write_episode(file.create_group(f"episode_{index}"), index, trajectory)
        size = round((folder / DATA).stat().st_size / 1e6, 1)
        (folder / METADATA).write_text(json.dumps(_metadata(path, content) | {"dataset_size": size}))


def _write_episode(group: h5py.Group, index: int, trajectory: Trajectory) -> None:
    ends = np.zeros((2, trajectory.length), bool)
    ends[0 if trajectory.terminated else 1, -1] = True
    columns = {
        "observations": trajectory.all_observations,
        "actions": trajectory.actions,
        "rewards": trajectory.rewards,
        "terminations": ends[0],
        "truncations": ends[1],
        **{f"infos/{name}": values for name, values in trajectory.infos.items()},
    }
    group.create_group("infos")
    for name, values in columns.items():
        group.create_dataset(name, data=values, compression="gzip", shuffle=True)
    group.attrs.update({"id": index, "total_steps": trajectory.length})
    if trajectory.seed is not None:
        group.attrs["seed"] = trajectory.seed


def _metadata(path: Path, content: DemonstrationSet) -> dict[str, Any]:
    first = content.trajectories[0]
    environment = content.environment_id
    known = environment in gymnasium.registry
    width = first.observations.shape[1]
    metadata = {
        "total_episodes": len(content.trajectories),
        "total_steps": sum(lengths_of(content.trajectories)),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(_box(width)),
        "action_space": json.dumps(_action_space(content)),
        "dataset_id": f"{re.sub(r'[^A-Za-z0-9_-]', '-', path.name)}-v0",
        "minari_version": VERSION,
        "author": [],
        "author_email": [],
        "algorithm_name": str(content.attributes.get("algorithm", "")),
        "code_permalink": "",
        OWN: dict(content.attributes),
    }
    return metadata | ({"env_spec": gymnasium.spec(environment).to_json()} if environment and known else {})


def _box(width: int) -> dict[str, Any]:
    unlimited = [float("inf")] * width
    return {"type": "Box", "dtype": "float32", "shape": [width], "low": [-x for x in unlimited], "high": unlimited}


def _action_space(content: DemonstrationSet) -> dict[str, Any]:
    """Discrete with as many actions as the environment has, or at least as many as are in use."""
    first = content.trajectories[0]
    if not first.discrete:
        assert first.actions is not None  # `needs` of the format
        return _box(first.actions.shape[1])
    used = 1 + max(
        int(trajectory.actions.max()) for trajectory in content.trajectories if trajectory.actions is not None
    )
    if content.environment_id in gymnasium.registry:
        space = make_environment(str(content.environment_id)).action_space
        used = max(used, int(space.n)) if isinstance(space, Discrete) else used
    return {"type": "Discrete", "dtype": "int64", "start": 0, "n": used}


FORMAT = Format("minari", "a Minari dataset, a folder", read, write, needs=("actions", "rewards"), files=FILES)
