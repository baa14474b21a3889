"""What RED and DRIL share: all rows in chunks, weighted quantiles, and when to warn."""

import pytest
import torch
from torch import Tensor

from algorithms.base import Metrics
from algorithms.imitation import pretraining
from algorithms.imitation.pretraining import over_all_rows, separation_warning, weighted_quantile
from tests.algorithms.imitation.rows import demonstrations_of
from tests.algorithms.support import make_batch


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        # Sorted: 1, 2, 3, 4 with weights 1, 1, 1, 1 and 0.5, 1, 0.5, 2, so cumulative shares .125, .375, .5, 1.
        (0.125, [1.0, 1.0]),
        (0.25, [1.0, 2.0]),
        (0.26, [2.0, 2.0]),
        (0.5, [2.0, 3.0]),
        (0.51, [3.0, 4.0]),
        (0.98, [4.0, 4.0]),
        (1.0, [4.0, 4.0]),
    ],
)
def test_weighted_quantile_by_hand(share: float, expected: list[float]) -> None:
    values = torch.tensor([[3.0, 1.0, 4.0, 2.0]] * 2)
    weights = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 2.0, 1.0]])
    assert weighted_quantile(values, weights, share).tolist() == expected


def test_rows_without_weight_are_no_quantile() -> None:
    values, weights = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    assert weighted_quantile(values, weights, 0.01).item() == 1.0
    assert weighted_quantile(values, weights, 1.0).item() == 2.0


def test_quantile_of_many_rows_is_exact() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0]])
    weights = torch.tensor([[2.0**24, 1.0, 1.0]])  # as many rows before: in float32, one more changes nothing
    assert weighted_quantile(values, weights, 1.0).item() == 2.0


def test_every_row_is_seen_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(size=7)
    monkeypatch.setattr(pretraining, "CHUNK", 3)
    sizes: list[torch.Size] = []

    def first_feature(chunk: object) -> Tensor:
        sizes.append(chunk.shape)  # type: ignore[attr-defined]  # a Batch
        feature: Tensor = chunk.observations[..., 0]  # type: ignore[attr-defined]  # a Batch
        return feature

    found = over_all_rows(first_feature, demonstrations_of(batch), 2)
    assert torch.equal(found, batch.observations[..., 0].expand(2, -1))
    assert sizes == [(2, 3), (2, 3), (2, 1)]


def metrics(expert: list[float], learner: list[float]) -> Metrics:
    return {"diagnosis/expert_reward": torch.tensor(expert), "diagnosis/learner_reward": torch.tensor(learner)}


def test_warns_where_the_reward_does_not_separate() -> None:
    assert separation_warning(metrics([0.9, 0.9], [0.1, 0.8]), 0.5, "more") is None
    assert separation_warning({"diagnosis/reward_rank_correlation": torch.zeros(2)}, 0.5, "more") is None
    foreign = separation_warning(metrics([0.9, 0.4], [0.1, 0.1]), 0.5, "try more")
    assert foreign is not None and "0.40" in foreign and foreign.endswith("try more")
    equal = separation_warning(metrics([0.9, 0.8], [0.1, 0.85]), 0.5, "try more")
    assert equal is not None and "0.85 and 0.80" in equal and equal.endswith("try more")
