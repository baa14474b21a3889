"""Discriminators: what their logit is made of."""

from typing import Any

import pytest
import torch

from models.discriminators import Discriminator, DiscriminatorConfig
from models.mlp import RunLinear
from models.streams import Streams
from tests.algorithms.support import layers, make_batch


def discriminator(state_only: bool = False, spectral_norm: bool = False, **options: Any) -> Discriminator:
    config = DiscriminatorConfig(**{"hidden_size": 1, "depth": 1, **options})
    return Discriminator(
        2, 1, config, Streams([0], "test"), state_only=state_only, discount=0.5, spectral_norm=spectral_norm
    )


def shaped() -> Discriminator:
    """g = s0 + 2 s1 + 3 a + 0.5 and h = 4 relu(s0) + 1."""
    network = discriminator(reward_shaping=True)
    assert isinstance(network.reward, RunLinear)
    with torch.no_grad():
        network.reward.weight.copy_(torch.tensor([[[1.0], [2.0], [3.0]]]))
        network.reward.bias.fill_(0.5)
        layers(network.potential)[0].weight.copy_(torch.tensor([[[1.0], [0.0]]]))
        network.potential.final.weight.fill_(4.0)
        network.potential.final.bias.fill_(1.0)
    return network


def test_reward_shaping_by_hand() -> None:  # K10
    batch = make_batch(
        size=3,
        observations=[[[1.0, 2.0], [1.0, 2.0], [-1.0, 0.0]]],
        actions=[[[0.5], [0.5], [0.0]]],
        next_observations=[[[3.0, 0.0], [3.0, 0.0], [2.0, 0.0]]],
        terminated=[[0.0, 1.0, 0.0]],
        truncated=[[0.0, 0.0, 1.0]],
    )
    # g = 1 + 4 + 1.5 + 0.5 = 7, h(s) = 5, h(s') = 13: 7 + 0.5 * 13 - 5 = 8.5;
    # at a true termination the potential of the successor is 0, and -h(s) stays: 7 - 5 = 2;
    # a time limit is no termination: -1 + 0.5 + 0.5 * 9 - 1 = 3.
    assert shaped()(batch, None).tolist() == [[8.5, 2.0, 3.0]]


def test_potentials_telescope_over_an_episode() -> None:  # K10: the sum over an episode depends on its start alone
    network = shaped()
    states = torch.tensor([[0.3, 1.0], [2.0, -1.0], [0.7, 0.0], [5.0, 5.0]])
    batch = make_batch(
        size=3,
        observations=states[None, :3],
        actions=torch.zeros(1, 3, 1),
        next_observations=states[None, 1:],
        terminated=[[0.0, 0.0, 1.0]],
    )
    with torch.no_grad():
        shaping = (
            network(batch, None)
            - network.reward(torch.cat([batch.observations, batch.actions], -1), torch.float32)[..., 0]
        )
    discounts = torch.tensor([1.0, 0.5, 0.25])
    assert (shaping[0] * discounts).sum().item() == pytest.approx(-(4 * 0.3 + 1), abs=1e-5)


def test_log_policy_is_subtracted() -> None:
    batch = make_batch(size=2, observation=2, action=1)
    for network in (discriminator(), shaped()):
        plain, less = network(batch, None), network(batch, torch.tensor([[1.5, -2.0]]))
        assert torch.allclose(plain - less, torch.tensor([[1.5, -2.0]]), atol=1e-6)


@pytest.mark.parametrize("shaping", [False, True])
def test_state_only_ignores_actions(shaping: bool) -> None:
    one, other = (make_batch(observation=2, action=1, actions=torch.full((1, 6, 1), a)) for a in (0.1, -0.9))
    blind, seeing = (discriminator(only, reward_shaping=shaping, hidden_size=8) for only in (True, False))
    assert torch.equal(blind(one, None), blind(other, None))
    assert not torch.equal(seeing(one, None), seeing(other, None))


@pytest.mark.parametrize("shaping", [False, True])
def test_every_layer_is_normalised(shaping: bool) -> None:
    network = discriminator(spectral_norm=True, reward_shaping=shaping, hidden_size=4, depth=2)
    vectors = [name for name, _ in network.named_buffers() if name.endswith(".u")]
    weights = [name for name, _ in network.named_parameters() if name.endswith("weight")]
    assert len(vectors) == len(weights) == (4 if shaping else 3)


@pytest.mark.parametrize("option", ["input_dropout", "dropout"])
def test_dropout_reaches_the_network(option: str) -> None:  # K2
    batch = make_batch(observation=2, action=1)
    options: dict[str, Any] = {"hidden_size": 16, option: 0.5}
    network = discriminator(**options)
    assert not torch.equal(network(batch, None), network(batch, None))
    network.eval()
    assert torch.equal(network(batch, None), network(batch, None))
    network = discriminator(reward_shaping=True, **options)  # K2: also in the potential
    assert not torch.equal(network(batch, None), network(batch, None))
