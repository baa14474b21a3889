"""Networks with a run axis: values by hand, initialisation, dropout, layer and spectral normalisation."""

import pytest
import torch
from torch import Tensor

from models.critics import TwinCritic
from models.mlp import MLP, MLPConfig, RunLayerNorm, RunLinear
from models.streams import Streams
from tests.algorithms.support import layers


def mlp(seeds: tuple[int, ...] = (0,), members: tuple[int, ...] | None = None, **options: object) -> MLP:
    config = MLPConfig(**{"hidden_size": 6, "depth": 1, **options})  # type: ignore[arg-type]  # of several types
    return MLP(members or (len(seeds),), 4, 2, config, Streams(seeds, "test"))


def singular_values(layer: RunLinear) -> Tensor:
    """Of the weights that the layer applies: its response to the unit vectors, less the bias."""
    inputs = layer.weight.shape[-2]
    unit = torch.eye(inputs).expand(layer.weight.view(-1, *layer.weight.shape[-2:]).shape[0], inputs, inputs)
    values: Tensor = torch.linalg.svdvals(layer(unit, torch.float32) - layer.bias.view(-1, 1, layer.bias.shape[-1]))
    return values


def test_a_linear_layer_by_hand() -> None:
    layer = RunLinear((2,), 2, 1, Streams([0, 1], "test"))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0], [2.0]], [[-1.0], [0.5]]]))
        layer.bias.copy_(torch.tensor([[[10.0]], [[20.0]]]))
    found = layer(torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]]), torch.float32)
    assert found.tolist() == [[[10 + 3 + 8]], [[20 - 3 + 2]]]


def test_weights_are_orthogonal_with_the_activation_s_gain_and_biases_zero() -> None:
    for activation, gain in (("relu", 2**0.5), ("tanh", 5 / 3)):
        network = mlp((0, 1), activation=activation, depth=2)
        for layer, expected in ((network.hidden[0], gain), (network.hidden[1], gain), (network.final, 1.0)):
            assert isinstance(layer, RunLinear)
            assert torch.linalg.svdvals(layer.weight).sub(expected).abs().max() < 1e-5
            assert layer.bias.abs().sum() == 0


def test_initial_weights_are_those_of_the_seed_and_differ_between_runs_and_members() -> None:
    together, alone = mlp((3, 4), (2, 2)), mlp((4,), (2, 1))
    for many, one in zip(together.parameters(), alone.parameters(), strict=True):
        assert torch.equal(many[:, 1:], one)
    weights = together.final.weight
    assert len({tuple(w.flatten().tolist()) for w in weights.flatten(0, 1)}) == 4


def test_depth_and_activation() -> None:
    network = mlp(depth=2, activation="tanh")
    x = torch.randn(1, 5, 4)
    first, second, final = layers(network)
    expected = torch.tanh(torch.tanh(x @ first.weight) @ second.weight) @ final.weight
    assert torch.allclose(network(x), expected, atol=1e-6)
    network = mlp(depth=1)
    first, final = layers(network)
    expected = torch.relu(x @ first.weight) @ final.weight
    assert torch.allclose(network(x), expected, atol=1e-6)


def test_an_ensemble_sees_the_same_input_in_every_member() -> None:
    network = mlp((0, 1), (3, 2))
    x = torch.randn(2, 5, 4)
    found = network(x)
    assert found.shape == (3, 2, 5, 2)
    for member in range(3):
        hidden = torch.relu(x @ layers(network)[0].weight[member])
        assert torch.allclose(found[member], hidden @ network.final.weight[member], atol=1e-6)


def test_low_precision_products_and_float32_outside() -> None:
    network = MLP(
        (1,), 4, 2, MLPConfig(hidden_size=6, layer_norm=True, dropout=0.5), Streams([0], "test"), torch.bfloat16
    )
    x = torch.randn(1, 5, 4)
    assert network(x).dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    exact = MLP((1,), 4, 2, MLPConfig(hidden_size=6, layer_norm=True), Streams([0], "test")).eval()
    assert torch.allclose(network.eval()(x), exact(x), atol=0.05)


def test_input_dropout_is_applied_in_training_only() -> None:  # K2
    network = mlp(input_dropout=0.5)
    seen: list[Tensor] = []
    network.hidden[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    x = torch.ones(1, 4000, 4)
    network(x)
    network.eval()
    network(x)
    values, counts = seen[0].unique(return_counts=True)
    assert values.tolist() == [0, 2]  # dropped, or divided by the share that is kept
    assert counts[0].item() / 16_000 == pytest.approx(0.5, abs=0.02)
    assert torch.equal(seen[1], x)


def test_hidden_dropout_sits_between_the_layer_and_its_activation() -> None:  # K2
    network = mlp(dropout=0.75, activation="tanh")
    seen: list[Tensor] = []
    network.final.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    x = torch.randn(1, 1000, 4)
    network(x)
    network.eval()
    network(x)
    kept = seen[0] != 0
    assert kept.float().mean().item() == pytest.approx(0.25, abs=0.03)
    # tanh(4 x), not 4 tanh(x): the sum is scaled, then squashed.
    product = x @ layers(network)[0].weight
    expected = torch.tanh(4 * product)
    assert torch.allclose(seen[0][kept], expected[kept], atol=1e-5)
    assert torch.allclose(seen[1], torch.tanh(product), atol=1e-6)


def test_dropout_masks_differ_between_calls_runs_and_members_but_not_beside_others() -> None:
    together, alone = mlp((3, 4), (2, 2), dropout=0.5), mlp((4,), (2, 1), dropout=0.5)
    x = torch.randn(1, 50, 4)
    for _ in range(2):
        assert torch.allclose(together(x.expand(2, -1, -1))[:, 1:], alone(x), atol=1e-6)
    assert not torch.equal(alone(x), alone(x))
    seen: list[Tensor] = []
    together.final.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0] != 0))
    together(x.expand(2, -1, -1))
    assert len({tuple(mask.flatten().tolist()) for mask in seen[0]}) == 4


def test_layer_norm_by_hand_with_a_scale_and_shift_of_each_member() -> None:
    norm = RunLayerNorm((2,), 2, torch.device("cpu"))
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([[[1.0, 1.0]], [[2.0, 3.0]]]))
        norm.shift.copy_(torch.tensor([[[0.0, 0.0]], [[10.0, 20.0]]]))
    # (1, 5): mean 3, standard deviation 2, so (-1, 1); then (-2 + 10, 3 + 20).
    found = norm(torch.tensor([[[1.0, 5.0]], [[1.0, 5.0]]]))
    assert torch.allclose(found, torch.tensor([[[-1.0, 1.0]], [[8.0, 23.0]]]), atol=1e-4)


def test_layer_norm_sits_before_the_activation() -> None:
    network = mlp((0, 1), layer_norm=True, depth=2)
    x = torch.randn(2, 5, 4)
    first, second, _ = (layer.weight for layer in layers(network))
    hidden = torch.relu(torch.nn.functional.layer_norm(x @ first, (6,)))
    hidden = torch.relu(torch.nn.functional.layer_norm(hidden @ second, (6,)))
    assert torch.allclose(network(x), hidden @ network.final.weight, atol=1e-5)
    assert [p.shape for p in network.norms.parameters()] == [(2, 1, 6)] * 4


@pytest.mark.parametrize("members", [(2,), (3, 2)])
def test_spectral_norm_makes_the_largest_singular_value_one_in_every_member(members: tuple[int, ...]) -> None:
    layer = RunLinear(members, 5, 7, Streams([0, 1], "test"), spectral_norm=True)
    count = layer.weight.data.view(-1, 5, 7).shape[0]
    with torch.no_grad():  # very different scales, so that a norm shared between members shows
        layer.weight.copy_(torch.randn(*members, 5, 7, generator=torch.Generator().manual_seed(0)))
        layer.weight.view(-1, 5, 7).mul_(torch.logspace(-1, 2, count).view(-1, 1, 1))
    for _ in range(100):
        layer(torch.zeros(count, 1, 5), torch.float32)
    layer.eval()
    assert singular_values(layer)[:, 0].tolist() == pytest.approx([1.0] * count, abs=1e-3)


def test_spectral_norm_is_right_from_the_start_and_still_in_evaluation() -> None:
    layer = RunLinear((2,), 8, 8, Streams([0, 1], "test"), gain=5.0, spectral_norm=True)
    assert singular_values(layer.eval())[:, 0].tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    before = (layer.u.clone(), layer.v.clone())
    layer(torch.zeros(2, 1, 8), torch.float32)
    assert torch.equal(layer.u, before[0]) and torch.equal(layer.v, before[1])
    with torch.no_grad():
        layer.weight.mul_(torch.rand(2, 8, 8))
    layer.train()
    layer(torch.zeros(2, 1, 8), torch.float32)
    assert not torch.equal(layer.u, before[0])


def test_spectral_norm_vectors_are_saved_and_loaded() -> None:
    layer, other = (RunLinear((1,), 5, 3, Streams([seed], "test"), spectral_norm=True) for seed in (0, 1))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 4, 5)
    assert torch.equal(layer.eval()(x, torch.float32), other.eval()(x, torch.float32))


def test_spectral_norm_gradient_is_that_of_the_normalised_weight() -> None:
    # d/dW of sum(W / sigma) at W = diag(2, 1), sigma = u' W v = W_00: the sum is (W_00 + W_01 + W_10 + W_11) / W_00,
    # so by W_00: 1/2 - 3/4 = -1/4; by every other entry: 1/2.
    layer = RunLinear((1,), 2, 2, Streams([0], "test"), spectral_norm=True).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
        layer.u.copy_(torch.tensor([[[1.0], [0.0]]]))
        layer.v.copy_(torch.tensor([[[1.0], [0.0]]]))
    layer(torch.eye(2)[None], torch.float32).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[0].tolist() == [[pytest.approx(-0.25), 0.5], [0.5, 0.5]]


def test_values_are_told_apart_whatever_the_precision() -> None:
    """In bfloat16 those between 256 and 512 would lie 2 apart, so that no action were better than another."""
    critic = TwinCritic(4, 2, MLPConfig(), Streams([0], "test"), torch.bfloat16)
    with torch.no_grad():
        critic.network.final.bias.fill_(300.0)
    generator = torch.Generator().manual_seed(0)
    values = critic(torch.randn(1, 500, 4, generator=generator), torch.rand(1, 500, 2, generator=generator))
    assert values.dtype == torch.float32 and values[0, 0].unique().numel() > 450
