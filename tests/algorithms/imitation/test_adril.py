"""AdRIL and SQIL: rewards by hand around a period's edge, who counts as what, and which batches are mixed."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.imitation.adril import AdRIL, AdRILConfig, adril_rewards
from conf.errors import UserError
from memory.batch import FIELDS, Batch
from memory.replay import ReplayMemory
from models.actors import SquashedGaussianActor
from models.streams import Streams
from tests.algorithms.support import make_batch, make_config, make_context, small_network, write_demonstrations
from tests.training.helpers import configured
from training.build import build
from training.phases import Interaction

POLICY = SquashedGaussianActor(3, 2, small_network(), Streams([0], "policy"))


def make_adril(seeds: tuple[int, ...] = (0,), expert_trajectories: int = 4, **options: Any) -> AdRIL:
    adril = AdRIL(AdRILConfig(**options), make_context(seeds))
    adril.expert_trajectories = expert_trajectories  # what `prepare` sets
    return adril


def rewards(collected_at: list[float], step: int, update_freq: int, episodes: int = 1, expert: int = 4) -> list[float]:
    found: list[float] = adril_rewards(
        torch.tensor([collected_at]), torch.tensor([episodes]), expert, step, update_freq
    )[0].tolist()
    return found


def step(adril: AdRIL, number: int, terminated: list[list[float]], truncated: list[list[float]]) -> Batch:
    """One environment step, [runs, envs], as the module sees it."""
    runs, envs = len(terminated), len(terminated[0])
    stamps = torch.full((runs, envs), float(number))
    return adril.annotate(make_batch(runs, envs, collected_at=stamps, terminated=terminated, truncated=truncated))


@pytest.mark.parametrize(
    ("now", "collected", "reward"),
    [  # periods of 5 steps: 1 to 5, 6 to 10, 11 to 15
        (5, 5, 0.0),  # ceil(5 / 5) = 1 and 1: the present period, at its last step
        (6, 5, -0.5),  # ceil(6 / 5) = 2 > 1: one step later it is over
        (6, 6, 0.0),  # 2 and 2: the newest row, at the first step of a period
        (10, 6, 0.0),  # 2 and 2: as late as can be
        (11, 6, -0.5),  # 3 > 2
        (11, 5, -0.5),  # 3 > 1: once penalised, always penalised
    ],
)
def test_rewards_around_the_edge_of_a_period(now: int, collected: int, reward: float) -> None:
    assert rewards([float(collected), -1.0], now, 5, episodes=2) == [reward, 0.25]  # n_pi = 2, n_E = 4


@pytest.mark.parametrize("period", [1, 3, 5, 7])
def test_periods_are_those_of_the_two_ceilings(period: int) -> None:
    for now in range(1, 30):
        collected = range(1, now + 1)
        expected = [-1.0 if math.ceil(now / period) > math.ceil(k / period) else 0.0 for k in collected]
        assert rewards([float(k) for k in collected], now, period) == expected


def test_edges_of_periods_are_exact_in_long_runs() -> None:
    # 12,000,000 is the end of the 9600th period of 1250 steps; all of these are whole numbers in float32.
    assert rewards([12_000_000.0], 12_000_000, 1250) == [0.0]
    assert rewards([12_000_000.0, 12_000_001.0], 12_000_001, 1250) == [-1.0, 0.0]


def test_sqil_is_one_and_zero_whatever_the_counts() -> None:
    assert rewards([-1.0, 1.0, 500.0, 2000.0], 2000, 0, episodes=7) == [1.0, 0.0, 0.0, 0.0]


def test_before_the_first_end_one_episode_counts() -> None:
    assert rewards([1.0, -1.0], 9, 5, episodes=0) == [-1.0, 0.25]


def test_each_run_has_its_own_count() -> None:
    found = adril_rewards(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), torch.tensor([2, 8]), 5, 9, 5)
    assert found.tolist() == [pytest.approx([-0.5, 0.2]), pytest.approx([-0.125, 0.2])]


def test_episodes_end_truly_or_by_a_time_limit_and_count_once() -> None:  # K15
    adril = make_adril((0, 1))
    step(adril, 3, [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert adril.learner_trajectories.tolist() == [0, 0]
    # Run 0: a true end, a time limit, both at once; run 1: one true end.
    hidden = step(adril, 6, [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert adril.learner_trajectories.tolist() == [3, 1]
    step(adril, 9, [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert adril.learner_trajectories.tolist() == [3, 2] and adril.step == 9
    assert hidden.rewards.isnan().all()  # the true ones


def test_environments_of_a_run_share_their_periods() -> None:
    """Three environments: stamps 3, 6, 9, 12. The newest rows are never penalised, the others at one step."""
    adril = make_adril(update_freq=5)
    seen = []
    for number in (3, 6, 9, 12):
        newest = step(adril, number, [[0.0] * 3], [[0.0] * 3])
        assert adril.relabel(newest, newest, POLICY).rewards.tolist() == [[0.0] * 3]
        rows = make_batch(1, 4, collected_at=[[3.0, 6.0, 9.0, 12.0]])
        seen.append(adril.relabel(rows, rows, POLICY).rewards[0].tolist())
    # Periods by ceil(t / 5): 1, 2, 2, 3.
    assert [row[: i + 1] for i, row in enumerate(seen)] == [[0], [-1, 0], [-1, 0, 0], [-1, -1, -1, 0]]


def trained(demonstrations: Path, **options: Any) -> tuple[AdRIL, Batch]:
    """After 100 steps of Walk with absorbing states: the module, and all rows of the memory."""
    parts = build(make_config("adril", demonstrations, imitation=AdRILConfig(**options)))
    interaction = parts.phases[-1]
    assert isinstance(interaction, Interaction)
    for _ in range(50):  # of two environments
        interaction.advance()
    adril, memory = parts.imitation, interaction.memory
    assert isinstance(adril, AdRIL) and isinstance(memory, ReplayMemory)
    return adril, memory.layout.unpack(memory.rows[:, : memory.size[0]])


@pytest.mark.parametrize("mix", ["mixed_batch", "prefill_memory"])
def test_counts_with_absorbing_states_and_prefill(mix: str, tmp_path: Path) -> None:  # K15
    demonstrations = write_demonstrations(tmp_path / "d.hdf5", episodes=5, length=8)
    adril, rows = trained(demonstrations, mix_expert_data=mix, subsample=3, update_freq=20)
    expert, loops = rows.collected_at < 0, rows.absorbing.bool()
    true_ends, time_limits = rows.next_absorbing.bool() & ~loops & ~expert, rows.truncated.bool() & ~expert
    assert true_ends.any() and (time_limits & ~true_ends).any()
    ends = int((true_ends | time_limits).sum())
    assert adril.learner_trajectories.tolist() == [ends]
    assert adril.expert_trajectories == 5

    found = adril.relabel(rows, rows, POLICY).rewards
    # Step 100, periods of 20: those up to step 80 are over. A self-loop has the stamp of the end that it follows.
    assert torch.equal(rows.collected_at[loops & ~expert], rows.collected_at[true_ends])
    early = ~expert & (rows.collected_at <= 80)
    assert (early & loops).any()
    assert torch.allclose(found[early], torch.tensor(-1 / ends))
    assert (found[~expert & ~early] == 0).all()
    if mix == "mixed_batch":
        assert not expert.any()
        return
    # Three of the five demonstrations truly end; the two rows about each of these ends weigh 1 / subsample.
    assert int((expert & loops).sum()) == 3
    assert torch.allclose(found[expert], torch.tensor(1 / 5))
    weights = rows.weights[expert]
    assert int((weights < 1).sum()) == 6 and torch.allclose(weights[weights < 1], torch.tensor(1 / 3))


def mixed(adril: AdRIL, size: int = 5) -> list[list[float]]:
    """Where the rows of four successive batches come from: -1 is a demonstration."""
    batch = make_batch(size=size, collected_at=torch.ones(1, size))
    expert_batch = make_batch(size=size, seed=1, collected_at=-torch.ones(1, size), weights=torch.full((1, size), 0.5))
    found = []
    for _ in range(4):
        adril.update(batch, expert_batch, POLICY)
        result = adril.mix(batch, expert_batch)
        expert = result.collected_at < 0
        for name in FIELDS:  # rows come with all that belongs to them
            ours, theirs, column = (getattr(b, name) for b in (batch, expert_batch, result))
            assert torch.equal(column, torch.where(expert.unsqueeze(-1) if column.dim() == 3 else expert, theirs, ours))
        found.append(result.collected_at[0].tolist())
    return found


def test_balanced_batches_take_turns() -> None:
    assert mixed(make_adril()) == [[-1.0] * 5, [1.0] * 5] * 2


def test_unbalanced_batches_are_half_demonstrations() -> None:
    assert mixed(make_adril(balanced=False)) == [[-1.0, -1.0, 1.0, 1.0, 1.0]] * 4


@pytest.mark.parametrize("balanced", [True, False])
def test_nothing_is_mixed_into_a_prefilled_memory(balanced: bool) -> None:
    assert mixed(make_adril(mix_expert_data="prefill_memory", balanced=balanced)) == [[1.0] * 5] * 4


def test_metrics_by_hand() -> None:
    adril = make_adril((0, 1), update_freq=5)
    step(adril, 8, [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]])
    # Run 0: of two own rows one is penalised, with 1/2. Run 1: demonstrations alone.
    batch = make_batch(2, 3, collected_at=[[-1.0, 5.0, 6.0], [-1.0, -1.0, -1.0]])
    metrics = adril.update(batch, batch, POLICY)
    assert {name: value.tolist() for name, value in metrics.items()} == {
        "adril/learner_trajectories": [2.0, 0.0],
        "adril/penalised_share": [0.5, 0.0],
        "adril/expert_reward": [0.25, 0.25],
        "adril/learner_reward": [-0.25, 0.0],
    }
    assert make_adril((0, 1), update_freq=0).update(batch, batch, POLICY)["adril/expert_reward"].tolist() == [1.0, 1.0]


def test_saved_state_continues_exactly() -> None:
    first, second = make_adril((0, 1), update_freq=5), make_adril((5, 6), update_freq=5)
    batch = make_batch(2, 4, collected_at=torch.tensor([[-1.0, 3.0, 5.0, 7.0]]).expand(2, -1))
    step(first, 7, [[1.0], [0.0]], [[0.0], [0.0]])
    first.update(batch, batch, POLICY)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for number, last in ((9, [[1.0], [1.0]]), (11, [[0.0], [1.0]])):
        results = []
        for adril in (first, second):
            other = adril.mix(batch, batch.with_rewards(torch.ones(2, 4)))  # before anything new is seen
            rewarded = adril.relabel(batch, batch, POLICY).rewards
            step(adril, number, last, [[0.0], [0.0]])
            results.append([other.rewards, rewarded, *adril.update(batch, batch, POLICY).values()])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_is_refused_says_what_to_do() -> None:
    assert "mixed_batch or prefill_memory" in refusal(mix_expert_data="none")
    for mix in ("none", "mixed_batch", "prefill_memory"):  # the one that no other option could cure comes first
        message = refusal(state_only=True, mix_expert_data=mix)
        assert "imitation.state_only=true" in message and "actions" in message and "GAIL" in message


def refusal(**options: Any) -> str:
    with pytest.raises(UserError) as error:
        AdRILConfig(**options).check()
    return str(error.value)


@pytest.mark.parametrize(("algorithm", "update_freq", "balanced"), [("AdRIL", 1250, True), ("SQIL", 0, False)])
def test_compositions(algorithm: str, update_freq: int, balanced: bool) -> None:
    config = configured(f"algorithm={algorithm}")
    assert (config.imitation.update_freq, config.imitation.balanced) == (update_freq, balanced)
    assert config.imitation.mix_expert_data == "mixed_batch"
    assert (config.reinforcement.discount, config.reinforcement.polyak_factor) == (0.98, 0.98)
