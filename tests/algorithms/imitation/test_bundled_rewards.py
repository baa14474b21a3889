"""What the pages on RED and DRIL say of rewards on and off the demonstrations, on the bundled ones of Hopper."""

import dataclasses

import pytest
import torch

from algorithms.imitation.red import RED
from tests.training.helpers import configured
from training.build import Parts, build

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

UPDATES = 750
OPTIONS = ("env=hopper", "imitation.trajectories=5", "imitation.learning_rate=3e-3")


def pretrained(*words: str) -> Parts:
    parts = build(configured(*words, *OPTIONS))
    assert parts.demonstrations is not None
    for _ in range(UPDATES):
        parts.imitation.pretrain(parts.demonstrations.sample(256))
    parts.imitation.finish_pretraining(parts.demonstrations)
    return parts


def mean_rewards(parts: Parts) -> tuple[float, float, float]:
    """Of held-out demonstrations, of their states with random actions, and of states half a deviation away."""
    assert parts.demonstrations is not None and parts.demonstrations.held_out is not None
    held_out = parts.demonstrations.held_out
    generator = torch.Generator().manual_seed(0)
    actions = 2 * torch.rand(held_out.actions.shape, generator=generator) - 1
    noise = torch.randn(held_out.observations.shape, generator=generator)
    moved = held_out.observations + 0.5 * parts.demonstrations.rows().observations.std(1) * noise
    others = dataclasses.replace(held_out, actions=actions), dataclasses.replace(held_out, observations=moved)
    policy = parts.learner.policy
    found = [float(parts.imitation.relabel(b, b, policy).rewards.mean()) for b in (held_out, *others)]
    return found[0], found[1], found[2]


def test_red_from_matched_rows_and_from_all_pairs() -> None:
    parts = pretrained("algorithm=RED")
    red = parts.imitation
    assert isinstance(red, RED) and parts.demonstrations is not None
    demonstrated, random, moved = mean_rewards(parts)
    assert demonstrated > 0.3 and random < 0.1 and moved < 0.1
    rows = parts.demonstrations.sample(256)
    inputs = torch.cat([rows.observations, rows.actions], -1)
    with torch.no_grad():
        pairs = (red.predictor(inputs).unsqueeze(2) - red.target(inputs).unsqueeze(1)).square().mean(-1)
    all_pairs = 1 / pairs.flatten(1).median(-1).values
    assert (red.bandwidth > 100 * all_pairs).all()
    red.bandwidth = all_pairs
    assert min(mean_rewards(parts)) > 0.9


@pytest.mark.parametrize("variant", ["ensemble", "dropout"])
def test_dril(variant: str) -> None:
    demonstrated, random, moved = mean_rewards(pretrained("algorithm=DRIL", f"imitation.uncertainty={variant}"))
    assert demonstrated > 0.9 and random > 0.9
    assert moved < 0.5 if variant == "ensemble" else moved > 0.9
