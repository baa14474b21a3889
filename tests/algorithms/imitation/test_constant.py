"""Constant rewards, and the bias towards survival or dying that they show."""

import pytest
import torch

from algorithms.imitation.constant import Constant, ConstantConfig
from memory.batch import Batch, Layout
from memory.replay import ReplayMemory
from models.actors import SquashedGaussianActor
from models.streams import Streams
from tests.algorithms.support import absorbing_state, make_batch, make_config, make_context, small_network
from tests.training.helpers import configured
from training.build import build

DISCOUNT = 0.9


def rewarded(batch: Batch, reward: float) -> Batch:
    policy = SquashedGaussianActor(3, 2, small_network(), Streams([0], "policy"))
    return Constant(ConstantConfig(reward=reward), make_context()).relabel(batch, batch.map(lambda t: t[:, :0]), policy)


@pytest.mark.parametrize("reward", [1.0, 0.0, -1.0])
def test_every_row_gets_the_reward(reward: float) -> None:
    batch = make_batch(2, 4, absorbing=[[0.0, 1.0, 0.0, 1.0]] * 2, terminated=[[1.0, 0.0, 0.0, 0.0]] * 2)
    assert rewarded(batch, reward).rewards.tolist() == [[reward] * 4] * 2


def values(absorbing: bool, reward: float) -> list[float]:
    """The values of the states of an episode of three steps that truly ends, from the rows in the memory."""
    memory = ReplayMemory(Layout(3, 2), 10, [0], absorbing_state=absorbing_state(3) if absorbing else None)
    for number in range(3):
        states = [torch.tensor([[[float(n), 1.0, 0.0]]]) for n in (number, number + 1)]
        end = [[float(number == 2)]]
        memory.add(make_batch(1, 1, observations=states[0], next_observations=states[1], terminated=end))
    rows = rewarded(memory.layout.unpack(memory.rows[:, : memory.size[0]]), reward)
    names = [tuple(state) for state in rows.observations[0].tolist()]
    found = dict.fromkeys(names, 0.0)
    for _ in range(300):
        following = [found.get(tuple(state), 0.0) for state in rows.next_observations[0].tolist()]
        ends = rows.terminated[0].tolist()
        for index, name in enumerate(names):
            found[name] = float(rows.rewards[0, index]) + DISCOUNT * (1 - ends[index]) * following[index]
    return list(found.values())


@pytest.mark.parametrize("reward", [1.0, -1.0])
def test_without_absorbing_states_the_sign_says_whether_to_live(reward: float) -> None:
    # Three, two and one steps to go: 1 + 0.9 + 0.81, 1 + 0.9, 1.
    assert values(False, reward) == pytest.approx([reward * 2.71, reward * 1.9, reward])


@pytest.mark.parametrize("reward", [1.0, -1.0])
def test_with_absorbing_states_every_state_is_worth_the_same(reward: float) -> None:
    assert values(True, reward) == pytest.approx([reward / (1 - DISCOUNT)] * 4)  # the absorbing state is the fourth


def test_no_demonstrations_are_needed() -> None:
    parts = build(make_config("constant", None, runs=2))  # there is no such file
    assert parts.demonstrations is None


def test_composition() -> None:
    config = configured("algorithm=constant", "imitation.reward=-1")
    assert (config.imitation.reward, config.imitation.absorbing) == (-1.0, True)
    assert configured("algorithm=constant").imitation.reward == 1.0
