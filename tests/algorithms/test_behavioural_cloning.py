"""Behavioural cloning: its losses by hand, absorbing rows, fewer rows than a batch, and BC alone."""

import copy
import math
from pathlib import Path

import pytest
import torch

from algorithms.behavioural_cloning import BCPretrainingConfig, BehaviouralCloning, cloning_loss
from conf.errors import UserError
from models.actors import SquashedGaussianActor
from models.streams import Streams
from tests.algorithms.support import make_batch, make_config, parameters, small_network, write_demonstrations
from training.build import build
from training.phases import CloningPhase


def constant_policy(mean: float, runs: int = 1) -> SquashedGaussianActor:
    policy = SquashedGaussianActor(3, 2, small_network(), Streams(range(runs), "test"))
    with torch.no_grad():
        policy.network.final.weight.zero_()
        policy.network.final.bias.copy_(torch.tensor([mean, mean, 0.0, 0.0]))
    return policy


def test_log_likelihood_by_hand() -> None:
    # -log pi(tanh(0.5)) = 0.8037096 a dimension for mean 0 and std 1 (see test_actors), 1.6074192 for two;
    # weights 1 and 0.5: (1.6074192 + 0.8037096) / 2.
    batch = make_batch(size=2, actions=torch.full((1, 2, 2), math.tanh(0.5)), weights=[[1.0, 0.5]])
    loss = cloning_loss(constant_policy(0.0), batch, "log_likelihood")
    assert loss.item() == pytest.approx(1.2055644, abs=1e-5)


def test_squared_error_by_hand() -> None:
    # tanh(0.5) = 0.4621172 against (0, 1): (0.2135523 + 0.2893179) / 2 = 0.2514351; weights 1 and 0.5.
    batch = make_batch(size=2, actions=[[[0.0, 1.0], [0.0, 1.0]]], weights=[[1.0, 0.5]])
    loss = cloning_loss(constant_policy(0.5), batch, "squared_error")
    assert loss.item() == pytest.approx(0.75 * 0.2514351, abs=1e-6)


@pytest.mark.parametrize("loss_function", ["log_likelihood", "squared_error"])
def test_absorbing_rows_are_left_out(loss_function: str) -> None:
    policy = constant_policy(0.3)
    with_row = make_batch(size=2, absorbing=[[0.0, 1.0]])
    other = make_batch(size=2, absorbing=[[0.0, 1.0]], actions=with_row.actions * torch.tensor([[[1.0], [-0.5]]]))
    assert torch.equal(cloning_loss(policy, with_row, loss_function), cloning_loss(policy, other, loss_function))
    assert cloning_loss(policy, make_batch(absorbing=torch.ones(1, 6)), loss_function).item() == 0


@pytest.mark.parametrize("loss_function", ["log_likelihood", "squared_error"])
def test_it_learns_the_demonstrated_action_even_at_the_limit(loss_function: str) -> None:
    policy = SquashedGaussianActor(3, 2, small_network(), Streams([0, 1], "test"))
    cloning = BehaviouralCloning(policy, BCPretrainingConfig(learning_rate=0.02, loss_function=loss_function))
    actions = torch.tensor([[[0.5, -0.5]], [[1.0, -1.0]]]).expand(2, 6, 2)
    batch = make_batch(2, actions=actions)
    losses = [cloning.update(batch)["bc/loss"] for _ in range(200)]
    assert (losses[-1] < losses[0]).all() and torch.stack(losses).isfinite().all()
    assert torch.allclose(policy.greedy(batch.observations), actions, atol=0.1)


def test_saved_state_continues_exactly() -> None:
    first, second = (
        BehaviouralCloning(SquashedGaussianActor(3, 2, small_network(), Streams([s], "test")), BCPretrainingConfig())
        for s in (0, 1)
    )
    first.update(make_batch())
    second.policy.load_state_dict(copy.deepcopy(first.policy.state_dict()))
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # as through a file: no shared tensors
    for cloning in (first, second):
        cloning.update(make_batch(seed=1))
    for name, value in parameters(first.policy).items():
        assert torch.equal(value, parameters(second.policy)[name]), name


def test_fewer_rows_than_a_batch(tmp_path: Path) -> None:  # K12
    path = write_demonstrations(tmp_path / "d.hdf5", episodes=1, length=3)
    parts = build(make_config("cloning", path))
    assert parts.demonstrations is not None and len(parts.demonstrations) < 8  # of a batch
    (phase,) = parts.phases
    before = parameters(parts.learner.policy)
    assert phase.advance()["bc/loss"].isfinite().all()
    assert any(not torch.equal(value, before[name]) for name, value in parameters(parts.learner.policy).items())


def test_alone_it_trains_nothing_but_the_policy(tmp_path: Path) -> None:  # K16
    parts = build(make_config("cloning", write_demonstrations(tmp_path / "d.hdf5")))
    (phase,) = parts.phases  # no interaction
    assert isinstance(phase, CloningPhase) and phase.length == 3
    before = parameters(parts.learner)
    for _ in range(phase.length):
        phase.advance()
    moved = {name.split(".")[0] for name, value in parameters(parts.learner).items() if (value != before[name]).any()}
    assert moved == {"policy"}
    with pytest.raises(RuntimeError, match="provides no rewards"):
        parts.imitation.relabel(make_batch(), make_batch(), parts.learner.policy)


def test_environment_steps_are_refused(tmp_path: Path) -> None:  # K16: it would learn from the true reward
    path = write_demonstrations(tmp_path / "d.hdf5")
    with pytest.raises(UserError, match=r"steps=100: algorithm=cloning takes no environment steps"):
        make_config("cloning", path, steps=100)
    with pytest.raises(UserError, match="nothing to train"):
        make_config("cloning", path, bc_pretraining=BCPretrainingConfig(iterations=0))
