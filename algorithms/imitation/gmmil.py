"""Generative moment matching imitation learning (Kim & Park 2018, "Imitation Learning via Kernel Mean Embedding").

The reward is the witness function of the maximum mean discrepancy between expert and learner: where the expert's
rows are denser than the learner's, seen through a kernel, it is positive. There is no network to train.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.base import Context, ImitationConfig, ImitationModule, Metrics
from algorithms.imitation.pretraining import weighted_quantile
from conf.fields import choice
from memory.batch import Batch
from models.actors import Policy

EPSILON = 1e-8  # keeps a bandwidth above zero where more than half of all pairs coincide
MEDIAN_ROWS = {"frozen": 256, "refreshed": 64}  # of each side: 65,536 pairs once, or 4096 pairs at every update
CHUNK = 128  # rows whose rewards are computed at once: large temporary tensors are slow to come by

Points = Float[Tensor, "runs points feature"]
Distances = Float[Tensor, "runs rows points"]


@dataclass
class GMMILConfig(ImitationConfig):
    bandwidth: str = choice("frozen", "frozen", "refreshed")  # measured on the first batch alone, or on every batch


def squared_distances(rows: Float[Tensor, "runs rows feature"], points: Points) -> Distances:
    """Mean over features of the squared differences, from one matrix product: no tensor is rows x points x features.

    Always in float32: the product takes part in a difference of large numbers.
    """
    centre = points.mean(1, keepdim=True)  # distances stay what they are, and less is lost to rounding
    rows, points = rows - centre, points - centre
    lengths = rows.square().sum(-1).unsqueeze(-1) + points.square().sum(-1).unsqueeze(-2)
    return torch.baddbmm(lengths, rows, points.mT, alpha=-2).clamp_min_(0).div_(rows.shape[-1])


def median_distance(
    rows: Float[Tensor, "runs rows feature"],
    points: Points,
    row_weights: Float[Tensor, "runs rows"],
    point_weights: Float[Tensor, "runs points"],
) -> Float[Tensor, " runs"]:
    """The median heuristic for a bandwidth: over all pairs, each weighing the product of its rows' weights."""
    weights = row_weights.unsqueeze(-1) * point_weights.unsqueeze(-2)
    return weighted_quantile(squared_distances(rows, points).flatten(1), weights.flatten(1), 0.5) + EPSILON


def witness(
    rows: Float[Tensor, "runs rows feature"],
    points: Points,
    weights: Float[Tensor, "runs points"],
    bandwidths: Float[Tensor, "runs kernels"],
) -> Float[Tensor, "runs rows"]:
    """sum_j w_j sum_k exp(-d^2(x_i, y_j) / b_k): positive weights for the expert's points, negative for the learner's.

    A row's own weight has no part in it, so the size does not depend on the number of rows.
    """
    distances = squared_distances(rows, points)
    kernels = ((distances / -bandwidth.view(-1, 1, 1)).exp_() for bandwidth in bandwidths.unbind(-1))
    return torch.stack([(kernel @ weights.unsqueeze(-1)).squeeze(-1) for kernel in kernels]).sum(0)


def normalised(weights: Float[Tensor, "runs rows"]) -> Float[Tensor, "runs rows"]:
    return weights / weights.sum(-1, keepdim=True)


def learner_weights(batch: Batch) -> Float[Tensor, "runs rows"]:
    """Weights of the learner's own rows, normalised; zero for demonstrations among them.

    Counted as the learner's, the expert's half of a mixed batch would halve every reward. Only where there is no
    other row, in a memory that holds nothing but demonstrations yet, do these stand for the learner.
    """
    own = batch.weights * (batch.collected_at >= 0)
    return normalised(torch.where(own.sum(-1, keepdim=True) > 0, own, batch.weights))


class GMMIL(ImitationModule):
    """Rewards rows by how much nearer, in a kernel's eyes, they lie to the expert's rows than to the learner's."""

    config_class = GMMILConfig
    config: GMMILConfig
    bandwidths: Float[Tensor, "runs kernels"]

    def __init__(self, config: GMMILConfig, context: Context) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bandwidths", torch.zeros(len(context.seeds), 2, device=context.device))
        self.measured = False  # is there anything in `bandwidths`?

    @torch.no_grad()
    def update(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        if self.config.bandwidth == "refreshed" or not self.measured:
            self.bandwidths, self.measured = self._measured_on(batch, expert_batch), True
        learner, expert = self.bandwidths.unbind(-1)
        return {"gmmil/learner_bandwidth": learner, "gmmil/expert_bandwidth": expert}

    @torch.no_grad()
    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        return batch.with_rewards(self._rewards(batch, batch, expert_batch))

    @torch.no_grad()
    def diagnose(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        learner, expert = (
            (normalised(rows.weights) * self._rewards(rows, batch, expert_batch)).sum(-1)
            for rows in (batch, expert_batch)
        )
        return {
            "diagnosis/learner_reward": learner,
            "diagnosis/expert_reward": expert,
            "diagnosis/squared_mmd": expert - learner,  # of the two sets of rows; never negative
        }

    def _features(self, batch: Batch) -> Points:
        return batch.observations if self.config.state_only else torch.cat([batch.observations, batch.carried_out], -1)

    def _measured_on(self, batch: Batch, expert_batch: Batch) -> Float[Tensor, "runs kernels"]:
        """Median distances from the learner's rows to the expert's, and among the expert's."""
        learner, expert = self._some_of(batch), self._some_of(expert_batch)
        points = self._features(expert)
        sides = ((self._features(learner), learner_weights(learner)), (points, expert.weights))
        return torch.stack([median_distance(rows, points, w, expert.weights) for rows, w in sides], -1)

    def _some_of(self, batch: Batch) -> Batch:
        """In random places, always the same ones: every so many rows of a rollout would be one environment's."""
        size, wanted = batch.shape[1], MEDIAN_ROWS[self.config.bandwidth]
        if size <= wanted:
            return batch
        places = torch.randperm(size, generator=torch.Generator().manual_seed(0))[:wanted].to(batch.weights.device)
        return batch.map(lambda column: column[:, places])

    def _rewards(self, rows: Batch, batch: Batch, expert_batch: Batch) -> Float[Tensor, "runs rows"]:
        """Of `rows`, where `batch` stands for the learner and `expert_batch` for the expert."""
        points = torch.cat([self._features(expert_batch), self._features(batch)], 1)
        weights = torch.cat([normalised(expert_batch.weights), -learner_weights(batch)], 1)
        bandwidths = self.bandwidths if self.measured else self._measured_on(batch, expert_batch)
        chunks = self._features(rows).split(CHUNK, 1)
        return torch.cat([witness(chunk, points, weights, bandwidths) for chunk in chunks], 1)

    def get_extra_state(self) -> dict[str, Any]:
        return {"measured": self.measured}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.measured = state["measured"]
