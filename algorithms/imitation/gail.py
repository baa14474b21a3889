"""Generative adversarial imitation learning (Ho & Ermon 2016) for any learner.

With an off-policy learner this is discriminator-actor-critic (Kostrikov et al. 2018); with an on-policy one a batch is
a rollout, and the discriminator takes several steps on smaller batches from the latest rollouts. AIRL (Fu et al. 2018)
and FAIRL (Ghasemipour et al. 2019) are options of it. A high logit means expert, everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from algorithms.base import Context, ImitationConfig, ImitationModule, Metrics, descend
from conf.errors import UserError
from conf.fields import choice, ranged
from memory.batch import Batch, Layout
from memory.demonstrations import Demonstrations
from memory.replay import ReplayMemory
from models.actors import Policy
from models.discriminators import Discriminator, DiscriminatorConfig
from models.normalisation import RunningNorm
from models.streams import Streams

EPSILON = 1e-6  # keeps the logarithms of rewards finite
SATURATED_GAP = 8.0  # between mean logits: probabilities beyond 0.98 on both sides

Logits = Float[Tensor, "runs batch"]
Loss = Float[Tensor, " runs"]


@dataclass
class GAILConfig(ImitationConfig):
    """Defaults: Arulkumaran & Ogawa Lillrank (2021), whose dropout was configured but never applied, hence 0 here."""

    model: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    learning_rate: float = ranged(3e-5, 0, open_low=True)
    weight_decay: float = ranged(10.0, 0)
    grad_penalty: float = ranged(1.0, 0)  # weight of the zero-centred gradient penalty
    spectral_norm: bool = True
    entropy_bonus: float = ranged(0.0, 0)  # weight of the entropy of the discriminator's decisions
    loss_function: str = choice("BCE", "BCE", "Mixup", "PUGAIL")
    mixup_alpha: float = ranged(1.0, 0, open_low=True)
    pos_class_prior: float = ranged(0.7, 0, 1)  # PUGAIL: share of expert-like rows among the learner's
    nonnegative_margin: float = ranged(0.0, 0)  # PUGAIL: how far below zero the negative risk may fall
    updates: int = ranged(1, 1)  # steps of the discriminator for each batch of the learner
    batch_size: int = ranged(0, 0)  # rows of either side in such a step; 0: the learner's batch, and as many
    buffer_size: int = ranged(0, 0)  # the learner's latest rows, from which those are drawn
    normalise_rewards: bool = False  # by the running mean and variance of the rewards given so far

    def check(self) -> None:
        if (self.batch_size > 0) != (self.buffer_size > 0):
            raise UserError(
                f"imitation.batch_size={self.batch_size} and imitation.buffer_size={self.buffer_size} belong together: "
                "expected both 0 or both above"
            )


def gail_reward(logits: Logits) -> Logits:
    """-log(1 - p): never negative, so it rewards survival (Ho & Ermon 2016)."""
    return -torch.log(1 - torch.sigmoid(logits) + EPSILON)


def airl_reward(logits: Logits) -> Logits:
    """log p - log(1 - p): the logit itself, but for its limits (Fu et al. 2018)."""
    probability = torch.sigmoid(logits)
    return torch.log(probability + EPSILON) - torch.log(1 - probability + EPSILON)


def fairl_reward(logits: Logits) -> Logits:
    """-h exp(h), with h the AIRL reward (Ghasemipour et al. 2019)."""
    log_ratio = airl_reward(logits)
    return -log_ratio * log_ratio.exp()


def unchanged(values: Logits) -> Logits:
    return values


REWARDS: dict[str, Callable[[Logits], Logits]] = {
    "AIRL": airl_reward,
    "FAIRL": fairl_reward,
    "GAIL": gail_reward,
    "f": unchanged,
}


def binary_cross_entropy(logits: Logits, label: float, weights: Logits) -> Loss:
    """mean w BCE(D, label), from logits."""
    return (weights * (F.softplus(logits) - label * logits)).mean(-1)


def bce_loss(expert_logits: Logits, learner_logits: Logits, expert_weights: Logits, learner_weights: Logits) -> Loss:
    return binary_cross_entropy(expert_logits, 1.0, expert_weights) + binary_cross_entropy(
        learner_logits, 0.0, learner_weights
    )


def pugail_loss(
    expert_logits: Logits,
    learner_logits: Logits,
    expert_weights: Logits,
    learner_weights: Logits,
    prior: float,
    margin: float,
) -> Loss:
    """Non-negative positive-unlabelled risk (Xu & Denil 2019): eta R_E(1) + max(-beta, R_pi(0) - eta R_E(0))."""
    positive = prior * binary_cross_entropy(expert_logits, 1.0, expert_weights)
    negative = binary_cross_entropy(learner_logits, 0.0, learner_weights) - prior * binary_cross_entropy(
        expert_logits, 0.0, expert_weights
    )
    return positive + negative.clamp_min(-margin)


def mixup_loss(logits: Logits, expert_share: Logits, weights: Logits) -> Loss:
    """BCE of convexly mixed rows with convexly mixed labels (Zhang et al. 2018; Chen et al. 2020)."""
    cross_entropy = F.softplus(logits) - expert_share * logits
    return (weights * cross_entropy).mean(-1)


def bernoulli_entropy(logits: Logits, weights: Logits) -> Loss:
    """mean w H(Bernoulli(sigmoid D))."""
    return (weights * (F.softplus(logits) - logits * torch.sigmoid(logits))).mean(-1)


def interpolate(expert_batch: Batch, batch: Batch, expert_share: Logits) -> Batch:
    """Rows between demonstrations and the learner's, in every field."""

    def mix(name: str) -> Tensor:
        expert, learner = getattr(expert_batch, name), getattr(batch, name)
        share = expert_share.unsqueeze(-1) if expert.dim() == 3 else expert_share
        return torch.lerp(learner, expert, share)

    return Batch(*(mix(name) for name in Batch.__dataclass_fields__))


def gradient_penalty(discriminator: Discriminator, batch: Batch, log_probs: Logits | None) -> Float[Tensor, " runs"]:
    """mean w (|grad_s D|^2 + |grad_a D|^2) at the rows of `batch`."""
    inputs = [batch.observations.detach().requires_grad_()]
    if not discriminator.state_only:
        inputs.append(batch.actions.detach().requires_grad_())
    names = ("observations", "actions")
    rows = Batch(**{**vars(batch), **dict(zip(names, inputs, strict=False))})
    logits = discriminator(rows, log_probs)
    gradients = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    squared = torch.stack([gradient.square().sum(-1) for gradient in gradients]).sum(0)
    return (batch.weights * squared).mean(-1)


class GAIL(ImitationModule):
    """Trains a discriminator on the learner's own batches, and rewards what it takes for the expert's."""

    config_class = GAILConfig
    config: GAILConfig

    def __init__(self, config: GAILConfig, context: Context) -> None:
        super().__init__()
        self.config = config
        self.streams = Streams(context.seeds, "imitation", context.device)
        self.discriminator = Discriminator(
            context.observation_size,
            context.action_size,
            config.model,
            self.streams,
            state_only=config.state_only,
            discount=context.discount,
            spectral_norm=config.spectral_norm,
            absorbing=context.absorbing,
        )
        self.optimiser = torch.optim.AdamW(
            self.discriminator.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.reward_function = REWARDS[config.model.reward_function]
        self.reward_normaliser = (
            RunningNorm(len(context.seeds), 1, context.device) if config.normalise_rewards else None
        )
        self.recent: ReplayMemory | None = None
        if config.buffer_size:
            layout = Layout(context.observation_size, context.action_size)
            self.recent = ReplayMemory(layout, config.buffer_size, context.seeds, context.device, "imitation/recent")
        self.demonstrations: Demonstrations | None = None

    def prepare(self, demonstrations: Demonstrations) -> Demonstrations:
        if demonstrations.state_only and self.config.model.subtract_log_policy:
            raise UserError(
                "imitation.model.subtract_log_policy=true (as algorithm=AIRL sets it) asks for the probability of the "
                "demonstrations' actions, and these have none: expected false, or demonstrations with actions"
            )
        self.demonstrations = demonstrations
        return demonstrations

    def update(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        if self.recent is not None:
            # In random order: whatever is left out or overwritten is a fair sample of all environments and times.
            order = self.streams.uniform(batch.shape[1]).argsort(-1)
            self.recent.add(batch.map(lambda column: _taken(column, order)))
        found = [self._step(*self._draw(batch, expert_batch), policy) for _ in range(self.config.updates)]
        if self.reward_normaliser is not None:
            with torch.no_grad():
                self.discriminator.eval()
                self.reward_normaliser.update(self._rewards(batch, policy).unsqueeze(-1))
        if len(found) == 1:
            return found[0]
        return {name: torch.stack([metrics[name] for metrics in found]).mean(0) for name in found[0]}

    def _draw(self, batch: Batch, expert_batch: Batch) -> tuple[Batch, Batch]:
        """What the discriminator is trained on: the learner's rows, and demonstrations."""
        size = self.config.batch_size
        if self.recent is None:
            return batch, expert_batch
        assert self.demonstrations is not None
        return self.recent.sample(size), self.demonstrations.sample(size)

    def _step(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        self.discriminator.train()
        for rows in (expert_batch, batch):
            self.discriminator.observe(rows)
        loss, metrics = self._classification_loss(batch, expert_batch, policy)
        if self.config.grad_penalty > 0:
            between = interpolate(expert_batch, batch, self.streams.uniform(batch.shape[1]))
            penalty = gradient_penalty(self.discriminator, between, self._log_probs(between, policy))
            loss = loss + self.config.grad_penalty * penalty
            metrics["discriminator/grad_penalty"] = penalty.detach()
        descend(self.optimiser, loss)
        return metrics | {"discriminator/loss": loss.detach()}

    def _classification_loss(self, batch: Batch, expert_batch: Batch, policy: Policy) -> tuple[Loss, Metrics]:
        config = self.config
        if config.loss_function == "Mixup":
            share = self.streams.beta(config.mixup_alpha, batch.shape[1])
            mixed = interpolate(expert_batch, batch, share)
            logits = self.discriminator(mixed, self._log_probs(mixed, policy))
            loss = mixup_loss(logits, share, mixed.weights)
            if config.entropy_bonus > 0:
                loss = loss - config.entropy_bonus * bernoulli_entropy(logits, mixed.weights)
            return loss, {}
        both = Batch(*(torch.cat([getattr(b, name) for b in (expert_batch, batch)], 1) for name in vars(batch)))
        log_probs = self._log_probs(both, policy)
        logits = self.discriminator(both, log_probs)
        expert_logits, learner_logits = logits.chunk(2, -1)
        weights = (expert_batch.weights, batch.weights)
        if config.loss_function == "PUGAIL":
            prior, margin = config.pos_class_prior, config.nonnegative_margin
            loss = pugail_loss(expert_logits, learner_logits, *weights, prior, margin)
        else:
            loss = bce_loss(expert_logits, learner_logits, *weights)
        if config.entropy_bonus > 0:
            entropy = bernoulli_entropy(expert_logits, weights[0]) + bernoulli_entropy(learner_logits, weights[1])
            loss = loss - config.entropy_bonus * entropy
        rewards = self._rewards_of(logits.detach(), log_probs).chunk(2, -1)
        return loss, _comparison("discriminator", (expert_logits.detach(), learner_logits.detach()), rewards)

    def _rewards_of(self, logits: Logits, log_probs: Logits | None) -> Logits:
        """Before normalisation."""
        without = self.config.model.reward_function == "f" and log_probs is not None
        return self.reward_function(logits + log_probs if without else logits)  # type: ignore[operator]  # both are there

    def _rewards(self, batch: Batch, policy: Policy) -> Logits:
        log_probs = None if self.config.model.reward_function == "f" else self._log_probs(batch, policy)
        return self.reward_function(self.discriminator(batch, log_probs))

    @torch.no_grad()
    def _log_probs(self, batch: Batch, policy: Policy) -> Logits | None:
        """log pi(a|s), where it is to be subtracted; 0 in the absorbing state, where the policy chooses nothing."""
        if not self.config.model.subtract_log_policy:
            return None
        training = policy.training
        policy.eval()  # its dropout masks are the learner's own
        log_probs = policy.log_prob(batch.observations, batch.actions)
        policy.train(training)
        return log_probs * (1 - batch.absorbing)

    @torch.no_grad()
    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        self.discriminator.eval()
        rewards = self._rewards(batch, policy)
        if self.reward_normaliser is not None:
            rewards = self.reward_normaliser(rewards.unsqueeze(-1)).squeeze(-1)
        return batch.with_rewards(rewards)

    @torch.no_grad()
    def diagnose(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        self.discriminator.eval()
        logits, rewards = [], []
        for rows in (expert_batch, batch):
            log_probs = self._log_probs(rows, policy)
            logits.append(self.discriminator(rows, log_probs))
            rewards.append(self._rewards_of(logits[-1], log_probs))
        return _comparison("diagnosis", logits, rewards)

    def warning(self, metrics: Metrics) -> str | None:
        if self.config.model.subtract_log_policy:
            return None  # evaluation plays the policy's most likely actions, whose logits are low by definition
        accuracy = torch.minimum(metrics["diagnosis/expert_accuracy"], metrics["diagnosis/learner_accuracy"])
        saturated = (accuracy >= 0.99) & (metrics["diagnosis/logit_gap"] >= SATURATED_GAP)
        if not saturated.any():
            return None
        gap = metrics["diagnosis/logit_gap"][saturated].max()
        return (
            f"the discriminator is saturated (accuracy above 0.99 in evaluation, logit gap {gap:.1f}): its rewards "
            "carry little information; try a larger imitation.grad_penalty, imitation.spectral_norm=true or a smaller "
            "imitation.learning_rate"
        )

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "streams": self.streams.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "recent": self.recent.state_dict() if self.recent else None,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.recent:
            self.recent.load_state_dict(state["recent"])


def _taken(column: Tensor, order: Int64[Tensor, "runs rows"]) -> Tensor:
    """Rows of a column, [runs, rows] or [runs, rows, feature], in each run's order."""
    return torch.take_along_dim(column, order.unsqueeze(-1) if column.dim() == 3 else order, 1)


def _comparison(group: str, logits: Sequence[Tensor], rewards: Sequence[Tensor]) -> Metrics:
    """Of demonstrations and of the learner's rows, in this order: [runs, rows] each."""
    return {
        f"{group}/expert_accuracy": (logits[0] > 0).float().mean(-1),
        f"{group}/learner_accuracy": (logits[1] < 0).float().mean(-1),
        f"{group}/logit_gap": logits[0].mean(-1) - logits[1].mean(-1),
        f"{group}/expert_reward": rewards[0].mean(-1),
        f"{group}/learner_reward": rewards[1].mean(-1),
    }
