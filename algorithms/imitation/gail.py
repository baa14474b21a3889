"""Generative adversarial imitation learning (Ho & Ermon 2016) for any learner.

With an off-policy learner this is discriminator-actor-critic (Kostrikov et al. 2018). AIRL (Fu et al. 2018) and FAIRL
(Ghasemipour et al. 2019) are options of it. A high logit means expert, everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from algorithms.base import Context, ImitationConfig, ImitationModule, Metrics, descend
from conf.fields import choice, ranged
from memory.batch import Batch
from models.actors import Policy
from models.discriminators import Discriminator, DiscriminatorConfig
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


REWARDS: dict[str, Callable[[Logits], Logits]] = {"AIRL": airl_reward, "FAIRL": fairl_reward, "GAIL": gail_reward}


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
        )
        self.optimiser = torch.optim.AdamW(
            self.discriminator.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.reward_function = REWARDS[config.model.reward_function]

    def update(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        self.discriminator.train()
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
        logits = self.discriminator(both, self._log_probs(both, policy))
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
        return loss, self._logit_metrics("discriminator", expert_logits.detach(), learner_logits.detach())

    def _logit_metrics(self, group: str, expert_logits: Float[Tensor, "runs rows"], learner_logits: Logits) -> Metrics:
        return {
            f"{group}/expert_accuracy": (expert_logits > 0).float().mean(-1),
            f"{group}/learner_accuracy": (learner_logits < 0).float().mean(-1),
            f"{group}/logit_gap": expert_logits.mean(-1) - learner_logits.mean(-1),
            f"{group}/expert_reward": self.reward_function(expert_logits).mean(-1),
            f"{group}/learner_reward": self.reward_function(learner_logits).mean(-1),
        }

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
        return batch.with_rewards(self.reward_function(self.discriminator(batch, self._log_probs(batch, policy))))

    @torch.no_grad()
    def diagnose(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        self.discriminator.eval()
        logits = (self.discriminator(b, self._log_probs(b, policy)) for b in (expert_batch, batch))
        return self._logit_metrics("diagnosis", *logits)

    def warning(self, metrics: Metrics) -> str | None:
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
        return {"streams": self.streams.state_dict(), "optimiser": self.optimiser.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])
        self.optimiser.load_state_dict(state["optimiser"])
