"""The squashed Gaussian: its density against explicit computations, and at the edges."""

import math

import pytest
import torch
from torch import Tensor

from models.actors import SquashedGaussianActor
from models.mlp import MLPConfig
from models.streams import Streams


def constant_actor(mean: list[float], log_std: list[float], runs: int = 1) -> SquashedGaussianActor:
    """Mean and log standard deviation that do not depend on the observation."""
    config = MLPConfig(hidden_size=4, depth=1)
    actor = SquashedGaussianActor(3, len(mean), config, Streams(range(runs), "test"))
    with torch.no_grad():
        actor.network.final.weight.zero_()
        actor.network.final.bias.copy_(torch.tensor(mean + log_std))
    return actor


def at(actor: SquashedGaussianActor, *actions: list[float]) -> Tensor:
    stacked = torch.tensor([list(actions)])
    return actor.log_prob(torch.zeros(1, len(actions), 3), stacked)[0].detach()


def test_density_by_hand() -> None:
    # a = tanh(0.5) = 0.4621172, mean 0, std 1: log N(0.5) = -0.125 - 0.9189385 = -1.0439385;
    # Jacobian log(1 - 0.4621172^2) = log 0.7864477 = -0.2402289; log pi = -1.0439385 + 0.2402289 = -0.8037096.
    assert at(constant_actor([0.0], [0.0]), [math.tanh(0.5)]).item() == pytest.approx(-0.8037096, abs=1e-5)
    # Mean 1, std 2 (log 0.6931472): z = -0.25, log N = -0.03125 - 0.6931472 - 0.9189385; Jacobian as above.
    assert at(constant_actor([1.0], [math.log(2)]), [math.tanh(0.5)]).item() == pytest.approx(-1.4031068, abs=1e-5)
    # Dimensions add up.
    both = at(constant_actor([0.0, 1.0], [0.0, math.log(2)]), [math.tanh(0.5)] * 2)
    assert both.item() == pytest.approx(-0.8037096 - 1.4031068, abs=1e-5)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -0.5), (0.7, 0.0), (-1.5, -1.0)])
def test_density_is_the_derivative_of_the_distribution_function(mean: float, log_std: float) -> None:
    # P(tanh(x) <= a) = Phi((atanh(a) - mean) / std), differentiated numerically in double precision.
    actor = constant_actor([mean], [log_std])
    normal = torch.distributions.Normal(0.0, 1.0)
    actions = torch.linspace(-0.95, 0.95, 39, dtype=torch.float64)
    step = 1e-5

    def distribution(a: Tensor) -> Tensor:
        share: Tensor = normal.cdf((torch.atanh(a) - mean) / math.exp(log_std))
        return share

    expected = (distribution(actions + step) - distribution(actions - step)) / (2 * step)
    found = at(actor, *([a] for a in actions.tolist())).exp()
    assert torch.allclose(found.double(), expected, rtol=2e-3, atol=1e-6)


def test_density_integrates_to_one() -> None:
    centres = ((torch.arange(4000) + 0.5) / 2000 - 1).tolist()
    density = at(constant_actor([0.3], [-0.7]), *([a] for a in centres)).exp()
    assert (density.sum() / 2000).item() == pytest.approx(1.0, abs=1e-3)


def test_samples_carry_the_log_probability_of_the_stored_action() -> None:
    actor = SquashedGaussianActor(3, 2, MLPConfig(hidden_size=4), Streams([0, 1], "test"))
    observations, noise = 0.5 * torch.randn(2, 50, 3), torch.rand(2, 50, 2) - 0.5
    actions, log_probs = actor.sample(observations, noise)
    assert actions.abs().max() < 0.99  # nearer to 1 float32 cannot tell actions apart
    assert torch.allclose(actor.log_prob(observations, actions.detach()), log_probs, atol=1e-3)
    mean, log_std = actor(observations)
    assert torch.allclose(actions, torch.tanh(mean + log_std.exp() * noise))
    assert torch.equal(actor.greedy(observations), torch.tanh(mean))


def test_running_normalisation_by_hand() -> None:
    """The first two features by mean and variance of the rows observed, clipped at 10; the third stays as it is."""
    actor = SquashedGaussianActor(3, 2, MLPConfig(hidden_size=4), Streams([0], "test"), normalised=2)
    actor.observe(torch.tensor([[[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]]))  # means 2 and 0, variances 1 and 0
    features = actor.features(torch.tensor([[[4.0, 0.01, 1.0], [2.0, -5.0, 0.0]]]))
    # (4 - 2) / sqrt(1 + 1e-5), 0.01 / sqrt(1e-5) = 3.1622777, -5 / sqrt(1e-5) is clipped.
    expected = torch.tensor([[[1.99999, 3.1622777, 1.0], [0.0, -10.0, 0.0]]])
    assert torch.allclose(features, expected, atol=1e-5)
    plain = SquashedGaussianActor(3, 2, MLPConfig(hidden_size=4), Streams([0], "test"))
    observations = torch.randn(1, 5, 3)
    assert torch.equal(actor.greedy(observations), plain.greedy(actor.features(observations)))


def test_samples_are_differentiable() -> None:
    actor = constant_actor([0.2], [-1.0])
    # a = tanh(0.2 + e^-1 n) at n = 1: da/dmean = 1 - a^2, da/dlog_std = (1 - a^2) e^-1.
    action, _ = actor.sample(torch.zeros(1, 1, 3), torch.ones(1, 1, 1))
    action.sum().backward()
    slope = 1 - math.tanh(0.2 + math.exp(-1)) ** 2
    assert actor.network.final.bias.grad is not None
    assert actor.network.final.bias.grad.flatten().tolist() == pytest.approx([slope, slope * math.exp(-1)], abs=1e-6)


@pytest.mark.parametrize("edge", [1.0, -1.0])
@pytest.mark.parametrize("log_std", [-5.0, 0.0, 2.0])
def test_actions_at_the_limits_have_finite_density_and_gradient(edge: float, log_std: float) -> None:
    actor = constant_actor([0.0], [log_std])
    log_prob = actor.log_prob(torch.zeros(1, 1, 3), torch.tensor([[[edge]]]))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in actor.parameters())
    assert torch.equal(log_prob[0].detach(), at(actor, [math.copysign(1 - 1e-6, edge)]))


def test_saturated_samples_stay_finite() -> None:
    # tanh(40) is 1 in float32: the Jacobian is 2 (log 2 - 40 - softplus(-80)) = -78.6137, not log(0).
    actions, log_probs = constant_actor([40.0], [0.0]).sample(torch.zeros(1, 1, 3), torch.zeros(1, 1, 1))
    assert actions.item() == 1.0
    assert log_probs.item() == pytest.approx(-0.9189385 + 78.6137056, abs=1e-3)


def test_log_standard_deviation_is_clamped() -> None:
    for value, expected in ((-50.0, -20.0), (5.0, 2.0), (1.0, 1.0)):
        assert constant_actor([0.0], [value])(torch.zeros(1, 1, 3))[1].item() == expected
