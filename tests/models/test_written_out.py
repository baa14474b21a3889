"""Gradients written out against automatic differentiation, in double precision: of logits, and of the penalty."""

import copy
import itertools
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from memory.batch import Batch
from models.discriminators import Discriminator, DiscriminatorConfig, DiscriminatorStep
from models.mlp import MLP, RunLinear
from models.normalisation import RunningNorm
from models.streams import Streams
from tests.algorithms.support import make_batch

Loss = Float[Tensor, " runs"]


def gradient_penalty(discriminator: Discriminator, batch: Batch, log_probs: Tensor | None = None) -> Loss:
    """mean w (|grad_s D|^2 + |grad_a D|^2) at the rows of `batch`, differentiated twice by torch."""
    inputs = [batch.observations.detach().requires_grad_()]
    if not discriminator.state_only:
        inputs.append(batch.actions.detach().requires_grad_())
    names = ("observations", "actions")
    rows = Batch(**{**vars(batch), **dict(zip(names, inputs, strict=False))})
    logits = discriminator(rows, log_probs)
    gradients = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    squared = torch.stack([gradient.square().sum(-1) for gradient in gradients]).sum(0)
    return (batch.weights * squared).mean(-1)


def make_discriminator(
    runs: int = 2, state_only: bool = False, spectral_norm: bool = True, absorbing: bool = False, **options: Any
) -> Discriminator:
    """In double precision, with parameters that are nowhere 0 or 1."""
    discriminator = Discriminator(
        3,
        2,
        DiscriminatorConfig(**{"hidden_size": 5, "depth": 2, **options}),
        Streams(range(runs), "test"),
        state_only=state_only,
        discount=0.9,
        spectral_norm=spectral_norm,
        absorbing=absorbing,
    ).double()
    for module in discriminator.modules():
        if isinstance(module, MLP):
            module.dtype = torch.float64
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
        for module in discriminator.modules():
            if isinstance(module, RunningNorm):
                module.mean.normal_(generator=generator)
                module.variance.uniform_(0.5, 2.0, generator=generator)
    return discriminator


def rows(runs: int, size: int = 6, seed: int = 0) -> Batch:
    """Some of them at a true end, some with actions beyond the bounds or at them, with weights of their own."""
    generator = torch.Generator().manual_seed(seed)
    batch = make_batch(runs, size, seed=seed).map(Tensor.double)
    actions = 1.5 * batch.actions
    actions[:, 0] = torch.tensor([1.0, -1.0])
    weights = 0.5 + torch.rand(runs, size, generator=generator)
    ends = (torch.rand(runs, size, generator=generator) < 0.3).double()
    return Batch(**{**vars(batch), "actions": actions, "weights": weights.double(), "terminated": ends})


def by_torch(discriminator: Discriminator, loss: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss.sum(), list(discriminator.parameters()), allow_unused=True, retain_graph=True)
    pairs = zip(found, discriminator.parameters(), strict=True)
    return [torch.zeros_like(parameter) if gradient is None else gradient for gradient, parameter in pairs]


def without_iterations(discriminator: Discriminator) -> Discriminator:
    """The same, with dropout, but with spectral normalisation as it is."""
    for module in discriminator.modules():
        if isinstance(module, RunLinear):
            module.eval()
    return discriminator


@torch.no_grad()
def assert_same(discriminator: Discriminator) -> None:
    runs = len(next(iter(discriminator.parameters())))
    classified, between, log_probs = rows(runs, 8), rows(runs, 6, seed=1), torch.randn(runs, 8, dtype=torch.float64)
    by_logits = torch.randn(runs, 8, dtype=torch.float64)
    twin = copy.deepcopy(discriminator)
    step = DiscriminatorStep(discriminator)
    logits, terms = step.logits(classified, log_probs)
    step.pull_back(terms, by_logits)
    penalty = step.penalise(between, 0.7)
    step.assign()

    with torch.enable_grad():
        for mine, its in zip(discriminator.buffers(), twin.buffers(), strict=True):
            its.copy_(mine)  # what the power iteration found
        without_iterations(twin)
        expected_logits = twin(classified, log_probs)
        expected_penalty = gradient_penalty(twin, between)
        expected = by_torch(twin, (expected_logits * by_logits).sum(-1) + 0.7 * expected_penalty)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(penalty, expected_penalty, rtol=1e-12, atol=1e-12)
    for (name, parameter), gradient in zip(discriminator.named_parameters(), expected, strict=True):
        assert parameter.grad is not None, name
        close = torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-11)
        assert close, f"{name}: {(parameter.grad - gradient).abs().max()}"


OPTIONS: dict[str, list[Any]] = {
    "depth": [1, 2, 3],
    "activation": ["relu", "tanh"],
    "layer_norm": [False, True],
    "spectral_norm": [True, False],
    "reward_shaping": [False, True],
}


@pytest.mark.parametrize("values", list(itertools.product(*OPTIONS.values())), ids=lambda v: "-".join(map(str, v)))
def test_every_network(values: tuple[Any, ...]) -> None:
    assert_same(make_discriminator(**dict(zip(OPTIONS, values, strict=True))))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("shaping", [{}, {"reward_shaping": True}, {"reward_shaping": True, "reward_depth": 2}])
@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"input_dropout": 0.4},
        {"dropout": 0.5, "input_dropout": 0.2, "layer_norm": True},
        {"state_only": True},
        {"normalise_inputs": True},
        {"normalise_inputs": True, "absorbing": True},
        {"normalise_inputs": True, "state_only": True, "absorbing": True, "dropout": 0.3, "layer_norm": True},
        {"runs": 1},
    ],
    ids=lambda o: "-".join(o),
)
def test_every_option(options: dict[str, Any], shaping: dict[str, Any], activation: str) -> None:
    assert_same(make_discriminator(**options, **shaping, activation=activation))
