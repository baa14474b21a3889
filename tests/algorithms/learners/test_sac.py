"""SAC: every loss by hand, absorbing states, what each update may change, and learning where the answer is known."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import ImitationConfig, MemoryConfig, TrainingConfig
from algorithms.learners.sac import SAC, SACConfig, actor_loss, critic_loss, critic_target, temperature_loss
from memory.batch import Batch
from tests.algorithms.support import make_batch, make_context, parameters, small_network


def make_sac(
    seeds: tuple[int, ...] = (0,),
    imitation: ImitationConfig | None = None,
    training: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    **options: Any,
) -> SAC:
    config = SACConfig(
        **{"actor": small_network(**(network or {})), "critic": small_network(**(network or {})), **options}
    )
    training_config = TrainingConfig(**{"batch_size": 6, "learning_rate": 1e-2, **(training or {})})
    return SAC(config, training_config, imitation or ImitationConfig(), make_context(seeds, **(context or {})))


def test_critic_target_by_hand() -> None:
    batch = make_batch(
        size=4,
        rewards=[[1.0, 1.0, 1.0, 1.0]],
        terminated=[[0.0, 1.0, 0.0, 0.0]],
        truncated=[[0.0, 0.0, 0.0, 1.0]],
        next_absorbing=[[0.0, 0.0, 1.0, 0.0]],
    )
    values, log_probs = torch.full((1, 4), 10.0), torch.full((1, 4), -2.0)
    # 1 + 0.9 (10 + 0.5 * 2) = 10.9; nothing after a termination; no entropy towards the absorbing state:
    # 1 + 0.9 * 10 = 10; a time limit bootstraps as any other step.
    target = critic_target(batch, values, log_probs, torch.tensor([[0.5]]), 0.9)
    assert target[0].tolist() == pytest.approx([10.9, 1.0, 10.0, 10.9])


def test_critic_loss_by_hand() -> None:
    values = torch.tensor([[[1.0, 3.0]], [[0.0, 2.0]]])
    # Twin 1: (1 * (1 - 2)^2 + 0.5 * (3 - 1)^2) / 2 = 1.5; twin 2: (1 * 4 + 0.5 * 1) / 2 = 2.25.
    loss = critic_loss(values, torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 0.5]]))
    assert loss.tolist() == [3.75]


def test_actor_loss_by_hand() -> None:
    # (1 * (0.5 * -1 - 3) + 0 * (...)) / 2 = -1.75: a weight of zero silences both terms.
    loss = actor_loss(
        torch.tensor([[3.0, 100.0]]), torch.tensor([[-1.0, 50.0]]), torch.tensor([[0.5]]), torch.tensor([[1.0, 0.0]])
    )
    assert loss.tolist() == [-1.75]


def test_temperature_loss_by_hand() -> None:
    # alpha = 2: -(1 * 2 * (-1 - 3) + 0.5 * 2 * (5 - 3)) / 2 = -(-8 + 2) / 2 = 3.
    log_temperature = torch.tensor([math.log(2.0)])
    loss = temperature_loss(log_temperature, torch.tensor([[-1.0, 5.0]]), -3.0, torch.tensor([[1.0, 0.5]]))
    assert loss.item() == pytest.approx(3.0)


def test_temperature_starts_where_it_is_told() -> None:
    temperature = make_sac((0, 1), initial_temperature=0.05).log_temperature.exp()
    assert temperature.tolist() == pytest.approx([0.05, 0.05])
    assert make_sac().log_temperature.item() == 0  # alpha 1, as published


@pytest.mark.parametrize(("log_prob", "direction"), [(-5.0, -1), (5.0, 1)])
def test_temperature_falls_when_entropy_is_above_its_target(log_prob: float, direction: int) -> None:
    log_temperature = torch.zeros(1, requires_grad=True)
    temperature_loss(log_temperature, torch.full((1, 4), log_prob), -2.0, torch.ones(1, 4)).sum().backward()
    assert log_temperature.grad is not None
    assert -log_temperature.grad.sign().item() == direction  # entropy 5 > target -2: less reward for it


def test_entropy_target_is_per_action_dimension() -> None:
    assert make_sac(target_temperature=-0.5, context={"action": 3}).entropy_target == -1.5


def test_polyak_factor_is_the_fraction_kept() -> None:
    sac = make_sac(polyak_factor=0.75)
    before = parameters(sac.target_critic)
    assert before.keys() == parameters(sac.critic).keys()
    sac.update(make_batch(), None)
    critic, target = parameters(sac.critic), parameters(sac.target_critic)
    for name, old in before.items():
        assert torch.allclose(target[name], 0.75 * old + 0.25 * critic[name], atol=1e-7), name
    assert any(not torch.equal(target[name], before[name]) for name in before)


def test_target_critic_starts_as_a_copy_and_gets_no_gradient() -> None:
    sac = make_sac((0, 1))
    for first, second in zip(sac.critic.parameters(), sac.target_critic.parameters(), strict=True):
        assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()
    sac.update(make_batch(2), None)
    assert all(p.grad is None for p in sac.target_critic.parameters())


def test_every_trained_part_moves_and_the_critic_does_not_learn_from_the_actor_s_loss() -> None:
    sac = make_sac()
    own: list[Tensor] = []
    sac.critic_optimiser.register_step_pre_hook(
        lambda optimiser, *_: own.extend(p.grad.clone() for p in sac.critic.parameters() if p.grad is not None)
    )
    before = parameters(sac)
    metrics = sac.update(make_batch(), None)
    moved = {name.split(".")[0] for name, value in parameters(sac).items() if not torch.equal(value, before[name])}
    assert moved == {"policy", "critic", "target_critic", "log_temperature"}
    for parameter, gradient in zip(sac.critic.parameters(), own, strict=True):
        assert parameter.grad is not None and torch.equal(parameter.grad, gradient)
    assert all(p.requires_grad for p in sac.critic.parameters())
    assert all(value.shape == (1,) and not value.requires_grad for value in metrics.values())


def policy_gradient(sac: SAC, batch: Batch, expert_batch: Batch | None = None) -> Tensor:
    """The gradient of the policy's loss in one update, with the critic held still."""
    sac.critic_optimiser.param_groups[0]["lr"] = 0.0
    metrics = sac.update(batch, expert_batch)
    assert ("actor/cloning_loss" in metrics) == (expert_batch is not None)
    return torch.cat([p.grad.flatten() for p in sac.policy.parameters() if p.grad is not None])


def recorded(sac: SAC) -> dict[str, list[Any]]:
    """Inputs of the target critic and outputs of both critics, as they are called."""
    seen: dict[str, list[Any]] = {"next_actions": [], "next_values": [], "values": []}

    def target(module: object, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        seen["next_actions"].append(inputs[1].clone())
        seen["next_values"].append(output.clone())

    sac.target_critic.register_forward_hook(target)
    sac.critic.register_forward_hook(lambda module, inputs, output: seen["values"].append(output.detach().clone()))
    return seen


def test_successors_in_the_absorbing_state_take_the_zero_action_and_carry_no_entropy() -> None:  # K4
    sac = make_sac()
    # The last real step (only s' absorbing), the self-loop (both), and an ordinary row.
    batch = make_batch(size=3, absorbing=[[0.0, 1.0, 0.0]], next_absorbing=[[1.0, 1.0, 0.0]], weights=[[1.0, 1.0, 0.0]])
    seen = recorded(sac)
    metrics = sac.update(batch, None)
    actions = seen["next_actions"][0][0]
    assert actions[:2].abs().sum() == 0 and (actions[2] != 0).all()
    # Without entropy the target of the first two rows is r + 0.9 min Q; the third has no weight here.
    target = batch.rewards + 0.99 * seen["next_values"][0].amin(0)
    expected = ((seen["values"][0] - target).square()[..., :2].sum(-1) / 3).sum(0)
    assert torch.allclose(metrics["critic/loss"], expected, rtol=1e-5)


def test_a_non_absorbing_state_keeps_its_entropy() -> None:
    sac = make_sac()
    batch = make_batch(size=1)
    seen = recorded(sac)
    loss = sac.update(batch, None)["critic/loss"]
    without = (seen["values"][0] - batch.rewards - 0.99 * seen["next_values"][0].amin(0)).square().mean(-1).sum(0)
    assert not torch.allclose(loss, without, rtol=1e-3)


@pytest.mark.parametrize("silent", ["absorbing", "weights"])
def test_rows_where_no_action_matters_teach_the_actor_and_the_temperature_nothing(silent: str) -> None:  # K3
    sac = make_sac()
    fields: dict[str, Any] = (
        {"absorbing": torch.ones(1, 6)} if silent == "absorbing" else {"weights": torch.zeros(1, 6)}
    )
    before = parameters(sac)
    sac.update(make_batch(**fields), None)
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in sac.policy.parameters())
    assert sac.log_temperature.grad is not None and sac.log_temperature.grad.item() == 0
    after = parameters(sac)
    for name in before:
        if name.startswith(("policy", "log_temperature")):
            assert torch.equal(before[name], after[name]), name
    moved = not all(torch.equal(before[n], after[n]) for n in before if n.startswith("critic"))
    assert moved == (silent == "absorbing")  # the value of the absorbing state has to be learned


def test_weights_scale_the_actor_s_whole_loss() -> None:  # K3
    full, quarter = (policy_gradient(make_sac(), make_batch(weights=torch.full((1, 6), w))) for w in (1.0, 0.25))
    assert torch.allclose(0.25 * full, quarter, atol=1e-7)


def test_actor_and_temperature_follow_their_own_losses_alone() -> None:
    batch = make_batch()
    other = make_sac()
    other._noise(batch.observations)  # the critic's target has drawn the first noise
    actions, log_probs = other.policy.sample(batch.observations, other._noise(batch.observations))
    # The temperature begins at 1: mean(log pi - min Q), without anything of the temperature's loss.
    (log_probs - other.critic(batch.observations, actions).amin(0)).mean().backward()
    expected = torch.cat([p.grad.flatten() for p in other.policy.parameters() if p.grad is not None])
    sac = make_sac()
    assert torch.allclose(policy_gradient(sac, batch), expected, atol=1e-6)
    # d/dlog alpha of -alpha mean(log pi + target) at alpha = 1; the target is -1 for each of two dimensions.
    assert sac.log_temperature.grad is not None
    assert sac.log_temperature.grad.item() == pytest.approx(-(log_probs.mean().item() - 2), abs=1e-5)


def test_a_missing_reward_is_loud() -> None:
    metrics = make_sac().update(make_batch(rewards=torch.full((1, 6), torch.nan)), None)
    assert metrics["critic/loss"].isnan().all()


@pytest.mark.parametrize("loss_function", ["log_likelihood", "squared_error"])
def test_auxiliary_cloning_enters_the_actor_s_loss_with_its_weight(loss_function: str) -> None:
    def gradient(weight: float | None) -> Tensor:
        options = ImitationConfig(bc_aux_loss_function=loss_function, bc_aux_weight=weight or 0.0)
        return policy_gradient(
            make_sac(imitation=options), make_batch(), None if weight is None else make_batch(seed=1)
        )

    plain, once, twice = gradient(None), gradient(1.0), gradient(2.0)
    assert torch.allclose(plain, gradient(0.0), atol=1e-7)
    assert torch.allclose(twice - plain, 2 * (once - plain), atol=1e-4)
    assert not torch.allclose(once, plain)


def test_actions_have_a_shape_and_noise_of_each_run_s_own() -> None:
    together, alone = make_sac((3, 4)), make_sac((4,))
    x = torch.randn(1, 5, 3)
    for _ in range(2):
        actions = together.act(x.expand(2, -1, -1))
        assert actions.shape == (2, 5, 2) and actions.abs().max() <= 1
        assert torch.allclose(actions[1:], alone.act(x), atol=1e-6)
    assert not torch.equal(alone.act(x), alone.act(x))


def test_greedy_actions_are_the_same_every_time_and_draw_no_random_numbers() -> None:
    sac = make_sac(network={"dropout": 0.5, "input_dropout": 0.5})
    x = torch.randn(1, 5, 3)
    state = sac.streams.state_dict()["generators"][0]
    assert torch.equal(sac.act(x, greedy=True), sac.act(x, greedy=True))
    assert torch.equal(sac.streams.state_dict()["generators"][0], state)
    assert sac.policy.training  # dropout goes on in training
    assert torch.equal(make_sac().act(x, greedy=True), make_sac().policy.greedy(x))


def test_dropout_and_layer_norm_are_applied_while_training() -> None:
    sac = make_sac(network={"dropout": 0.5, "layer_norm": True})
    x, a = torch.randn(1, 5, 3), torch.randn(1, 5, 2)
    assert not torch.equal(sac.critic(x, a), sac.critic(x, a))
    assert all(value.isfinite().all() for value in sac.update(make_batch(), None).values())


def test_the_evaluated_actor_is_the_moving_average_of_the_latest() -> None:
    sac = make_sac((0, 1), actor_averaging=0.75)
    x = torch.randn(2, 5, 3)
    assert sac.evaluation_policy is sac.policy  # until the first update, so that cloning before it is not lost
    sac.update(make_batch(2), None)
    average = parameters(sac.policy)  # it begins as a copy
    for seed in range(1, 4):
        sac.update(make_batch(2, seed=seed), None)
        average = {name: 0.75 * average[name] + 0.25 * value for name, value in parameters(sac.policy).items()}
    assert sac.averaged_policy is not None and sac.evaluation_policy is sac.averaged_policy
    for name, value in parameters(sac.averaged_policy).items():
        assert torch.allclose(value, average[name], atol=1e-6), name
    assert torch.equal(sac.act(x, greedy=True), sac.averaged_policy.greedy(x))
    assert not torch.equal(sac.act(x, greedy=True), sac.policy.greedy(x))


def test_critics_and_policies_see_the_same_running_statistics() -> None:
    """Taken where the learner acts, not where it is evaluated; the absorbing bit stays as it is."""
    sac = make_sac(normalise_observations=True, actor_averaging=0.5, context={"absorbing": True})
    size = sac.context.observation_size
    rows = 2 * torch.rand(1, 50, size) + 3
    rows[..., -1] = 0.0
    sac.act(rows, greedy=True)
    assert torch.allclose(sac.policy.features(rows), rows)
    sac.act(rows)
    features = sac.policy.features(rows)
    assert torch.allclose(features[..., :-1].mean(1), torch.zeros(1, size - 1), atol=1e-5)
    assert torch.equal(features[..., -1], rows[..., -1])
    batch = make_batch(observation=size)
    values = sac.critic(sac.policy.features(batch.observations), batch.actions).mean((0, 2))
    metrics = sac.update(batch, None)
    assert torch.allclose(metrics["critic/value"], values, atol=1e-6)
    assert sac.averaged_policy is not None
    assert torch.equal(sac.averaged_policy.features(rows), features)


def test_without_averaging_the_latest_actor_is_evaluated() -> None:
    sac = make_sac()
    sac.update(make_batch(), None)
    assert sac.averaged_policy is None and sac.evaluation_policy is sac.policy


@pytest.mark.parametrize(("absorbing", "rows"), [(False, 100), (True, 200)])
def test_memory_fits_the_run(absorbing: bool, rows: int) -> None:
    sac = make_sac(training={"start": 3, "interval": 2}, context={"absorbing": absorbing})
    memory = sac.make_memory(MemoryConfig(size=10_000), steps=100, prefilled=7)
    assert memory.capacity == rows + 7
    assert (memory.absorbing_state is not None) == absorbing
    assert (memory.start, memory.interval, memory.batch_size) == (3, 2, 6)
    assert sac.make_memory(MemoryConfig(size=50), steps=100, prefilled=7).capacity == 50
    several = make_sac(context={"absorbing": absorbing, "num_envs": 3})  # 102 steps
    assert several.make_memory(MemoryConfig(), steps=100, prefilled=0).capacity == 102 * rows / 100


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_saved_state_continues_exactly(averaging: float) -> None:
    first, second = (make_sac(seeds, actor_averaging=averaging) for seeds in ((0, 1), (5, 6)))
    first.update(make_batch(2), None)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # as through a file: no shared tensors
    for sac in (first, second):
        sac.update(make_batch(2, seed=1), None)
    for name, value in parameters(first).items():
        assert torch.equal(value, parameters(second)[name]), name


@pytest.mark.usefixtures("unchecked_shapes")
def test_it_finds_the_best_action_of_a_one_step_task() -> None:
    # r = -5 (a - a*)^2 and the episode ends: Q(s, a) = r, and greedy actions go to a* of each run's own.
    sac = make_sac(
        (0, 1),
        training={"learning_rate": 2e-2},
        network={"hidden_size": 32, "activation": "tanh"},
        context={"action": 1},
        target_temperature=-3.0,
    )
    best = torch.tensor([0.4, -0.3]).view(2, 1, 1)
    generator = torch.Generator().manual_seed(0)
    observations = torch.ones(2, 32, 3)
    for _ in range(450):
        actions = torch.rand(2, 32, 1, generator=generator) * 2 - 1
        batch = make_batch(
            2,
            32,
            observations=observations,
            actions=actions,
            rewards=-5 * (actions - best).square().squeeze(-1),
            next_observations=observations,
            terminated=torch.ones(2, 32),
        )
        sac.update(batch, None)
    assert torch.allclose(sac.act(observations[:, :1], greedy=True), best, atol=0.15)


def test_learning_rates_over_a_run_by_hand() -> None:
    linear = TrainingConfig(learning_rate=0.4, learning_rate_schedule="linear")
    assert [linear.learning_rate_at(share) for share in (0.0, 0.25, 1.0)] == pytest.approx([0.4, 0.3, 0.0])
    assert TrainingConfig(learning_rate=0.4).learning_rate_at(0.25) == 0.4


def test_weights_decay_in_actor_and_critic() -> None:
    sac = make_sac(training={"weight_decay": 0.5, "learning_rate": 0.125})
    actor, critic = sac.actor_optimiser.param_groups, sac.critic_optimiser.param_groups
    decayed = {id(p) for group in actor for p in group["params"] if group["weight_decay"] == 0.5}
    assert {id(p) for p in sac.policy.parameters()} <= decayed
    assert [(group["weight_decay"], group["lr"]) for group in critic] == [(0.5, 0.125)]
    assert {group["lr"] for group in actor} == {0.125}
