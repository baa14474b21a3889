"""GMMIL: witness rewards and bandwidths by hand, and what they must not depend on."""

import copy
from collections.abc import Sequence
from math import exp
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from algorithms.imitation.gmmil import CHUNK, GMMIL, GMMILConfig, squared_distances
from algorithms.imitation.pretraining import weighted_quantile
from memory.batch import Batch
from models.actors import SquashedGaussianActor
from models.streams import Streams
from tests.algorithms.support import make_batch, make_context, small_network

EXPERT = [0.0, 1.0, 3.0]  # squared distances of all pairs: 0, 0, 0, 1, 1, 4, 4, 9, 9, so a median of 1


def make_gmmil(seeds: tuple[int, ...] = (0,), observation: int = 3, action: int = 2, **options: Any) -> GMMIL:
    return GMMIL(GMMILConfig(**options), make_context(seeds, observation, action))


def on_a_line(rows: Sequence[float], weights: Sequence[float] | None = None, **fields: Any) -> Batch:
    """Rows whose observation is one number."""
    weights = [1.0] * len(rows) if weights is None else weights
    observations = torch.tensor([rows]).unsqueeze(-1)
    return make_batch(1, len(rows), 1, 1, observations=observations, weights=[weights], **fields)


def line(bandwidths: Sequence[float] | None = None, **options: Any) -> GMMIL:
    """A module for such rows, perhaps with bandwidths that are known."""
    gmmil = make_gmmil(observation=1, action=1, state_only=True, **options)
    if bandwidths is not None:
        gmmil.bandwidths, gmmil.measured = torch.tensor([bandwidths]), True
    return gmmil


def policy(runs: int = 1) -> SquashedGaussianActor:
    return SquashedGaussianActor(3, 2, small_network(), Streams(range(runs), "policy"))


def rewards(gmmil: GMMIL, batch: Batch, expert_batch: Batch) -> list[float]:
    values: list[float] = gmmil.relabel(batch, expert_batch, policy()).rewards[0].tolist()
    return values


def bandwidths(gmmil: GMMIL, batch: Batch, expert_batch: Batch) -> list[float]:
    gmmil.update(batch, expert_batch, policy())
    found: list[float] = gmmil.bandwidths[0].tolist()
    return found


def test_distances_are_means_over_features() -> None:
    rows, points = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 2.0], [4.0, -2.0]]])
    assert squared_distances(rows, points)[0, 0].tolist() == pytest.approx([0.0, (9 + 16) / 2], abs=1e-6)


def test_distances_far_from_the_origin() -> None:
    rows, points = torch.randn(2, 5, 4), torch.randn(2, 7, 4)
    expected = (rows.unsqueeze(2) - points.unsqueeze(1)).square().mean(-1)
    assert torch.allclose(squared_distances(rows, points), expected, atol=1e-5)
    moved = squared_distances(rows + 1000, points + 1000)  # squares of a million: 0.06 is their last digit
    assert torch.allclose(moved, expected, atol=1e-2)
    assert squared_distances(rows, rows).min() >= 0


def test_weighted_median_by_hand() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [4.0, 4.0, 1.0]])
    weights = torch.tensor([[1.0, 1.0, 1.0], [5.0, 1.0, 1.0], [0.5, 0.5, 2.0]])
    assert weighted_quantile(values, weights, 0.5).tolist() == [2.0, 3.0, 1.0]
    assert weighted_quantile(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.ones(1, 4), 0.5).item() == 2.0  # the lower one


def test_three_points_by_hand() -> None:
    # From 5 to the expert's: 25, 16, 4, a median of 16; among the expert's: 1.
    batch, expert_batch = on_a_line([5.0]), on_a_line(EXPERT)
    gmmil = line()
    assert bandwidths(gmmil, batch, expert_batch) == pytest.approx([16.0, 1.0])
    # (0.209611 + 0.367879 + 0.778801) / 3 + (e^-25 + e^-16 + 0.018316) / 3, less the row's own kernels, 1 + 1.
    assert rewards(gmmil, batch, expert_batch) == pytest.approx([0.452097 + 0.006105 - 2.0], abs=1e-5)


def test_weights_by_hand() -> None:
    batch, expert_batch = on_a_line([0.0, 2.0], [1.0, 0.5]), on_a_line([1.0, 4.0], [1.0, 3.0])
    found = rewards(line([2.0, 8.0]), batch, expert_batch)

    def kernel(squared: float) -> float:
        return exp(-squared / 2) + exp(-squared / 8)

    expected = [
        kernel(1) / 4 + 3 * kernel(16) / 4 - 2 * kernel(0) / 3 - kernel(4) / 3,
        kernel(1) / 4 + 3 * kernel(4) / 4 - 2 * kernel(4) / 3 - kernel(0) / 3,
    ]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_weight_of_one_half_is_half_a_row() -> None:
    once, twice = on_a_line([0.0, 2.0], [1.0, 1.0]), on_a_line([0.0, 2.0, 2.0], [1.0, 0.5, 0.5])
    expert, expert_twice = on_a_line([1.0, 3.0], [1.0, 1.0]), on_a_line([1.0, 1.0, 3.0], [0.5, 0.5, 1.0])
    first, second = line(), line()
    assert bandwidths(first, once, expert) == pytest.approx(bandwidths(second, twice, expert_twice))
    assert rewards(first, once, expert) == pytest.approx(rewards(second, twice, expert_twice)[:2], abs=1e-6)


def test_the_median_weighs_pairs() -> None:
    # From 0: 1 and 9. Nearly all the weight is on 9, also from the learner's second row, which weighs nothing.
    batch, expert_batch = on_a_line([0.0, 1.0], [1.0, 0.0]), on_a_line([1.0, 3.0], [0.1, 1.0])
    assert bandwidths(line(), batch, expert_batch)[0] == pytest.approx(9.0)


def test_rewards_do_not_depend_on_the_size_of_the_batch() -> None:  # K6
    rows = torch.randn(1, 512, 3)
    sizes = {}
    for size in (16, 256):
        gmmil = make_gmmil(state_only=True)
        batch = make_batch(size=size, observations=rows[:, :size] + 1)
        expert_batch = make_batch(size=size, observations=rows[:, 256 : 256 + size])
        gmmil.update(batch, expert_batch, policy())
        sizes[size] = gmmil.relabel(batch, expert_batch, policy()).rewards.abs().mean().item()
        doubled, expert_doubled = (b.map(lambda column: column.repeat_interleave(2, 1)) for b in (batch, expert_batch))
        twice = gmmil.relabel(doubled, expert_doubled, policy()).rewards[:, ::2]
        assert torch.allclose(twice, gmmil.relabel(batch, expert_batch, policy()).rewards, atol=1e-5)
    assert 0.5 < sizes[16] / sizes[256] < 2  # a sixteenth with a row's own weight
    assert sizes[256] > 0.05


def test_absorbing_rows_are_rows_like_others() -> None:
    flags = {"absorbing": [[0.0, 1.0]], "next_absorbing": [[0.0, 1.0]]}
    with_flags, without = (on_a_line([0.0, 2.0], [1.0, 0.5], **fields) for fields in (flags, {}))
    expert_batch = on_a_line([1.0, 4.0], [1.0, 0.25], **flags)
    assert rewards(line([2.0, 8.0]), with_flags, expert_batch) == rewards(line([2.0, 8.0]), without, expert_batch)


def test_state_only_looks_at_no_action() -> None:
    batch, expert_batch = make_batch(), make_batch(seed=1)
    others = [make_batch(actions=torch.zeros(1, 6, 2)), make_batch(seed=1, actions=torch.full((1, 6, 2), 0.3))]
    for state_only in (True, False):
        gmmil, other = make_gmmil(state_only=state_only), make_gmmil(state_only=state_only)
        same = bandwidths(gmmil, batch, expert_batch) == bandwidths(other, *others)
        assert same == state_only
        assert (rewards(gmmil, batch, expert_batch) == rewards(gmmil, *others)) == state_only


def test_demonstrations_in_a_batch_are_rewarded_but_do_not_stand_for_the_learner() -> None:
    batch = make_batch(size=8)
    expert_batch = make_batch(size=8, seed=1, collected_at=torch.full((1, 8), -1.0))
    gmmil = make_gmmil()
    gmmil.update(batch, expert_batch, policy())
    found = gmmil.relabel(batch.half_and_half(expert_batch), expert_batch, policy()).rewards
    half = batch.map(lambda column: column[:, 4:])
    assert torch.allclose(found[:, 4:], gmmil.relabel(half, expert_batch, policy()).rewards, atol=1e-6)
    mixed = batch.half_and_half(expert_batch)
    assert bandwidths(make_gmmil(), mixed, expert_batch) == bandwidths(make_gmmil(), half, expert_batch)


def test_a_prefilled_memory_without_a_row_of_the_learner() -> None:
    demonstrations = make_batch(size=8, collected_at=torch.full((1, 8), -1.0))
    gmmil = make_gmmil()
    metrics = gmmil.update(demonstrations, demonstrations, policy())
    assert all(value.isfinite().all() and (value > 0).all() for value in metrics.values())
    found = gmmil.relabel(demonstrations, demonstrations, policy()).rewards
    assert torch.allclose(found, torch.zeros(1, 8), atol=1e-6)  # nothing to tell apart


def test_a_median_of_some_rows_none_of_which_is_the_learner_s() -> None:
    """Half of 128 rows are looked at, and those are demonstrations: they stand for the learner."""
    gmmil = line(bandwidth="refreshed")
    seen = gmmil._some_of(on_a_line([float(place) for place in range(128)])).observations.flatten().long()
    rows, collected_at = torch.full((128,), 50.0), torch.full((1, 128), 5.0)
    rows[seen], collected_at[:, seen] = 3.0, -1.0
    learner, _ = bandwidths(gmmil, on_a_line(rows.tolist(), collected_at=collected_at), on_a_line([0.0] * 128))
    assert learner == pytest.approx(9.0)


@pytest.mark.parametrize("option", ["frozen", "refreshed"])
def test_bandwidths_are_measured_once_or_at_every_update(option: str) -> None:
    gmmil = line(bandwidth=option)
    expert_batch = on_a_line(EXPERT)
    before = rewards(gmmil, on_a_line([5.0]), expert_batch)  # as in an evaluation before the first update
    assert gmmil.bandwidths.tolist() == [[0.0, 0.0]] and not gmmil.measured
    assert bandwidths(gmmil, on_a_line([5.0]), expert_batch) == pytest.approx([16.0, 1.0])
    assert rewards(gmmil, on_a_line([5.0]), expert_batch) == before
    later = bandwidths(gmmil, on_a_line([2.0]), on_a_line([0.0, 2.0, 4.0]))
    assert later == pytest.approx([16.0, 1.0] if option == "frozen" else [4.0, 4.0])


@pytest.mark.parametrize("option", ["frozen", "refreshed"])
def test_a_median_of_some_rows_is_near_that_of_all(option: str) -> None:
    batch, expert_batch = make_batch(2, 1024), make_batch(2, 1024, seed=1)
    gmmil = make_gmmil((0, 1), bandwidth=option)
    gmmil.update(batch, expert_batch, policy(2))
    rows, points = (torch.cat([b.observations, b.actions], -1) for b in (batch, expert_batch))
    medians = [squared_distances(side, points).flatten(1).median(-1).values for side in (rows, points)]
    assert torch.allclose(gmmil.bandwidths, torch.stack(medians, -1), rtol=0.1 if option == "frozen" else 0.2)


def test_coinciding_demonstrations_keep_rewards_finite() -> None:
    expert_batch = on_a_line([1.0] * 4)
    gmmil = line()
    assert bandwidths(gmmil, expert_batch, expert_batch) == pytest.approx([1e-8, 1e-8])
    assert rewards(gmmil, on_a_line([1.0, 2.0]), expert_batch) == pytest.approx([2.0 - 1.0, -1.0])


def test_long_batches_are_rewarded_in_pieces() -> None:
    batch, expert_batch = make_batch(size=CHUNK + 7), make_batch(size=5, seed=1)
    gmmil = make_gmmil()
    gmmil.update(batch, expert_batch, policy())
    found = gmmil.relabel(batch, expert_batch, policy()).rewards
    for start in (0, CHUNK - 1, CHUNK, CHUNK + 6):
        piece = batch.map(lambda column, start=start: column[:, start : start + 1])  # type: ignore[misc]  # defaults
        assert torch.allclose(found[:, start], gmmil._rewards(piece, batch, expert_batch)[:, 0], atol=1e-6)


class Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor made."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_memory_does_not_grow_with_the_product_of_rows_and_features() -> None:
    size, features = 64, 102
    batch, expert_batch = (make_batch(1, size, features - 2, seed=seed) for seed in (0, 1))
    gmmil = make_gmmil(observation=features - 2)
    with Largest() as largest:  # type: ignore[no-untyped-call]  # PyTorch states no types
        gmmil.update(batch, expert_batch, policy())
        gmmil.relabel(batch, expert_batch, policy())
    assert 2 * size**2 <= largest.elements <= 2 * size * max(size, features)


def test_diagnosis_is_the_discrepancy() -> None:
    gmmil = make_gmmil((0, 1))
    batch, expert_batch = make_batch(2, 40), make_batch(2, 30, seed=1, observations=torch.randn(2, 30, 3) + 2)
    gmmil.update(batch, expert_batch, policy(2))
    found = gmmil.diagnose(batch, expert_batch, policy(2))
    assert (found["diagnosis/expert_reward"] > found["diagnosis/learner_reward"]).all()
    assert torch.equal(
        found["diagnosis/squared_mmd"], found["diagnosis/expert_reward"] - found["diagnosis/learner_reward"]
    )
    same = gmmil.diagnose(batch, batch, policy(2))["diagnosis/squared_mmd"]
    assert torch.allclose(same, torch.zeros(2), atol=1e-6)


def test_saved_state_continues_exactly() -> None:
    first, second = make_gmmil((0, 1)), make_gmmil((0, 1))
    batch, expert_batch = make_batch(2), make_batch(2, seed=1)
    first.update(batch, expert_batch, policy(2))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    other = make_batch(2, seed=2)
    for gmmil in (first, second):
        gmmil.update(other, expert_batch, policy(2))  # changes nothing: frozen
    assert torch.equal(first.bandwidths, second.bandwidths)
    found = [gmmil.relabel(other, expert_batch, policy(2)).rewards for gmmil in (first, second)]
    assert torch.equal(*found)


@pytest.mark.parametrize(("bandwidth", "rows"), [("frozen", 256), ("refreshed", 64)])
def test_bandwidths_are_measured_in_all_environments(bandwidth: str, rows: int) -> None:  # as H17
    """Of a rollout, step by step and 8 environments side by side in each."""
    gmmil = make_gmmil(observation=1, action=1, bandwidth=bandwidth)
    environments = (torch.arange(2048) % 8).float().view(1, -1, 1)
    some = gmmil._some_of(make_batch(1, 2048, 1, 1, observations=environments))
    counts = torch.bincount(some.observations.flatten().long(), minlength=8)
    assert counts.sum() == rows and counts.min() >= rows / 16
    few = make_batch(1, rows, 1, 1)
    assert torch.equal(gmmil._some_of(few).observations, few.observations)
