"""Is the learned reward right? Judged on evaluation episodes and on demonstrations that were held out."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.base import Metrics
from environments.trajectories import Trajectory
from memory.absorbing import lead_into_absorbing
from memory.batch import FIELDS, Batch
from memory.demonstrations import transitions
from training.build import Parts

ROWS = 2000  # per run: enough for a rank correlation to within 0.05


def diagnose(parts: Parts, episodes: list[list[Trajectory]]) -> Metrics:
    """The module's own diagnosis, and the rank correlation of the learned reward with the true one."""
    imitation, demonstrations, policy = parts.imitation, parts.demonstrations, parts.learner.policy
    if not demonstrations or not imitation.provides_rewards or not imitation.uses_demonstrations:
        return {}
    rows = demonstrations.rows() if demonstrations.held_out is None else demonstrations.held_out
    runs = len(episodes)
    expert_batch = _thinned(rows).map(lambda column: column.expand(runs, *column.shape[1:]).to(parts.context.device))
    batch = _batch(parts, episodes).map(lambda column: column.to(parts.context.device))
    hidden = batch.with_rewards(torch.full_like(batch.rewards, torch.nan))  # the true ones are for comparison alone
    metrics = imitation.diagnose(hidden, expert_batch, policy)
    if not imitation.rewards_any_row:
        return metrics
    learned = imitation.relabel(hidden, expert_batch, policy).rewards
    return metrics | {"diagnosis/reward_rank_correlation": rank_correlation(learned, batch.rewards)}


def _batch(parts: Parts, episodes: list[list[Trajectory]]) -> Batch:
    """Steps of every run's episodes, with their true rewards, as many from each run: [runs, steps]."""
    runs = [[_steps(parts, trajectory) for trajectory in own] for own in episodes]
    joined = [Batch(*(torch.cat([getattr(b, name) for b in own], 1) for name in FIELDS)) for own in runs]
    shortest = min(batch.shape[1] for batch in joined)
    joined = [_thinned(batch, min(ROWS, shortest)) for batch in joined]
    return Batch(*(torch.cat([getattr(b, name) for b in joined]) for name in FIELDS))


def _steps(parts: Parts, trajectory: Trajectory) -> Batch:
    assert trajectory.actions is not None  # as in every evaluation episode
    assert trajectory.rewards is not None
    actions = torch.from_numpy(parts.spaces.from_environment(trajectory.actions))
    batch = transitions(trajectory, parts.spaces, actions).with_rewards(torch.from_numpy(trajectory.rewards)[None])
    batch = dataclasses.replace(batch, collected_at=torch.zeros_like(batch.rewards))  # not by an expert
    return lead_into_absorbing(batch, parts.spaces.absorbing_state) if parts.spaces.absorbing else batch


def _thinned(batch: Batch, rows: int = ROWS) -> Batch:
    """At most so many rows, evenly spaced."""
    count = batch.shape[1]
    kept = torch.linspace(0, count - 1, min(rows, count)).long().to(batch.rewards.device)
    return batch.map(lambda column: column[:, kept])


def rank_correlation(first: Float[Tensor, "runs batch"], second: Float[Tensor, "runs batch"]) -> Float[Tensor, " runs"]:
    """Spearman's rank correlation of each run; tied values share the mean of their ranks."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    scale = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(scale > 0, (a * b).sum(-1) / scale.clamp_min(1e-12), 0.0)


def _ranks(values: Float[Tensor, "runs batch"]) -> Float[Tensor, "runs batch"]:
    ranks = []
    for row in values:
        _, inverse, counts = torch.unique(row, return_inverse=True, return_counts=True)
        last = counts.cumsum(0)
        ranks.append((last - (counts - 1) / 2)[inverse].double())
    return torch.stack(ranks)
