"""Discriminators: one logit per transition, high where it looks like the expert's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conf.fields import choice, ranged
from memory.batch import Batch
from models.mlp import MLP, MLPConfig, RunLinear
from models.streams import Streams


@dataclass
class DiscriminatorConfig(MLPConfig):
    """Network and reward options of a discriminator."""

    hidden_size: int = ranged(64, 1)
    depth: int = ranged(1, 1)
    reward_shaping: bool = False  # add a learned potential difference (Fu et al. 2018)
    subtract_log_policy: bool = False  # logit f(s, a) - log pi(a|s) (Fu et al. 2018)
    reward_function: str = choice("AIRL", "AIRL", "FAIRL", "GAIL")


class Discriminator(nn.Module):
    """Logits from observations (and actions); with `reward_shaping`, g + gamma (1 - d) h(s') - h(s).

    g is then one linear layer and h, the potential, a network on observations (Fu et al. 2018, eq. 4; the terminal
    potential is zero, so a true termination leaves -h(s)).
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
    ) -> None:
        super().__init__()
        self.state_only, self.discount, self.config = state_only, discount, config
        runs = (len(streams.generators),)
        inputs = observation_size if state_only else observation_size + action_size
        if config.reward_shaping:
            self.reward = RunLinear(runs, inputs, 1, streams, spectral_norm=spectral_norm)
            self.potential = MLP(runs, observation_size, 1, config, streams, spectral_norm=spectral_norm)
        else:
            self.network = MLP(runs, inputs, 1, config, streams, spectral_norm=spectral_norm)

    def forward(self, batch: Batch, log_probs: Float[Tensor, "runs batch"] | None) -> Float[Tensor, "runs batch"]:
        """`log_probs` of the policy, without gradient, are given when they are to be subtracted."""
        logits: Tensor
        inputs = batch.observations
        if not self.state_only:
            inputs = torch.cat([inputs, batch.actions], -1)
        if self.config.reward_shaping:
            logits = self.reward(inputs, torch.float32).squeeze(-1)
            here, there = (self.potential(x).squeeze(-1) for x in (batch.observations, batch.next_observations))
            logits = logits + self.discount * (1 - batch.terminated) * there - here
        else:
            logits = self.network(inputs).squeeze(-1)
        return logits if log_probs is None else logits - log_probs
