"""Behavioural cloning as a library offers it: epochs, regularisers, accumulated gradients, early stopping."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.behavioural_cloning import (
    BCPretrainingConfig,
    BehaviouralCloning,
    CloningConfig,
    EarlyStopping,
    cloning_loss,
    half_squares,
    mean_entropy,
    squashed_entropy,
)
from algorithms.learners.ppo import PPO, PPOConfig, TowerConfig
from conf.errors import UserError
from environments.construction import spaces_of
from models.actors import CategoricalActor, GaussianActor, Policy, SquashedGaussianActor
from models.streams import Streams
from tests.algorithms.support import (
    WALK,
    layers,
    make_batch,
    make_config,
    parameters,
    small_network,
    write_demonstrations,
)
from training.build import build
from training.evaluation import Evaluator
from training.phases import CloningPhase


def make_policy(kind: type[Policy] = GaussianActor, runs: int = 1) -> Any:
    return kind(3, 2, small_network(), Streams(range(runs), "test"))


def cloning_phase(path: Path, batch_size: int = 8, runs: int = 2, **options: Any) -> CloningPhase:
    config = make_config("cloning", path, bc_pretraining=BCPretrainingConfig(**options), runs=runs)
    config.training.batch_size = batch_size
    (phase,) = build(config).phases
    assert isinstance(phase, CloningPhase)
    return phase


def test_entropies_by_hand() -> None:
    batch = make_batch(size=2, weights=[[1.0, 0.5]])
    gaussian, categorical = make_policy(), make_policy(CategoricalActor)
    # Standard deviations of 1: log(2 pi e) / 2 = 1.4189385 a dimension; weights 1 and 0.5.
    assert mean_entropy(gaussian, batch).item() == pytest.approx(0.75 * 2 * 1.4189385, abs=1e-5)
    for parameter in categorical.parameters():
        torch.nn.init.zeros_(parameter)
    assert mean_entropy(categorical, batch).item() == pytest.approx(0.75 * math.log(2), abs=1e-6)


def test_entropy_behind_a_tanh() -> None:
    mean, log_std = torch.tensor([0.3, -1.0]), torch.tensor([-0.5, 0.7])
    noise = torch.randn(400_000, 2, generator=torch.Generator().manual_seed(0))
    raw = (mean + log_std.exp() * noise).double()
    normal = 0.5 * noise.square() + log_std + 0.5 * math.log(2 * math.pi)
    sampled = (normal - 2 * torch.log(torch.cosh(raw))).sum(-1).mean().item()
    assert squashed_entropy(mean, log_std).item() == pytest.approx(sampled, abs=5e-3)
    # A narrow one hardly feels the tanh: log(sigma) + log(2 pi e) / 2 at 0, where the slope is 1.
    narrow = squashed_entropy(torch.zeros(1), torch.tensor([-5.0]))
    assert narrow.item() == pytest.approx(1.4189385 - 5, abs=1e-3)


def test_half_of_the_squared_parameters_of_each_run() -> None:
    policy = make_policy(runs=2)
    for parameter in policy.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        policy.log_std[0] = 2.0
        policy.network.final.weight[1, 0, 0] = -3.0
    assert half_squares(policy).tolist() == [4.0, 4.5]  # (2^2 + 2^2) / 2 and 3^2 / 2


@pytest.mark.parametrize("kind", [GaussianActor, CategoricalActor, SquashedGaussianActor])
def test_the_loss_has_three_terms(kind: type[Policy]) -> None:
    """Gradients of log-likelihood - 0.3 entropy + 0.2 half squares, whichever policy is cloned."""
    actions = torch.eye(2)[torch.arange(6) % 2][None] if kind is CategoricalActor else torch.full((1, 6, 2), 0.4)
    batch, policy = make_batch(actions=actions), make_policy(kind)
    cloning = BehaviouralCloning(policy, CloningConfig(entropy_weight=0.3, l2_weight=0.2))
    expected = copy.deepcopy(policy)
    loss = cloning_loss(expected, batch, "log_likelihood") - 0.3 * mean_entropy(expected, batch)
    (loss + 0.2 * half_squares(expected)).sum().backward()
    metrics = cloning.update(batch)
    for own, other in zip(policy.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(own.grad, other.grad, atol=1e-6)
    assert metrics["bc/entropy"].isfinite().all() and not metrics["bc/entropy"].requires_grad


def test_decayed_weights_shrink_beside_the_gradient() -> None:
    """By learning rate times decay, 0.25 * 0.5; where the gradient is 0, Adam's step is, too."""
    policy = make_policy()
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    BehaviouralCloning(policy, CloningConfig(learning_rate=0.25, weight_decay=0.5)).update(
        make_batch(weights=[[0.0, 0.0]], size=2)
    )
    for parameter, old in zip(policy.parameters(), before, strict=True):
        assert torch.allclose(parameter, 0.875 * old, atol=1e-7)


def test_accumulated_gradients_are_those_of_the_batch() -> None:
    batch = make_batch(size=12, weights=torch.rand(1, 12, generator=torch.Generator().manual_seed(1)))
    whole, parts = (
        BehaviouralCloning(
            make_policy(SquashedGaussianActor), CloningConfig(minibatch_size=size, entropy_weight=0.1, l2_weight=0.1)
        )
        for size in (None, 4)
    )
    first, second = whole.update(batch), parts.update(batch)
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-6), name
    for one, two in zip(whole.policy.parameters(), parts.policy.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-6)  # type: ignore[arg-type]  # both are there


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    """4 episodes of 8 rows; two of them truly end and have a self-loop more: 34 rows, 4 batches of 8."""
    phase = cloning_phase(write_demonstrations(tmp_path / "d.hdf5"), epochs=3)
    assert (len(phase.rows), phase.batches, phase.length) == (34, 4, 12)
    seen = []
    for _ in range(12):
        seen.append(phase._batch().observations)
        phase.advance()
    epochs = [torch.cat(seen[start : start + 4], 1) for start in (0, 4, 8)]
    for epoch in epochs:
        for run in epoch:
            assert len(run.unique(dim=0)) >= 31  # 32 rows; the two self-loops may be among them, which are alike
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[0][0], epochs[0][1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 5, "epochs": 2}, r"bc_pretraining.iterations=5 and bc_pretraining.epochs=2: expected one"),
        ({}, "nothing to train"),
        ({"epochs": 1, "minibatch_size": 3}, r"minibatch_size=3: expected a factor of training.batch_size=8"),
        ({"epochs": 1, "weight_decay": 0.1, "l2_weight": 0.1}, r"weight_decay=0.1 and bc_pretraining.l2_weight=0.1"),
        ({"epochs": 1, "validation_share": 0.5}, None),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    path = write_demonstrations(tmp_path / "d.hdf5")
    if message is None:
        make_config("cloning", path, bc_pretraining=BCPretrainingConfig(**options))
        return
    with pytest.raises(UserError, match=message):
        make_config("cloning", path, bc_pretraining=BCPretrainingConfig(**options))


def test_demonstrations_may_be_too_few(tmp_path: Path) -> None:
    path = write_demonstrations(tmp_path / "d.hdf5", episodes=1)
    with pytest.raises(UserError, match=r"training.batch_size=100: bc_pretraining.epochs=2 .* 9 demonstrated rows"):
        cloning_phase(path, batch_size=100, epochs=2)
    with pytest.raises(UserError, match="at least 2 trajectories"):
        cloning_phase(path, epochs=2, validation_share=0.5)


def test_validation_trajectories_are_never_trained_on(tmp_path: Path) -> None:
    phase = cloning_phase(write_demonstrations(tmp_path / "d.hdf5"), iterations=50, validation_share=0.5)
    assert (phase.rows.trajectory_count, phase.held_out.trajectory_count) == (2, 2)
    held_out = phase.held_out.rows().observations[0]
    held_out = held_out[held_out[:, -1] == 0]  # but for the absorbing state, which they share
    for _ in range(20):
        drawn = phase._batch().observations.flatten(0, 1)
        assert not (drawn[:, None] == held_out[None]).all(-1).any()


def test_early_stopping_by_hand() -> None:
    """Run 0 is best after pass 2 and stops after pass 4; run 1 goes on getting better."""
    policy = make_policy(runs=2)
    stopping = EarlyStopping(policy, 2, patience=2)
    for step, losses in enumerate(([3.0, 3.0], [1.0, 2.0], [2.0, 1.5], [1.5, 1.0], [0.0, 0.5]), 1):
        with torch.no_grad():
            policy.log_std.fill_(float(step))
        stopping.note(torch.tensor(losses))
        assert stopping.stopped.tolist() == [step >= 4, False]
        stopping.restore(stopping.stopped)
        assert policy.log_std[0, 0, 0] == (2 if step >= 4 else step) and policy.log_std[1, 0, 0] == step
    assert stopping.lowest.tolist() == [1.0, 0.5]


def test_training_ends_when_all_runs_have_stopped_with_the_best_policies(tmp_path: Path) -> None:
    """Random actions cannot be learned: the validation loss soon rises."""
    phase = cloning_phase(
        write_demonstrations(tmp_path / "d.hdf5", episodes=8),
        epochs=500,
        learning_rate=0.02,
        validation_share=0.25,
        patience=3,
    )
    losses = []
    while phase.iteration < phase.length:
        metrics = phase.advance()
        losses += [metrics["bc/validation_loss"]] if "bc/validation_loss" in metrics else []
    assert phase.length == phase.iteration < phase.planned
    assert torch.allclose(phase._validation_loss(), torch.stack(losses).amin(0), atol=1e-6)
    assert (phase._validation_loss() < losses[-1]).any()


def test_the_configured_network_is_cloned(tmp_path: Path) -> None:  # H1
    networks = PPOConfig(actor=TowerConfig(hidden_size=7, depth=3, activation="relu"))
    config = make_config("cloning", write_demonstrations(tmp_path / "d.hdf5"), "ppo", reinforcement=networks)
    parts = build(config)
    (phase,) = parts.phases
    assert isinstance(phase, CloningPhase) and phase.cloning.policy is parts.learner.policy
    assert isinstance(parts.learner, PPO)
    shapes = [tuple(layer.weight.shape[1:]) for layer in layers(parts.learner.policy.network)[:-1]]
    assert shapes == [(2, 7), (7, 7), (7, 7)]


def test_evaluation_does_not_keep_rows_from_the_statistics(tmp_path: Path) -> None:  # H15
    tower = TowerConfig(hidden_size=8, depth=1)
    networks = PPOConfig(actor=tower, critic=tower, normalise_observations=True)
    config = make_config("cloning", write_demonstrations(tmp_path / "d.hdf5"), "ppo", reinforcement=networks)
    parts = build(config)
    (phase,), learner = parts.phases, parts.learner
    assert isinstance(learner, PPO) and learner.policy.normaliser is not None
    evaluator = Evaluator(WALK, spaces_of(WALK), (0,), 2, "cpu")
    modes = {name: module.training for name, module in learner.named_modules()}
    for step in range(phase.length):
        phase.advance()
        before = parameters(learner)
        evaluator.play(lambda observations: learner.act(observations, greedy=True), str(step))
        assert {name: module.training for name, module in learner.named_modules()} == modes
        assert all(torch.equal(value, before[name]) for name, value in parameters(learner).items())
    assert learner.policy.normaliser.count.tolist() == [8.0 * phase.length]
