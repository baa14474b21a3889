"""Tables, TensorBoard and Weights & Biases, also over an interruption."""

import dataclasses
import importlib.util
import itertools
import math
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conf.errors import UserError
from environments.reference_scores import UNKNOWN, ReferenceScores
from environments.trajectories import Trajectory
from tests.training.helpers import SMALL, configured
from training.config import Config
from training.folder import read_table
from training.records import Records, check_packages


def config(runs: int = 1, **logging: bool) -> Config:
    options = [f"logging.{name}={str(value).lower()}" for name, value in logging.items()]
    return configured(*SMALL, "algorithm=SAC", "seed=3", f"runs={runs}", *options)


def record(records: Records, phase: str, steps: range, value: float) -> None:
    for step in steps:
        records.metrics(phase, step, {"critic/loss": torch.full((len(records.seeds),), value)})


def episode(rewards: list[float]) -> Trajectory:
    observations = np.zeros((len(rewards), 2), np.float32)
    return Trajectory(observations, observations[:, :1], np.array(rewards, np.float32), observations, True)


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.fixture
def a_second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard reads files of events in the order of their names, which begin with the second that they are from.

    A run takes longer than that to resume; a test does not, and names of one second are ordered by a counter as text.
    """
    from tensorboard.summary.writer import event_file_writer

    seconds = itertools.count(1_700_000_000)
    monkeypatch.setattr(event_file_writer, "time", types.SimpleNamespace(time=lambda: next(seconds)))


def test_evaluation_rows(tmp_path: Path) -> None:
    records = Records(tmp_path, config(runs=2))
    episodes = [[episode([1.0, 2.0]), episode([5.0])], [episode([0.0]), episode([0.0])]]
    records.evaluation("interaction", 10, episodes, ReferenceScores(-1.0, 9.0, "made up"), 1.23456)
    first, second = read_table(tmp_path / "evaluations.csv")
    assert first == {
        "phase": "interaction",
        "step": "10",
        "seed": "3",
        "episodes": "2",
        "return_mean": "4.0",
        "return_std": "1.0",
        "score": "0.5",
        "length_mean": "1.5",
        "length_min": "1",
        "length_max": "2",
        "seconds": "1.235",
    }
    assert (second["seed"], second["return_mean"], second["score"]) == ("4", "0.0", "0.1")


def test_unknown_scores_stay_out_of_tensorboard(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tensorboard=True))
    records.evaluation("interaction", 10, [[episode([1.0])]], UNKNOWN, 1.0)
    records.close()
    assert math.isnan(float(read_table(tmp_path / "evaluations.csv")[0]["score"]))
    assert scalars(tmp_path / "tensorboard" / "interaction", "evaluation/return_mean") == [(10, 1.0)]
    with pytest.raises(KeyError):
        scalars(tmp_path / "tensorboard" / "interaction", "evaluation/score")


def test_seeds_have_their_own_curves(tmp_path: Path) -> None:
    records = Records(tmp_path, config(runs=2, tensorboard=True))
    records.metrics("interaction", 5, {"critic/loss": torch.tensor([1.0, 2.0])})
    records.close()
    assert scalars(tmp_path / "tensorboard" / "interaction", "critic/loss/seed_4") == [(5, 2.0)]


@pytest.mark.usefixtures("a_second_each")
def test_what_lies_behind_the_checkpoint_is_hidden_after_resuming(tmp_path: Path) -> None:
    killed = Records(tmp_path, config(tensorboard=True))
    record(killed, "behavioural_cloning", range(1, 21), 1.0)
    record(killed, "interaction", range(1, 6), 1.0)
    saved = killed.state_dict()
    record(killed, "interaction", range(6, 11), 1.0)
    killed.close()  # a kill may also leave these events on the disk

    resumed = Records(tmp_path, config(tensorboard=True), saved)
    record(resumed, "interaction", range(6, 9), 2.0)
    resumed.close()

    expected = [(step, 1.0) for step in range(1, 6)] + [(step, 2.0) for step in range(6, 9)]
    assert scalars(tmp_path / "tensorboard" / "interaction", "critic/loss") == expected
    cloning = scalars(tmp_path / "tensorboard" / "behavioural_cloning", "critic/loss")
    assert cloning == [(step, 1.0) for step in range(1, 21)]  # a phase of its own, with higher steps
    rows = [(int(row["step"]), float(row["value"])) for row in read_table(tmp_path / "metrics.csv")]
    assert rows == cloning + expected


@pytest.mark.usefixtures("a_second_each")
def test_a_phase_that_began_behind_the_checkpoint_is_hidden_as_a_whole(tmp_path: Path) -> None:
    killed = Records(tmp_path, config(tensorboard=True))
    record(killed, "behavioural_cloning", range(1, 3), 1.0)
    saved = killed.state_dict()
    record(killed, "interaction", range(1, 6), 1.0)
    killed.close()
    resumed = Records(tmp_path, config(tensorboard=True), saved)
    record(resumed, "interaction", range(2, 3), 2.0)
    resumed.close()
    assert scalars(tmp_path / "tensorboard" / "interaction", "critic/loss") == [(2, 2.0)]


def test_events_before_a_checkpoint_are_on_the_disk(tmp_path: Path) -> None:
    records = Records(tmp_path, config(tensorboard=True))
    record(records, "interaction", range(1, 4), 1.0)
    records.state_dict()  # a kill right after the checkpoint loses nothing
    assert len(scalars(tmp_path / "tensorboard" / "interaction", "critic/loss")) == 3
    records.close()


@pytest.mark.filterwarnings("default")
def test_wandb_offline_goes_on_under_the_same_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="NOT TESTED: wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    saved: dict[str, Any] | None = None
    for first in (1, 4):
        records = Records(tmp_path, config(wandb=True), saved)
        assert not records.wandb  # before everything else has been checked
        records.start()
        record(records, "interaction", range(first, first + 3), 1.0)
        saved = records.state_dict()
        assert records.wandb.id == saved["wandb_id"]
        assert dict(records.wandb.summary)["interaction/step"] == first + 2
        records.close()
    assert saved is not None
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert {file.name for file in files} == {f"run-{saved['wandb_id']}.wandb"}


@pytest.mark.filterwarnings("default")
def test_wandb_that_refuses_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="NOT TESTED: wandb is not installed")

    def refuse(**options: object) -> None:
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match=r"logging\.wandb=true: No API key configured.*WANDB_MODE=offline"):
        Records(tmp_path, config(wandb=True)).start()


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_clear_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    chosen = config(**{package: True})
    with pytest.raises(UserError, match=f"logging.{package}=true needs the package {package}"):
        check_packages(chosen)
    check_packages(dataclasses.replace(chosen, logging=dataclasses.replace(chosen.logging, **{package: False})))
