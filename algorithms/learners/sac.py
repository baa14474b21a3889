"""Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905).

Absorbing states follow Kostrikov et al. (2018): the policy does not learn in them, their value does.

Equations refer to arXiv:1812.05905. All losses are means over the batch and sums over runs, so that the gradients of
different runs never mix and one optimiser steps them all.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from algorithms.base import (
    Context,
    ImitationConfig,
    Learner,
    MemoryConfig,
    Metrics,
    TrainingConfig,
    descend,
    set_learning_rate,
)
from algorithms.behavioural_cloning import cloning_loss
from algorithms.optimisers import AdamW
from conf.fields import Section, ranged
from memory.batch import Batch, Layout
from memory.replay import ReplayMemory
from models.actors import SquashedGaussianActor
from models.critics import TwinCritic
from models.mlp import MLPConfig
from models.streams import Streams


@dataclass
class SACConfig(Section):
    discount: float = ranged(0.99, 0, 1)
    target_temperature: float = ranged(-1.0, -100, 100)  # entropy target, per action dimension
    initial_temperature: float = ranged(1.0, 0, open_low=True)  # alpha at the start; from there it is learned
    polyak_factor: float = ranged(0.995, 0, 1)  # fraction of the target critic that is kept at each update
    actor_averaging: float = ranged(0.0, 0, 0.99999)  # share kept by the average that is evaluated; 0: no average
    normalise_observations: bool = False  # by the running mean and variance of those in which the learner acted
    actor: MLPConfig = field(default_factory=MLPConfig)
    critic: MLPConfig = field(default_factory=MLPConfig)


def critic_target(
    batch: Batch,
    next_values: Float[Tensor, "runs batch"],
    next_log_probs: Float[Tensor, "runs batch"],
    temperature: Float[Tensor, "runs 1"],
    discount: float,
) -> Float[Tensor, "runs batch"]:
    """Eq. 2 and 3: r + (1 - d) gamma [Q(s', a') - alpha log pi(a'|s')], without entropy where s' is absorbing."""
    entropy = -temperature * next_log_probs * (1 - batch.next_absorbing)
    return batch.rewards + (1 - batch.terminated) * discount * (next_values + entropy)


def critic_loss(
    values: Float[Tensor, "2 runs batch"], target: Float[Tensor, "runs batch"], weights: Float[Tensor, "runs batch"]
) -> Float[Tensor, " runs"]:
    """Eq. 5, summed over the twins. Absorbing rows count: their value is what has to be learned."""
    return (weights * (values - target).square()).mean(-1).sum(0)


def actor_loss(
    values: Float[Tensor, "runs batch"],
    log_probs: Float[Tensor, "runs batch"],
    temperature: Float[Tensor, "runs 1"],
    weights: Float[Tensor, "runs batch"],
) -> Float[Tensor, " runs"]:
    """Eq. 7. `weights` are zero on absorbing rows, where no action matters; they cover both terms."""
    return (weights * (temperature * log_probs - values)).mean(-1)


def temperature_loss(
    log_temperature: Float[Tensor, " runs"],
    log_probs: Float[Tensor, "runs batch"],
    entropy_target: float,
    weights: Float[Tensor, "runs batch"],
) -> Float[Tensor, " runs"]:
    """Eq. 18: -alpha (log pi + target), on the rows on which the policy learns."""
    return -(weights * log_temperature.exp().unsqueeze(-1) * (log_probs + entropy_target)).mean(-1)


class SAC(Learner):
    """Off-policy maximum-entropy learner with twin critics and a learned temperature per run."""

    on_policy = False
    config_class = SACConfig
    policy: SquashedGaussianActor

    def __init__(self, config: SACConfig, training: TrainingConfig, imitation: ImitationConfig, context: Context):
        super().__init__()
        self.config, self.training_config, self.imitation, self.context = config, training, imitation, context
        self.streams = Streams(context.seeds, "learner", context.device)
        sizes = (context.observation_size, context.action_size)
        normalised = context.observation_size - context.absorbing if config.normalise_observations else 0
        self.policy = SquashedGaussianActor(*sizes, config.actor, self.streams, context.dtype, normalised)
        self.critic = TwinCritic(*sizes, config.critic, self.streams, context.dtype)
        self.target_critic = TwinCritic(*sizes, config.critic, self.streams, context.dtype)
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.target_critic.requires_grad_(False)
        # Evaluations of the latest actor swing from one update to the next; those of its moving average do not.
        self.averaged_policy: SquashedGaussianActor | None = None
        if config.actor_averaging:
            self.averaged_policy = SquashedGaussianActor(*sizes, config.actor, self.streams, context.dtype, normalised)
            self.averaged_policy.requires_grad_(False)
            self.averaged_policy.normaliser = self.policy.normaliser  # statistics are not averaged: one object for all
        self.averaging = False  # it begins with the first update, behind any behavioural cloning
        start = torch.full((len(context.seeds),), config.initial_temperature, device=context.device)
        self.log_temperature = nn.Parameter(start.log())
        self.entropy_target = config.target_temperature * context.action_size

        rate, decay = training.learning_rate, training.weight_decay
        actor_groups = [
            {"params": list(self.policy.parameters()), "weight_decay": decay},
            {"params": [self.log_temperature], "weight_decay": 0.0},
        ]
        self.actor_optimiser = AdamW(actor_groups, rate, fused=True)
        self.critic_optimiser = AdamW(self.critic.parameters(), rate, weight_decay=decay, fused=True)
        self.critic_parameters: list[Tensor] = list(self.critic.parameters())
        self.target_parameters: list[Tensor] = list(self.target_critic.parameters())

    def make_memory(self, memory: MemoryConfig, steps: int, prefilled: int) -> ReplayMemory:
        rows_per_step = 2 if self.context.absorbing else 1  # a termination adds a row
        envs = self.context.num_envs
        steps = math.ceil(steps / envs) * envs  # they step together, also in the last one
        return ReplayMemory(
            Layout(self.context.observation_size, self.context.action_size),
            max(1, min(memory.size, prefilled + rows_per_step * steps)),
            self.context.seeds,
            self.context.device,
            absorbing_state=self.context.absorbing_state,
            batch_size=self.training_config.batch_size,
            start=self.training_config.start,
            interval=self.training_config.interval,
        )

    @property
    def evaluation_policy(self) -> SquashedGaussianActor:
        return self.averaged_policy if self.averaged_policy and self.averaging else self.policy

    @torch.no_grad()
    def act(self, observations: Tensor, greedy: bool = False) -> Tensor:
        observations = observations.to(self.context.device)
        if greedy:
            policy = self.evaluation_policy
            policy.eval()  # no dropout, which belongs to training
            actions = policy.greedy(observations)
            policy.train()
            return actions
        self.policy.observe(observations)
        return self.policy.sample(observations, self._noise(observations))[0]

    def update(self, batch: Batch, expert_batch: Batch | None, progress: float = 0.0) -> Metrics:
        if self.training_config.learning_rate_schedule != "constant":
            for optimiser in (self.actor_optimiser, self.critic_optimiser):
                set_learning_rate(optimiser, self.training_config.learning_rate_at(progress))
        temperature = self.log_temperature.detach().exp().unsqueeze(-1)
        metrics = self._update_critic(batch, temperature)
        metrics |= self._update_actor(batch, expert_batch, temperature)
        with torch.no_grad():
            torch._foreach_lerp_(self.target_parameters, self.critic_parameters, 1 - self.config.polyak_factor)
            self._average_actor()
        return metrics

    def _update_critic(self, batch: Batch, temperature: Tensor) -> Metrics:
        with torch.no_grad():
            next_actions, next_log_probs = self.policy.sample(
                batch.next_observations, self._noise(batch.next_observations)
            )
            # The action of the absorbing state is zero; its log-probability above is that of the sampled action.
            next_actions = next_actions * (1 - batch.next_absorbing).unsqueeze(-1)
            next_values = self.target_critic(self.policy.features(batch.next_observations), next_actions).amin(0)
            target = critic_target(batch, next_values, next_log_probs, temperature, self.config.discount)
        values = self.critic(self.policy.features(batch.observations), batch.actions)
        loss = critic_loss(values, target, batch.weights)
        descend(self.critic_optimiser, loss)
        return {
            "critic/loss": loss.detach(),
            "critic/value": values.detach().mean((0, 2)),
            "batch/reward": batch.rewards.mean(-1),
            "batch/absolute_reward": batch.rewards.abs().mean(-1),
        }

    def _update_actor(self, batch: Batch, expert_batch: Batch | None, temperature: Tensor) -> Metrics:
        """Actor and temperature: neither loss depends on what the other one trains, so they share one step."""
        actions, log_probs = self.policy.sample(batch.observations, self._noise(batch.observations))
        values = self.critic(self.policy.features(batch.observations), actions).amin(0)
        weights = batch.weights * (1 - batch.absorbing)
        loss = actor_loss(values, log_probs, temperature, weights)
        metrics = {
            "actor/loss": loss.detach(),
            "actor/entropy": -(log_probs.detach() * weights).sum(-1) / weights.sum(-1).clamp_min(1e-8),
            "actor/temperature": temperature.squeeze(-1),
        }
        if expert_batch is not None:
            cloning = cloning_loss(self.policy, expert_batch, self.imitation.bc_aux_loss_function)
            loss = loss + self.imitation.bc_aux_weight * cloning
            metrics["actor/cloning_loss"] = cloning.detach()
        tuning = temperature_loss(self.log_temperature, log_probs.detach(), self.entropy_target, weights)
        descend(self.actor_optimiser, loss + tuning)
        return metrics

    def _average_actor(self) -> None:
        if self.averaged_policy is None:
            return
        latest: list[Tensor] = list(self.policy.parameters())
        average: list[Tensor] = list(self.averaged_policy.parameters())
        torch._foreach_lerp_(average, latest, 1 - self.config.actor_averaging if self.averaging else 1.0)
        self.averaging = True

    def _noise(self, observations: Tensor) -> Tensor:
        return self.streams.normal(observations.shape[1], self.context.action_size)

    def get_extra_state(self) -> dict[str, Any]:
        optimisers = (self.actor_optimiser, self.critic_optimiser)
        return {
            "streams": self.streams.state_dict(),
            "optimisers": [o.state_dict() for o in optimisers],
            "averaging": self.averaging,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.averaging = state["averaging"]
        optimisers = (self.actor_optimiser, self.critic_optimiser)
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
