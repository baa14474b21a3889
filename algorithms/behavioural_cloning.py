"""Behavioural cloning (Pomerleau 1991): supervised learning of the demonstrations' actions."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.base import ImitationConfig, ImitationModule, Metrics, descend, scheduled, set_learning_rate
from conf.fields import Section, choice, ranged
from memory.batch import Batch
from models.actors import Policy


@dataclass
class BCPretrainingConfig(Section):
    """Behavioural cloning before the learner starts (or alone, with algorithm=BC)."""

    iterations: int = ranged(0, 0)
    learning_rate: float = ranged(2.5e-4, 0, open_low=True)
    learning_rate_schedule: str = choice("constant", "constant", "linear")  # linear: to zero at the last iteration
    weight_decay: float = ranged(0.0, 0)
    loss_function: str = choice("log_likelihood", "log_likelihood", "squared_error")


def cloning_loss(policy: Policy, expert_batch: Batch, loss_function: str) -> Float[Tensor, " runs"]:
    """mean w (-log pi(a|s)), or mean w |tanh(mu(s)) - a|^2 averaged over action dimensions.

    Rows in the absorbing state are left out: no action matters there, and the density of its one fixed action
    can be raised without bound, which would drown everything else.
    """
    weights = expert_batch.weights * (1 - expert_batch.absorbing)
    if loss_function == "log_likelihood":
        loss = -policy.log_prob(expert_batch.observations, expert_batch.actions)
    else:
        loss = (policy.greedy(expert_batch.observations) - expert_batch.actions).square().mean(-1)
    return (weights * loss).mean(-1)


class BehaviouralCloning:
    """Trains a policy on demonstrations with an optimiser of its own."""

    def __init__(self, policy: Policy, config: BCPretrainingConfig) -> None:
        self.policy, self.config = policy, config
        self.iteration = 0
        self.optimiser = torch.optim.AdamW(
            policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def update(self, expert_batch: Batch) -> Metrics:
        schedule, share = self.config.learning_rate_schedule, self.iteration / max(1, self.config.iterations)
        set_learning_rate(self.optimiser, scheduled(self.config.learning_rate, schedule, share))
        self.iteration += 1
        self.policy.observe(expert_batch.observations)
        loss = cloning_loss(self.policy, expert_batch, self.config.loss_function)
        descend(self.optimiser, loss)
        return {"bc/loss": loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict(), "iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        self.iteration = state["iteration"]


@dataclass
class CloningOnlyConfig(ImitationConfig):
    """Options of algorithm=BC."""


class CloningOnly(ImitationModule):
    """The imitation module of algorithm=BC: all learning happens in pretraining, no reward exists afterwards."""

    config_class = CloningOnlyConfig
    provides_rewards = False

    def __init__(self, config: CloningOnlyConfig, context: object) -> None:
        super().__init__()
        self.config = config

    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        raise RuntimeError("behavioural cloning provides no rewards")
