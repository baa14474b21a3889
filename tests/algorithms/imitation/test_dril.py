"""DRIL: uncertainties, cut-off and rewards by hand, in both variants, and that rewards depend on nothing else."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.imitation.dril import DRIL, DRILConfig, DRILModelConfig, DropoutPolicies, PolicyEnsemble, log_variance
from conf.errors import UserError
from memory.batch import Batch
from models.actors import SquashedGaussianActor
from models.streams import Streams
from tests.algorithms.imitation.rows import demonstrations_of
from tests.algorithms.support import make_batch, make_context, parameters, small_network
from tests.training.helpers import configured

POLICY = SquashedGaussianActor(3, 2, small_network(), Streams((0,), "policy"))
VARIANTS = ["ensemble", "dropout"]


def make_dril(seeds: tuple[int, ...] = (0,), model: dict[str, Any] | None = None, **options: Any) -> DRIL:
    network = DRILModelConfig(**{"hidden_size": 16, **(model or {})})
    return DRIL(DRILConfig(model=network, **{"learning_rate": 1e-2, **options}), make_context(seeds))


def ensemble_of(*actions: list[float]) -> DRIL:
    """Two or more members, each with one action in every state."""
    dril = make_dril(ensemble_size=len(actions))
    assert isinstance(dril.uncertainty, PolicyEnsemble)
    final = dril.uncertainty.network.final
    with torch.no_grad():
        final.weight.zero_()
        final.bias.copy_(torch.atanh(torch.tensor(actions)).view(-1, 1, 1, 2))
    return dril


def acting(*actions: list[float], **fields: Any) -> Batch:
    return make_batch(size=len(actions), actions=[list(actions)], **fields)


def rewards(dril: DRIL, batch: Batch) -> list[float]:
    values: list[float] = dril.relabel(batch, batch, POLICY).rewards[0].tolist()
    return values


def test_uncertainty_of_two_members_by_hand() -> None:
    # Half the outer product of the difference (1, -0.2): covariance [[0.5, -0.1], [-0.1, 0.02]].
    dril = ensemble_of([0.5, 0.0], [-0.5, 0.2])
    found = dril.uncertainty(acting([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5], [0.0, 0.0]))
    # 0.5; 0.02; 0.5 + 0.02 - 0.2 = 0.32; a quarter of that; nothing.
    assert found[0].tolist() == pytest.approx([0.5, 0.02, 0.32, 0.08, 0.0], abs=1e-6)


def test_uncertainty_is_the_quadratic_form_of_the_unbiased_covariance() -> None:
    dril, batch = make_dril(), make_batch()
    assert isinstance(dril.uncertainty, PolicyEnsemble)
    actions = dril.uncertainty.actions(batch.observations).detach()[:, 0]  # [members, batch, action]
    for row, action in enumerate(batch.actions[0]):
        expected = action @ torch.cov(actions[:, row].T) @ action
        assert dril.uncertainty(batch)[0, row].item() == pytest.approx(expected.item(), rel=1e-4)


def test_cut_off_and_rewards_by_hand() -> None:
    dril = ensemble_of([0.5, 0.0], [-0.5, 0.0])  # u = a_1^2 / 2
    dril.config.quantile_cutoff = 0.75
    # Weights 1, 1, 1/2, 1/2 and half of it all in the absorbing row, which does not count: 0.1, 0.2 and 0.3 hold 5/6.
    weights, absorbing = [[1.0, 1.0, 0.5, 0.5, 3.0]], [[0.0, 0.0, 0.0, 0.0, 1.0]]
    rows = acting([0.2, 0], [0.1, 0], [0.4, 0], [0.3, 0], [0.0, 0], weights=weights, absorbing=absorbing)
    dril.finish_pretraining(demonstrations_of(rows))
    assert dril.cutoff.tolist() == pytest.approx([0.3**2 / 2], rel=1e-5)
    assert rewards(dril, acting([0.29, 0.9], [0.31, 0.0], [-0.29, 0.0], [0.0, 1.0])) == [1.0, -1.0, 1.0, 1.0]


@pytest.mark.parametrize(("ends", "expected"), [(0, -1.0), (1, -1 / 3), (3, 1.0)])
def test_reward_of_the_absorbing_state(ends: int, expected: float) -> None:
    """Of three demonstrations, so many end; each adds one row, whatever its weight."""
    absorbing = [[0.0] * 3 + [1.0] * ends + [0.0] * (3 - ends)]
    rows = make_batch(absorbing=absorbing, weights=torch.full((1, 6), 0.1))
    dril = make_dril()
    dril.finish_pretraining(demonstrations_of(rows, trajectories=3))
    assert dril.absorbing_reward.tolist() == pytest.approx([expected])
    found = rewards(dril, make_batch(size=2, absorbing=[[0.0, 1.0]], actions=[[[0.5, 0.5], [0.0, 0.0]]]))
    assert abs(found[0]) == 1.0 and found[1] == pytest.approx(expected)


def test_cloning_loss_of_the_ensemble_by_hand() -> None:
    dril = ensemble_of([0.5, 0.0], [0.0, 0.0])
    batch = acting([1.0, 0.0], [0.0, 1.0], [0.9, 0.9], weights=[[1.0, 0.5, 1.0]], absorbing=[[0.0, 0.0, 1.0]])
    # Means over two members and two action dimensions: (0.25 + 1) / 4 and (0.25 + 1 + 1) / 4; absorbing: nothing.
    expected = (1.25 / 4 + 0.5 * 2.25 / 4) / 3
    assert dril.pretrain(batch)["uncertainty/loss"].tolist() == pytest.approx([expected], rel=1e-5)


def test_members_begin_apart_learn_and_have_no_dropout() -> None:
    dril = make_dril(model={"dropout": 0.9, "input_dropout": 0.9})
    assert isinstance(dril.uncertainty, PolicyEnsemble)
    batch = make_batch()
    dril.train()
    first = dril.uncertainty.actions(batch.observations)
    assert torch.equal(first, dril.uncertainty.actions(batch.observations))
    assert all(not torch.equal(first[0], other) for other in first[1:])
    before = parameters(dril)
    dril.pretrain(batch)
    for name, value in parameters(dril).items():
        assert all(not torch.equal(value[e], before[name][e]) for e in range(5)), name


def test_log_variance_by_hand() -> None:
    # Values 1 and 3: variance 2; and e^1000 times as large: 2000 more, though exp(1000) is infinite.
    logs = torch.tensor([[[0.0, 1000.0, 5.0]], [[math.log(3), 1000 + math.log(3), 5.0]]])
    found = log_variance(logs)[0]
    assert found[:2].tolist() == pytest.approx([math.log(2), 2000 + math.log(2)], abs=1e-3)
    assert found[2].isfinite() and found[2] < -70  # no variance at all


def dropout_policies(dril: DRIL) -> DropoutPolicies:
    assert isinstance(dril.uncertainty, DropoutPolicies)
    return dril.uncertainty


@pytest.mark.parametrize("model", [{"depth": 2}, {"layer_norm": True}, {"activation": "relu", "input_dropout": 0.0}])
def test_thinned_policies_are_the_policy_under_fixed_masks(
    model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dril = make_dril((0, 1), uncertainty="dropout", model={"dropout": 0.5, "input_dropout": 0.3, **model})
    policies, batch = dropout_policies(dril), make_batch(2)
    dril.pretrain(batch)  # scales, shifts and biases of its own
    policies.fix()
    streams = Streams((0, 1), "imitation/dropout")

    def row_masks(*shape: int) -> Tensor:
        """What is drawn for a layer, the same for every row: [runs, batch, feature]."""
        size = (shape[-1], 1) if shape[-1] == 3 else (1, shape[-1])
        return streams.uniform(*size).view(2, 1, -1).expand(2, *shape).clone()

    if not model.get("input_dropout", 0.3):
        streams.uniform(3, 1)  # drawn, but nothing is left out
    monkeypatch.setattr(policies.policy.network.streams, "uniform", row_masks)
    policies.policy.train()
    expected = policies.policy.log_prob(batch.observations, batch.actions)
    assert torch.allclose(policies._members[0].log_prob(batch.observations, batch.actions), expected, atol=1e-4)


def test_dropout_uncertainty_is_the_variance_of_densities() -> None:
    dril, batch = make_dril(uncertainty="dropout", ensemble_size=3, model={"dropout": 0.5}), make_batch()
    policies = dropout_policies(dril)
    policies.fix()
    densities = torch.stack([p.log_prob(batch.observations, batch.actions).exp() for p in policies._members])
    assert torch.allclose(policies(batch), densities.var(0).log(), atol=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_cut_off_is_measured_as_rewards_are_made(variant: str) -> None:
    """98 of 100 demonstrated rows are rewarded: were dropout off in the one and on in the other, all or none."""
    dril, rows = make_dril((0, 1), uncertainty=variant), make_batch(2, 100)
    for _ in range(20):
        dril.pretrain(rows)
    one = rows.map(lambda column: column[:1])
    dril.finish_pretraining(demonstrations_of(one))
    dril.train()
    shared = one.map(lambda column: column.expand(2, *column.shape[1:]))
    found = dril.relabel(shared, shared, POLICY).rewards
    assert (found > 0).sum(-1).tolist() == [98, 98]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reward_depends_on_its_row_alone(variant: str) -> None:
    dril, rows = make_dril(uncertainty=variant, quantile_cutoff=0.5), make_batch(size=40)
    dril.pretrain(rows)
    dril.finish_pretraining(demonstrations_of(rows))
    found = rewards(dril, rows)
    assert rewards(dril, rows) == found and set(found) == {-1.0, 1.0}
    dril.update(rows, rows, POLICY)
    backwards = rewards(dril, rows.map(lambda column: column.flip(1)))
    assert sum(a != b for a, b in zip(backwards[::-1], found, strict=True)) <= 1  # the row that is the cut-off itself
    before = dril.cutoff.clone()
    dril.finish_pretraining(demonstrations_of(rows))
    assert torch.equal(dril.cutoff, before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_seed_is_the_same_alone_and_beside_others(variant: str) -> None:
    both = [make_batch(2, 30, seed=seed) for seed in range(6)]
    found = []
    for seeds, runs in (((3, 4), [0, 1]), ((4,), [1])):
        dril = make_dril(seeds, uncertainty=variant)
        for batch in both:
            dril.pretrain(batch.map(lambda column, runs=runs: column[runs]))  # type: ignore[misc]  # defaults
        dril.finish_pretraining(demonstrations_of(both[0].map(lambda column: column[:1])))
        own = both[0].map(lambda column, runs=runs: column[runs])  # type: ignore[misc]  # defaults
        found.append((dril.uncertainty(own), dril.cutoff))
    (together, cutoffs), (alone, cutoff) = found
    assert torch.allclose(together[1], alone[0], atol=1e-4) and torch.allclose(cutoffs[1], cutoff[0], atol=1e-4)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_state_continues_exactly(variant: str) -> None:
    first, second = (make_dril((0, 1), uncertainty=variant, model={"dropout": 0.5}) for _ in range(2))
    rows = make_batch(2)
    first.pretrain(rows)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for dril in (first, second):
        dril.pretrain(rows)
        dril.finish_pretraining(demonstrations_of(rows.map(lambda column: column[:1])))
    for name, value in parameters(first).items():
        assert torch.equal(value, parameters(second)[name]), name
    assert torch.equal(first.cutoff, second.cutoff)


def test_densities_beyond_all_floats_give_finite_rewards() -> None:
    dril, rows = make_dril(uncertainty="dropout"), make_batch(size=20, actions=torch.ones(1, 20, 2))
    policies = dropout_policies(dril)
    with torch.no_grad():
        policies.policy.network.final.bias[..., :2] = 7.0  # certain of the largest actions
        policies.policy.network.final.bias[..., 2:] = -50.0
    dril.finish_pretraining(demonstrations_of(rows))
    assert dril.cutoff.isfinite().all()
    assert {abs(reward) for reward in rewards(dril, rows)} == {1.0}
    assert dril.pretrain(rows)["uncertainty/loss"].isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_demonstrations_are_told_from_what_is_far_away(variant: str) -> None:
    dril = make_dril((0, 1), uncertainty=variant, model={"hidden_size": 32})
    observations = torch.randn(1, 64, 3)
    rows = make_batch(size=64, observations=observations, actions=0.9 * torch.sin(observations[..., :2]))
    both = rows.map(lambda column: column.expand(2, *column.shape[1:]))
    for _ in range(300):
        dril.pretrain(both)
    dril.finish_pretraining(demonstrations_of(rows))
    far = make_batch(2, 64, observations=6 * torch.randn(2, 64, 3), actions=0.9 * torch.ones(2, 64, 2))
    found = dril.diagnose(far, both, POLICY)
    assert all(value.shape == (2,) for value in found.values())
    assert (found["diagnosis/expert_reward"] > 0.9).all()
    if variant == "ensemble":  # densities of far actions are small, and so is their variance
        assert (found["diagnosis/learner_reward"] < 0).all() and dril.warning(found) is None
    warning = dril.warning(found | {"diagnosis/learner_reward": torch.ones(2)})
    assert warning is not None and "imitation.quantile_cutoff" in warning


def test_nothing_is_diagnosed_before_there_is_a_cut_off() -> None:
    dril, batch = make_dril(), make_batch()
    assert dril.diagnose(batch, batch, POLICY) == {}
    assert all(math.isfinite(reward) for reward in rewards(dril, batch))


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"imitation\.state_only=true is not allowed with algorithm=DRIL"):
        configured("algorithm=DRIL", "imitation.state_only=true", "imitation.bc_aux_loss=false")
    none = ["imitation.model.dropout=0", "imitation.model.input_dropout=0"]
    configured("algorithm=DRIL", *none)
    with pytest.raises(UserError, match=r"imitation\.uncertainty=dropout is not allowed with .* one of them above 0"):
        configured("algorithm=DRIL", "imitation.uncertainty=dropout", *none)
    with pytest.raises(UserError, match=r"imitation\.ensemble_size=1 .* at least 2"):
        configured("algorithm=DRIL", "imitation.ensemble_size=1")


def test_published_defaults() -> None:
    config = configured("algorithm=DRIL").imitation
    model = config.model
    sizes = (model.hidden_size, model.depth, model.activation, model.input_dropout, model.dropout)
    assert sizes == (64, 1, "tanh", 0.1, 0.1)
    assert (config.pretraining.iterations, config.learning_rate, config.weight_decay) == (100_000, 3e-5, 0)
    assert (config.uncertainty, config.ensemble_size, config.quantile_cutoff) == ("ensemble", 5, 0.98)
    assert config.bc_aux_loss
