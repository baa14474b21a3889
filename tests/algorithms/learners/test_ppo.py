"""PPO: advantages and losses by hand, what an update may change, and stops of one run beside another."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import ImitationConfig, MemoryConfig, TrainingConfig
from algorithms.learners.ppo import (
    METRICS,
    PPO,
    PPOConfig,
    TowerConfig,
    approximate_kl,
    generalised_advantages,
    standardised,
    surrogate_loss,
)
from conf.errors import UserError
from memory.batch import FIELDS, Batch
from tests.algorithms.support import make_batch, make_context, parameters

ROWS, ENVS = 12, 2


def tower(**options: Any) -> TowerConfig:
    return TowerConfig(**{"hidden_size": 8, "depth": 1, **options})


def make_ppo(
    seeds: tuple[int, ...] = (0,),
    training: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    imitation: ImitationConfig | None = None,
    **options: Any,
) -> PPO:
    config = PPOConfig(**{"actor": tower(), "critic": tower(), "discount": 0.9, **options})
    settings = TrainingConfig(
        **{"start": 0, "interval": ROWS, "batch_size": 4, "learning_rate": 1e-2, **(training or {})}
    )
    return PPO(
        config, settings, imitation or ImitationConfig(), make_context(seeds, **{"num_envs": ENVS, **(context or {})})
    )


def rollout(ppo: PPO, seed: int = 0, **fields: Any) -> Batch:
    """Random transitions with actions of the policy, so that log-probabilities are those of what was drawn."""
    runs, size = len(ppo.context.seeds), ppo.context.action_size
    batch = make_batch(runs, ROWS, ppo.context.observation_size, size, seed=seed, **fields)
    return Batch(**{**vars(batch), "actions": ppo.act(batch.observations)})


def of_run(batch: Batch, run: int) -> Batch:
    return batch.map(lambda column: column[run : run + 1])


def column(*values: float) -> Tensor:
    return torch.tensor(values).float().view(1, -1, 1)  # one run, one environment


def test_advantages_by_hand() -> None:
    # gamma = lambda = 0.5. Step 1 terminates, step 2 meets the time limit.
    # delta_0 = 1 + 0.5 * 4 - 2 = 1; delta_1 = 1 - 4 = -3: nothing follows a termination;
    # delta_2 = 1 + 0.5 * 100 - 8 = 43: a time limit keeps the value of what would have followed;
    # delta_3 = 1 + 0.5 * 6 - 16 = -12. Sums stop at both ends: A_0 = 1 + 0.25 * -3 = 0.25.
    found = generalised_advantages(
        column(1, 1, 1, 1),
        column(2, 4, 8, 16),
        column(4, 8, 100, 6),
        column(0, 1, 0, 0),
        column(0, 0, 1, 0),
        0.5,
        0.5,
    )
    assert found.flatten().tolist() == [0.25, -3, 43, -12]


def test_advantages_of_environments_do_not_mix() -> None:
    # [runs, time, envs] with rewards in the first environment alone.
    rewards = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    zeros = torch.zeros_like(rewards)
    found = generalised_advantages(rewards, zeros, zeros, zeros, zeros, 1.0, 1.0)
    assert found[0].tolist() == [[3, 0], [2, 0], [1, 0]]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("flag", "first", "second"), [("truncated", 10.0, 10.0), ("terminated", 1.9, 1.0)])
def test_values_of_a_two_state_chain(flag: str, first: float, second: float) -> None:
    """Reward 1 a step from state 0 to state 1 and back. A time limit at state 1 changes no value (1 / (1 - 0.9));
    a termination there leaves 1 + 0.9 and 1."""
    ppo = make_ppo(max_grad_norm=10.0, gae_lambda=0.8, training={"learning_rate": 0.02})
    state = torch.eye(3)[:2].repeat_interleave(ENVS, 0).repeat(ROWS // (2 * ENVS), 1).unsqueeze(0)
    ends = torch.tensor([[0.0, 1.0]]).repeat_interleave(ENVS, 1).repeat(1, ROWS // (2 * ENVS))
    fields = {"observations": state, "next_observations": state.roll(ENVS, 1), "rewards": torch.ones(1, ROWS)}
    for seed in range(30):
        ppo.update(rollout(ppo, seed, **fields, **{flag: ends}), None)
    values = ppo.critic(torch.eye(3)[:2].unsqueeze(0))[0].tolist()
    assert values == pytest.approx([first, second], rel=0.05)


def test_surrogate_by_hand() -> None:
    # eps = 0.2. r = 1.5, A = 1: min(1.5, 1.2) = 1.2; r = 1.5, A = -1: min(-1.5, -1.2) = -1.5;
    # r = 0.5, A = 1: 0.5; r = 0.5, A = -1: min(-0.5, -0.8) = -0.8. Mean -0.15.
    ratios, advantages = torch.tensor([[1.5, 1.5, 0.5, 0.5]]), torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    # By log pi, -r A / 4 where the free term counts: 0, 0.375, -0.125, 0.
    loss, gradient = surrogate_loss(ratios.log(), advantages, 0.2)
    assert loss.item() == pytest.approx(0.15)
    assert gradient[0].tolist() == pytest.approx([0, 0.375, -0.125, 0])


def test_divergence_by_hand() -> None:
    # r = 2: 1 - log 2 = 0.306853; r = 1: 0.
    assert approximate_kl(torch.tensor([[math.log(2), 0.0]]))[0].tolist() == pytest.approx([0.306853, 0], abs=1e-6)


def test_advantages_are_standardised_in_each_run() -> None:
    # Mean 2, deviation sqrt((1 + 0 + 1) / 2) = 1; the second run is ten times the first.
    found = standardised(torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]))
    assert found.flatten().tolist() == pytest.approx([-1, 0, 1, -1, 0, 1], abs=1e-6)
    assert standardised(torch.tensor([[5.0]])).tolist() == [[5.0]]


def test_the_losses_by_hand() -> None:
    """For one row with ratio 1 and a critic that says 0."""
    ppo = make_ppo(normalise_advantages=False)
    with torch.no_grad():
        for network in (ppo.policy.network, ppo.critic.network):
            network.final.weight.zero_()
    # Features 3, actions (1, -1); log N = -0.5 * 2 - log(2 pi) = -2.837877; advantage 2, return 3.
    row = torch.tensor([[[0.3, 0.2, 0.1, 1.0, -1.0, -1 - math.log(2 * math.pi), 2.0, 3.0]]])
    gradients, values = ppo._gradients(row, 0.2)
    metrics = dict(zip(METRICS, values[:, 0].tolist(), strict=True))
    # Actor -2; critic (0 - 3)^2 = 9; entropy of two standard Gaussians 1 + log(2 pi) = 2.837877.
    assert metrics["actor/loss"] == pytest.approx(-2)
    assert metrics["critic/loss"] == pytest.approx(9)
    assert metrics["actor/entropy"] == pytest.approx(2.837877)
    # By the last bias of the mean: -A z = (-2, 2); of the value: 0.5 * 2 * (0 - 3) = -3.
    assert gradients[-1].item() == pytest.approx(-3)
    assert gradients[4].flatten().tolist() == pytest.approx([-2, 2])


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("discrete", [False, True])
def test_gradients_are_those_of_the_loss(activation: str, discrete: bool) -> None:
    """Written out, against automatic differentiation of L = actor + c_v critic - c_e entropy."""
    networks = {name: tower(activation=activation, depth=2) for name in ("actor", "critic")}
    options: dict[str, Any] = {"value_coefficient": 0.7, "entropy_coefficient": 0.3, "clip_range": 0.05, **networks}
    ppo = make_ppo((0, 1), context={"discrete": discrete}, **options)
    batch = rollout(ppo)
    rows, _ = ppo._prepare(batch)
    with torch.no_grad():  # another policy than the one that acted: some ratios are clipped
        for parameter in ppo.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    gradients, found = ppo._gradients(rows, 0.05)
    assert 0 < found[METRICS.index("actor/clipped_share"), 0] < 1
    features, actions, scalars = rows.split((3, 2, 3), -1)
    log_probs, entropies = ppo.policy.evaluate(ppo.policy.network(features), actions)
    ratios, advantages = (log_probs - scalars[..., 0]).exp(), standardised(scalars[..., 1])
    actor = -torch.minimum(ratios * advantages, ratios.clamp(0.95, 1.05) * advantages).mean(-1)
    critic = (ppo.critic(features) - scalars[..., 2]).square().mean(-1)
    loss = actor + 0.7 * critic - 0.3 * entropies.mean(-1)
    expected = torch.autograd.grad(loss.sum(), list(ppo.parameters()))
    for mine, its in zip(gradients, expected, strict=True):
        assert mine.shape == its.shape
        assert torch.allclose(mine, its, atol=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
def test_first_ratios_are_one(normalise: bool) -> None:
    """Statistics of features may not move between acting and the last use of the policy that acted."""
    ppo = make_ppo(epochs=1, normalise_observations=normalise, training={"batch_size": ROWS})
    for seed in range(3):
        metrics = ppo.update(rollout(ppo, seed), None)
        assert metrics["actor/approximate_kl"].abs().item() < 1e-6
        assert metrics["actor/clipped_share"].item() == 0
    assert (ppo.policy.normaliser is not None) == normalise
    if ppo.policy.normaliser is not None:
        assert ppo.policy.normaliser.count.tolist() == [3 * ROWS]


def test_acting_and_evaluating_change_no_statistics() -> None:
    ppo = make_ppo(normalise_observations=True)
    batch = rollout(ppo)
    ppo.update(batch, None)
    before = copy.deepcopy(ppo.policy.state_dict())
    ppo.act(batch.observations)
    ppo.act(batch.observations, greedy=True)
    ppo.policy.log_prob(batch.observations, batch.actions)
    assert all(torch.equal(value, before[name]) for name, value in ppo.policy.state_dict().items())


def test_schedules_go_by_the_beginning_of_a_rollout() -> None:
    ppo = make_ppo(training={"learning_rate_schedule": "linear"})
    before = parameters(ppo)
    ppo.update(rollout(ppo), None, progress=1.0)  # began at 0
    moved = parameters(ppo)
    assert not torch.equal(moved["critic.network.final.weight"], before["critic.network.final.weight"])
    ppo.update(rollout(ppo, 1), None, progress=1.0)
    assert all(torch.equal(value, moved[name]) for name, value in parameters(ppo).items())


def test_the_clip_range_may_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = make_ppo(clip_range=0.4, clip_range_schedule="linear", epochs=1)
    seen, gradients = [], ppo._gradients

    def noted(rows: Tensor, clip_range: float) -> Any:
        seen.append(clip_range)
        return gradients(rows, clip_range)

    monkeypatch.setattr(ppo, "_gradients", noted)
    for progress in (0.25, 0.5, 1.0):
        ppo.update(rollout(ppo), None, progress)
    assert seen == pytest.approx([0.4] * 3 + [0.3] * 3 + [0.2] * 3)


def test_a_rollout_of_one_row() -> None:
    ppo = make_ppo(training={"interval": 1, "batch_size": 2}, context={"num_envs": 1})
    metrics = ppo.update(make_batch(1, 1, rewards=[[1.0]]), None)
    assert all(value.isfinite().all() for value in metrics.values())


def test_every_row_is_used_once_an_epoch() -> None:
    ppo = make_ppo(training={"batch_size": 5}, epochs=3)
    rows = torch.arange(ROWS * 8.0).view(1, ROWS, 8)
    pieces = [piece for piece, _ in ppo._minibatches(rows)]
    assert [piece.shape[1] for piece in pieces] == [5, 5, 2] * 3
    epochs = [torch.cat(pieces[start : start + 3], 1)[0] for start in (0, 3, 6)]
    for epoch in epochs:
        assert torch.equal(epoch[epoch[:, 0].argsort()], rows[0])
    assert not torch.equal(epochs[0], epochs[1])


def test_a_run_that_stops_early_is_the_same_alone() -> None:
    """Adam's moments and count of steps must stand still with the run, and random numbers be drawn as if it went on."""
    options: dict[str, Any] = {"target_kl": 0.003, "epochs": 6}
    together = make_ppo((0, 1), **options)
    alone = [make_ppo((seed,), **options) for seed in (0, 1)]
    taken = []
    for seed in range(4):
        batch = rollout(together, seed)
        metrics = together.update(batch, None)
        taken.append(tuple(metrics["actor/minibatches"].tolist()))
        for run, ppo in enumerate(alone):
            ppo.act(of_run(batch, run).observations)  # the same random numbers have gone
            found = ppo.update(of_run(batch, run), None)
            assert found.keys() == metrics.keys()
            for name, value in found.items():
                assert torch.allclose(value[0], metrics[name][run], atol=1e-5, rtol=1e-4), name
    assert any(first < second for first, second in taken) and any(first > second for first, second in taken), taken
    for run, ppo in enumerate(alone):
        for name, value in parameters(ppo).items():
            assert torch.allclose(value[0], parameters(together)[name][run], atol=1e-5), name


def test_an_update_does_not_change_its_batch() -> None:
    ppo = make_ppo(normalise_observations=True)
    batch = rollout(ppo)
    before = copy.deepcopy(batch)
    ppo.update(batch, None)
    assert all(torch.equal(getattr(batch, name), getattr(before, name)) for name in FIELDS)


def test_the_cloning_term_moves_the_policy() -> None:
    ends = []
    for weight in (0.0, 10.0):
        ppo = make_ppo(imitation=ImitationConfig(bc_aux_loss=True, bc_aux_weight=weight), epochs=20)
        batch = rollout(ppo, rewards=torch.zeros(1, ROWS))
        expert = make_batch(size=ROWS, seed=9, actions=torch.full((1, ROWS, 2), 0.8))
        metrics = ppo.update(batch, expert)
        assert metrics["actor/cloning_loss"].isfinite().all()
        ends.append((ppo.policy.greedy(expert.observations) - 0.8).abs().mean().item())
    assert ends[1] < ends[0] - 0.1


def test_metrics_have_their_names() -> None:
    """Of one minibatch, in which the policy is still the one that acted."""
    imitation = ImitationConfig(bc_aux_loss=True, bc_aux_weight=0.5)
    options: dict[str, Any] = {"epochs": 1, "normalise_advantages": False, "training": {"batch_size": ROWS}}
    ppo, twin = (make_ppo(imitation=imitation, **options) for _ in range(2))
    batch, expert = rollout(ppo), make_batch(size=ROWS, seed=9)
    rows, _ = twin._prepare(batch)
    gradients, found = twin._gradients(rows, 0.2)
    cloning = twin._add_cloning(gradients, expert)
    metrics = ppo.update(batch, expert)
    expected = {name: values.item() for name, values in zip(METRICS, found, strict=True)}
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    expected |= {"actor/cloning_loss": cloning.item(), "actor/gradient_norm": norm, "actor/minibatches": 1.0}
    assert {name: metrics[name].item() for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert len({round(value, 4) for value in expected.values()}) >= len(expected) - 1  # KL and clipped share are both 0


@pytest.mark.usefixtures("unchecked_shapes")
def test_discrete_actions() -> None:
    training = {"learning_rate": 0.02, "batch_size": 16}
    ppo = make_ppo(context={"discrete": True, "action": 3}, training=training, entropy_coefficient=0.001)
    for seed in range(40):  # the second action pays; ten seeds knew it after half of them
        batch = rollout(ppo, seed)
        assert set(batch.actions.unique().tolist()) <= {0.0, 1.0} and (batch.actions.sum(-1) == 1).all()
        metrics = ppo.update(batch.with_rewards(batch.actions[..., 1]), None)
    assert (ppo.act(batch.observations, greedy=True).argmax(-1) == 1).all()
    assert metrics["actor/entropy"].item() < 0.5 * math.log(3)


@pytest.mark.parametrize(
    ("training", "options", "message"),
    [
        ({"interval": 2047}, {}, r"training\.interval=2047 is not a multiple of env\.num_envs=8"),
        ({"start": 1000}, {}, r"training\.start=1000 is not allowed with learner=ppo"),
        ({}, {"critic": tower(dropout=0.1)}, r"reinforcement\.critic\.dropout is not for learner=ppo"),
        ({}, {"actor": tower(layer_norm=True)}, r"reinforcement\.actor\.layer_norm is not for learner=ppo"),
    ],
)
def test_what_does_not_fit_is_refused(training: dict[str, Any], options: dict[str, Any], message: str) -> None:
    settings = TrainingConfig(**{"start": 0, "interval": 2048, **training})
    with pytest.raises(UserError, match=message):
        PPO.check(PPOConfig(**options), settings, 8)


def test_the_memory_has_the_length_of_a_rollout() -> None:
    memory = make_ppo().make_memory(MemoryConfig(), 100, 0)
    assert memory.length == ROWS // ENVS
