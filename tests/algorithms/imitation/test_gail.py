"""GAIL: the gradient penalty by hand, what the module makes of its losses, and every option for a few updates."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.imitation.adversarial import airl_reward, bce_loss, fairl_reward, gail_reward, pugail_loss
from algorithms.imitation.gail import GAIL, GAILConfig, _comparison, learners_own
from memory.batch import Batch
from models.actors import SquashedGaussianActor
from models.discriminators import DiscriminatorConfig, DiscriminatorStep
from models.streams import Streams
from tests.algorithms.support import layers, make_batch, make_context, parameters, small_network

LOG3, LN2 = math.log(3.0), math.log(2.0)
ONE = torch.ones(1, 1)


def logit(*values: float) -> Tensor:
    return torch.tensor([values])


def make_gail(seeds: tuple[int, ...] = (0,), model: dict[str, Any] | None = None, **options: Any) -> GAIL:
    network = DiscriminatorConfig(**{"hidden_size": 8, "depth": 1, **(model or {})})
    return GAIL(GAILConfig(model=network, **{"learning_rate": 1e-2, **options}), make_context(seeds))


def make_policy(runs: int = 1, **options: Any) -> SquashedGaussianActor:
    return SquashedGaussianActor(3, 2, small_network(**options), Streams(range(runs), "policy"))


def linear(gail: GAIL) -> Tensor:
    """Make the discriminator linear where it is evaluated, and return its gradient [input]."""
    first, last = layers(gail.discriminator.network)
    with torch.no_grad():
        first.bias.fill_(100.0)  # every unit is active
        first.weight.copy_(torch.randn_like(first.weight))
    product: Tensor = (first.weight @ last.weight)[0, :, 0]
    return product.detach()


@pytest.mark.parametrize("state_only", [False, True])
def test_gradient_penalty_of_a_linear_discriminator(state_only: bool) -> None:  # K5
    gail = make_gail(spectral_norm=False, state_only=state_only)
    slope = linear(gail)
    assert len(slope) == (3 if state_only else 5)
    batch = make_batch(size=2, weights=[[1.0, 0.5]])
    # The gradient is the slope everywhere: (1 + 0.5) / 2 |slope|^2, zero-centred and without a root.
    step = DiscriminatorStep(gail.discriminator)
    penalty = step.penalise(batch, 2.0)  # it is given without that weight, its gradients with it
    assert penalty.item() == pytest.approx(0.75 * slope.square().sum().item(), rel=1e-4)
    step.assign()
    first, last = layers(gail.discriminator.network)
    assert last.weight.grad is not None  # it can be trained away
    # 2 * 0.75 |W v|^2 grows by 2 * 0.75 * 2 W' W v.
    expected = 3 * first.weight.mT @ first.weight @ last.weight
    assert torch.allclose(last.weight.grad, expected, rtol=1e-4)
    assert batch.observations.grad is None and not batch.observations.requires_grad


def test_gradient_penalty_runs_stay_apart() -> None:
    gail = make_gail((0, 1), spectral_norm=False)
    step = DiscriminatorStep(gail.discriminator)
    assert step.penalise(make_batch(2, weights=torch.eye(2)[0].unsqueeze(1).expand(2, 6)), 1.0)[1] == 0
    step.assign()
    for parameter in gail.discriminator.parameters():
        assert parameter.grad is None or parameter.grad[1].abs().sum() == 0
    assert all(layer.weight.grad is not None for layer in layers(gail.discriminator.network))


def test_gradient_penalty_enters_the_loss_with_its_weight() -> None:
    batch, expert, policy = make_batch(), make_batch(seed=1), make_policy()
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        metrics = make_gail(grad_penalty=weight).update(batch, expert, policy)
        assert ("discriminator/grad_penalty" in metrics) == (weight > 0)
        # `discriminator/loss` is the whole of it.
        losses[weight] = (
            metrics["discriminator/loss"] - weight * metrics.get("discriminator/grad_penalty", 0.0)
        ).item()
    assert losses[1.0] == pytest.approx(losses[3.0], abs=1e-5)
    assert losses[0.0] == pytest.approx(losses[1.0], abs=1e-5)


@pytest.mark.parametrize("loss_function", ["BCE", "Mixup"])
def test_entropy_bonus_lowers_the_loss(loss_function: str) -> None:
    batch, expert, policy = make_batch(), make_batch(seed=1), make_policy()
    plain, bonus = (
        make_gail(entropy_bonus=c, loss_function=loss_function, grad_penalty=0.0).update(batch, expert, policy)
        for c in (0.0, 0.5)
    )
    terms = 2 if loss_function == "BCE" else 1  # the entropies of expert and learner rows, or of mixed rows
    saved = (plain["discriminator/loss"] - bonus["discriminator/loss"]).item()
    assert 0.5 * terms * 0.3 < saved <= 0.5 * terms * LN2 + 1e-6


def test_losses_of_the_module_are_those_functions() -> None:
    batch, expert, policy = make_batch(), make_batch(seed=1, weights=torch.full((1, 6), 0.5)), make_policy()
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "BCE": lambda e, b: bce_loss(e, b, expert.weights, batch.weights),
        "PUGAIL": lambda e, b: pugail_loss(e, b, expert.weights, batch.weights, 0.4, 0.1),
    }
    for loss_function, expected in losses.items():
        options: dict[str, Any] = {"loss_function": loss_function, "pos_class_prior": 0.4, "nonnegative_margin": 0.1}
        gail = make_gail(spectral_norm=False, grad_penalty=0.0, **options)
        with torch.no_grad():
            value = expected(gail.discriminator(expert, None), gail.discriminator(batch, None))
        assert torch.allclose(gail.update(batch, expert, policy)["discriminator/loss"], value, atol=1e-6)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches of which logits and penalties are taken, in this order."""
    seen: list[Batch] = []
    for name in ("logits", "penalise"):
        method = getattr(DiscriminatorStep, name)

        def note(step: DiscriminatorStep, batch: Batch, other: Any, method: Any = method) -> Any:
            seen.append(batch)
            return method(step, batch, other)

        monkeypatch.setattr(DiscriminatorStep, name, note)
    return seen


def test_mixup_draws_its_shares_from_beta(monkeypatch: pytest.MonkeyPatch) -> None:
    gail, seen = make_gail(loss_function="Mixup", mixup_alpha=0.01, grad_penalty=0.0), spied(monkeypatch)
    gail.update(
        make_batch(size=400, weights=torch.zeros(1, 400)), make_batch(size=400), make_policy()
    )  # weights of mixed rows are the shares
    assert ((seen[0].weights < 0.01) | (seen[0].weights > 0.99)).float().mean() > 0.85


def test_penalty_is_taken_between_the_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    gail, seen = make_gail(), spied(monkeypatch)
    zeros, ones = make_batch().map(torch.zeros_like), make_batch().map(torch.ones_like)
    gail.update(zeros, ones, make_policy())
    classified, between = seen
    assert classified.weights[0].tolist() == [1.0] * 6 + [0.0] * 6  # the expert's rows, then the learner's
    share = between.weights
    assert share.min() > 0 and share.max() < 1 and share.unique().numel() == 6
    assert torch.equal(between.actions, share.unsqueeze(-1).expand(-1, -1, 2))


@pytest.mark.parametrize("option", ["dropout", "input_dropout"])
def test_dropout_is_applied_in_updates_and_not_in_rewards(option: str) -> None:  # K2
    gail = make_gail(model={option: 0.5, "hidden_size": 32}, spectral_norm=False)
    batch, expert, policy = make_batch(), make_batch(seed=1), make_policy()
    first = gail.relabel(batch, expert, policy).rewards
    assert torch.equal(first, gail.relabel(batch, expert, policy).rewards)
    losses = set()
    for _ in range(3):  # the same parameters, other masks
        gail.discriminator.train()
        losses.add(gail._classify(DiscriminatorStep(gail.discriminator), batch, expert, policy)[0].item())
    assert len(losses) == 3
    gail.update(batch, expert, policy)
    assert gail.discriminator.training
    without = make_gail(model={"hidden_size": 32}, spectral_norm=False).relabel(batch, expert, policy).rewards
    assert torch.equal(first, without)  # and evaluation needs no rescaling


def test_rewards_are_the_function_of_the_logit() -> None:  # H5
    batch, policy = make_batch(), make_policy()
    for name, function in (("GAIL", gail_reward), ("AIRL", airl_reward), ("FAIRL", fairl_reward)):
        gail = make_gail(model={"reward_function": name})
        gail.discriminator.eval()
        expected = function(gail.discriminator(batch, None).detach())
        assert torch.equal(gail.relabel(batch, make_batch(seed=1), policy).rewards, expected)


def test_log_policy_is_subtracted_but_not_in_the_absorbing_state() -> None:
    policy = make_policy()
    batch = make_batch(size=2, absorbing=[[0.0, 1.0]])
    plain, less = make_gail(), make_gail(model={"subtract_log_policy": True})
    log_probs = policy.log_prob(batch.observations, batch.actions).detach()
    difference = plain.relabel(batch, batch, policy).rewards - less.relabel(batch, batch, policy).rewards
    assert torch.allclose(difference, log_probs * torch.tensor([[1.0, 0.0]]), atol=1e-3)
    less.update(batch, make_batch(size=2, seed=1), policy)
    assert all(p.grad is None for p in policy.parameters())  # the discriminator does not train the policy


def test_log_policy_leaves_the_policy_s_dropout_alone() -> None:
    policy = make_policy(dropout=0.5)
    state = policy.network.streams.state_dict()["generators"][0]
    gail = make_gail(model={"subtract_log_policy": True})
    batch = make_batch()
    rewards = [gail.relabel(batch, batch, policy).rewards for _ in range(2)]
    assert torch.equal(rewards[0], rewards[1])
    assert torch.equal(policy.network.streams.state_dict()["generators"][0], state)
    assert policy.training


OPTIONS: dict[str, list[Any]] = {
    "loss_function": ["BCE", "Mixup", "PUGAIL"],
    "reward_function": ["AIRL", "FAIRL", "GAIL"],
    "state_only": [False, True],
    "reward_shaping": [False, True],
    "subtract_log_policy": [False, True],
    "spectral_norm": [True, False],
    "grad_penalty": [1.0, 0.0],
    "entropy_bonus": [0.0, 0.1],
    "dropout": [0.0, 0.5],
    "input_dropout": [0.0, 0.5],
    "activation": ["relu", "tanh"],
    "layer_norm": [False, True],
}
MODEL = (
    "reward_function",
    "reward_shaping",
    "subtract_log_policy",
    "dropout",
    "input_dropout",
    "activation",
    "layer_norm",
)
DEFAULT = {name: values[0] for name, values in OPTIONS.items()}
ALONE = [DEFAULT | {name: value} for name, values in OPTIONS.items() for value in values[1:]]
TOGETHER = [
    DEFAULT | dict(zip(list(OPTIONS)[:5], values, strict=True))
    for values in itertools.product(*list(OPTIONS.values())[:5])
]
EVERYTHING = {name: values[-1] for name, values in OPTIONS.items()}


@pytest.mark.parametrize("options", [*ALONE, *TOGETHER, EVERYTHING], ids=lambda o: "-".join(map(str, o.values())))
def test_every_option_alone_and_together_stays_finite(options: dict[str, Any]) -> None:
    model = {name: value for name, value in options.items() if name in MODEL}
    gail = make_gail((0, 1), model=model, **{n: v for n, v in options.items() if n not in MODEL})
    policy = make_policy(2)
    flags: dict[str, Any] = {
        "absorbing": torch.eye(2, 6),
        "next_absorbing": torch.eye(2, 6),
        "terminated": torch.eye(2, 6).flip(1),
    }
    batch = make_batch(2, **flags).with_rewards(torch.full((2, 6), torch.nan))
    expert = make_batch(2, seed=1, actions=torch.ones(2, 6, 2), weights=torch.full((2, 6), 0.5))
    before = parameters(gail)
    for _ in range(2):
        metrics = gail.update(batch, expert, policy)
    assert all(value.isfinite().all() and value.shape == (2,) for value in metrics.values())
    assert gail.relabel(batch, expert, policy).rewards.isfinite().all()
    assert all(value.isfinite().all() for value in parameters(gail).values())
    assert any(not torch.equal(value, before[name]) for name, value in parameters(gail).items())


def test_warns_of_a_saturated_discriminator() -> None:
    gail = make_gail()
    metrics = {
        "diagnosis/expert_accuracy": torch.tensor([1.0, 1.0]),
        "diagnosis/learner_accuracy": torch.tensor([1.0, 1.0]),
        "diagnosis/logit_gap": torch.tensor([9.0, 2.0]),
    }
    warning = gail.warning(metrics)
    assert warning is not None and "logit gap 9.0" in warning and "imitation.grad_penalty" in warning
    assert gail.warning(metrics | {"diagnosis/logit_gap": torch.tensor([7.9, 2.0])}) is None
    assert gail.warning(metrics | {"diagnosis/learner_accuracy": torch.tensor([0.9, 1.0])}) is None
    assert make_gail(model={"subtract_log_policy": True}).warning(metrics) is None


def test_logit_metrics_by_hand() -> None:
    logits = (logit(LOG3, -LOG3), logit(-LOG3, -LOG3))
    found = _comparison("x", logits, [airl_reward(values) for values in logits])
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {
            "x/expert_accuracy": 0.5,
            "x/learner_accuracy": 1.0,
            "x/logit_gap": LOG3,
            "x/expert_reward": 0.0,
            "x/learner_reward": -LOG3,
        },
        abs=1e-5,
    )


def test_saved_state_continues_exactly() -> None:
    options: dict[str, Any] = {"model": {"dropout": 0.5}, "loss_function": "Mixup"}
    first, second = make_gail((0, 1), **options), make_gail((5, 6), **options)
    batch, expert, policy = make_batch(2), make_batch(2, seed=1), make_policy(2)
    first.update(batch, expert, policy)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # as through a file: no shared tensors
    for gail in (first, second):
        gail.update(batch, expert, policy)
    for name, value in parameters(first).items():
        assert torch.equal(value, parameters(second)[name]), name


def test_demonstrations_in_the_memory_are_not_the_learners() -> None:
    """Rows 1 and 3 of the first run were pre-filled, all of the second and none of the third."""
    batch = make_batch(runs=3, size=4, collected_at=[[5.0, -1.0, 7.0, -1.0], [-1.0] * 4, [0.0, 1.0, 2.0, 3.0]])
    own = learners_own(batch)
    for index, rows in enumerate(([0, 2, 0, 2], [0, 1, 2, 3], [0, 1, 2, 3])):
        assert torch.equal(own.observations[index], batch.observations[index, rows])
        assert torch.equal(own.collected_at[index], batch.collected_at[index, rows])


@pytest.mark.parametrize("loss_function", ["BCE", "Mixup", "PUGAIL"])
def test_nothing_is_learned_from_demonstrations_labelled_as_the_learners(loss_function: str) -> None:
    prefilled = make_batch(size=6, collected_at=[[3.0, -1.0, 4.0, -1.0, -1.0, 9.0]])
    others = prefilled.observations.clone()
    others[:, [1, 3, 4]] += 10
    learned = []
    for batch in (prefilled, dataclasses.replace(prefilled, observations=others)):
        gail = make_gail(loss_function=loss_function, mix_expert_data="prefill_memory", grad_penalty=1.0)
        metrics = gail.update(batch, make_batch(size=6, seed=1), make_policy())
        learned.append((parameters(gail.discriminator), metrics))
    for first, second in zip(*learned, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_options_reach_the_optimiser_and_the_network() -> None:
    assert (GAILConfig().weight_decay, GAILConfig().learning_rate, GAILConfig().nonnegative_margin) == (10, 3e-5, 0)
    gail = make_gail(learning_rate=0.25, weight_decay=3.0)
    (group,) = gail.optimiser.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 3.0)
    assert {id(p) for p in group["params"]} == {id(p) for p in gail.discriminator.parameters()}
    for option in (False, True):
        network = make_gail(spectral_norm=option).discriminator.network
        assert [layer.spectral_norm for layer in layers(network)] == [option] * 2


def test_the_margin_of_positive_unlabelled_learning(monkeypatch: pytest.MonkeyPatch) -> None:  # K1
    """Its sides, the class prior and the margin are the configuration's."""
    seen = []

    def observed(*arguments: Any) -> Tensor:
        seen.append(arguments[4:])
        return pugail_loss(*arguments)

    monkeypatch.setattr("algorithms.imitation.gail.pugail_loss", observed)
    gail = make_gail(loss_function="PUGAIL", pos_class_prior=0.25, nonnegative_margin=0.125)
    gail.update(make_batch(), make_batch(seed=1), make_policy())
    assert seen == [(0.25, 0.125)]
