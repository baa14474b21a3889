"""Behavioural cloning (Pomerleau 1991): supervised learning of the demonstrations' actions."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.base import ImitationConfig, ImitationModule, Metrics, scheduled, set_learning_rate
from algorithms.optimisers import AdamW
from conf.errors import UserError
from conf.fields import Section, choice, ranged
from memory.batch import Batch
from models.actors import OnPolicyActor, Policy, SquashedGaussianActor

QUADRATURE = 32  # nodes: the error is 0.003 nats at a standard deviation of 3 before the tanh, and 0.08 at the largest


@dataclass
class CloningConfig(Section):
    """How a policy is cloned. The batch is `training.batch_size` rows."""

    iterations: int = ranged(0, 0)  # updates, each on rows drawn with replacement
    epochs: int = ranged(0, 0)  # or passes over the rows, each in a new order, but for the last ones that fill no batch
    minibatch_size: int | None = ranged(None, 1)  # rows whose gradients are computed at once; null: the whole batch
    learning_rate: float = ranged(2.5e-4, 0, open_low=True)
    learning_rate_schedule: str = choice("constant", "constant", "linear")  # linear: to zero at the last update
    weight_decay: float = ranged(0.0, 0)  # decoupled from the gradient
    entropy_weight: float = ranged(0.0, 0)  # of the policy's mean entropy, which is to be large
    l2_weight: float = ranged(0.0, 0)  # of half the sum of the policy's squared parameters
    loss_function: str = choice("log_likelihood", "log_likelihood", "squared_error")

    @property
    def used(self) -> bool:
        return self.iterations > 0 or self.epochs > 0

    def check(self, section: str, batch_size: int) -> None:
        """What ranges of single options cannot express. `section` is its name, for messages.

        Raises:
            UserError: options do not fit together.
        """
        if self.iterations and self.epochs:
            raise UserError(
                f"{section}.iterations={self.iterations} and {section}.epochs={self.epochs}: expected one of them, "
                "and 0 for the other"
            )
        if self.minibatch_size and batch_size % self.minibatch_size:
            raise UserError(
                f"{section}.minibatch_size={self.minibatch_size}: expected a factor of training.batch_size={batch_size}"
            )
        if self.weight_decay and self.l2_weight:
            raise UserError(
                f"{section}.weight_decay={self.weight_decay:g} and {section}.l2_weight={self.l2_weight:g}: expected 0 "
                "for one of them"
            )


@dataclass
class BCPretrainingConfig(CloningConfig):
    """Behavioural cloning before the learner starts (or alone, with algorithm=BC)."""

    validation_share: float = ranged(0.0, 0, 0.9)  # of the trajectories, kept out to tell when to stop; 0: none
    patience: int = ranged(10, 1)  # passes over the rows without a lower validation loss, after which a run stops


def cloning_loss(policy: Policy, expert_batch: Batch, loss_function: str) -> Float[Tensor, " runs"]:
    """mean w (-log pi(a|s)), or mean w |tanh(mu(s)) - a|^2 averaged over action dimensions.

    Rows in the absorbing state are left out: no action matters there, and the density of its one fixed action
    can be raised without bound, which would drown everything else.
    """
    return row_losses(policy, expert_batch, loss_function).mean(-1)


def row_losses(policy: Policy, expert_batch: Batch, loss_function: str) -> Float[Tensor, "runs batch"]:
    """What each row adds to the mean of `cloning_loss`."""
    weights = expert_batch.weights * (1 - expert_batch.absorbing)
    if loss_function == "log_likelihood":
        return -weights * policy.log_prob(expert_batch.observations, expert_batch.actions)
    return weights * (policy.greedy(expert_batch.observations) - expert_batch.actions).square().mean(-1)


def mean_entropy(policy: Policy, expert_batch: Batch) -> Float[Tensor, " runs"]:
    """mean w H(pi(.|s)) in nats. Behind a tanh by quadrature in each dimension, without random numbers."""
    weights = expert_batch.weights * (1 - expert_batch.absorbing)
    if isinstance(policy, SquashedGaussianActor):
        entropies = squashed_entropy(*policy(expert_batch.observations))
    else:
        assert isinstance(policy, OnPolicyActor)
        outputs = policy.network(policy.features(expert_batch.observations))
        entropies = policy.evaluate(outputs, expert_batch.actions)[1]
    return (weights * entropies).mean(-1)


def squashed_entropy(
    mean: Float[Tensor, "*batch action"], log_std: Float[Tensor, "*batch action"]
) -> Float[Tensor, "*batch"]:
    """H(tanh(x)) = H(x) + E[log(1 - tanh(x)^2)] for a diagonal Gaussian x, by Gauss-Hermite quadrature."""
    nodes, weights = quadrature(mean.device, mean.dtype)
    raw = mean.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * nodes
    log_slope = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    expected = (log_slope * weights).sum(-1) / math.sqrt(2 * math.pi)
    return (0.5 * math.log(2 * math.pi * math.e) + log_std + expected).sum(-1)


@cache
def quadrature(device: torch.device, dtype: torch.dtype) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
    """Nodes and weights of Gauss and Hermite's, which stay on the device."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
    return torch.from_numpy(nodes).to(device, dtype), torch.from_numpy(weights).to(device, dtype)


def half_squares(policy: Policy) -> Float[Tensor, " runs"]:
    """Half the sum of squares of each run's parameters."""
    return torch.stack([0.5 * parameter.square().flatten(1).sum(-1) for parameter in policy.parameters()]).sum(0)


class BehaviouralCloning:
    """Trains a policy on demonstrations with an optimiser of its own."""

    def __init__(self, policy: Policy, config: CloningConfig) -> None:
        self.policy, self.config = policy, config
        self.optimiser = AdamW(
            policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def update(self, expert_batch: Batch, share: float = 0.0) -> Metrics:
        """One step. `share` of the training, in [0, 1], is over.

        Running statistics take in every row that is trained on, whatever happens between two updates.
        """
        schedule = self.config.learning_rate_schedule
        set_learning_rate(self.optimiser, scheduled(self.config.learning_rate, schedule, share))
        self.policy.observe(expert_batch.observations)
        parameters = list(self.policy.parameters())
        for parameter in parameters:
            parameter.grad = None
        total, size = expert_batch.shape[1], self.config.minibatch_size or expert_batch.shape[1]
        metrics: Metrics = {}
        for start in range(0, total, size):
            part = expert_batch.map(lambda column, start=start: column[:, start : start + size])  # type: ignore[misc]  # defaults
            loss, found = self._loss(part)
            weight = part.shape[1] / total
            (weight * loss).sum().backward(inputs=parameters)
            metrics = {name: metrics.get(name, 0.0) + weight * value.detach() for name, value in found.items()}
        self.optimiser.step()
        return metrics

    def _loss(self, batch: Batch) -> tuple[Float[Tensor, " runs"], Metrics]:
        config = self.config
        loss = cloning = cloning_loss(self.policy, batch, config.loss_function)
        metrics = {"bc/loss": cloning}
        if config.entropy_weight:
            metrics["bc/entropy"] = mean_entropy(self.policy, batch)
            loss = loss - config.entropy_weight * metrics["bc/entropy"]
        if config.l2_weight:
            loss = loss + config.l2_weight * half_squares(self.policy)
        return loss, metrics

    def state_dict(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])


class EarlyStopping:
    """Each run's policy of the lowest validation loss, and which runs have stopped: those keep that policy."""

    def __init__(self, policy: Policy, runs: int, patience: int) -> None:
        self.policy, self.patience = policy, patience
        device = next(policy.parameters()).device
        self.lowest = torch.full((runs,), torch.inf, device=device)
        self.without = torch.zeros(runs, dtype=torch.int64, device=device)  # passes since the lowest
        self.best: dict[str, Tensor] = {}

    @property
    def stopped(self) -> Bool[Tensor, " runs"]:
        return self.without >= self.patience

    def note(self, losses: Float[Tensor, " runs"]) -> None:
        """After a pass: the policy as it is now has these validation losses."""
        better = (losses < self.lowest) & ~self.stopped
        self.lowest = torch.where(better, losses, self.lowest)
        self.without = torch.where(better, 0, self.without + 1)
        state = self.policy.state_dict()
        self.best = {
            name: _where(better, value, self.best[name]) if self.best else value.clone()
            for name, value in state.items()
        }

    def restore(self, runs: Bool[Tensor, " runs"]) -> None:
        """Give these runs their best policy back."""
        if runs.any() and self.best:
            state = self.policy.state_dict()
            self.policy.load_state_dict({name: _where(runs, self.best[name], state[name]) for name in state})

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self.lowest, "without": self.without, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.lowest.device
        self.lowest, self.without = state["lowest"].to(device), state["without"].to(device)
        self.best = {name: value.to(device) for name, value in state["best"].items()}


def _where(runs: Bool[Tensor, " runs"], chosen: Tensor, other: Tensor) -> Tensor:
    return torch.where(runs.view(-1, *[1] * (chosen.dim() - 1)), chosen, other)


@dataclass
class CloningOnlyConfig(ImitationConfig):
    """Options of algorithm=BC."""

    def check(self) -> None:
        if self.mix_expert_data != "none":
            raise UserError(
                f"imitation.mix_expert_data={self.mix_expert_data} does not apply to algorithm=BC: expected none"
            )
        if self.bc_aux_loss:
            raise UserError("imitation.bc_aux_loss=true does not apply to algorithm=BC: expected false")


class CloningOnly(ImitationModule):
    """The imitation module of algorithm=BC: all learning happens in pretraining, no reward exists afterwards."""

    config_class = CloningOnlyConfig
    provides_rewards = False

    def __init__(self, config: CloningOnlyConfig, context: object) -> None:
        super().__init__()
        self.config = config

    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        raise RuntimeError("behavioural cloning provides no rewards")
