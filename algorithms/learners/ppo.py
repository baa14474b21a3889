"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347).

Equations refer to arXiv:1707.06347. Losses are means over a minibatch; gradients, clipping norms, normalised advantages
and early stops are each run's own. There are hundreds of minibatches to a rollout and the networks are small, so the
gradients are written out here: a recorded graph would take most of the time. Everything is in float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.base import Context, ImitationConfig, Learner, MemoryConfig, Metrics, TrainingConfig, scheduled
from algorithms.behavioural_cloning import cloning_loss
from algorithms.optimisers import RunAdam
from conf.errors import UserError
from conf.fields import Section, choice, ranged
from memory.batch import Batch, Layout
from memory.rollout import RolloutMemory
from models.actors import CategoricalActor, GaussianActor, OnPolicyActor
from models.critics import ValueFunction
from models.mlp import MLPConfig
from models.streams import Streams

KL_TOLERANCE = 1.5  # how far beyond `target_kl` an estimate may be, as in OpenAI's Spinning Up

METRICS = ("actor/loss", "actor/entropy", "actor/approximate_kl", "actor/clipped_share", "critic/loss")
KL = METRICS.index("actor/approximate_kl")

Rollout = Float[Tensor, "runs time envs"]
Rows = Float[Tensor, "runs batch"]
Loss = Float[Tensor, " runs"]


@dataclass
class TowerConfig(MLPConfig):
    """Shape of the policy's or the value function's network."""

    hidden_size: int = ranged(64, 1)
    activation: str = choice("tanh", "relu", "tanh")


@dataclass
class PPOConfig(Section):
    """Defaults: Stable-Baselines3's. `training.interval` is the length of a rollout over all environments of a run,
    `training.batch_size` that of a minibatch."""

    discount: float = ranged(0.99, 0, 1)
    gae_lambda: float = ranged(0.95, 0, 1)
    epochs: int = ranged(10, 1)  # passes over each rollout
    clip_range: float = ranged(0.2, 0, open_low=True)
    clip_range_schedule: str = choice("constant", "constant", "linear")  # linear: to zero at the last step
    value_coefficient: float = ranged(0.5, 0)
    entropy_coefficient: float = ranged(0.0, 0)
    max_grad_norm: float = ranged(0.5, 0, open_low=True)  # over policy and value function together
    target_kl: float | None = ranged(None, 0, open_low=True)  # stop a rollout's updates beyond 1.5 times this; null: no
    normalise_advantages: bool = True  # in each minibatch
    normalise_observations: bool = False  # by the running mean and variance of the rollouts
    actor: TowerConfig = field(default_factory=TowerConfig)
    critic: TowerConfig = field(default_factory=TowerConfig)


def generalised_advantages(
    rewards: Rollout,
    values: Rollout,
    next_values: Rollout,
    terminated: Rollout,
    truncated: Rollout,
    discount: float,
    gae_lambda: float,
) -> Rollout:
    """Eq. 11 and 12, A_t = delta_t + gamma lambda A_t+1 (Schulman et al. 2016), with two ends that are not the same.

    Neither lets the sum go on; but a time limit keeps the value of the true successor, a termination has none.
    """
    deltas = rewards + discount * (1 - terminated) * next_values - values
    carry = discount * gae_lambda * (1 - terminated) * (1 - truncated)
    advantage = torch.zeros_like(deltas[:, 0])
    backwards = []
    for delta, carried in zip(reversed(deltas.unbind(1)), reversed(carry.unbind(1)), strict=True):
        advantage = torch.addcmul(delta, carried, advantage)
        backwards.append(advantage)
    return torch.stack(backwards[::-1], 1)


def standardised(advantages: Rows) -> Rows:
    """Mean 0 and standard deviation 1 in each run. A single row says nothing about either and stays as it is."""
    if advantages.shape[1] < 2:
        return advantages
    deviation, mean = torch.std_mean(advantages, -1, keepdim=True)
    return (advantages - mean) / (deviation + 1e-8)


def surrogate_loss(log_ratios: Rows, advantages: Rows, clip_range: float) -> tuple[Loss, Rows]:
    """Eq. 7, negative: -mean min(r A, clip(r, 1 - eps, 1 + eps) A); and its derivative by log pi of each row.

    Where the clipped term is the smaller one it does not depend on the policy.
    """
    ratios = log_ratios.exp()
    free, clipped = ratios * advantages, ratios.clamp(1 - clip_range, 1 + clip_range) * advantages
    return -torch.minimum(free, clipped).mean(-1), free * (free <= clipped) / -advantages.shape[1]


def approximate_kl(log_ratios: Rows) -> Rows:
    """(r - 1) - log r of each row: never negative, and unbiased for KL(old, new) in the mean over rows of the old
    policy (Schulman 2020)."""
    return torch.expm1(log_ratios) - log_ratios


class PPO(Learner):
    """On-policy learner with a clipped surrogate loss."""

    on_policy = True
    supports_discrete_actions = True
    config_class = PPOConfig
    policy: OnPolicyActor

    def __init__(self, config: PPOConfig, training: TrainingConfig, imitation: ImitationConfig, context: Context):
        super().__init__()
        self.config, self.training_config, self.imitation, self.context = config, training, imitation, context
        self.streams = Streams(context.seeds, "learner", context.device)
        kind = CategoricalActor if context.discrete else GaussianActor
        sizes = (context.observation_size, context.action_size)
        self.policy = kind(*sizes, config.actor, self.streams, normalise=config.normalise_observations)
        self.critic = ValueFunction(context.observation_size, config.critic, self.streams)
        self.optimiser = RunAdam(list(self.parameters()), config.max_grad_norm, training.weight_decay)
        self.progress = 0.0  # when the rollout that is being collected began

    @classmethod
    def check(cls, config: Section, training: TrainingConfig, num_envs: int) -> None:
        assert isinstance(config, PPOConfig)
        if training.interval % num_envs:
            raise UserError(
                f"training.interval={training.interval} is not a multiple of env.num_envs={num_envs}: with learner=ppo "
                "it is the length of a rollout over all environments"
            )
        if training.start:
            raise UserError(f"training.start={training.start} is not allowed with learner=ppo: expected 0")
        for name, tower in (("actor", config.actor), ("critic", config.critic)):
            for option in ("dropout", "input_dropout", "layer_norm"):
                if getattr(tower, option):
                    raise UserError(f"reinforcement.{name}.{option} is not for learner=ppo: leave it out")

    def make_memory(self, memory: MemoryConfig, steps: int, prefilled: int) -> RolloutMemory:
        layout = Layout(self.context.observation_size, self.context.action_size)
        return RolloutMemory(layout, self.training_config.interval // self.context.num_envs, self.context.device)

    @torch.no_grad()
    def act(self, observations: Tensor, greedy: bool = False) -> Tensor:
        observations = observations.to(self.context.device)
        return self.policy.greedy(observations) if greedy else self.policy.sample(observations, self.streams)

    def update(self, batch: Batch, expert_batch: Batch | None, progress: float = 0.0) -> Metrics:
        """All epochs over one rollout [runs, time * envs].

        Schedules go by when the rollout began: the last one would otherwise be wasted.
        """
        config, share, self.progress = self.config, self.progress, progress
        rate = self.training_config.learning_rate_at(share)
        clip_range = scheduled(config.clip_range, config.clip_range_schedule, share)
        rows, metrics = self._prepare(batch)
        active: Tensor | None = None  # None: all runs
        cloning = () if expert_batch is None else ("actor/cloning_loss",)
        names = (*METRICS, *cloning, "actor/gradient_norm", "actor/minibatches")
        totals = torch.zeros(len(names), batch.shape[0], device=rows.device)
        one = torch.ones(1, batch.shape[0], device=rows.device)
        for minibatch, where in self._minibatches(rows):
            gradients, found = self._gradients(minibatch, clip_range)
            if expert_batch is not None:
                cloned = expert_batch.map(lambda column, where=where: column[:, where])  # type: ignore[misc]  # defaults
                found = torch.cat([found, self._add_cloning(gradients, cloned)])
            if config.target_kl is not None:
                below = found[KL] <= KL_TOLERANCE * config.target_kl
                active = below if active is None else active & below
                if not active.any():
                    break
            norms = self.optimiser.step(gradients, rate, active)
            found = torch.cat([found, norms.unsqueeze(0), one])
            totals += found if active is None else found * active
        self.policy.observe(batch.observations)  # now that ratios to the policy that acted are no longer needed
        totals[:-1] /= totals[-1]
        return metrics | dict(zip(names, totals, strict=True))

    @torch.no_grad()
    def _prepare(self, batch: Batch) -> tuple[Float[Tensor, "runs rows width"], Metrics]:
        """Features, actions, log-probabilities, advantages and returns of all rows, side by side.

        Recomputed with the very policy that acted, so the first ratios are 1.
        """
        shape = (batch.shape[0], -1, self.context.num_envs)
        features = self.policy.features(batch.observations)
        log_probs, _ = self.policy.evaluate(self.policy.network(features), batch.actions)
        values = self.critic(features)
        next_values = self.critic(self.policy.features(batch.next_observations))
        advantages = generalised_advantages(
            batch.rewards.reshape(shape),
            values.reshape(shape),
            next_values.reshape(shape),
            batch.terminated.reshape(shape),
            batch.truncated.reshape(shape),
            self.config.discount,
            self.config.gae_lambda,
        ).flatten(1)
        returns = advantages + values
        unexplained = (returns - values).var(-1, correction=0) / returns.var(-1, correction=0).clamp_min(1e-8)
        metrics = {
            "critic/value": values.mean(-1),
            "critic/explained_variance": 1 - unexplained,
            "batch/reward": batch.rewards.mean(-1),
            "batch/absolute_reward": batch.rewards.abs().mean(-1),
        }
        scalars = torch.stack([log_probs, advantages, returns], -1)
        return torch.cat([features, batch.actions, scalars], -1), metrics

    def _minibatches(self, rows: Float[Tensor, "runs rows width"]) -> Iterator[tuple[Tensor, slice]]:
        """Every epoch's rows in a new order, cut into minibatches; and where each was cut."""
        runs, count, width = rows.shape
        # All at once: a run that stops early draws the same numbers as one that does not.
        orders = self.streams.uniform(self.config.epochs, count).argsort(-1)
        offsets = torch.arange(runs, device=rows.device).unsqueeze(1) * count
        size = self.training_config.batch_size
        for epoch in range(self.config.epochs):
            indices = (orders[:, epoch] + offsets).flatten()
            shuffled = rows.view(-1, width).index_select(0, indices).view(runs, count, width)
            for start in range(0, count, size):
                where = slice(start, start + size)
                yield shuffled[:, where], where

    @torch.no_grad()
    def _gradients(
        self, rows: Float[Tensor, "runs batch width"], clip_range: float
    ) -> tuple[list[Tensor], Float[Tensor, "metrics runs"]]:
        """Eq. 9, negative: gradients by all parameters, and `METRICS`."""
        config, context, size = self.config, self.context, rows.shape[1]
        features, actions, scalars = rows.split((context.observation_size, context.action_size, 3), -1)
        old_log_probs, advantages, returns = scalars.unbind(-1)
        if config.normalise_advantages:
            advantages = standardised(advantages)
        outputs, seen = self.policy.network.trace(features)
        log_probs, entropies = self.policy.evaluate(outputs, actions)
        log_ratios = log_probs - old_log_probs
        actor_loss, by_log_probs = surrogate_loss(log_ratios, advantages, clip_range)
        by_outputs, own = self.policy.pull_back(outputs, actions, by_log_probs, -config.entropy_coefficient)
        values, seen_by_critic = self.critic.network.trace(features)
        errors = values.squeeze(-1) - returns
        by_values = (2 * config.value_coefficient / size) * errors.unsqueeze(-1)
        gradients = [
            *own,
            *self.policy.network.pull_back(seen, by_outputs),
            *self.critic.network.pull_back(seen_by_critic, by_values),
        ]
        clipped = (torch.expm1(log_ratios).abs() > clip_range).to(errors.dtype)
        of_rows = torch.stack([entropies, approximate_kl(log_ratios), clipped, errors.square()])
        return gradients, torch.cat([actor_loss.unsqueeze(0), of_rows.mean(-1)])

    def _add_cloning(self, gradients: list[Tensor], expert_batch: Batch) -> Float[Tensor, "1 runs"]:
        """Add those of the auxiliary loss to the policy's; returns the loss."""
        loss = cloning_loss(self.policy, expert_batch, self.imitation.bc_aux_loss_function)
        found = torch.autograd.grad(loss.sum(), list(self.policy.parameters()), allow_unused=True)
        for index, gradient in enumerate(found):
            if gradient is not None:  # squared errors do not depend on deviations
                gradients[index] = gradients[index] + self.imitation.bc_aux_weight * gradient
        return loss.detach().unsqueeze(0)

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "streams": self.streams.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": self.progress,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = state["progress"]
