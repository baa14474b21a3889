"""Disagreement-regularised imitation learning (Brantley et al. 2020, ICLR): rewards where cloned policies agree.

Policies that were cloned from the same demonstrations agree where these were, and nowhere else. The learner is rewarded
for staying where they agree; which action to take there it learns from a cloning loss of its own (`bc_aux_loss`).
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from algorithms.base import Context, ImitationConfig, ImitationModule, Metrics, descend
from algorithms.behavioural_cloning import cloning_loss
from algorithms.imitation.pretraining import PretrainingConfig, over_all_rows, separation_warning, weighted_quantile
from algorithms.optimisers import AdamW
from conf.errors import UserError
from conf.fields import choice, ranged
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from models.actors import Policy, SquashedGaussianActor
from models.mlp import MLP, MLPConfig
from models.streams import Streams

LOWEST_REWARD = 0.5  # of demonstrations, on average: +1 for three out of four


@dataclass
class DRILModelConfig(MLPConfig):
    """Of each cloned policy. Dropout belongs to `uncertainty: dropout`; members of an ensemble have none."""

    hidden_size: int = ranged(64, 1)
    depth: int = ranged(1, 1)
    activation: str = choice("tanh", "relu", "tanh")
    input_dropout: float = ranged(0.1, 0, 0.99)
    dropout: float = ranged(0.1, 0, 0.99)


@dataclass
class DRILConfig(ImitationConfig):
    """Defaults: Arulkumaran & Ogawa Lillrank (2021), but for `uncertainty`, which is that of Brantley et al. (2020)."""

    uncertainty: str = choice("ensemble", "ensemble", "dropout")
    ensemble_size: int = ranged(5, 2)  # cloned policies, or dropout masks of the one
    quantile_cutoff: float = ranged(0.98, 0, 1, open_low=True)  # share of the demonstrations that is rewarded
    model: DRILModelConfig = field(default_factory=DRILModelConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    learning_rate: float = ranged(3e-5, 0, open_low=True)
    weight_decay: float = ranged(0.0, 0)

    def check(self) -> None:
        if self.state_only:
            raise UserError(
                "imitation.state_only=true is not allowed with algorithm=DRIL: it clones actions; expected false"
            )
        if self.uncertainty == "dropout" and not self.model.dropout and not self.model.input_dropout:
            raise UserError(
                "imitation.uncertainty=dropout is not allowed with imitation.model.dropout=0 and "
                "imitation.model.input_dropout=0: expected one of them above 0, or imitation.uncertainty=ensemble"
            )


class Uncertainty(nn.Module, ABC):
    """Cloned policies, and how far they disagree."""

    @abstractmethod
    def loss(self, expert_batch: Batch) -> Float[Tensor, " runs"]:
        """What the policies are cloned by. Rows in the absorbing state, where no action matters, are left out."""

    def fix(self) -> None:
        """Behind the last update."""
        return

    @abstractmethod
    def forward(self, batch: Batch) -> Float[Tensor, "runs batch"]:
        """Higher where they disagree more: a function of state and action, with no chance in it."""


class PolicyEnsemble(Uncertainty):
    """Deterministic policies that differ by where their training began: u = a^T Cov(pi_1(s), ..., pi_E(s)) a."""

    def __init__(self, config: DRILConfig, context: Context, streams: Streams) -> None:
        super().__init__()
        members = (config.ensemble_size, len(context.seeds))
        # In float32 whatever the precision, as are all networks here: they are compared with one another.
        self.network = MLP(members, context.observation_size, context.action_size, without_dropout(config), streams)

    def actions(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "e runs batch action"]:
        return torch.tanh(self.network(observations))

    def loss(self, expert_batch: Batch) -> Float[Tensor, " runs"]:
        """mean w |pi_e(s) - a|^2, averaged over actions and members."""
        weights = expert_batch.weights * (1 - expert_batch.absorbing)
        errors = (self.actions(expert_batch.observations) - expert_batch.actions).square().mean((0, -1))
        return (weights * errors).mean(-1)

    def forward(self, batch: Batch) -> Float[Tensor, "runs batch"]:
        # The variance along a, which is the quadratic form without a matrix for each row.
        return (self.actions(batch.observations) * batch.carried_out).sum(-1).var(0)


class DropoutPolicies(Uncertainty):
    """One stochastic policy under several dropout masks: u = log Var(pi_1(a|s), ..., pi_E(a|s)).

    The masks are drawn once, behind the training, and shared by all rows: each makes a policy of its own. So the
    cut-off is measured on the very policies that rewards come from, and a reward depends on nothing but its row.
    """

    def __init__(self, config: DRILConfig, context: Context, streams: Streams) -> None:
        super().__init__()
        self.seeds, self.device = context.seeds, context.device
        sizes = (context.observation_size, context.action_size)
        self.policy = SquashedGaussianActor(*sizes, config.model, streams)
        self.thinned = nn.ModuleList(
            SquashedGaussianActor(*sizes, without_dropout(config), streams) for _ in range(config.ensemble_size)
        ).requires_grad_(False)

    def loss(self, expert_batch: Batch) -> Float[Tensor, " runs"]:
        """mean w (-log pi(a|s)), under new masks at every update."""
        return cloning_loss(self.policy, expert_batch, "log_likelihood")

    @torch.no_grad()
    def fix(self) -> None:
        streams = Streams(self.seeds, "imitation/dropout", self.device)  # anew, so that a repetition draws the same
        for member in self._members:
            member.load_state_dict(self.policy.state_dict())
            thin(member.network, self.policy.network.config, streams)

    def forward(self, batch: Batch) -> Float[Tensor, "runs batch"]:
        densities = [member.log_prob(batch.observations, batch.carried_out) for member in self._members]
        return log_variance(torch.stack(densities))

    @property
    def _members(self) -> list[SquashedGaussianActor]:
        return cast(list[SquashedGaussianActor], list(self.thinned))


UNCERTAINTIES: dict[str, type[Uncertainty]] = {"dropout": DropoutPolicies, "ensemble": PolicyEnsemble}


def without_dropout(config: DRILConfig) -> MLPConfig:
    return dataclasses.replace(config.model, input_dropout=0.0, dropout=0.0)


def thin(network: MLP, config: MLPConfig, streams: Streams) -> None:
    """Write dropout masks, as `config` asks for, into the weights: the units are left out for good."""

    def mask(probability: float, *shape: int) -> Tensor:
        return (streams.uniform(*shape) >= probability) / (1 - probability)

    first = network.hidden[0].get_parameter("weight")
    first.mul_(mask(config.input_dropout, first.shape[-2], 1))
    for layer in network.norms or network.hidden:  # what comes last before the activation
        keep = mask(config.dropout, 1, config.hidden_size)
        for parameter in layer.parameters():
            parameter.mul_(keep)


def log_variance(log_values: Float[Tensor, "e runs batch"]) -> Float[Tensor, "runs batch"]:
    """log of the unbiased variance of exp(x) over the first axis; exp(x) itself may be too large for a float."""
    largest = log_values.amax(0)
    variance = (log_values - largest).exp().var(0)
    return 2 * largest + variance.clamp_min(torch.finfo(variance.dtype).tiny).log()


class DRIL(ImitationModule):
    """Rewards +1 where cloned policies disagree no more than they do on nearly all demonstrations, and -1 elsewhere.

    In the absorbing state there is nothing to disagree about. Its reward is the mean of +1 for each demonstration that
    ends there and -1 for each that does not.
    """

    config_class = DRILConfig
    config: DRILConfig
    cutoff: Float[Tensor, " runs"]  # NaN until pretraining is over
    absorbing_reward: Float[Tensor, " runs"]

    def __init__(self, config: DRILConfig, context: Context) -> None:
        super().__init__()
        self.config = config
        self.pretraining_iterations = config.pretraining.iterations
        self.streams = Streams(context.seeds, "imitation", context.device)
        self.uncertainty = UNCERTAINTIES[config.uncertainty](config, context, self.streams)
        trained = [parameter for parameter in self.uncertainty.parameters() if parameter.requires_grad]
        self.optimiser = AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
        runs = len(context.seeds)
        self.register_buffer("cutoff", torch.full((runs,), torch.nan, device=context.device))
        self.register_buffer("absorbing_reward", torch.full((runs,), -1.0, device=context.device))

    def pretrain(self, expert_batch: Batch) -> Metrics:
        loss = self.uncertainty.loss(expert_batch)
        descend(self.optimiser, loss)
        return {"uncertainty/loss": loss.detach()}

    @torch.no_grad()
    def finish_pretraining(self, demonstrations: Demonstrations) -> None:
        """Set the cut-off so that the share `quantile_cutoff` of the demonstrations' weight is rewarded."""
        self.uncertainty.fix()
        values = over_all_rows(self.uncertainty, demonstrations, len(self.cutoff))
        rows = demonstrations.rows()
        weights = (rows.weights * (1 - rows.absorbing)).expand_as(values)
        self.cutoff = weighted_quantile(values, weights, self.config.quantile_cutoff)
        self.absorbing_reward.fill_(2 * rows.absorbing.sum() / demonstrations.trajectory_count - 1)

    @torch.no_grad()
    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        return batch.with_rewards(self._rewards(batch, self.uncertainty(batch)))

    @torch.no_grad()
    def diagnose(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        if self.cutoff.isnan().any():  # behavioural cloning comes first
            return {}
        metrics = {"diagnosis/cutoff": self.cutoff}
        for name, rows in (("expert", expert_batch), ("learner", batch)):
            values = self.uncertainty(rows)
            metrics[f"diagnosis/{name}_uncertainty"] = values.median(-1).values
            metrics[f"diagnosis/{name}_reward"] = self._rewards(rows, values).mean(-1)
        return metrics

    def warning(self, metrics: Metrics) -> str | None:
        advice = (
            "try another imitation.quantile_cutoff, more imitation.pretraining.iterations, "
            "more demonstrations, or another imitation.model"
        )
        return separation_warning(metrics, LOWEST_REWARD, advice)

    def _rewards(self, batch: Batch, uncertainty: Float[Tensor, "runs batch"]) -> Float[Tensor, "runs batch"]:
        agree = uncertainty <= self.cutoff.unsqueeze(-1)
        rewards = torch.where(agree, 1.0, -1.0)
        return torch.where(batch.absorbing > 0, self.absorbing_reward.unsqueeze(-1), rewards)

    def get_extra_state(self) -> dict[str, Any]:
        return {"streams": self.streams.state_dict(), "optimiser": self.optimiser.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.optimiser.load_state_dict(state["optimiser"])
