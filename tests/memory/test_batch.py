"""Batch: copies, mixing, packing."""

import dataclasses

import pytest
import torch

from memory.batch import FIELDS, Batch, Layout

LAYOUT = Layout(observation_size=3, action_size=2)


def batch(runs: int = 2, size: int = 5, offset: float = 0.0) -> Batch:
    """Every number is another one, so that a misplaced column shows."""
    rows = torch.arange(runs * size * LAYOUT.width).float().reshape(runs, size, LAYOUT.width) + offset
    return LAYOUT.unpack(rows)


def test_layout_puts_each_field_where_it_says() -> None:
    assert LAYOUT.sizes == (3, 2, 1, 3, 1, 1, 1, 1, 1, 1)
    assert LAYOUT.width == 15
    first = batch(runs=1, size=1)
    assert first.observations.tolist() == [[[0, 1, 2]]]
    assert first.actions.tolist() == [[[3, 4]]]
    assert first.rewards.tolist() == [[5]]
    assert first.next_observations.tolist() == [[[6, 7, 8]]]
    flags = ("terminated", "truncated", "weights", "collected_at", "absorbing", "next_absorbing")
    assert [getattr(first, name).item() for name in flags] == [9, 10, 11, 12, 13, 14]


def test_pack_and_unpack_are_inverse() -> None:
    before = batch()
    after = LAYOUT.unpack(LAYOUT.pack(before))
    for name in FIELDS:
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert after.shape == (2, 5)


def test_single_observation_and_action_keep_their_last_axis() -> None:
    layout = Layout(1, 1)
    found = layout.unpack(torch.zeros(2, 4, layout.width))
    assert found.observations.shape == found.actions.shape == found.next_observations.shape == (2, 4, 1)
    assert found.rewards.shape == found.absorbing.shape == (2, 4)


def test_fields_are_those_of_the_dataclass_in_order() -> None:
    assert tuple(field.name for field in dataclasses.fields(Batch)) == FIELDS


def test_with_rewards_and_map_return_copies() -> None:
    before = batch()
    kept = before.rewards.clone()
    after = before.with_rewards(torch.zeros(2, 5))
    assert torch.equal(before.rewards, kept) and after.rewards.sum() == 0
    assert after.observations is before.observations
    assert torch.equal(before.map(lambda column: column[:, 1:3]).actions, before.actions[:, 1:3])
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.rewards = kept  # type: ignore[misc]  # what is refused


def test_half_and_half_takes_the_first_half_from_the_demonstrations() -> None:
    own, expert = batch(size=5), batch(size=5, offset=1000.0)
    mixed = own.half_and_half(expert)
    assert mixed.shape == (2, 5)  # 5 rows: two of the expert, three of its own
    for name in FIELDS:
        assert torch.equal(getattr(mixed, name)[:, :2], getattr(expert, name)[:, :2]), name
        assert torch.equal(getattr(mixed, name)[:, 2:], getattr(own, name)[:, 2:]), name
