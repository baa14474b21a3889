"""Adam with a run axis against PyTorch's, run by run; and PyTorch's without its compiler."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from algorithms.optimisers import EPSILON, AdamW, RunAdam

SHAPES = ((2, 3, 4), (2, 1, 4), (2, 5))


def loss(parameters: list[nn.Parameter], step: int) -> Tensor:
    """[runs]; run 1 has gradients far beyond the clipping norm."""
    scale = torch.tensor([0.1, 50.0])[: len(parameters[0])]
    terms = [((p - step).square() * (i + 1)).flatten(1).sum(1) for i, p in enumerate(parameters)]
    return scale * torch.stack(terms).sum(0)


def gradients(parameters: list[nn.Parameter], step: int) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(parameters, step).sum(), parameters)


def make() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def test_each_run_is_as_with_an_optimiser_of_its_own() -> None:
    together = make()
    optimiser = RunAdam(together, max_norm=2.0, weight_decay=0.1)
    for step in range(6):
        norms = optimiser.step(gradients(together, step), 0.05)
        assert norms[1] > 100 * norms[0]
    for run in range(2):
        alone = [nn.Parameter(p[run : run + 1].detach().clone()) for p in make()]
        reference = torch.optim.AdamW(alone, 0.05, eps=EPSILON, weight_decay=0.1)
        for step in range(6):
            reference.zero_grad()
            scale = (0.1, 50.0)[run]
            (loss(alone, step) / 0.1 * scale).sum().backward()
            nn.utils.clip_grad_norm_(alone, 2.0)
            reference.step()
        for mine, its in zip(together, alone, strict=True):
            assert torch.allclose(mine[run], its[0], atol=1e-5)


def test_a_run_that_pauses_goes_on_as_if_nothing_had_been() -> None:
    paused, whole = make(), make()
    first, second = (RunAdam(parameters, 1.0, 0.1) for parameters in (paused, whole))
    everyone = torch.ones(2, dtype=torch.bool)
    for step in range(4):
        if step == 2:
            before = [p.detach().clone() for p in paused]
            first.step(gradients(paused, 99), 0.05, torch.tensor([True, False]))
            for now, old in zip(paused, before, strict=True):
                assert torch.equal(now[1], old[1]) and not torch.equal(now[0], old[0])
        first.step(gradients(paused, step), 0.05, everyone)
        second.step(gradients(whole, step), 0.05, everyone)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(paused, whole, strict=True))


def test_a_step_that_no_run_takes_changes_nothing() -> None:
    parameters = make()
    optimiser = RunAdam(parameters, 1.0, 0.1)
    norms = optimiser.step(gradients(parameters, 0), 0.05, torch.zeros(2, dtype=torch.bool))
    assert (norms > 0).all() and not optimiser.steps.any() and not optimiser.first.any()
    assert all(torch.equal(a, b) for a, b in zip(parameters, make(), strict=True))


def test_state_goes_on() -> None:
    parameters = make()
    optimiser = RunAdam(parameters, 1.0)
    optimiser.step(gradients(parameters, 0), 0.05, torch.tensor([True, False]))
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    other = RunAdam(copies, 1.0)
    other.load_state_dict(optimiser.state_dict())
    for target, adam in ((parameters, optimiser), (copies, other)):
        adam.step(gradients(target, 1), 0.05)
    assert all(torch.equal(a, b) for a, b in zip(parameters, copies, strict=True))


def test_adamw_is_pytorch_s() -> None:
    ours, theirs = make(), make()
    optimisers = [
        kind(iter(({"params": p[:2]}, {"params": p[2:], "weight_decay": 0.0})), lr=0.05, weight_decay=0.1, fused=True)
        for kind, p in ((AdamW, ours), (torch.optim.AdamW, theirs))
    ]
    for step in range(4):
        if step == 2:  # either goes on from what the other has saved
            states = [optimiser.state_dict() for optimiser in optimisers]
            for optimiser, state in zip(optimisers, reversed(states), strict=True):
                optimiser.load_state_dict(state)
        for optimiser, parameters in zip(optimisers, (ours, theirs), strict=True):
            for parameter, gradient in zip(parameters, gradients(parameters, step), strict=True):
                parameter.grad = gradient
            optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not any(parameter.grad_fn for parameter in ours)


USED = """
import sys, torch
from algorithms.optimisers import AdamW
parameter = torch.nn.Parameter(torch.ones(2))
optimiser = AdamW([parameter], fused=True)
parameter.grad = torch.ones(2)
optimiser.step()
optimiser.load_state_dict(optimiser.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""


def test_adamw_on_the_cpu_does_not_ask_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask whether CUDA records a graph sets CUDA up, in a run that has no use for it."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: pytest.fail("asked"))
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    AdamW([parameter], fused=True).step()
    assert (parameter < 1).all()


def test_adamw_does_not_import_the_compiler() -> None:
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", USED], cwd=root, check=False).returncode == 0
