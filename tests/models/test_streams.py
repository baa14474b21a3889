"""Streams: one generator per run, the same alone and beside others."""

import pytest
import torch

from models.streams import Streams, stream_seed


def draw(streams: Streams) -> list[torch.Tensor]:
    return [streams.normal(3), streams.uniform(2, 2), streams.integers(10, 5), streams.beta(0.5, 4)]


def test_shapes_have_the_run_axis_first() -> None:
    assert [tuple(t.shape) for t in draw(Streams([0, 1, 2], "a"))] == [(3, 3), (3, 2, 2), (3, 5), (3, 4)]


def test_a_run_draws_the_same_alone_and_beside_others() -> None:
    together, alone = draw(Streams([4, 5, 6], "a")), draw(Streams([5], "a"))
    for many, one in zip(together, alone, strict=True):
        assert torch.equal(many[1:2], one)


def test_seeds_and_names_are_independent() -> None:
    samples = torch.cat([Streams([0, 1], "a").normal(4000), Streams([0], "b").normal(4000)])
    correlation = torch.corrcoef(samples) - torch.eye(3)
    assert correlation.abs().max() < 0.08  # five standard errors of 1 / sqrt(4000)
    assert len({stream_seed(seed, name) for seed in range(100) for name in "abc"}) == 300
    assert all(0 <= stream_seed(seed, "a") < 2**63 for seed in range(100))


def test_state_round_trip() -> None:
    streams = Streams([0, 1], "a")
    draw(streams)
    state = streams.state_dict()
    expected = draw(streams)
    other = Streams([7, 8], "b")
    other.load_state_dict(state)
    for first, second in zip(expected, draw(other), strict=True):
        assert torch.equal(first, second)


def test_limits_of_integers_may_differ_between_runs() -> None:
    drawn = Streams([0, 1, 2], "a").integers([1, 3, 100], 500)
    assert drawn[0].unique().tolist() == [0]
    assert drawn[1].unique().tolist() == [0, 1, 2]
    assert 90 < drawn[2].max() < 100


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_beta_moments(concentration: float) -> None:
    drawn = Streams([0], "a").beta(concentration, 20_000)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0 and drawn.max() <= 1
    # Mean 1/2; variance 1 / (4 (2 a + 1)): 0.3 -> 1/6.4, 1 -> 1/12, 4 -> 1/36.
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.015)
    assert drawn.var().item() == pytest.approx(1 / (4 * (2 * concentration + 1)), rel=0.05)


def test_beta_of_a_tiny_concentration_stays_finite() -> None:
    assert Streams([0], "a").beta(1e-4, 1000).isfinite().all()
    drawn = Streams([0], "a").beta(0.01, 1000)
    assert ((drawn < 0.01) | (drawn > 0.99)).float().mean() > 0.9  # nearly all mass at the ends


def test_the_state_of_another_kind_of_device_is_gone_on_from() -> None:
    """Generators of GPUs have a state of 16 bytes."""
    states = torch.arange(32, dtype=torch.uint8).view(2, 16)
    first, second, alone = Streams([0, 1], "a"), Streams([2, 3], "b"), Streams([4], "a")
    for streams in (first, second):
        streams.load_state_dict({"generators": list(states)})
    alone.load_state_dict({"generators": [states[1]]})
    numbers = first.normal(3)
    assert torch.equal(numbers, second.normal(3))
    assert torch.equal(numbers[1:], alone.normal(3))
    assert not torch.equal(numbers[0], numbers[1])
