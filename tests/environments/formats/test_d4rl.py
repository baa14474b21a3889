"""D4RL files: where episodes end, what may be missing, and one clear line for what is wrong."""

import dataclasses
import pathlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from conf.errors import UserError
from environments.formats.d4rl import episodes, read_d4rl, write_d4rl
from environments.formats.d4rl import read as read_file
from environments.trajectories import LazyTrajectories, Trajectory
from tests.environments.formats.episodes import assert_same, episode

FOLDER = Path(__file__).parents[4] / "shared" / "demonstrations"
FILES = sorted(FOLDER.glob("*.hdf5"))


def columns(rows: int = 5, terminals: tuple[int, ...] = (), timeouts: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Observations 0, 1, 2... beside their tenths, so that a row names itself; successors are rows + 100."""
    steps = np.arange(rows, dtype=np.float32)
    observations = np.stack([steps, steps / 10], 1)
    return {
        "observations": observations,
        "actions": steps[:, None] / 10,
        "rewards": steps,
        "next_observations": observations + 100,
        "terminals": np.isin(steps, terminals),
        "timeouts": np.isin(steps, timeouts),
    }


def write(path: Path, data: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            file[name] = values
    return path


def read(tmp_path: Path, data: dict[str, np.ndarray], without: str = "") -> Sequence[Trajectory]:
    return read_d4rl(write(tmp_path / "d.hdf5", {k: v for k, v in data.items() if k not in without.split()}))


def steps(trajectories: Sequence[Trajectory]) -> list[list[float]]:
    return [trajectory.observations[:, 0].tolist() for trajectory in trajectories]


def successors(trajectories: Sequence[Trajectory]) -> list[list[float]]:
    return [trajectory.next_observations[:, 0].tolist() for trajectory in trajectories]


def terminated(trajectories: Sequence[Trajectory]) -> list[bool]:
    return [trajectory.terminated for trajectory in trajectories]


def test_episodes_end_at_terminals_and_timeouts(tmp_path: Path) -> None:
    found = read(tmp_path, columns(5, terminals=(1,), timeouts=(4,)))
    assert steps(found) == [[0, 1], [2, 3, 4]]
    assert terminated(found) == [True, False]
    assert successors(found) == [[100, 101], [102, 103, 104]]
    assert [t.actions is not None and t.actions[0, 0] for t in found] == [np.float32(0.0), np.float32(0.2)]
    assert [t.episode_return for t in found] == [1, 9]
    assert [t.length for t in found] == [2, 3]


def test_a_step_with_both_flags_is_one_true_end(tmp_path: Path) -> None:  # K14
    found = read(tmp_path, columns(5, terminals=(1,), timeouts=(1, 4)))
    assert steps(found) == [[0, 1], [2, 3, 4]]
    assert terminated(found) == [True, False]
    assert episodes(np.array([False, True]), np.array([False, True])) == [(0, 2, True)]  # and no empty one


def test_a_partial_episode_at_the_end_is_dropped(tmp_path: Path) -> None:
    found = read(tmp_path, columns(5, terminals=(0,), timeouts=(2,)))
    assert steps(found) == [[0], [1, 2]]


def test_one_episode_and_one_step_files(tmp_path: Path) -> None:
    assert steps(read(tmp_path, columns(3, timeouts=(2,)))) == [[0, 1, 2]]
    assert steps(read(tmp_path, columns(1, terminals=(0,)))) == [[0]]


def test_without_next_observations_they_come_from_the_next_row_of_the_episode(tmp_path: Path) -> None:
    found = read(tmp_path, columns(6, terminals=(1,), timeouts=(4, 5)), without="next_observations")
    # The timeout's last row has no successor and goes; so the one-step timeout episode (row 5) goes altogether.
    assert steps(found) == [[0, 1], [2, 3]]
    assert successors(found) == [[1, 1], [3, 4]]
    assert terminated(found) == [True, False]
    assert [t.episode_return for t in found] == [1, 5]


def test_without_timeouts_episodes_end_at_terminals(tmp_path: Path) -> None:
    found = read(tmp_path, columns(5, terminals=(0, 3)), without="timeouts")
    assert steps(found) == [[0], [1, 2, 3]]
    assert terminated(found) == [True, True]


def test_without_any_end_the_file_is_one_episode_that_was_cut(tmp_path: Path) -> None:
    found = read(tmp_path, columns(3), without="timeouts")
    assert (steps(found), terminated(found)) == ([[0, 1, 2]], [False])
    found = read(tmp_path, columns(3), without="timeouts next_observations")
    assert (steps(found), successors(found)) == ([[0, 1]], [[1, 2]])


def test_state_only_data_and_data_without_rewards(tmp_path: Path) -> None:
    (found,) = read(tmp_path, columns(3, timeouts=(2,)), without="actions")
    assert found.actions is None and found.episode_return == 3
    (found,) = read(tmp_path, columns(3, timeouts=(2,)), without="rewards")
    assert found.actions is not None and found.rewards is None and found.episode_return is None


@pytest.mark.parametrize("flags", [np.uint8, np.float32, np.int64])
def test_number_types_are_converted(tmp_path: Path, flags: type) -> None:
    data = columns(4, terminals=(1,), timeouts=(3,))
    data = {k: v.astype(flags if v.dtype == bool else np.float64) for k, v in data.items()}
    found = read(tmp_path, data)
    assert (steps(found), terminated(found)) == ([[0, 1], [2, 3]], [True, False])
    assert {t.observations.dtype for t in found} == {np.dtype(np.float32)}
    assert found[1].rewards is not None and found[1].rewards.dtype == np.float32


def changed(name: str, values: object) -> dict[str, np.ndarray]:
    return columns(4, timeouts=(3,)) | {name: np.asarray(values)}


def at(name: str, row: int, value: float) -> dict[str, np.ndarray]:
    data = columns(4, timeouts=(3,))
    data[name] = data[name].astype(np.float64)
    data[name][row, ...] = value
    return data


BAD = {
    "length": (changed("actions", np.zeros((3, 1))), "'actions': 3 rows; expected 4, to agree with the others"),
    "width": (changed("next_observations", np.zeros((4, 3))), "'next_observations': 3 columns; expected 2"),
    "too few dimensions": (changed("observations", np.zeros(4)), r"'observations': shape \(4,\); expected 2 dim"),
    "too many dimensions": (changed("rewards", np.zeros((4, 1))), r"'rewards': shape \(4, 1\); expected 1 dim"),
    "scalar": (changed("terminals", True), r"'terminals': shape \(\); expected 1 dim"),
    "NaN": (at("observations", 2, np.nan), "'observations', row 2: NaN or infinite"),
    "infinite": (at("actions", 1, -np.inf), "'actions', row 1: NaN or infinite"),
    "infinite in 32 bits": (at("rewards", 3, 1e300), "'rewards', row 3: NaN or infinite"),
    "flag": (at("terminals", 1, 2), r"'terminals', row 1: 2.0; expected 0 or 1"),
    "NaN flag": (at("timeouts", 0, np.nan), "'timeouts', row 0: nan; expected 0 or 1"),
    "bytes": (changed("rewards", [b"a"] * 4), r"'rewards': type \|S1; expected numbers"),
    "text": (changed("actions", np.array([["a"]] * 4, object)), "'actions': objects, which are pickled"),
    "no rows": (columns(0), r"'observations': shape \(0, 2\) holds no data"),
    "no columns": (changed("actions", np.zeros((4, 0))), r"'actions': shape \(4, 0\) holds no data"),
    "no complete episode": (columns(4), "hold 4 rows but no complete episode; expected terminals or timeouts"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_contents_are_named_in_one_line(tmp_path: Path, case: str) -> None:
    data, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, data)
    assert str(tmp_path / "d.hdf5") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_dataset_is_named_beside_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no dataset 'observations'.*found actions, next_obs.*, terminals, timeouts"):
        read(tmp_path, columns(4, timeouts=(3,)), without="observations")
    with pytest.raises(UserError, match="no dataset 'terminals'"):
        read(tmp_path, columns(4, timeouts=(3,)), without="terminals")
    with pytest.raises(UserError, match=r"no dataset 'observations'.*found nothing"):
        read(tmp_path, {})
    with pytest.raises(UserError, match=r"no dataset 'observations'.*found observations"):
        read(tmp_path, {"observations/a": np.zeros(3)})


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"cannot read .*absent.hdf5: No such file or directory"):
        read_d4rl(tmp_path / "absent.hdf5")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_d4rl(str(tmp_path))
    (tmp_path / "empty.hdf5").touch()
    with pytest.raises(UserError, match=r"empty.hdf5 are empty \(0 bytes\)"):
        read_d4rl(tmp_path / "empty.hdf5")
    (tmp_path / "junk.hdf5").write_bytes(b"<html>Not found</html>" * 100)
    with pytest.raises(UserError, match=r"junk.hdf5 are not HDF5"):
        read_d4rl(tmp_path / "junk.hdf5")
    whole = write(tmp_path / "d.hdf5", columns(1000, timeouts=(999,))).read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "cut.hdf5").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match=r"cut.hdf5 are damaged or truncated \(.+\)") as caught:
            read_d4rl(tmp_path / "cut.hdf5")
        assert "\n" not in str(caught.value)

    def refuse(*_: object, **__: object) -> None:  # the superuser may read everything, so no file can show this
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(UserError, match=r"cannot read .*: Permission denied"):
        read_d4rl(tmp_path / "d.hdf5")


def test_damaged_chunks_are_reported(tmp_path: Path) -> None:
    ones = np.ones((2000, 3), np.float32)
    trajectory = Trajectory(ones, ones, None, ones, False)
    path = tmp_path / "d.hdf5"
    write_d4rl(path, [trajectory], {})
    with h5py.File(path) as file:
        chunk = file["observations"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged or truncated"):
        read_d4rl(path)


def test_written_files_read_back_the_same(tmp_path: Path) -> None:
    written = [episode(3, True), episode(1, True, 50.0), episode(2, False, 70.0)]
    path = tmp_path / "d.hdf5"
    write_d4rl(path, written, {"env_id": "Hopper-v4", "seed": 3})
    assert_same(written, read_d4rl(path))
    with h5py.File(path) as file:
        assert (file.attrs["env_id"], file.attrs["seed"]) == ("Hopper-v4", 3)
        assert file["terminals"][()].tolist() == [False, False, True, True, False, False]
        assert file["timeouts"][()].tolist() == [False] * 5 + [True]
        assert file["timeouts"].dtype == bool
        assert file["infos/qpos"].dtype == np.float32 and file["infos/qpos"].shape == (6, 2)
        assert file["observations"].compression == "gzip"
    assert [p.name for p in tmp_path.iterdir()] == ["d.hdf5"]


def test_successors_are_a_view_of_the_observations_where_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored(written: list[Trajectory]) -> bool:
        path = tmp_path / "d.hdf5"
        write_d4rl(path, written, {})
        assert_same(written, read_d4rl(path))
        with h5py.File(path) as file:
            read = file["next_observations"][()]  # as any other reader of HDF5 sees it
            assert np.array_equal(read, np.concatenate([trajectory.next_observations for trajectory in written]))
            assert ("last_observations" in file) == file["next_observations"].is_virtual
            return not file["next_observations"].is_virtual

    connected = [episode(3, True), episode(1, True, 50.0), episode(2, False, 70.0)]
    assert not stored(connected)
    moved = connected[2].next_observations.copy()
    moved[0, 0] += 1
    assert stored([*connected[:2], dataclasses.replace(connected[2], next_observations=moved)])
    monkeypatch.setattr("environments.formats.d4rl.VIEWED_EPISODES", 2)
    assert stored(connected)


def test_discrete_actions_are_integers(tmp_path: Path) -> None:
    data = columns(4, timeouts=(3,)) | {"actions": np.array([0, 1, 1, 0], np.int32)}
    (found,) = read(tmp_path, data)
    assert found.discrete and found.actions is not None and found.actions.dtype == np.int64
    assert found.actions.tolist() == [0, 1, 1, 0]
    (found,) = read(tmp_path, data | {"actions": data["actions"][:, None]})
    assert found.actions is not None and found.actions.tolist() == [0, 1, 1, 0]
    (found,) = read(tmp_path, data | {"actions": np.ones((4, 2), np.int64)})  # several integers are numbers
    assert not found.discrete and found.actions is not None and found.actions.dtype == np.float32


def test_what_was_assumed_is_said(tmp_path: Path) -> None:
    data = columns(5, terminals=(2,), timeouts=())
    path = write(tmp_path / "d.hdf5", {k: v for k, v in data.items() if k not in ("timeouts", "next_observations")})
    notes = read_file(path).notes
    assert [note.split(":")[0] for note in notes[:2]] == ["there are no timeouts", "there are no next_observations"]
    assert notes[2].startswith("2 rows behind the last end")


@pytest.mark.parametrize("without", ["", "next_observations", "actions", "next_observations rewards"])
def test_a_large_file_is_read_episode_by_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str) -> None:
    data = columns(7, terminals=(1,), timeouts=(4, 5)) | {"infos/qpos": np.arange(14, dtype=np.float32).reshape(7, 2)}
    expected = read(tmp_path, data, without)
    for limit in ("base.EAGER_BYTES", "d4rl.EAGER_BYTES", "d4rl.PIECE_BYTES"):
        monkeypatch.setattr(f"environments.formats.{limit}", 0)
    (tmp_path / "lazy").mkdir()
    found = read(tmp_path / "lazy", data, without)
    assert isinstance(found, LazyTrajectories)
    assert_same(expected, found)
    assert_same(expected[1:], found[1:])
    assert found.lengths == [trajectory.length for trajectory in expected]
    with pytest.raises(UserError, match="'observations', row 5: NaN"):
        read(tmp_path, data | {"observations": np.where(np.arange(14).reshape(7, 2) == 11, np.nan, 1.0)}, without)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    write_d4rl(path, [episode(2, True)], {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_d4rl(path, [episode(3, True)], {"env_id": object()})  # type: ignore[dict-item]  # what is refused
    state_only = dataclasses.replace(episode(3, True), actions=None)
    with pytest.raises(ValueError, match="some trajectories have other columns"):
        write_d4rl(path, [episode(3, True), state_only], {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["d.hdf5"]


if FILES:

    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
    def test_recorded_experts(path: Path) -> None:
        found = read_d4rl(path)
        assert len(found) == 25
        assert all(t.length == 1000 and not t.terminated for t in found)
        if path.stem == "hopper_expert":
            returns = [t.episode_return for t in found if t.episode_return is not None]
            assert np.mean(returns) == pytest.approx(3625, abs=1)
            assert found[0].observations.shape[1] == 11
