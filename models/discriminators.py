"""Discriminators: one logit per transition, high where it looks like the expert's."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from conf.fields import choice, ranged
from memory.batch import Batch
from models.mlp import MLP, MLPConfig, RunLinear
from models.normalisation import RunningNorm
from models.streams import Streams
from models.written_out import Pass, WrittenOut

Rows = Float[Tensor, "runs batch _"]
Logits = Float[Tensor, "runs batch"]
Terms = list[tuple[WrittenOut, Pass, Logits | None]]


@dataclass
class DiscriminatorConfig(MLPConfig):
    """Network and reward options of a discriminator."""

    hidden_size: int = ranged(64, 1)
    depth: int = ranged(1, 1)
    reward_shaping: bool = False  # add a learned potential difference (Fu et al. 2018)
    reward_depth: int = ranged(0, 0)  # hidden layers of the reward beside that potential; 0: it is linear
    subtract_log_policy: bool = False  # logit f(s, a) - log pi(a|s) (Fu et al. 2018)
    reward_function: str = choice("AIRL", "AIRL", "FAIRL", "GAIL", "f")  # f: the logit before log pi is subtracted
    normalise_inputs: bool = False  # by the running mean and variance of what it is trained on


class Discriminator(nn.Module):
    """Logits from observations (and actions); with `reward_shaping`, g + gamma (1 - d) h(s') - h(s).

    g is then linear or a network of its own and h, the potential, a network on observations (Fu et al. 2018, eq. 4; the
    terminal potential is zero, so a true termination leaves -h(s)).
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        config: DiscriminatorConfig,
        streams: Streams,
        *,
        state_only: bool,
        discount: float,
        spectral_norm: bool,
        absorbing: bool = False,
    ) -> None:
        super().__init__()
        self.state_only, self.discount, self.config = state_only, discount, config
        runs = (len(streams.generators),)
        inputs = observation_size if state_only else observation_size + action_size
        known = observation_size - absorbing  # the bit stays what it is
        self.normaliser = RunningNorm(*runs, known, streams.device) if config.normalise_inputs else None
        self.action_normaliser = RunningNorm(*runs, action_size, streams.device) if config.normalise_inputs else None
        if config.reward_shaping:
            self.linear = config.reward_depth == 0
            self.reward: RunLinear | MLP
            if self.linear:
                self.reward = RunLinear(runs, inputs, 1, streams, spectral_norm=spectral_norm)
            else:
                network = replace(config, depth=config.reward_depth)
                self.reward = MLP(runs, inputs, 1, network, streams, spectral_norm=spectral_norm)
            self.potential = MLP(runs, observation_size, 1, config, streams, spectral_norm=spectral_norm)
        else:
            self.network = MLP(runs, inputs, 1, config, streams, spectral_norm=spectral_norm)

    def forward(self, batch: Batch, log_probs: Float[Tensor, "runs batch"] | None) -> Float[Tensor, "runs batch"]:
        """`log_probs` of the policy, without gradient, are given when they are to be subtracted."""
        logits: Tensor
        observations, inputs = self.inputs(batch)
        if self.config.reward_shaping:
            logits = (self.reward(inputs, inputs.dtype) if self.linear else self.reward(inputs)).squeeze(-1)
            here, there = (self.potential(x).squeeze(-1) for x in (observations, self.successors(batch)))
            logits = logits + self.discount * (1 - batch.terminated) * there - here
        else:
            logits = self.network(inputs).squeeze(-1)
        return logits if log_probs is None else logits - log_probs

    def inputs(self, batch: Batch) -> tuple[Rows, Rows]:
        """What the potential sees of the rows, and what the reward, or the one network, does."""
        observations = _normalised(self.normaliser, batch.observations)
        if self.state_only:
            return observations, observations
        return observations, torch.cat([observations, _normalised(self.action_normaliser, batch.carried_out)], -1)

    def successors(self, batch: Batch) -> Rows:
        """What the potential sees of those."""
        return _normalised(self.normaliser, batch.next_observations)

    def scale_twice(self, slopes: Rows, batch: Batch) -> None:
        """Multiply, in place, by the square of how fast each input of the reward grows with what it is made of."""
        if self.normaliser is not None:
            rates = self.normaliser.rates
            slopes[..., : rates.shape[-1]] *= rates.square()
        if not self.state_only:
            by_actions = slopes[..., batch.observations.shape[-1] :]
            if self.action_normaliser is not None:
                by_actions *= self.action_normaliser.rates.square()
            by_actions.masked_fill_(batch.actions.abs() > 1, 0.0)  # beyond, they are clipped

    def observe(self, batch: Batch) -> None:
        """Take rows that it is about to be trained on into the statistics of its inputs, if it keeps any."""
        if self.normaliser is not None and self.action_normaliser is not None:
            self.normaliser.update(batch.observations)
            self.action_normaliser.update(batch.carried_out)


class DiscriminatorStep:
    """Logits and gradient penalty of one step of a discriminator, and gradients of both, without a recorded graph.

    They are those of `forward` and automatic differentiation. In training mode there is one power iteration of spectral
    normalisation a step, and each of the two draws its own dropout masks.
    """

    def __init__(self, discriminator: Discriminator) -> None:
        self.discriminator, self.potential = discriminator, None
        if discriminator.config.reward_shaping:
            self.reward, self.potential = WrittenOut(discriminator.reward), WrittenOut(discriminator.potential)
        else:
            self.reward = WrittenOut(discriminator.network)

    def logits(self, batch: Batch, log_probs: Logits | None) -> tuple[Logits, Terms]:
        """As `Discriminator.forward`; and the terms of their sum, for `pull_back`."""
        terms = self._terms(batch)
        parts = [network.outputs(seen) for network, seen, _ in terms]
        parts = [part if factor is None else factor * part for part, (_, _, factor) in zip(parts, terms, strict=True)]
        logits = sum(parts[1:], parts[0])
        return logits if log_probs is None else logits - log_probs, terms

    def _terms(self, batch: Batch) -> Terms:
        """Each as a network, what it saw, and a factor (None: 1)."""
        observations, inputs = self.discriminator.inputs(batch)
        terms: Terms = [(self.reward, self.reward.forward(inputs), None)]
        if self.potential is not None:
            here, there = (self.potential.forward(x) for x in (observations, self.discriminator.successors(batch)))
            going_on = self.discriminator.discount * (1 - batch.terminated)
            terms += [(self.potential, here, torch.full_like(going_on, -1.0)), (self.potential, there, going_on)]
        return terms

    def pull_back(self, terms: Terms, by_logits: Logits) -> None:
        """Add the gradients of what depends so on logits."""
        for network, seen, factor in terms:
            network.pull_back(seen, by_logits if factor is None else factor * by_logits)

    def penalise(self, batch: Batch, weight: float) -> Float[Tensor, " runs"]:
        """mean w (|grad_s D|^2 + |grad_a D|^2) at the rows of `batch`; adds its gradients, times `weight`."""
        (_, seen, _), *potentials = self._terms(batch)
        slopes, size = self.reward.slopes(seen), batch.observations.shape[-1]
        total = slopes.by_input.expand(*batch.shape, -1)
        if self.potential is not None:
            here = potentials[0][1]
            slopes_here = self.potential.slopes(here)
            total = total - F.pad(slopes_here.by_input, (0, total.shape[-1] - size))
        # Half the derivative of the penalty by each slope, with respect to what the inputs are made of.
        directions = total * (weight / batch.shape[1] * batch.weights).unsqueeze(-1)
        self.discriminator.scale_twice(directions, batch)
        penalty = (total * directions).sum((1, 2)) / weight
        directions *= 2
        self.reward.push(seen, slopes, directions)
        if self.potential is not None:
            self.potential.push(here, slopes_here, -directions[..., :size])
        return penalty

    def assign(self) -> None:
        """Make what was added up the parameters' gradients."""
        for network in (self.reward, self.potential):
            if network is not None:
                network.assign()


def _normalised(normaliser: RunningNorm | None, rows: Float[Tensor, "runs batch feature"]) -> Tensor:
    return rows if normaliser is None else normaliser(rows)
