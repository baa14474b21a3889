"""Gaussian and categorical policies against numbers worked out by hand and against PyTorch's distributions."""

import math

import pytest
import torch
from torch import Tensor

from models.actors import CategoricalActor, GaussianActor, OnPolicyActor
from models.critics import ValueFunction
from models.mlp import MLPConfig
from models.streams import Streams
from tests.algorithms.support import layers

CONFIG = MLPConfig(hidden_size=4, depth=1)


def constant(kind: type[OnPolicyActor], outputs: list[float], runs: int = 1) -> OnPolicyActor:
    """Outputs that do not depend on the observation."""
    actor = kind(3, len(outputs), CONFIG, Streams(range(runs), "test"))
    with torch.no_grad():
        actor.network.final.weight.zero_()
        actor.network.final.bias.copy_(torch.tensor(outputs))
    return actor


def at(actor: OnPolicyActor, *actions: list[float]) -> tuple[Tensor, Tensor]:
    outputs = actor.network(torch.zeros(1, len(actions), 3))
    log_probs, entropies = actor.evaluate(outputs, torch.tensor([list(actions)]))
    return log_probs[0].detach(), entropies[0].detach()


def test_gaussian_by_hand() -> None:
    actor = constant(GaussianActor, [0.5, -1.0])
    assert isinstance(actor, GaussianActor)
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([0.0, math.log(2)]))
    # a = (1.5, 3): z = (1, 2); -0.5 * (1 + 4) - log 2 - log(2 pi) = -2.5 - 0.693147 - 1.837877 = -5.031024.
    # Entropy 1 + log(2 pi) + log 2 = 3.531024. Actions beyond 1 keep the density of where they were drawn.
    log_probs, entropies = at(actor, [1.5, 3.0])
    assert log_probs.item() == pytest.approx(-5.031024, abs=1e-5)
    assert entropies.item() == pytest.approx(3.531024, abs=1e-5)


def test_categorical_by_hand() -> None:
    actor = constant(CategoricalActor, [0.0, math.log(3)])  # probabilities 1/4 and 3/4
    log_probs, entropies = at(actor, [1.0, 0.0], [0.0, 1.0])
    assert log_probs.tolist() == pytest.approx([math.log(0.25), math.log(0.75)])
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert entropies.tolist() == pytest.approx([entropy] * 2)
    assert actor.greedy(torch.zeros(1, 2, 3)).tolist() == [[[0.0, 1.0]] * 2]


@pytest.mark.parametrize("kind", [GaussianActor, CategoricalActor])
def test_samples_have_the_density_that_is_claimed(kind: type[OnPolicyActor]) -> None:
    actor, count = constant(kind, [0.3, -0.4, 1.0]), 20_000
    actions = actor.sample(torch.zeros(1, count, 3), Streams([5], "noise"))
    log_probs, entropies = actor.evaluate(actor.network(torch.zeros(1, count, 3)), actions)
    assert -log_probs.mean().item() == pytest.approx(entropies[0, 0].item(), abs=0.02)
    output = torch.tensor([0.3, -0.4, 1.0])
    expected = torch.softmax(output, -1) if kind is CategoricalActor else output
    assert torch.allclose(actions.mean((0, 1)), expected, atol=0.03)


@pytest.mark.parametrize("kind", [GaussianActor, CategoricalActor])
def test_a_run_draws_the_same_alone_and_beside_others(kind: type[OnPolicyActor]) -> None:
    together, alone = (kind(3, 2, CONFIG, Streams(seeds, "test"), normalise=True) for seeds in ((0, 1), (1,)))
    rows = torch.randn(2, 30, 3) * 4 + 1
    together.observe(rows)
    alone.observe(rows[1:])
    both = together.sample(rows, Streams((0, 1), "noise"))
    assert torch.allclose(both[1:], alone.sample(rows[1:], Streams((1,), "noise")), atol=1e-6)
    assert together.settings == {"normalise": True}


def test_initial_weights() -> None:
    """Orthogonal: sqrt(2) in hidden layers, 0.01 towards actions, 1 towards values."""
    config = MLPConfig(hidden_size=16, depth=2, activation="tanh")
    actor = GaussianActor(16, 4, config, Streams([0], "test"))
    critic = ValueFunction(16, config, Streams([0], "test"))
    for network, final in ((actor.network, 0.01), (critic.network, 1.0)):
        gains = [2**0.5, 2**0.5, final]
        for layer, gain in zip(layers(network), gains, strict=True):
            singular = torch.linalg.svdvals(layer.weight[0].detach())
            assert torch.allclose(singular, torch.full_like(singular, gain), rtol=1e-4)
            assert layer.bias.abs().sum() == 0
    assert actor.log_std.tolist() == [[[0.0] * 4]]
