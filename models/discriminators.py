"""Discriminators: one logit per transition, high where it looks like the expert's."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conf.fields import choice, ranged
from memory.batch import Batch
from models.mlp import MLP, MLPConfig, RunLinear
from models.normalisation import RunningNorm
from models.streams import Streams


@dataclass
class DiscriminatorConfig(MLPConfig):
    """Network and reward options of a discriminator."""

    hidden_size: int = ranged(64, 1)
    depth: int = ranged(1, 1)
    reward_shaping: bool = False  # add a learned potential difference (Fu et al. 2018)
    reward_depth: int = ranged(0, 0)  # hidden layers of the reward beside that potential; 0: it is linear
    subtract_log_policy: bool = False  # logit f(s, a) - log pi(a|s) (Fu et al. 2018)
    reward_function: str = choice("AIRL", "AIRL", "FAIRL", "GAIL", "f")  # f: without log pi, which is for logits alone
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
        inputs = observations = _normalised(self.normaliser, batch.observations)
        if not self.state_only:
            inputs = torch.cat([inputs, _normalised(self.action_normaliser, batch.carried_out)], -1)
        if self.config.reward_shaping:
            logits = (self.reward(inputs, torch.float32) if self.linear else self.reward(inputs)).squeeze(-1)
            successors = _normalised(self.normaliser, batch.next_observations)
            here, there = (self.potential(x).squeeze(-1) for x in (observations, successors))
            logits = logits + self.discount * (1 - batch.terminated) * there - here
        else:
            logits = self.network(inputs).squeeze(-1)
        return logits if log_probs is None else logits - log_probs

    def observe(self, batch: Batch) -> None:
        """Take rows that it is about to be trained on into the statistics of its inputs, if it keeps any."""
        if self.normaliser is not None and self.action_normaliser is not None:
            self.normaliser.update(batch.observations)
            self.action_normaliser.update(batch.carried_out)


def _normalised(normaliser: RunningNorm | None, rows: Float[Tensor, "runs batch feature"]) -> Tensor:
    return rows if normaliser is None else normaliser(rows)
