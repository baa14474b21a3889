"""Rewards and losses of a discriminator. A high logit D means expert, everywhere; labels are 1 for the expert.

Losses come with their derivatives by the logits, which tests compare with automatic differentiation.
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


def cross_entropy(logits: Logits, weights: Logits, positive: Logits) -> tuple[Loss, Logits]:
    """sum w softplus(D) - p D: `positive`, p, is that part of the weight w whose label is 1. By D: w sigmoid(D) - p."""
    loss = (weights * F.softplus(logits) - positive * logits).sum(-1)
    return loss, weights * torch.sigmoid(logits) - positive


def bce_loss(logits: Logits, weights: Logits) -> tuple[Loss, Logits]:
    """mean w BCE(D, 1) over the first half of the rows, the expert's, plus mean w BCE(D, 0) over the learner's."""
    half = logits.shape[-1] // 2
    weights = weights / half
    return cross_entropy(logits, weights, F.pad(weights[..., :half], (0, half)))


def pugail_loss(logits: Logits, weights: Logits, prior: float, margin: float) -> tuple[Loss, Logits]:
    """Non-negative positive-unlabelled risk (Xu & Denil 2019): eta R_E(1) + max(-beta, R_pi(0) - eta R_E(0)).

    The expert's rows come first. R is a weighted mean of binary cross-entropy with that label.
    """
    half = logits.shape[-1] // 2
    expert, learner = (weights / half).chunk(2, -1)
    expert = prior * expert
    negative = (torch.cat([-expert, learner], -1) * F.softplus(logits)).sum(-1, keepdim=True)
    free = (negative >= -margin).to(logits.dtype)  # [runs, 1]: 0 where the maximum holds it
    weights = torch.cat([expert * (1 - free), learner * free], -1)
    loss, by_logits = cross_entropy(logits, weights, F.pad(expert, (0, half)))
    return loss - margin * (1 - free).squeeze(-1), by_logits


def mixup_loss(logits: Logits, expert_share: Logits, weights: Logits) -> tuple[Loss, Logits]:
    """mean w BCE of convexly mixed rows with convexly mixed labels (Zhang et al. 2018; Chen et al. 2020)."""
    weights = weights / logits.shape[-1]
    return cross_entropy(logits, weights, weights * expert_share)


def bernoulli_entropy(logits: Logits, weights: Logits) -> tuple[Loss, Logits]:
    """mean w H(Bernoulli(p)), p = sigmoid(D). By D: -w D p (1 - p), over the number of rows."""
    weights, probability = weights / logits.shape[-1], torch.sigmoid(logits)
    entropy = (weights * (F.softplus(logits) - logits * probability)).sum(-1)
    return entropy, -weights * logits * probability * (1 - probability)
