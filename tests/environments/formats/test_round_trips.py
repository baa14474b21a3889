"""From every format to every other one: nothing is lost, or it is said what."""

import dataclasses
import itertools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from conf.errors import UserError
from environments.formats import FORMATS, base, d4rl, detected, for_output, read
from environments.formats.base import DemonstrationSet
from environments.trajectories import LazyTrajectories, Trajectory
from tests.environments.formats.episodes import assert_same, episode

ENDINGS = {"d4rl": ".hdf5", "npz": ".npz", "csv": ".csv", "minari": "", "imitation": ""}
NAMES = [name for name in ENDINGS if name != "imitation" or find_spec("pyarrow")]
ATTRIBUTES: dict[str, str | int | float] = {
    "environment_id": "Hopper-v4",
    "algorithm": "SAC",
    "seed": 3,
    "return_mean": 1.25,
}


def saved(folder: Path, name: str, content: DemonstrationSet) -> Path:
    path = folder / f"demonstrations{ENDINGS[name]}"
    FORMATS[name].write(path, content)
    assert [entry.name for entry in folder.iterdir()] == [path.name]  # nothing else is left behind
    return path


def continuous(**options: object) -> Sequence[Trajectory]:
    ends = [(3, True), (1, True), (2, False), (1, False)]
    return [episode(n, end, 10.0 * i, seed=i + 5, **options) for i, (n, end) in enumerate(ends)]  # type: ignore[arg-type]  # of several types


@pytest.mark.parametrize("actions", ["continuous", "discrete"])
@pytest.mark.parametrize(("first", "second"), [*itertools.product(NAMES, NAMES)])
def test_two_formats_one_after_the_other(tmp_path: Path, first: str, second: str, actions: str) -> None:
    written = continuous(actions=actions)
    content = DemonstrationSet(written, ATTRIBUTES)
    for index, name in enumerate((first, second)):
        folder = tmp_path / str(index)
        folder.mkdir()
        path = saved(folder, name, content)
        assert detected(path).name == name
        content = read(path)
        assert_same(written, content.trajectories)
        assert content.environment_id == "Hopper-v4"
    if "csv" not in (first, second):
        assert content.attributes == ATTRIBUTES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", ["actions", "rewards", "infos", "seed"])
def test_what_is_missing_stays_missing_or_is_refused(tmp_path: Path, name: str, missing: str) -> None:
    changes: dict[str, object] = {"infos": {}, "actions": None, "rewards": None, "seed": None}
    written = [dataclasses.replace(t, **{missing: changes[missing]}) for t in continuous()]  # type: ignore[arg-type]  # of several types
    content = DemonstrationSet(written, {})
    if missing in FORMATS[name].needs:
        with pytest.raises(UserError, match=f"{name} needs {missing}"):
            FORMATS[name].losses(content)
    else:
        assert FORMATS[name].losses(content) == []
        assert_same(written, read(saved(tmp_path, name, content)).trajectories)


@pytest.mark.parametrize("name", NAMES)
def test_unconnected_rows_are_kept_or_refused(tmp_path: Path, name: str) -> None:
    whole = episode(4, False)
    thin = dataclasses.replace(whole, next_observations=whole.next_observations + 1)
    content = DemonstrationSet([whole, thin], {})
    if FORMATS[name].rows:
        FORMATS[name].losses(content)
        assert_same([whole, thin], read(saved(tmp_path, name, content)).trajectories)
    else:
        with pytest.raises(UserError, match=r"next_observations differ.*use d4rl or csv"):
            FORMATS[name].losses(content)


def test_what_a_table_cannot_carry_is_said() -> None:
    images = dataclasses.replace(episode(2, True), infos={"image": np.zeros((2, 3, 3)), "qpos": np.zeros((2, 1))})
    lines = FORMATS["csv"].losses(DemonstrationSet([images], ATTRIBUTES))
    assert lines == ["attributes (algorithm, return_mean, seed)", "infos of several dimensions (image)"]
    assert FORMATS["npz"].losses(DemonstrationSet([images], ATTRIBUTES)) == []


@pytest.mark.parametrize("name", NAMES)
def test_large_sets_are_read_lazily_and_written(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "EAGER_BYTES", 0)
    monkeypatch.setattr(d4rl, "EAGER_BYTES", 0)
    written = continuous()
    lazy = LazyTrajectories([trajectory.length for trajectory in written], lambda index: written[index])
    found = read(saved(tmp_path, name, DemonstrationSet(lazy, {}))).trajectories
    assert isinstance(found, LazyTrajectories) == (name in ("d4rl", "minari", "imitation"))
    assert_same(written, found)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_there_is_replaced_whole(tmp_path: Path, name: str) -> None:
    saved(tmp_path, name, DemonstrationSet(continuous(), {}))
    path = saved(tmp_path, name, DemonstrationSet([episode(2, True)], {}))
    assert_same([episode(2, True)], read(path).trajectories)


def test_formats_by_name_and_ending() -> None:
    assert for_output(Path("a.h5")).name == "d4rl" and for_output(Path("a"), "minari").name == "minari"
    with pytest.raises(UserError, match=r"expected an ending of \.hdf5"):
        for_output(Path("a"))
    with pytest.raises(UserError, match="no format 'Minary'; did you mean 'minari'"):
        for_output(Path("a"), "Minary")
