"""RED: errors, bandwidth and rewards by hand on a linear network, and what they must not depend on."""

import copy
import math
from typing import Any

import pytest
import torch

from algorithms.imitation.red import RED, REDConfig, REDModelConfig, distillation_error
from memory.batch import Batch
from models.actors import SquashedGaussianActor
from models.streams import Streams
from tests.algorithms.imitation.rows import demonstrations_of
from tests.algorithms.support import layers, make_batch, make_context, parameters, small_network
from tests.training.helpers import configured

POLICY = SquashedGaussianActor(2, 1, small_network(), Streams((0,), "policy"))


def make_red(seeds: tuple[int, ...] = (0,), model: dict[str, Any] | None = None, **options: Any) -> RED:
    """For observations of two numbers and actions of one."""
    network = REDModelConfig(**{"hidden_size": 2, **(model or {})})
    config = REDConfig(model=network, **{"learning_rate": 1e-2, **options})
    return RED(config, make_context(seeds, observation=2, action=1))


def linear_red(**options: Any) -> RED:
    """State-only, f^(x) = (x_1, x_2) and f(x) = (2 x_1, x_2), so that the error is x_1^2 / 2."""
    red = make_red(state_only=True, **options)
    with torch.no_grad():
        for network, slope in ((red.predictor, 1.0), (red.target, 2.0)):
            first, last = layers(network)
            first.weight.copy_(torch.eye(2))
            first.bias.fill_(64.0)  # every unit is active
            last.weight.copy_(torch.diag(torch.tensor([slope, 1.0])))
            last.bias.copy_(-64.0 * torch.tensor([slope, 1.0]))
    return red


def on_a_line(*rows: float, **fields: Any) -> Batch:
    observations = torch.tensor([[[row, 10 * row] for row in rows]])
    return make_batch(1, len(rows), 2, 1, observations=observations, **fields)


def rewards(red: RED, batch: Batch) -> list[float]:
    values: list[float] = red.relabel(batch, batch, POLICY).rewards[0].tolist()
    return values


def test_error_is_a_mean_over_features_of_matched_rows() -> None:
    predicted, target = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 4.0], [3.0, 0.0]]])
    assert distillation_error(predicted, target)[0].tolist() == [2.0, 4.5]


def test_rewards_of_a_linear_network_by_hand() -> None:  # K7
    red = linear_red()
    # Errors 1/2, 2, 9/2 with a median of 2: sigma_1 = 1/2, and the median row earns exp(-1). Between different rows
    # the second feature alone would make it 50 and more.
    red.finish_pretraining(demonstrations_of(on_a_line(1.0, 2.0, 3.0)))
    assert red.bandwidth.tolist() == pytest.approx([0.5], rel=1e-4)
    expected = [math.exp(-0.25), math.exp(-1), math.exp(-2.25), math.exp(-25.0)]
    assert rewards(red, on_a_line(1.0, 2.0, 3.0, 10.0)) == pytest.approx(expected, rel=1e-3)


def test_weights_count_in_the_median() -> None:
    red = linear_red()
    red.finish_pretraining(demonstrations_of(on_a_line(1.0, 2.0, 3.0, weights=[[1.0, 1.0, 2.5]])))
    assert red.bandwidth.tolist() == pytest.approx([1 / 4.5], rel=1e-4)


def test_bandwidth_is_measured_without_dropout_and_with_that_of_the_rewards() -> None:  # K7
    red = linear_red(model={"dropout": 0.5, "input_dropout": 0.5})
    red.predictor.train()  # as it is behind the last update
    red.finish_pretraining(demonstrations_of(on_a_line(1.0, 2.0, 3.0)))
    assert red.bandwidth.tolist() == pytest.approx([0.5], rel=1e-4)
    red.predictor.train()
    assert rewards(red, on_a_line(2.0)) == pytest.approx([math.exp(-1)], rel=1e-3)


def test_measuring_again_changes_nothing() -> None:
    red, demonstrations = linear_red(), demonstrations_of(on_a_line(1.0, 2.0, 3.0))
    red.finish_pretraining(demonstrations)
    first = red.bandwidth.clone()
    red.finish_pretraining(demonstrations)
    assert torch.equal(red.bandwidth, first)


def test_a_given_bandwidth_is_used() -> None:
    red = linear_red(reward_bandwidth_scale=3.0)
    red.finish_pretraining(demonstrations_of(on_a_line(1.0, 2.0, 3.0)))
    assert rewards(red, on_a_line(1.0)) == pytest.approx([math.exp(-1.5)], rel=1e-3)


def test_a_perfect_predictor_gives_finite_rewards() -> None:
    red = linear_red()
    red.target.load_state_dict(red.predictor.state_dict())
    red.finish_pretraining(demonstrations_of(on_a_line(1.0, 2.0, 3.0)))
    assert rewards(red, on_a_line(1.0)) == [1.0]


def test_loss_is_weighted() -> None:
    loss = linear_red().pretrain(on_a_line(1.0, 2.0, weights=[[1.0, 0.25]]))["predictor/loss"]
    assert loss.tolist() == pytest.approx([(0.5 + 0.25 * 2) / 2], rel=1e-4)


@pytest.mark.parametrize("state_only", [False, True])
def test_actions_count_unless_told_otherwise(state_only: bool) -> None:
    red, batch = make_red(state_only=state_only), make_batch(size=3, observation=2, action=1)
    red.finish_pretraining(demonstrations_of(batch))
    others = make_batch(size=3, observation=2, action=1, observations=batch.observations, seed=5)
    assert (rewards(red, batch) == rewards(red, others)) == state_only


def test_dropout_is_the_predictor_s_and_only_it_learns() -> None:
    red = make_red(model={"dropout": 0.5, "hidden_size": 64})
    batch, before = make_batch(size=8, observation=2, action=1), parameters(red.target)
    inputs = torch.cat([batch.observations, batch.actions], -1)
    red.train()
    assert torch.equal(red.target(inputs), red.target(inputs))
    assert not torch.equal(red.predictor(inputs), red.predictor(inputs))
    first = parameters(red.predictor)
    red.pretrain(batch)
    assert all(torch.equal(value, before[name]) for name, value in parameters(red.target).items())
    assert not any(torch.equal(value, first[name]) for name, value in parameters(red.predictor).items())


def test_saved_state_continues_exactly() -> None:
    first, second = (make_red((0, 1), model={"dropout": 0.5}) for _ in range(2))
    rows = make_batch(2, 6, 2, 1)
    first.pretrain(rows)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for red in (first, second):
        red.pretrain(rows)
        red.finish_pretraining(demonstrations_of(rows.map(lambda column: column[:1])))
    for name, value in parameters(first).items():
        assert torch.equal(value, parameters(second)[name]), name
    assert torch.equal(first.bandwidth, second.bandwidth)


def test_demonstrations_are_told_from_what_is_far_away() -> None:  # K7
    red = make_red((0, 1), model={"hidden_size": 32})
    demonstrated = make_batch(2, 64, 2, 1)
    for _ in range(300):
        red.pretrain(demonstrated)
    red.finish_pretraining(demonstrations_of(demonstrated.map(lambda column: column[:1])))
    far = make_batch(2, 64, 2, 1, seed=1, observations=5 + torch.randn(2, 64, 2))
    found = red.diagnose(far, demonstrated.map(lambda column: column[:1].expand_as(column)), POLICY)
    assert all(value.shape == (2,) for value in found.values())
    assert (found["diagnosis/expert_reward"] > 0.3).all() and (found["diagnosis/learner_reward"] < 0.01).all()
    assert (found["diagnosis/learner_error"] > 10 * found["diagnosis/expert_error"]).all()
    assert red.warning(found) is None
    warning = red.warning(found | {"diagnosis/learner_reward": torch.ones(2)})
    assert warning is not None and "imitation.pretraining.iterations" in warning


def test_nothing_is_diagnosed_before_there_is_a_reward() -> None:
    red, batch = make_red(), make_batch(size=3, observation=2, action=1)
    assert red.diagnose(batch, batch, POLICY) == {}
    assert red.warning({}) is None
    assert all(math.isfinite(reward) for reward in rewards(red, batch))


def test_published_defaults() -> None:
    config = configured("algorithm=RED").imitation
    model = config.model
    assert (model.hidden_size, model.depth, model.activation, model.input_dropout, model.dropout) == (
        32,
        1,
        "relu",
        0,
        0,
    )
    assert (config.pretraining.iterations, config.learning_rate, config.weight_decay) == (100_000, 3e-5, 0)
    assert config.reward_bandwidth_scale is None
