"""Measured references: the right means, their source, and published ones kept."""

import json
from pathlib import Path

import numpy as np
import pytest

from environments.construction import spaces_of
from environments.formats.d4rl import write_d4rl
from environments.reference_scores import PATH, reference_scores
from environments.trajectories import Trajectory
from scripts.measure_reference_scores import main, parser, rolled_out
from scripts.rollouts import greedy, roll_out, uniform
from tests.scripts.helpers import save_policy
from training.policy import load_policy


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "references.json"
    path.write_text(json.dumps({"Ant-v4": {"random": -325.6, "expert": 3879.7, "source": "D4RL"}}))
    return path


def demonstrations(path: Path, rewards: bool = True, value: float = 1000.0, **attributes: str) -> Path:
    """Two episodes whose mean return is 1.5 times `value`."""
    rows = np.zeros((1, 11), np.float32)
    episodes = [
        Trajectory(rows, rows[:, :3], np.array([factor * value], np.float32) if rewards else None, rows, True)
        for factor in (1, 2)
    ]
    write_d4rl(path, episodes, attributes)
    return path


def measure(table: Path, *options: str) -> int:
    return main(["Hopper-v4", "--file", str(table), "--random-episodes", "4", "--seed", "3", *options])


def test_random_is_uniform_and_expert_comes_from_demonstrations(table: Path, tmp_path: Path) -> None:
    assert measure(table, "--expert-demonstrations", str(demonstrations(tmp_path / "mine.hdf5"))) == 0
    entries = json.loads(table.read_text())
    assert entries["Ant-v4"]["source"] == "D4RL"
    entry = entries["Hopper-v4"]
    expected = roll_out("Hopper-v4", uniform(spaces_of("Hopper-v4"), 3), 4, 3).returns.mean()
    assert entry["random"] == pytest.approx(expected, abs=1e-6)
    assert entry["expert"] == 1500.0
    assert "the 2 episodes of mine.hdf5" in entry["source"]
    assert "4 episodes of uniform actions" in entry["source"]
    assert "gymnasium" in entry["source"]
    assert str(tmp_path) not in entry["source"]


def test_uniform_actions_fill_the_action_space() -> None:
    spaces = spaces_of("Pendulum-v1")  # actions from -2 to 2
    act = uniform(spaces, 0)
    actions = np.concatenate([act(np.zeros((100, 3), np.float32)) for _ in range(20)])
    assert actions.shape == (2000, 1)
    assert np.abs(actions).max() == pytest.approx(2.0, abs=0.01)
    assert actions.mean() == pytest.approx(0.0, abs=0.1)
    assert actions.std() == pytest.approx(4 / np.sqrt(12), abs=0.05)


def test_a_policy_that_is_no_better_than_random_is_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = table.read_text()
    worse = str(demonstrations(tmp_path / "mine.hdf5", value=-1000.0))
    assert measure(table, "--expert-demonstrations", worse) == 2
    assert "is not above the random policy's" in capsys.readouterr().err
    assert table.read_text() == before


def test_expert_from_a_policy(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_policy(tmp_path)
    options = parser().parse_args(["Hopper-v4", "--expert-policy", str(path), "--expert-episodes", "2", "--seed", "3"])
    mean, source = rolled_out(options)
    assert mean == roll_out("Hopper-v4", greedy(load_policy(path), 0), 2, 3).returns.mean()
    assert "2 greedy episodes" in source
    assert "policy.pt of `python train.py algorithm=SAC env.demonstrations=mine.hdf5`" in source
    assert main(["Pendulum-v1", "--file", str(table), "--expert-policy", str(path), "--overwrite"]) == 2
    assert "is a policy for Hopper-v4, not for Pendulum-v1" in capsys.readouterr().err


def test_published_references_are_kept(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(demonstrations(tmp_path / "mine.hdf5"))
    options = ["Ant-v4", "--file", str(table), "--expert-demonstrations", source]
    assert main(options) == 2
    assert "Ant-v4 has references already" in capsys.readouterr().err


def test_a_new_table_is_made(tmp_path: Path) -> None:
    table = tmp_path / "mine.json"
    assert measure(table, "--expert-demonstrations", str(demonstrations(tmp_path / "mine.hdf5"))) == 0
    assert list(json.loads(table.read_text())) == ["Hopper-v4"]


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_what_is_no_table_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "mine.json"
    table.write_text(content)
    source = str(demonstrations(tmp_path / "mine.hdf5"))
    for path, words in ((table, "expected JSON"), (tmp_path / "nowhere" / "mine.json", "there is no such folder")):
        assert measure(path, "--expert-demonstrations", source) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: --file {path}") and error.count("\n") == 1 and words in error
    assert table.read_text() == content


def test_demonstrations_without_rewards_are_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(demonstrations(tmp_path / "mine.hdf5", rewards=False))
    assert measure(table, "--expert-demonstrations", source) == 2
    assert "has no rewards" in capsys.readouterr().err


def test_demonstrations_of_another_environment_are_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = table.read_text()
    source = str(demonstrations(tmp_path / "mine.hdf5", environment_id="Walker2d-v4"))
    assert measure(table, "--expert-demonstrations", source) == 2
    assert "says that it was recorded in Walker2d-v4, not in Hopper-v4" in capsys.readouterr().err
    assert table.read_text() == before


def test_every_reference_orders_random_below_expert() -> None:
    entries = json.loads(PATH.read_text())
    assert list(entries) == sorted(entries)
    for name, entry in entries.items():
        assert entry["random"] < entry["expert"]
        assert entry["source"]
        assert reference_scores(name).normalise(entry["expert"]) == pytest.approx(1.0)
