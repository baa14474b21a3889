"""The command line: import, export, convert and list; what is refused, and that nothing is written then."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from conf.errors import UserError
from environments.formats import FORMATS, read, read_demonstrations
from environments.formats.base import DemonstrationSet
from environments.formats.d4rl import write_d4rl
from environments.trajectories import Trajectory
from scripts.demonstrations import main
from tests.environments.formats.episodes import assert_same

ROOT = Path(__file__).resolve().parents[2]


def hopper(length: int = 5, terminated: bool = False, seed: int = 0, scale: float = 0.5, size: int = 11) -> Trajectory:
    """Numbers in the shapes of Hopper, with the simulator's state."""
    generator = np.random.default_rng(seed)
    states = generator.normal(size=(length + 1, size)).astype(np.float32)
    actions = scale * generator.uniform(-1, 1, (length, 3)).astype(np.float32)
    qpos = generator.normal(size=(length, 6)).astype(np.float32)
    return Trajectory.from_observations(
        states, actions, states[1:, 0].copy(), terminated, {"qpos": qpos, "qvel": qpos * 2}, seed
    )


def saved(path: Path, *episodes: Trajectory, **attributes: str) -> Path:
    write_d4rl(path, episodes, attributes)
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    error = capsys.readouterr().err.splitlines()[-1]
    assert status == 2 and error.startswith("error: ")
    return error


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_import_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = [hopper(5, True), hopper(3, seed=1)]
    source = saved(tmp_path / "a.hdf5", *episodes, environment_id="Hopper-v4", policy="x")
    assert run("export", source, tmp_path / "b.csv") == 0
    assert "note: csv cannot carry attributes (policy)" in capsys.readouterr().err
    assert run("import", tmp_path / "b.csv", tmp_path / "c.npz", "--env", "hopper") == 0
    assert run("export", tmp_path / "c.npz", tmp_path / "d", "--format", "minari") == 0
    assert "d: 2 episodes, 8 steps (minari)" in capsys.readouterr().out
    assert_same(episodes, read(tmp_path / "d").trajectories)


def test_what_does_not_fit_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    discrete = Trajectory.from_observations(
        generator.normal(size=(4, 11)).astype(np.float32), np.array([0, 1, 0]), None, False
    )
    cart = Trajectory.from_observations(
        generator.normal(size=(4, 4)).astype(np.float32), np.array([0, 1, 2]), None, True
    )
    numbers = Trajectory.from_observations(cart.all_observations, np.full((3, 1), 0.5, np.float32), None, True)
    for episode, attributes, environment, message in (
        (
            hopper(),
            {"environment_id": "Walker2d-v4"},
            "hopper",
            "says that it was recorded in Walker2d-v4, not in Hopper",
        ),
        (hopper(size=12), {}, "hopper", "observations of 12 numbers, Hopper-v4 has 11: another environment or version"),
        (hopper(size=12), {"env_id": "Hopper-v4"}, None, "observations of 12 numbers, Hopper-v4 has 11"),
        (discrete, {}, "Hopper-v4", "has discrete actions (integers), Hopper-v4 has 3 numbers"),
        (numbers, {}, "CartPole-v1", "actions of numbers with fractions, CartPole-v1 has integers from 0 to 1"),
        (cart, {}, "CartPole-v1", "33% of the action values lie outside the action space of CartPole-v1"),
        (hopper(), {}, "Hoper-v4", "Hoper"),
    ):
        source = saved(tmp_path / "a.hdf5", episode, **attributes)
        options = ["--env", environment] if environment else []
        assert message in refused(capsys, run("import", source, tmp_path / "b.hdf5", *options))
        assert files(tmp_path) == ["a.hdf5"]


@pytest.mark.parametrize("name", ["Hopper-v2", "Hopper-v5", "hopper-expert-v2"])
def test_other_versions_and_unheard_names_are_taken_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source = saved(tmp_path / "a.hdf5", hopper(), env_id=name)
    assert run("import", source, tmp_path / "b.hdf5", "--env", "hopper") == 0
    assert f"the file names {name}, and they are taken for Hopper-v4: `verify` says" in capsys.readouterr().err
    assert read(tmp_path / "b.hdf5").environment_id == "Hopper-v4"
    assert run("verify", source, "--env", "hopper") == 0
    assert "for another one: does not fit Hopper-v4" in capsys.readouterr().out
    assert run("inspect", source, "--env", "hopper") == 0
    assert f"the file names {name}" in capsys.readouterr().out


def test_another_environment_of_the_same_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = np.random.default_rng(0).normal(size=(6, 17)).astype(np.float32)
    walk = Trajectory.from_observations(states, np.zeros((5, 6), np.float32), None, False)
    source = saved(tmp_path / "a.hdf5", walk, environment_id="Walker2d-v4")
    arguments = ("import", source, tmp_path / "b.hdf5", "--env", "halfcheetah")
    assert "recorded in Walker2d-v4, not in HalfCheetah-v4" in refused(capsys, run(*arguments))
    with pytest.raises(UserError, match=r"recorded in Walker2d-v4, not in HalfCheetah-v4: `scripts/demonstrations\.py"):
        read_demonstrations(source, "HalfCheetah-v4")
    assert len(read_demonstrations(source, "Walker2d-v5")) == 1
    assert run(*arguments, "--rename") == 0
    assert len(read_demonstrations(tmp_path / "b.hdf5", "HalfCheetah-v4")) == 1


def test_names_of_ours_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", saved(tmp_path / "a.hdf5", hopper(), env="hopper"), tmp_path / "b.hdf5") == 0
    assert capsys.readouterr().err == ""
    assert read(tmp_path / "b.hdf5").environment_id == "Hopper-v4"


@pytest.mark.parametrize(("choice", "largest"), [("clip", 1.0), ("keep", 1.5), ("refuse", None)])
def test_actions_outside_the_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: str, largest: float | None
) -> None:
    wide = hopper(200, scale=1.5)
    source = saved(tmp_path / "a.hdf5", wide)
    status = run("import", source, tmp_path / "b.hdf5", "--env", "hopper", "--actions", choice)
    assert wide.actions is not None
    share = float((np.abs(wide.actions) > 1).mean())
    expected = f"{100 * share:.0f}% of the action values lie outside the action space of Hopper-v4"
    if largest is None:
        assert expected in refused(capsys, status)
        assert files(tmp_path) == ["a.hdf5"]
        return
    assert expected in capsys.readouterr().err
    actions = read(tmp_path / "b.hdf5").trajectories[0].actions
    assert actions is not None and np.abs(actions).max() == pytest.approx(largest, abs=0.05)


def test_integers_that_were_kept_as_numbers(tmp_path: Path) -> None:
    states = np.zeros((4, 4), np.float32)
    numbers = Trajectory.from_observations(states, np.array([[0.0], [1], [1]], np.float32), None, True)
    run("import", saved(tmp_path / "a.hdf5", numbers), tmp_path / "b.hdf5", "--env", "cartpole")
    actions = read(tmp_path / "b.hdf5").trajectories[0].actions
    assert actions is not None and actions.tolist() == [0, 1, 1] and actions.dtype == np.int64


def test_time_limits_that_were_called_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "a.hdf5", hopper(5, True), hopper(3, True))
    assert run("import", source, tmp_path / "b.hdf5", "--time-limit", "5") == 0
    assert [t.terminated for t in read(tmp_path / "b.hdf5").trajectories] == [False, True]
    assert "episodes of 5 steps count as cut off" in capsys.readouterr().err
    source = saved(tmp_path / "c.hdf5", hopper(1000, True))
    assert run("import", source, tmp_path / "d.hdf5", "--env", "hopper") == 0
    assert "1 of 1 true ends fall on the time limit of Hopper-v4" in capsys.readouterr().err
    assert run("import", source, tmp_path / "d.hdf5", "--env", "hopper", "--time-limit", "1000", "--overwrite") == 0
    assert "1 of 1 true ends" not in capsys.readouterr().err


def test_successors_that_are_off_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = hopper(6)
    off = Trajectory(whole.observations, whole.actions, whole.rewards, whole.observations, False)
    source = saved(tmp_path / "a.hdf5", off)
    assert run("import", source, tmp_path / "b.hdf5") == 0
    assert "next_observations are off by one" in capsys.readouterr().err
    (found,) = read(tmp_path / "b.hdf5").trajectories
    np.testing.assert_array_equal(found.all_observations, whole.observations)
    assert "use d4rl or csv" in refused(capsys, run("export", source, tmp_path / "c.npz"))


def converted(tmp_path: Path, episodes: Sequence[Trajectory], target: str, **attributes: str) -> DemonstrationSet:
    assert run("convert", saved(tmp_path / "a.hdf5", *episodes, **attributes), tmp_path / "b.hdf5", "--to", target) == 0
    return read(tmp_path / "b.hdf5")


def test_convert_to_observations_with_positions_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = hopper(5, True)
    content = converted(tmp_path, [whole], "seals_hopper", environment_id="Hopper-v4")
    notes = capsys.readouterr().err
    assert "observations of 11 numbers become 12" in notes and "true ends become cuts" in notes
    (found,) = content.trajectories
    assert content.environment_id == "seals/Hopper-v1" and content.attributes["converted_from"] == "Hopper-v4"
    assert found.length == 4 and not found.terminated  # the position behind the last step is not in the file
    np.testing.assert_array_equal(found.observations[:, 0], whole.infos["qpos"][:4, 0])
    np.testing.assert_array_equal(found.next_observations[:, 0], whole.infos["qpos"][1:, 0])
    np.testing.assert_array_equal(found.observations[:, 1:], whole.observations[:4])
    (tmp_path / "a.hdf5").unlink()
    (tmp_path / "b.hdf5").rename(tmp_path / "c.hdf5")
    assert run("convert", tmp_path / "c.hdf5", tmp_path / "d.hdf5", "--to", "hopper") == 0
    np.testing.assert_array_equal(read(tmp_path / "d.hdf5").trajectories[0].observations, whole.observations[:4])


def test_a_converted_recording_has_its_own_returns_and_datasheet(tmp_path: Path) -> None:
    whole = hopper(5, True)
    known = {"command": "python train.py algorithm=SAC", "return_mean": "stale", "versions": "gymnasium 1"}
    content = converted(tmp_path, [whole], "seals_hopper", environment_id="Hopper-v4", **known)
    assert whole.rewards is not None
    expected = float(whole.rewards[:4].sum())
    assert content.attributes["return_mean"] == pytest.approx(expected)
    sheet = (tmp_path / "b.md").read_text()
    assert "| recorded in, and then converted from | Hopper-v4 |" in sheet and f"| 0 | {expected:.2f} | 4 |" in sheet


def ant(size: int) -> Trajectory:
    states = np.random.default_rng(0).normal(size=(4, size)).astype(np.float32)
    return Trajectory.from_observations(states, np.zeros((3, 8), np.float32), None, True)


@pytest.mark.parametrize("size", [111, 105])
def test_convert_leaves_contact_forces_out(tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = converted(tmp_path, [ant(size)], "ant").trajectories
    np.testing.assert_array_equal(found.all_observations, ant(size).all_observations[:, :27])
    assert f"the last {size - 27} numbers (contact forces) are left out" in capsys.readouterr().err
    assert found.terminated


def test_what_cannot_be_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for episode, target, message in (
        (ant(111), "seals_ant", "holds no infos/qpos"),
        (ant(27), "Ant-v5", "holds no 78 contact forces, which Ant-v5 observes"),
        (ant(30), "ant", "there is no rule for Ant with observations of 30 numbers"),
        (ant(27), "pendulum", "there is no rule for the observations of Pendulum-v1"),
    ):
        source = saved(tmp_path / "a.hdf5", episode)
        assert message in refused(capsys, run("convert", source, tmp_path / "b.hdf5", "--to", target))
    source = saved(tmp_path / "a.hdf5", ant(27), environment_id="Hopper-v4")
    assert "which is not a Ant" in refused(capsys, run("convert", source, tmp_path / "b.hdf5", "--to", "ant"))
    assert files(tmp_path) == ["a.hdf5"]


@pytest.mark.parametrize("name", ["qpos", "qvel"])
def test_states_that_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    whole = hopper()
    whole.infos[name][2, 0] = np.nan
    source = saved(tmp_path / "a.hdf5", hopper(), whole, environment_id="Hopper-v4")
    message = f"a.hdf5, episode 1: NaN or infinite values in infos/{name}"
    assert message in refused(capsys, run("verify", source))
    if name == "qpos":
        assert message in refused(capsys, run("convert", source, tmp_path / "b.hdf5", "--to", "seals_hopper"))
    assert files(tmp_path) == ["a.hdf5"]
    assert len(read_demonstrations(source, "Hopper-v4")) == 2  # training does not look at them


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "a.hdf5", hopper(5), hopper(3), environment_id="Hopper-v4")
    FORMATS["minari"].write(tmp_path / "b", DemonstrationSet([hopper()]))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "a.md").write_text("# a")
    FORMATS["minari"].write(tmp_path / "c", DemonstrationSet([hopper()]))
    (tmp_path / "c" / "data" / "metadata.json").write_text('{"data_format": "hdf5", "demonstration_attributes": null}')
    assert run("list", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["set", "a.hdf5", "b", "broken.npz", "c"]
    assert "'demonstration_attributes'" in lines[4]
    assert lines[1].split()[1:4] == ["Hopper-v4", "2", "8"]
    assert run("list", tmp_path, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["return"] == pytest.approx(read(tmp_path / "a.hdf5").trajectories[0].episode_return, abs=9)
    assert "broken.npz" in rows[2]["error"]
    assert run("list") == 0
    assert "hopper.hdf5" in capsys.readouterr().out
    assert "is not a folder" in refused(capsys, run("list", tmp_path / "absent"))
