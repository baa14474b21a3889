"""Value functions, of actions and of states."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.mlp import MLP, MLPConfig
from models.streams import Streams


class TwinCritic(nn.Module):
    """Two independent action-value functions a run, as one network with a leading axis of 2."""

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        config: MLPConfig,
        streams: Streams,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        members = (2, len(streams.generators))
        self.network = MLP(members, observation_size + action_size, 1, config, streams, dtype)

    def forward(
        self, observations: Float[Tensor, "runs batch observation"], actions: Float[Tensor, "runs batch action"]
    ) -> Float[Tensor, "2 runs batch"]:
        values: Tensor = self.network(torch.cat([observations, actions], -1))
        return values.squeeze(-1)


class ValueFunction(nn.Module):
    """State values from features."""

    def __init__(
        self, feature_size: int, config: MLPConfig, streams: Streams, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.network = MLP((len(streams.generators),), feature_size, 1, config, streams, dtype, gains=(2**0.5, 1.0))

    def forward(self, features: Float[Tensor, "runs batch feature"]) -> Float[Tensor, "runs batch"]:
        values: Tensor = self.network(features)
        return values.squeeze(-1)
