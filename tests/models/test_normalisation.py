"""Running normalisation: statistics by hand, in any division into batches, each run's own."""

import pytest
import torch

from models.normalisation import RunningNorm


def test_by_hand() -> None:
    norm = RunningNorm(1, 1)
    norm.update(torch.tensor([[[1.0], [3.0]]]))  # mean 2, variance 1
    assert (norm.mean.item(), norm.variance.item(), norm.count.item()) == (2, 1, 2)
    norm.update(torch.tensor([[[8.0]]]))  # 1, 3, 8: mean 4, variance (9 + 1 + 16) / 3
    assert norm.mean.item() == pytest.approx(4)
    assert norm.variance.item() == pytest.approx(26 / 3)
    assert norm(torch.tensor([[[4.0 + (26 / 3) ** 0.5]]])).item() == pytest.approx(1, abs=1e-5)


def test_nothing_changes_before_the_first_update() -> None:
    rows = torch.randn(2, 5, 3)
    assert torch.allclose(RunningNorm(2, 3)(rows), rows, atol=1e-6)


def test_any_division_into_batches_gives_the_same() -> None:
    rows = torch.randn(2, 60, 3) * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([0.0, 100.0, -1.0])
    norm = RunningNorm(2, 3)
    for part in rows.split([1, 2, 30, 7, 20], 1):
        norm.update(part)
    assert norm.count.tolist() == [60, 60]
    assert torch.allclose(norm.mean, rows.double().mean(1, keepdim=True), rtol=1e-9)
    assert torch.allclose(norm.variance, rows.double().var(1, correction=0, keepdim=True), rtol=1e-9)
    normal = norm(rows)
    assert torch.allclose(normal.mean(1), torch.zeros(2, 3), atol=1e-3)
    assert torch.allclose(normal.std(1, correction=0), torch.ones(2, 3), atol=1e-3)


def test_one_row_after_very_many_still_counts() -> None:
    """1,000 rows of 1001 after 99,000 of 1000: each moves the mean by less than floats of 32 bits resolve at 1000."""
    norm = RunningNorm(1, 1)
    norm.update(torch.full((1, 99_000, 1), 1000.0))
    for _ in range(1000):
        norm.update(torch.tensor([[[1001.0]]]))
    assert norm.mean.item() == pytest.approx(1000.01, abs=1e-9)
    assert norm.variance.item() == pytest.approx(0.01 * 0.99, abs=1e-9)
    assert norm(torch.tensor([[[1000.0]]])).dtype == torch.float32


def test_runs_have_statistics_of_their_own() -> None:
    rows = torch.randn(3, 20, 2)
    together, alone = RunningNorm(3, 2), RunningNorm(1, 2)
    together.update(rows)
    alone.update(rows[1:2])
    assert all(torch.equal(value[1], alone.state_dict()[name][0]) for name, value in together.state_dict().items())


def test_a_forward_pass_changes_nothing_in_any_mode() -> None:
    norm = RunningNorm(1, 2)
    norm.update(torch.randn(1, 4, 2))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    for mode in (True, False):
        norm.train(mode)(torch.randn(1, 50, 2) + 7)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
