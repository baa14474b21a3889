"""Policies."""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.mlp import MLP, MLPConfig
from models.streams import Streams

LOG_STD_RANGE = (-20.0, 2.0)
ACTION_LIMIT = 1 - 1e-6  # stored float32 actions can be exactly 1, whose inverse tanh is infinite


class Policy(nn.Module, ABC):
    """What imitation modules, behavioural cloning and evaluation may ask of any policy."""

    @abstractmethod
    def greedy(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "runs batch action"]:
        """The most likely actions, in [-1, 1]."""

    @abstractmethod
    def log_prob(
        self, observations: Float[Tensor, "runs batch observation"], actions: Float[Tensor, "runs batch action"]
    ) -> Float[Tensor, "runs batch"]:
        """Log-probabilities of stored actions."""


class SquashedGaussianActor(Policy):
    """Diagonal Gaussian passed through tanh (Haarnoja et al. 2018, appendix C). Actions lie in (-1, 1)."""

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        config: MLPConfig,
        streams: Streams,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.network = MLP((len(streams.generators),), observation_size, 2 * action_size, config, streams, dtype)

    def forward(
        self, observations: Float[Tensor, "runs batch observation"]
    ) -> tuple[Float[Tensor, "runs batch action"], Float[Tensor, "runs batch action"]]:
        """Mean and log standard deviation before the tanh."""
        mean, log_std = self.network(observations).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def greedy(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "runs batch action"]:
        return torch.tanh(self(observations)[0])

    def sample(
        self, observations: Float[Tensor, "runs batch observation"], noise: Float[Tensor, "runs batch action"]
    ) -> tuple[Float[Tensor, "runs batch action"], Float[Tensor, "runs batch"]]:
        """Actions and their log-probabilities, differentiable, from standard normal noise."""
        mean, log_std = self(observations)
        raw = mean + log_std.exp() * noise
        # The pre-tanh sample is still at hand here, so nothing has to be inverted.
        return torch.tanh(raw), _squashed_log_prob(raw, noise, log_std)

    def log_prob(
        self, observations: Float[Tensor, "runs batch observation"], actions: Float[Tensor, "runs batch action"]
    ) -> Float[Tensor, "runs batch"]:
        mean, log_std = self(observations)
        raw = torch.atanh(actions.clamp(-ACTION_LIMIT, ACTION_LIMIT))
        return _squashed_log_prob(raw, (raw - mean) * (-log_std).exp(), log_std)


def _squashed_log_prob(
    raw: Float[Tensor, "*batch action"], standardised: Float[Tensor, "*batch action"], log_std: Tensor
) -> Float[Tensor, "*batch"]:
    """log N(raw; mean, std) - sum log(1 - tanh(raw)^2), the Jacobian in its form that cannot overflow."""
    normal = -0.5 * standardised.square() - log_std - 0.5 * math.log(2 * math.pi)
    jacobian = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    return (normal - jacobian).sum(-1)
