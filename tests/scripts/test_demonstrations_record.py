"""Recorded demonstrations: what is in the file, what is said about it, and what is refused."""

import hashlib
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from environments.formats import read
from environments.formats.d4rl import read_d4rl
from environments.trajectories import Trajectory
from scripts import demonstration_recording
from scripts.demonstrations import main
from scripts.provenance import without_paths
from scripts.rollouts import greedy, play, roll_out
from tests.scripts.helpers import save_policy
from tests.warm import run_apart
from training.policy import load_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("runs"), "runs=2")


@pytest.fixture(autouse=True)
def same_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is part of a file, and may change while tests that compare files are running."""
    monkeypatch.setattr(demonstration_recording, "git_commit", lambda: "0" * 40)


def record(policy: Path, output: Path, *options: str) -> int:
    return main(["record", str(policy), "--output", str(output), "--episodes", "3", "--workers", "1", *options])


def test_the_file_holds_the_policys_episodes(policy: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "hopper.hdf5"
    assert record(policy, output, "--seed", "7", "--run-index", "1") == 0
    episodes = read_d4rl(output)
    assert len(episodes) == 3
    for episode in episodes:
        assert episode.actions is not None
        batch = torch.from_numpy(episode.observations).expand(2, -1, -1)
        expected = load_policy(policy).greedy(batch)[1].numpy()
        assert np.allclose(episode.actions, expected, atol=1e-6)
        assert np.array_equal(episode.observations[1:], episode.next_observations[:-1])
    starts = np.stack([episode.observations[0] for episode in episodes])
    assert len(np.unique(starts, axis=0)) == 3


def test_the_simulators_state_belongs_to_the_observation(policy: Path, tmp_path: Path) -> None:
    record(policy, tmp_path / "hopper.hdf5")
    with h5py.File(tmp_path / "hopper.hdf5") as file:
        # Hopper observes its positions but the first, and its velocities, clipped.
        seen = np.concatenate([file["infos/qpos"][:, 1:], file["infos/qvel"][:].clip(-10, 10)], 1)
        assert np.allclose(seen, file["observations"][:], atol=1e-6)
        numbers = ("observations", "actions", "rewards", "next_observations", "infos/qpos", "infos/qvel")
        assert {file[name].dtype for name in numbers} == {np.dtype(np.float32)}
        assert file["terminals"][:].sum() == 3
        assert file.attrs["environment_id"] == "Hopper-v4"
        assert file.attrs["training_seed"] == 0


def test_the_same_seed_records_the_same_episodes(policy: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        record(policy, tmp_path / f"{name}.hdf5", "--seed", seed)
    digests = [hashlib.sha256((tmp_path / f"{name}.hdf5").read_bytes()).hexdigest() for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_the_datasheet_says_where_it_comes_from(policy: Path, tmp_path: Path) -> None:
    output = tmp_path / "hopper.hdf5"
    record(policy, output)
    text = (tmp_path / "hopper.md").read_text()
    returns = np.array([episode.episode_return for episode in read_d4rl(output)])
    for fact in (
        f"| data sha256 | {hashlib.sha256(output.read_bytes()).hexdigest()} |",
        f"| policy sha256 | {hashlib.sha256(policy.read_bytes()).hexdigest()} |",
        f"| return, mean +- std | {returns.mean():.2f} +- {returns.std():.2f} |",
        f"| 2 | {returns[2]:.2f} |",
        "| trained by | `python train.py algorithm=SAC env.demonstrations=mine.hdf5` |",
        "Hopper-v4",
        f"torch {torch.__version__}",
        "| licence | MIT |",
        "infos/qpos",
    ):
        assert fact in text
    assert str(tmp_path) not in text
    assert "/home" not in text


def test_the_policy_that_is_kept_is_the_one_that_plays(policy: Path, tmp_path: Path) -> None:
    kept, output = tmp_path / "policies" / "hopper.pt", tmp_path / "hopper.hdf5"
    assert record(policy, output, "--keep-policy", str(kept)) == 0
    assert kept.stat().st_size < policy.stat().st_size
    assert record(kept, tmp_path / "again.hdf5") == 0
    first, again = (read_d4rl(tmp_path / name) for name in ("hopper.hdf5", "again.hdf5"))
    assert all(np.array_equal(a.observations, b.observations) for a, b in zip(first, again, strict=True))
    sheet = (tmp_path / "hopper.md").read_text()
    assert hashlib.sha256(kept.read_bytes()).hexdigest() in sheet
    assert "| trained by | `python train.py algorithm=SAC env.demonstrations=mine.hdf5` |" in sheet
    exact, rounded = (dict(load_policy(path).actor.state_dict()) for path in (policy, kept))
    assert all(torch.equal(exact[name].half().float(), rounded[name]) for name in exact)


def test_a_policy_is_not_kept_where_nothing_is_written(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "hopper.pt"
    options = ("--keep-policy", str(kept))
    assert record(policy, tmp_path / "hopper.hdf5", "--minimum-return", "1e6", *options) == 2
    assert not list(tmp_path.iterdir())
    damaged = policy.with_name("damaged.pt")
    damaged.write_bytes(policy.read_bytes()[:1000])
    for chosen in ((), options):
        assert record(damaged, tmp_path / "hopper.hdf5", *chosen) == 2
        assert not list(tmp_path.iterdir())
    kept.write_bytes(b"mine")
    assert record(policy, tmp_path / "hopper.hdf5", *options) == 2
    assert f"{kept} exists" in capsys.readouterr().err
    assert kept.read_bytes() == b"mine"


def test_the_source_is_not_replaced_by_what_is_kept(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = policy.read_bytes()
    status = record(policy, tmp_path / "hopper.hdf5", "--keep-policy", str(policy), "--overwrite")
    assert "is the policy to record" in refused(capsys, status)
    assert policy.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_other_simulators_have_no_infos() -> None:
    def act(observations: np.ndarray) -> np.ndarray:
        return np.zeros((len(observations), 1), np.float32)

    rollouts = roll_out("Pendulum-v1", act, 2, 0)
    assert not any(trajectory.infos for trajectory in rollouts.trajectories)
    assert rollouts.lengths.tolist() == [200, 200]
    assert not any(trajectory.terminated for trajectory in rollouts.trajectories)


def test_all_environments_are_shown_to_the_policy_until_the_last_is_over(policy: Path) -> None:
    shapes = set()
    act = greedy(load_policy(policy), 0)

    def watched(observations: np.ndarray) -> np.ndarray:
        shapes.add(observations.shape)
        return act(observations)

    roll_out("Hopper-v4", watched, 3, 0)
    assert shapes == {(3, 11)}


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    error = capsys.readouterr().err
    assert status == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_nothing_is_overwritten_unless_asked(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "hopper.hdf5"
    output.write_text("mine")
    assert "exists" in refused(capsys, record(policy, output))
    assert output.read_text() == "mine"
    assert record(policy, output, "--overwrite") == 0
    output.unlink()
    assert "hopper.md exists" in refused(capsys, record(policy, output))
    assert not output.exists()


def test_outputs_do_not_replace_each_other(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output, options in (
        ("x.md", ("--format", "csv")),
        ("k.hdf5", ("--keep-policy", str(tmp_path / "k.hdf5"))),
        ("m.hdf5", ("--keep-policy", str(tmp_path / "new" / ".." / "m.md"))),
    ):
        assert "choose another name" in refused(capsys, record(policy, tmp_path / output, *options, "--overwrite"))
    assert list(tmp_path.iterdir()) == []


def test_a_weak_policy_is_not_recorded(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = record(policy, tmp_path / "hopper.hdf5", "--minimum-return", "3000")
    assert "is below --minimum-return 3000: nothing written" in refused(capsys, status)
    assert list(tmp_path.iterdir()) == []
    assert record(policy, tmp_path / "hopper.hdf5", "--minimum-return", "-100") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--run-index", "2"], "--run-index 2: expected 0 to 1"),
        (["--run-index", "-1"], "--run-index -1: expected 0 to 1"),
        (["--episodes", "0"], "--episodes, --seed, --workers: expected"),
        (["--seed", "-1"], "--episodes, --seed, --workers: expected"),
        (["--seed", "99999999999999999999999"], "--seed 99999999999999999999999: expected 0 to 2147483647"),
        (["--output", "hopper.txt"], "expected an ending of .hdf5"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in refused(capsys, record(policy, tmp_path / "hopper.hdf5", *options))


def test_a_missing_policy_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no policy.pt" in refused(capsys, record(tmp_path / "policy.pt", tmp_path / "hopper.hdf5"))


def test_an_interrupted_recording_goes_on(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(policy, tmp_path / "whole.hdf5") == 0
    played: list[int] = []

    def counted(environment_id: str, act: Any, seed: int) -> Trajectory:
        played.append(seed)
        return play(environment_id, act, seed)

    def interrupted(environment_id: str, act: Any, seed: int) -> Trajectory:
        if len(played) == 2:
            raise KeyboardInterrupt
        return counted(environment_id, act, seed)

    monkeypatch.setattr(demonstration_recording, "play", interrupted)
    assert record(policy, tmp_path / "halves.hdf5") == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "halves.hdf5").exists()
    assert "holds part of a recording" in refused(capsys, record(policy, tmp_path / "halves.hdf5", "--seed", "9"))
    monkeypatch.setattr(demonstration_recording, "play", counted)
    assert record(policy, tmp_path / "halves.hdf5") == 0
    assert len(played) == len(set(played)) == 3
    assert (tmp_path / "halves.hdf5").read_bytes() == (tmp_path / "whole.hdf5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["halves.hdf5", "halves.md", "whole.hdf5", "whole.md"]


def test_a_damaged_note_of_a_recording_is_one_line(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = tmp_path / ".r.hdf5.recording" / "recording.json"
    note.parent.mkdir()
    note.write_text('{"policy_sha')
    assert f"{note} is damaged" in refused(capsys, record(policy, tmp_path / "r.hdf5"))
    assert note.read_text() == '{"policy_sha' and not (tmp_path / "r.hdf5").exists()


def test_processes_side_by_side_record_the_same(policy: Path, tmp_path: Path) -> None:
    record(policy, tmp_path / "one.hdf5", "--sampled")
    record(policy, tmp_path / "two.hdf5", "--sampled", "--workers", "2")
    assert (tmp_path / "one.hdf5").read_bytes() == (tmp_path / "two.hdf5").read_bytes()


def test_processes_where_the_system_counts_no_cores_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS: then all cores of the machine. 10 episodes for each process at least."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert [demonstration_recording.default_workers(episodes) for episodes in (9, 30, 1000)] == [1, 3, 4]


@pytest.mark.parametrize("content", ["- a: [", "a=b", ""])
def test_a_damaged_command_is_one_line(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_policy(tmp_path)
    overrides = path.parent / ".hydra" / "overrides.yaml"
    overrides.write_text(content)
    output = tmp_path / "hopper.hdf5"
    assert f"{overrides} is " in refused(capsys, record(path, output))
    assert not output.exists()


def test_sampled_actions_differ_from_greedy_ones(policy: Path, tmp_path: Path) -> None:
    record(policy, tmp_path / "greedy.npz")
    record(policy, tmp_path / "sampled.npz", "--sampled")
    first, second = (read(tmp_path / f"{name}.npz").trajectories[0] for name in ("greedy", "sampled"))
    assert np.array_equal(first.observations[0], second.observations[0])  # the same reset
    assert first.actions is not None and second.actions is not None
    assert not np.array_equal(first.actions[0], second.actions[0])
    assert read(tmp_path / "sampled.npz").attributes["manner"] == "sampled"


def test_a_runs_folder_and_other_formats(policy: Path, tmp_path: Path) -> None:
    assert record(policy.parent, tmp_path / "minari", "--format", "minari") == 0
    assert len(read(tmp_path / "minari").trajectories) == 3
    assert "a Minari dataset" in (tmp_path / "minari.md").read_text()


def test_another_layout_of_observations_is_adapted_on_request_only(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = record(policy, tmp_path / "s.hdf5", "--env", "seals_hopper", "--episodes", "1")
    assert "is a policy for Hopper-v4, not for seals/Hopper-v1; --adapt" in refused(capsys, status)
    assert record(policy, tmp_path / "s.hdf5", "--env", "seals_hopper", "--episodes", "1", "--adapt") == 0
    content = read(tmp_path / "s.hdf5")
    (trajectory,) = content.trajectories
    assert trajectory.observations.shape == (1000, 12) and not trajectory.terminated
    batch = torch.from_numpy(trajectory.observations[:, 1:].copy()).expand(2, -1, -1)
    assert trajectory.actions is not None
    assert np.allclose(trajectory.actions, load_policy(policy).greedy(batch)[0].numpy(), atol=1e-5)
    assert content.environment_id == "seals/Hopper-v1" and content.attributes["policy_environment"] == "Hopper-v4"
    status = record(policy, tmp_path / "a.hdf5", "--env", "ant", "--adapt")
    assert "error" in refused(capsys, status)


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("python train.py env.demonstrations=/a/b/c.hdf5 steps=5", "python train.py env.demonstrations=c.hdf5 steps=5"),
        ("/usr/bin/python ~/code/train.py resume='/x/y z'", "python train.py resume='y z'"),
        ("python train.py output_folder=outputs/experts", "python train.py output_folder=outputs/experts"),
    ],
)
def test_commands_name_no_machine(command: str, kept: str) -> None:
    assert without_paths(command) == kept


@pytest.mark.parametrize("script", ["demonstrations.py record", "measure_reference_scores.py"])
def test_help_from_the_root_of_the_repository(script: str) -> None:
    program, *words = f"scripts/{script} --help".split()
    shown = run_apart(*words, program=program)
    assert shown.status == 0 and "usage:" in shown.output
    assert "--overwrite" in shown.output
