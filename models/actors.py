"""Policies."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.mlp import MLP, MLPConfig
from models.normalisation import RunningNorm
from models.streams import Streams

LOG_STD_RANGE = (-20.0, 2.0)
FEATURE_LIMIT = 10.0  # of normalised observations: the first statistics are those of a few rows
ACTION_LIMIT = 1 - 1e-6  # stored float32 actions can be exactly 1, whose inverse tanh is infinite


class Policy(nn.Module, ABC):
    """What imitation modules, behavioural cloning and evaluation may ask of any policy.

    Every class takes (observation_size, action_size, config, streams, dtype) and then `settings` by name, so that a
    saved policy can be made again.
    """

    network: MLP

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the class beyond sizes and network."""
        return {}

    def observe(self, observations: Float[Tensor, "runs batch observation"]) -> None:
        """Take rows that the policy is trained on into its running statistics, if it has any."""
        return

    @abstractmethod
    def greedy(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "runs batch action"]:
        """The most likely actions. What lies outside [-1, 1] is clipped on the way to the environment."""

    @abstractmethod
    def log_prob(
        self, observations: Float[Tensor, "runs batch observation"], actions: Float[Tensor, "runs batch action"]
    ) -> Float[Tensor, "runs batch"]:
        """Log-probabilities of stored actions."""


class SquashedGaussianActor(Policy):
    """Diagonal Gaussian passed through tanh (Haarnoja et al. 2018, appendix C). Actions lie in (-1, 1).

    The first `normalised` features of observations are brought to mean 0 and deviation 1 by running statistics; an
    absorbing bit stays what it is.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        config: MLPConfig,
        streams: Streams,
        dtype: torch.dtype = torch.float32,
        normalised: int = 0,
    ) -> None:
        super().__init__()
        runs = len(streams.generators)
        self.normalised = normalised
        self.normaliser = RunningNorm(runs, normalised, streams.device) if normalised else None
        self.network = MLP((runs,), observation_size, 2 * action_size, config, streams, dtype)

    @property
    def settings(self) -> dict[str, Any]:
        return {"normalised": self.normalised}

    def observe(self, observations: Float[Tensor, "runs batch observation"]) -> None:
        if self.normaliser is not None:
            self.normaliser.update(observations)

    def features(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "runs batch feature"]:
        """What the network sees."""
        if self.normaliser is None:
            return observations
        shown: Tensor = self.normaliser(observations)
        return shown.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)

    def forward(
        self, observations: Float[Tensor, "runs batch observation"]
    ) -> tuple[Float[Tensor, "runs batch action"], Float[Tensor, "runs batch action"]]:
        """Mean and log standard deviation before the tanh."""
        mean, log_std = self.network(self.features(observations)).chunk(2, -1)
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


class OnPolicyActor(Policy):
    """A policy whose log-probabilities are compared over updates: no squashing, optional running normalisation.

    The last layer starts small, so that the first policy hardly depends on the state (Andrychowicz et al. 2021).
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        config: MLPConfig,
        streams: Streams,
        dtype: torch.dtype = torch.float32,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.runs, self.action_size = len(streams.generators), action_size
        self.normaliser = RunningNorm(self.runs, observation_size, streams.device) if normalise else None
        gains = (2**0.5, 0.01)
        self.network = MLP((self.runs,), observation_size, action_size, config, streams, dtype, gains=gains)

    @property
    def settings(self) -> dict[str, Any]:
        return {"normalise": self.normaliser is not None}

    def observe(self, observations: Float[Tensor, "runs batch observation"]) -> None:
        if self.normaliser is not None:
            self.normaliser.update(observations)

    def features(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "runs batch feature"]:
        """What the network sees."""
        return observations if self.normaliser is None else self.normaliser(observations)

    def outputs(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "runs batch action"]:
        """Of the network, without the calls of its modules: with a few rows they take longer than the products."""
        return self.network.trace(self.features(observations))[0]

    def log_prob(
        self, observations: Float[Tensor, "runs batch observation"], actions: Float[Tensor, "runs batch action"]
    ) -> Float[Tensor, "runs batch"]:
        return self.evaluate(self.outputs(observations), actions)[0]

    @abstractmethod
    def sample(
        self, observations: Float[Tensor, "runs batch observation"], streams: Streams
    ) -> Float[Tensor, "runs batch action"]:
        """Actions drawn with each run's own random numbers."""

    @abstractmethod
    def evaluate(
        self, outputs: Float[Tensor, "runs batch action"], actions: Float[Tensor, "runs batch action"]
    ) -> tuple[Float[Tensor, "runs batch"], Float[Tensor, "runs batch"]]:
        """Log-probabilities of these actions, and entropies, from the outputs of the network."""

    @abstractmethod
    def pull_back(
        self,
        outputs: Float[Tensor, "runs batch action"],
        actions: Float[Tensor, "runs batch action"],
        gradient: Float[Tensor, "runs batch"],
        entropy_weight: float,
    ) -> tuple[Float[Tensor, "runs batch action"], list[Tensor]]:
        """From the gradient by log-probabilities, and a weight of the mean entropy: that by outputs, and that by the
        parameters that are not the network's."""


class GaussianActor(OnPolicyActor):
    """Diagonal Gaussian with standard deviations that do not depend on the state; they start at 1.

    Actions are not bounded: they are stored as they were drawn, and clipped only on the way to the environment.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        config: MLPConfig,
        streams: Streams,
        dtype: torch.dtype = torch.float32,
        normalise: bool = False,
    ) -> None:
        super().__init__(observation_size, action_size, config, streams, dtype, normalise)
        self.log_std = nn.Parameter(torch.zeros(self.runs, 1, action_size, device=streams.device))

    def greedy(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "runs batch action"]:
        return self.outputs(observations)

    def sample(
        self, observations: Float[Tensor, "runs batch observation"], streams: Streams
    ) -> Float[Tensor, "runs batch action"]:
        mean = self.outputs(observations)
        return torch.addcmul(mean, self.log_std.exp(), streams.normal(*mean.shape[1:]))

    def evaluate(
        self, outputs: Float[Tensor, "runs batch action"], actions: Float[Tensor, "runs batch action"]
    ) -> tuple[Float[Tensor, "runs batch"], Float[Tensor, "runs batch"]]:
        standardised = (actions - outputs) * (-self.log_std).exp()
        constant = self.log_std.sum(-1) + 0.5 * math.log(2 * math.pi) * self.action_size  # [runs, 1]
        entropy = constant + 0.5 * self.action_size
        return -0.5 * standardised.square().sum(-1) - constant, entropy.expand(actions.shape[:2])

    def pull_back(
        self,
        outputs: Float[Tensor, "runs batch action"],
        actions: Float[Tensor, "runs batch action"],
        gradient: Float[Tensor, "runs batch"],
        entropy_weight: float,
    ) -> tuple[Float[Tensor, "runs batch action"], list[Tensor]]:
        """With z = (a - mu) / sigma: z / sigma by the mean, and z^2 - 1 by log sigma, whose entropy grows by 1."""
        scale, weights = (-self.log_std).exp(), gradient.unsqueeze(-1)
        standardised = (actions - outputs) * scale
        by_log_std = (weights * (standardised.square() - 1)).sum(1, keepdim=True) + entropy_weight
        return weights * standardised * scale, [by_log_std]


class CategoricalActor(OnPolicyActor):
    """A choice between `action_size` actions, which are one-hot vectors."""

    def greedy(self, observations: Float[Tensor, "runs batch observation"]) -> Float[Tensor, "runs batch action"]:
        return self._one_hot(self.outputs(observations))

    def sample(
        self, observations: Float[Tensor, "runs batch observation"], streams: Streams
    ) -> Float[Tensor, "runs batch action"]:
        logits = self.outputs(observations)
        # The largest of logits plus Gumbel noise is distributed as their softmax.
        uniform = streams.uniform(*logits.shape[1:]).clamp_min(torch.finfo(torch.float32).tiny)
        return self._one_hot(logits - torch.log(-torch.log(uniform)))

    def evaluate(
        self, outputs: Float[Tensor, "runs batch action"], actions: Float[Tensor, "runs batch action"]
    ) -> tuple[Float[Tensor, "runs batch"], Float[Tensor, "runs batch"]]:
        log_probs = torch.log_softmax(outputs, -1)
        return (log_probs * actions).sum(-1), -(log_probs.exp() * log_probs).sum(-1)

    def pull_back(
        self,
        outputs: Float[Tensor, "runs batch action"],
        actions: Float[Tensor, "runs batch action"],
        gradient: Float[Tensor, "runs batch"],
        entropy_weight: float,
    ) -> tuple[Float[Tensor, "runs batch action"], list[Tensor]]:
        """One-hot minus p by the logits; the entropy H grows by -p (log p + H)."""
        log_probs = torch.log_softmax(outputs, -1)
        probs = log_probs.exp()
        entropy = -(probs * log_probs).sum(-1, keepdim=True)
        by_entropy = entropy_weight / actions.shape[1] * probs * (log_probs + entropy)
        return gradient.unsqueeze(-1) * (actions - probs) - by_entropy, []

    def _one_hot(self, scores: Float[Tensor, "runs batch action"]) -> Float[Tensor, "runs batch action"]:
        return F.one_hot(scores.argmax(-1), self.action_size).float()


def _squashed_log_prob(
    raw: Float[Tensor, "*batch action"], standardised: Float[Tensor, "*batch action"], log_std: Tensor
) -> Float[Tensor, "*batch"]:
    """log N(raw; mean, std) - sum log(1 - tanh(raw)^2), the Jacobian in its form that cannot overflow."""
    normal = -0.5 * standardised.square() - log_std - 0.5 * math.log(2 * math.pi)
    jacobian = 2 * (math.log(2) - raw - F.softplus(-2 * raw))
    return (normal - jacobian).sum(-1)


ACTORS: dict[str, Callable[..., Policy]] = {
    actor.__name__: actor for actor in (SquashedGaussianActor, GaussianActor, CategoricalActor)
}
