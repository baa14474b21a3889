"""The diagnosis of learned rewards: rank correlation by hand, and what the module gets to see."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from environments.trajectories import Trajectory
from memory.batch import Batch
from tests.algorithms.support import make_config, write_demonstrations
from training.build import Parts, build
from training.diagnosis import ROWS, diagnose, rank_correlation


def correlation(first: list[float], second: list[float]) -> float:
    return float(rank_correlation(torch.tensor([first]), torch.tensor([second])))


def test_rank_correlation_by_hand() -> None:
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15) = 0.6.
    assert correlation([10.0, 20.0, 30.0, 1000.0], [2.0, 1.0, 40.0, 3.0]) == pytest.approx(0.6)
    assert correlation([1.0, 2.0, 3.0], [0.1, 100.0, 1e6]) == pytest.approx(1.0)
    assert correlation([1.0, 2.0, 3.0], [5.0, 4.0, -3.0]) == pytest.approx(-1.0)


def test_ties_share_the_mean_of_their_ranks() -> None:
    # Ranks 1.5 1.5 3 4 against 1 2 3 4, less their mean 2.5: (-1, -1, 0.5, 1.5) . (-1.5, -0.5, 0.5, 1.5) = 4.5;
    # squares 4.5 and 5: 4.5 / sqrt(22.5) = 0.948683.
    assert correlation([7.0, 7.0, 8.0, 9.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(0.948683, abs=1e-6)


def test_a_constant_has_no_correlation() -> None:
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0
    assert correlation([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]) == 0
    assert correlation([1.0], [4.0]) == 0


def test_runs_have_correlations_of_their_own() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert rank_correlation(values, values * torch.tensor([[1.0], [-1.0]])).tolist() == pytest.approx([1.0, -1.0])


def episodes(lengths: list[list[int]], terminated: bool = True) -> list[list[Trajectory]]:
    """Of each run. The first feature is the true reward, and the second one names the run."""
    generator = np.random.default_rng(0)

    def episode(run: int, length: int) -> Trajectory:
        states = np.stack([generator.normal(size=length + 1), np.full(length + 1, run)], 1).astype(np.float32)
        actions = np.full((length, 1), 3.0, np.float32)  # Walk's upper limit
        return Trajectory(states[:-1], actions, states[:-1, 0], states[1:], terminated)

    return [[episode(run, length) for length in own] for run, own in enumerate(lengths)]


def parts(path: Path, module: str = "gail", **options: Any) -> Parts:
    return build(make_config(module, write_demonstrations(path / "d.hdf5"), runs=2, **options))


def seen(made: Parts, monkeypatch: pytest.MonkeyPatch, sign: Tensor) -> list[Batch]:
    """The batches that the module gets; its reward becomes the first feature times `sign`."""
    batches: list[Batch] = []

    def relabel(batch: Batch, expert_batch: Batch, policy: object) -> Batch:
        batches.extend([batch, expert_batch])
        return batch.with_rewards(batch.observations[..., 0] * sign)

    monkeypatch.setattr(made.imitation, "relabel", relabel)
    return batches


def test_the_learned_reward_is_compared_with_the_true_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = parts(tmp_path)
    batches = seen(made, monkeypatch, torch.tensor([[1.0], [-1.0]]))
    metrics = diagnose(made, episodes([[5, 4], [7, 6]]))
    assert metrics["diagnosis/reward_rank_correlation"].tolist() == pytest.approx([1.0, -1.0])
    assert {"diagnosis/expert_accuracy", "diagnosis/logit_gap"} <= metrics.keys()
    batch, expert_batch = batches
    assert batch.shape == (2, 9)  # as many rows of each run as the shorter one has
    assert batch.observations[..., 1].tolist() == [[0.0] * 9, [1.0] * 9]
    assert batch.rewards.isnan().all()  # the true reward stays hidden from the module
    assert (batch.actions == 1).all()  # in the learner's units
    assert expert_batch.shape[0] == 2 and torch.equal(expert_batch.actions[0], expert_batch.actions[1])


def test_true_ends_look_as_they_do_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = parts(tmp_path)
    batches = seen(made, monkeypatch, torch.ones(2, 1))
    diagnose(made, episodes([[3], [3]]))
    diagnose(made, episodes([[3], [3]], terminated=False))
    ended, _, cut, _ = batches
    assert ended.observations.shape == (2, 3, 3) and ended.observations[..., 2].sum() == 0
    assert ended.next_observations[:, -1].tolist() == [[0, 0, 1]] * 2  # the absorbing state
    assert ended.terminated.sum() == 0 and ended.next_absorbing.tolist() == [[0, 0, 1]] * 2
    assert cut.next_observations[..., 2].sum() == 0 and cut.truncated.tolist() == [[0, 0, 1]] * 2


def test_without_absorbing_states_ends_are_terminations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("gail", write_demonstrations(tmp_path / "d.hdf5"), runs=2)
    config.imitation.absorbing = False
    made = build(config)
    batches = seen(made, monkeypatch, torch.ones(2, 1))
    diagnose(made, episodes([[3], [3]]))
    assert batches[0].observations.shape == (2, 3, 2) and batches[0].terminated.tolist() == [[0, 0, 1]] * 2


def test_held_out_demonstrations_are_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("gail", write_demonstrations(tmp_path / "d.hdf5", episodes=4), runs=2)
    config.imitation.trajectories = 1
    made = build(config)
    batches = seen(made, monkeypatch, torch.ones(2, 1))
    diagnose(made, episodes([[3], [3]]))
    assert made.demonstrations is not None and made.demonstrations.held_out is not None
    assert torch.equal(batches[1].observations[0], made.demonstrations.held_out.observations[0])


def test_long_episodes_are_thinned_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = parts(tmp_path)
    batches = seen(made, monkeypatch, torch.ones(2, 1))
    diagnose(made, episodes([[3 * ROWS], [2 * ROWS]]))
    assert batches[0].shape == (2, ROWS)


def test_nothing_is_diagnosed_where_no_reward_is_learned(tmp_path: Path) -> None:
    assert diagnose(parts(tmp_path, "none"), episodes([[3], [3]])) == {}
    assert diagnose(parts(tmp_path, "cloning"), episodes([[3], [3]])) == {}
