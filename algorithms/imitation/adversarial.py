"""Rewards and losses of a discriminator: functions of its logits D. A high one means expert, everywhere; labels are 1
for the expert.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6  # keeps the logarithms of rewards finite

Logits = Float[Tensor, "runs batch"]
Loss = Float[Tensor, " runs"]


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
