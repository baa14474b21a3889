"""Bad files in every format: one line that says what is wrong, and nothing in them ever runs."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from conf.errors import UserError
from environments.formats import FORMATS, read
from environments.formats.base import DemonstrationSet
from tests.environments.formats.episodes import assert_same, episode

EPISODES = [episode(3, True), episode(2, False, 9.0)]


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (exec, (f"open({str(self.trace)!r}, 'w').close()",))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    return message


def with_objects(trace: Path) -> np.ndarray:
    values = np.empty(5, object)
    values[:] = [Malicious(trace)] * 5
    return values


def legacy(path: Path, **changes: Any) -> Path:
    """The imitation library's older archive of episodes of 3 and 2 steps."""
    arrays = {
        "obs": np.concatenate([trajectory.all_observations for trajectory in EPISODES]).astype(np.float64),
        "acts": np.concatenate([t.actions for t in EPISODES if t.actions is not None]),
        "rews": np.arange(5.0),
        "terminal": np.array([True, False]),
        "indices": np.array([3]),
        "infos": np.array([{}] * 5, object),
    }
    np.savez(path, **{name: values for name, values in (arrays | changes).items() if values is not None})
    return path


def test_the_imitation_librarys_older_archives(tmp_path: Path) -> None:
    content = read(legacy(tmp_path / "old.npz"))
    assert [trajectory.length for trajectory in content.trajectories] == [3, 2]
    for before, after in zip(EPISODES, content.trajectories, strict=True):
        np.testing.assert_array_equal(before.all_observations, after.all_observations)
        assert after.actions is not None and before.terminated == after.terminated
    assert [t.episode_return for t in content.trajectories] == [3, 7]
    assert content.notes[0] == "infos are pickled and were left out" and "time limit" in content.notes[1]
    content = read(legacy(tmp_path / "no_rewards.npz", rews=None, infos=None, acts=np.array([0, 1, 1, 0, 1])))
    assert content.trajectories[0].rewards is None and content.trajectories[1].discrete
    (one,) = read(legacy(tmp_path / "one.npz", obs=np.zeros((6, 2)), terminal=[True], indices=[])).trajectories
    assert one.length == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": np.array([4, 3]), "terminal": np.zeros(3, bool)}, "'indices', episode 1: -1 steps"),
        ({"indices": np.array([9])}, "'indices', episode 1: -4 steps; expected at least 1"),
        ({"indices": np.array([1.5])}, "'indices': type float64"),
        ({"obs": np.zeros((5, 2))}, "'obs': 5 rows; expected 7, to agree with the others"),
        ({"obs": np.full((7, 2), np.nan)}, "'obs', row 0: NaN or infinite value in column 0, 1"),
        ({"terminal": np.zeros(3, bool)}, "'terminal': 3 rows; expected 2"),
        ({"rews": np.zeros((5, 1))}, r"'rews': shape (5, 1); expected 1 dimension(s)"),
        ({"acts": np.zeros((5, 0))}, r"'acts': shape (5, 0) holds no data"),
    ],
)
def test_older_archives_with_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refused(legacy(tmp_path / "old.npz", **changes))


@pytest.mark.parametrize("name", ["obs", "acts", "terminal", "rews", "indices"])
def test_pickled_arrays_do_not_run(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "ran"
    message = refused(legacy(tmp_path / "old.npz", **{name: with_objects(trace)}))
    assert "hold objects, which are pickled" in message and "save plain arrays" in message
    read(legacy(tmp_path / "infos.npz", infos=with_objects(trace)))  # which are not read at all
    np.savez(tmp_path / "ours.npz", observations=with_objects(trace), lengths=[4], terminated=[1])
    assert "hold objects" in refused(tmp_path / "ours.npz")
    assert not trace.exists()


@pytest.mark.parametrize("ending", [".hdf5", ".npz", ".csv", ".pkl", ".arrow", ""])
def test_pickles_do_not_run_whatever_they_are_called(tmp_path: Path, ending: str) -> None:
    trace, path = tmp_path / "ran", tmp_path / f"bad{ending}"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps([Malicious(trace)], protocol))
        assert "are a pickle, which can run programs" in refused(path)
    path.write_bytes(pickle.dumps([Malicious(trace)], 0))
    refused(path)
    assert not trace.exists()


def test_pickles_inside_other_formats_do_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    bad = pickle.dumps(Malicious(trace))
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["observations"] = np.array([np.void(bad)] * 3)
        file["terminals"] = np.zeros(3)
    assert "expected numbers" in refused(tmp_path / "d.hdf5")
    folder = tmp_path / "minari"
    FORMATS["minari"].write(folder, DemonstrationSet(EPISODES))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/infos/bad"] = np.array([np.void(bad)] * 3)
        del file["episode_1/actions"]
        file["episode_1/actions"] = np.array([np.void(bad)] * 2)
    assert "expected numbers" in refused(folder)
    (folder / "data" / "main_data.hdf5").write_bytes(bad)
    with pytest.raises(UserError, match=r"main_data\.hdf5 are a pickle"):
        read(folder)
    (folder / "data" / "metadata.json").write_bytes(bad)
    assert "a folder without data" in refused(folder)
    with zipfile.ZipFile(tmp_path / "policy.pt", "w") as archive:
        archive.writestr("archive/data.pkl", bad)
    assert "PyTorch file and no demonstrations" in refused(tmp_path / "policy.pt")
    with zipfile.ZipFile(tmp_path / "members.npz", "w") as archive:
        for name in ("observations", "lengths", "terminated"):
            archive.writestr(f"{name}.npy", bad)
    refused(tmp_path / "members.npz")
    assert not trace.exists()


def test_pickles_inside_arrow_folders_do_not_run(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    trace, folder = tmp_path / "ran", tmp_path / "hf"
    FORMATS["imitation"].write(folder, DemonstrationSet(EPISODES))
    text = json.dumps({"py/reduce": [{"py/function": "builtins.exec"}, {"py/tuple": [f"open({str(trace)!r}, 'w')"]}]})
    import pyarrow as pa

    table = pa.ipc.open_stream((folder / "data-00000-of-00001.arrow").read_bytes()).read_all()
    infos = pa.array([[text] * 3, [text] * 2])
    table = table.set_column(table.column_names.index("infos"), "infos", infos)
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as w:
        w.write_table(table)
    assert read(folder).trajectories[0].infos == {}  # plain JSON, of which nothing is a number
    (folder / "data-00000-of-00001.arrow").write_bytes(pickle.dumps(Malicious(trace)))
    refused(folder)
    assert not trace.exists()


def test_archives_with_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "ours.npz"
    good: dict[str, Any] = {"observations": np.zeros((7, 2)), "lengths": [3, 2], "terminated": [1, 0]}
    for changes, message in (
        ({"lengths": [3, -2]}, "'lengths', episode 1: -2 steps; expected at least 1"),
        ({"lengths": [5, 0]}, "'lengths', episode 1: 0 steps"),
        ({"lengths": np.zeros(0, int), "terminated": []}, "hold no episodes"),
        ({"lengths": [3.0, 2.0]}, "'lengths': type float64"),
        ({"observations": np.zeros((6, 2))}, "'observations': 6 rows; expected 7"),
        ({"observations": np.zeros(7)}, "'observations': shape (7,); expected 2 dimension(s)"),
        ({"actions": np.zeros((7, 1))}, "'actions': 7 rows; expected 5"),
        ({"actions": np.array(["a"] * 5)}, "'actions': type <U1; expected numbers"),
        ({"terminated": [2, 0]}, "'terminated', row 0: 2; expected 0 or 1"),
        ({"infos/qpos": np.zeros((4, 1))}, "'infos/qpos'"),
        ({"seeds": [1]}, "'seeds'"),
        ({"attributes": "no json"}, "the attributes are not JSON"),
    ):
        np.savez(path, **(good | changes))
        assert message in refused(path)
    np.savez(path, observations=np.zeros((7, 2)))
    assert "have no array 'lengths'" in refused(path)
    whole = io.BytesIO()
    np.savez_compressed(whole, **(good | {"observations": np.random.default_rng(0).normal(size=(7, 2000))}))
    for share in (0.3, 0.9):
        path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)])
        assert "damaged or truncated" in refused(path)
    data = bytearray(whole.getvalue())
    data[2000:2100] = bytes(100)
    path.write_bytes(data)
    assert "damaged or truncated" in refused(path)


def test_tables_with_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    header = "episode,step,observation_0,observation_1,action_0,terminated\n"
    row = "0,0,1.5,2.5,0.5,0\n"
    for text, message in (
        ("", "are empty (0 bytes)"),
        (header, "hold a header and no rows"),
        ("a,b\n1,2\n", "have no column 'episode'"),
        ("episode,observation_1\n0,2\n", "'observation': columns [1]; expected numbers from 0"),
        (header + row + "0,1,1.5\n", "damaged or truncated (near row 0"),
        (header + row + "0,1,x,2,3,0\n", "could not convert string 'x'"),
        (header + row + "0,1,nan,2,3,0\n", "'observation', row 1: NaN or infinite value in column 0"),
        (header + row + "0,1,1,2,1e60,0\n", "'action', row 1: NaN or infinite"),
        (header + row + "0,1,1,2,3,7\n", "'terminated', row 1: 7.0; expected 0 or 1"),
        (header + "0,0,1,2,3,1\n" + row, "'terminated', row 0: 1 within an episode"),
        (header + row, "hold no complete episode"),
        ("episode,observation_0,seed\n0,1,nan\n0,2,nan\n", "'seed', row 0: nan; expected an integer"),
        ("episode,observation_0,seed\n0,1,3\n0,2,1e40\n", "'seed', row 1: 1e+40; expected an integer"),
        ("episode,observation_0\nnan,1\nnan,2\n", "'episode', row 0: NaN"),
    ):
        path.write_text(text)
        assert message in refused(path)
    path.write_bytes(b"episode,observation_0\n\xff\xfe\xfa")
    assert "not text in UTF-8" in refused(path)


def test_tables_with_less_than_we_write(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("episode,observation_0,action\n7,0,1\n7,1,0\n7,2,1\n9,5,0\n9,6,1\n")
    content = read(path)
    assert [t.observations[:, 0].tolist() for t in content.trajectories] == [[0, 1], [5]]
    assert [t.next_observations[:, 0].tolist() for t in content.trajectories] == [[1, 2], [6]]
    assert content.trajectories[0].discrete and not content.trajectories[0].terminated
    assert "no column 'terminated'" in content.notes[0]
    assert content.notes[1].endswith("the next row's are taken, and 2 last rows are left out")
    path.write_text("episode,observation_0\n1,0\n2,1\n3,2\n3,3\n")
    assert read(path).notes[1].endswith("3 last rows are left out, 2 episodes of one row with them")
    path.write_text("episode,observation_0,action,terminated\n7,0,1.5,0\n7,1,0,1\n")
    (one,) = read(path).trajectories
    assert one.actions is not None and one.actions.tolist() == [[1.5], [0]] and one.terminated
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as spreadsheets write it
    assert_same([one], read(path).trajectories)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_tables_are_read_in_pieces(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    FORMATS["csv"].write(tmp_path / "d.csv", DemonstrationSet(EPISODES))
    monkeypatch.setattr("environments.formats.table.ROWS", rows)
    assert_same(EPISODES, read(tmp_path / "d.csv").trajectories)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([1, "data_format"], "a folder without data"),
        (3, "a folder without data"),
        ({"env_spec": {"id": "Hopper-v4"}}, "metadata.json, 'env_spec'"),
        ({"env_spec": "3"}, "metadata.json, 'env_spec': 3; expected a text of JSON"),
        ({"demonstration_attributes": None}, "metadata.json, 'demonstration_attributes': None; expected names"),
    ],
)
def test_minari_metadata_with_mistakes(tmp_path: Path, changes: Any, message: str) -> None:
    folder = tmp_path / "minari"
    FORMATS["minari"].write(folder, DemonstrationSet(EPISODES))
    file = folder / "data" / "metadata.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | changes if isinstance(changes, dict) else changes))
    assert message in refused(folder)


def test_imitation_attributes_with_mistakes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    folder = tmp_path / "hf"
    FORMATS["imitation"].write(folder, DemonstrationSet(EPISODES))
    (folder / "demonstrations.json").write_text('{"attributes": null}')
    assert "demonstrations.json, 'attributes': None; expected names with values" in refused(folder)


@pytest.mark.parametrize("seeds", [7, [0.5, 1.5], [[1, 2]]], ids=str)
def test_seeds_with_mistakes(tmp_path: Path, seeds: Any) -> None:
    path = tmp_path / "d.hdf5"
    FORMATS["d4rl"].write(path, DemonstrationSet(EPISODES))
    with h5py.File(path, "a") as file:
        if "seeds" in file:
            del file["seeds"]
        file["seeds"] = np.array(seeds)
    assert "'seeds'" in refused(path) and "an integer for each episode" in refused(path)


def test_minari_folders_with_mistakes(tmp_path: Path) -> None:
    folder = tmp_path / "minari"

    def changed(name: str, values: Any) -> str:
        FORMATS["minari"].write(folder, DemonstrationSet(EPISODES))
        with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
            del file[name]
            if values is not None:
                file[name] = values
        return refused(folder)

    assert "episode_1/observations': 2 rows; expected 3" in changed("episode_1/observations", np.zeros((2, 2)))
    assert "'episode_1/rewards': 3 rows; expected 2" in changed("episode_1/rewards", np.zeros(3))
    assert "episode 1: 'observations' differs" in changed("episode_1/observations", np.zeros((3, 4)))
    assert "no 'terminations'" in changed("episode_0/terminations", None)
    assert "episode_0 is no group; expected a group for each episode" in changed("episode_0", np.zeros(3))
    FORMATS["minari"].write(folder, DemonstrationSet(EPISODES))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1"].attrs["seed"] = "four"
    assert "episode_1: seed four; expected an integer" in refused(folder)
    FORMATS["minari"].write(folder, DemonstrationSet(EPISODES))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for episode in file.values():
            del episode["infos"]
            episode["infos"] = np.zeros(3)
    assert FORMATS["minari"].read(folder).trajectories[0].infos == {}
    FORMATS["minari"].write(folder, DemonstrationSet(EPISODES))
    assert "are the data of a Minari dataset" in refused(folder / "data" / "main_data.hdf5")
    with h5py.File(folder / "data" / "main_data.hdf5", "w"):
        pass
    assert "hold no episodes" in refused(folder)
    FORMATS["minari"].write(folder, DemonstrationSet(EPISODES))
    whole = folder / "data" / "main_data.hdf5"
    whole.write_bytes(whole.read_bytes()[:3000])
    assert "damaged or truncated" in refused(folder)


def test_folders_and_files_of_no_known_kind(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent")
    assert "a folder without data" in refused(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"something else")
    assert "have none of the known formats" in refused(tmp_path / "x.bin")
    (tmp_path / "x.hdf5").write_bytes(b"<html>Not found</html>")
    assert "are not HDF5" in refused(tmp_path / "x.hdf5")
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    assert "are a single array" in refused(tmp_path / "x.npz")
