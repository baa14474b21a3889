"""Twin critics: two networks a run, independent of each other."""

import torch

from models.critics import TwinCritic
from models.mlp import MLPConfig
from models.streams import Streams
from tests.algorithms.support import layers


def test_twins_are_different_networks_of_observations_and_actions() -> None:
    critic = TwinCritic(3, 2, MLPConfig(hidden_size=5, depth=1), Streams([0, 1], "test"))
    observations, actions = torch.randn(2, 4, 3), torch.randn(2, 4, 2)
    values = critic(observations, actions)
    assert values.shape == (2, 2, 4)
    inputs = torch.cat([observations, actions], -1)
    for twin in range(2):
        hidden = torch.relu(inputs @ layers(critic.network)[0].weight[twin])
        assert torch.allclose(values[twin], (hidden @ critic.network.final.weight[twin]).squeeze(-1), atol=1e-6)
    assert not torch.allclose(values[0], values[1])


def test_gradients_of_a_twin_and_a_run_stay_there() -> None:
    critic = TwinCritic(3, 2, MLPConfig(hidden_size=5), Streams([0, 1], "test"))
    critic(torch.randn(2, 4, 3), torch.randn(2, 4, 2))[1, 0].sum().backward()
    for parameter in critic.parameters():
        assert parameter.grad is not None
        assert parameter.grad[1, 0].abs().sum() > 0
        assert parameter.grad[0].abs().sum() == parameter.grad[1, 1].abs().sum() == 0
