"""PWIL: the greedy coupling by hand and against a plain loop, rewards of collected and of demonstrated rows."""

import copy
import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from math import exp, inf, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.imitation.pwil import PWIL, Atoms, PWILConfig
from conf.errors import UserError
from environments.trajectories import Trajectory
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from models.actors import SquashedGaussianActor
from models.streams import Streams
from tests.algorithms.support import make_batch, make_context, make_spaces, small_network

FOUR = torch.tensor([[-1.4], [-0.2], [0.2], [1.4]])  # mean 0, standard deviation 1
HORIZON = 10
POLICY = SquashedGaussianActor(3, 2, small_network(), Streams([0], "policy"))


def atoms(features: Tensor, horizon: int, weights: Tensor | None = None) -> Atoms:
    return Atoms(features, torch.ones(len(features)) if weights is None else weights, horizon)


def couple(atoms: Atoms, masses: Tensor, *point: float) -> float:
    return atoms.couple(torch.tensor([point]), masses).item()


def episode(length: int = 6, terminated: bool = True, seed: int = 0) -> Trajectory:
    generator = np.random.default_rng(seed)
    states = generator.normal(size=(length + 1, 3)).astype(np.float32)
    actions = generator.uniform(-1, 1, (length, 2)).astype(np.float32)
    return Trajectory(states[:-1], actions, np.zeros(length, np.float32), states[1:], terminated)


def demonstrated(*trajectories: Trajectory, subsample: int = 1, absorbing: bool = False) -> Demonstrations:
    return Demonstrations(
        trajectories or (episode(), episode(8, False, 1)),
        limit=0,
        subsample=subsample,
        seeds=[0],
        device="cpu",
        spaces=make_spaces(absorbing=absorbing),
    )


def make_pwil(
    demonstrations: Demonstrations | None = None,
    seeds: Sequence[int] = (0,),
    absorbing: bool = False,
    horizon: int = HORIZON,
    **options: Any,
) -> PWIL:
    context = make_context(tuple(seeds), 3 + absorbing, 2, horizon=horizon, absorbing=absorbing)
    pwil = PWIL(PWILConfig(**options), context)
    pwil.prepare(demonstrations or demonstrated(absorbing=absorbing))
    return pwil


def walk(length: int, runs: int = 1, envs: int = 1, seed: int = 0) -> list[Batch]:
    """Transitions of episodes that go on."""
    observations = torch.randn(length + 1, runs, envs, 3, generator=torch.Generator().manual_seed(seed))
    return [
        make_batch(runs, envs, seed=seed + step, observations=one, next_observations=two)
        for step, (one, two) in enumerate(pairwise(observations))
    ]


def collect(pwil: PWIL, transitions: Sequence[Batch]) -> Tensor:
    """Rewards [runs, envs, time]."""
    return torch.stack([pwil.annotate(transition).rewards for transition in transitions], -1)


def of(transitions: Sequence[Batch], run: int, env: int) -> list[Batch]:
    return [t.map(lambda column: column[run : run + 1, env : env + 1]) for t in transitions]


def with_end(transition: Batch, flag: str, env: int = 0) -> Batch:
    ends = torch.zeros(transition.shape)
    ends[:, env] = 1.0
    return dataclasses.replace(transition, **{flag: ends})


def test_four_atoms_with_split_masses_by_hand() -> None:
    four = atoms(FOUR, 3)  # three steps: each atom holds three quarters of what a step moves
    masses = four.masses.clone().unsqueeze(0)
    assert masses.tolist() == [[0.75] * 4]
    # From 0.1: 0.75 come from 0.2, a way of 0.1, and 0.25 from -0.2, a way of 0.3.
    assert couple(four, masses, 0.1) == pytest.approx(0.75 * 0.1 + 0.25 * 0.3, abs=1e-6)
    assert masses[0].tolist() == pytest.approx([0.75, 0.5, 0.0, 0.75])
    # Again: the other 0.5 from -0.2, then 0.5 from 1.4, a way of 1.3.
    assert couple(four, masses, 0.1) == pytest.approx(0.5 * 0.3 + 0.5 * 1.3, abs=1e-6)
    assert masses[0].tolist() == pytest.approx([0.75, 0.0, 0.0, 0.25])
    # From 1.4: the 0.25 that are there, and 0.75 from -1.4. Nothing is left.
    assert couple(four, masses, 1.4) == pytest.approx(0.75 * 2.8, abs=1e-6)
    assert masses.tolist() == [[0.0] * 4]


def plain(points: Tensor, weights: Tensor, standard: Atoms, horizon: int) -> list[float]:
    """Algorithm 1, word for word: T times the cost of each step."""
    left = [w.item() / weights.sum().item() for w in weights]
    costs = []
    for point in standard.standardised(points):
        mass, cost = 1 / horizon, 0.0
        distances = (standard.points - point).norm(dim=-1).tolist()
        while mass > 1e-12 and max(left) > 1e-12:
            nearest = min((d, i) for i, d in enumerate(distances) if left[i] > 1e-12)[1]
            moved = min(mass, left[nearest])
            cost, mass, left[nearest] = cost + moved * distances[nearest], mass - moved, left[nearest] - moved
        costs.append(horizon * cost)
    return costs


@pytest.mark.parametrize(("count", "horizon"), [(3, 20), (20, 20), (97, 20), (200, 7), (200, 1)])
@pytest.mark.parametrize("uneven", [False, True])
def test_coupling_is_that_of_a_plain_loop(count: int, horizon: int, uneven: bool) -> None:
    features = torch.randn(count, 4) * torch.tensor([1.0, 10.0, 0.1, 3.0])
    weights = torch.rand(count) ** 8 + 1e-3 if uneven else torch.ones(count)  # many atoms hold next to nothing
    mine = atoms(features, horizon, weights)
    episodes = torch.randn(3, horizon, 4) * features.std(0) + features.mean(0)
    masses = mine.masses.repeat(3, 1)
    found = torch.stack([mine.couple(points, masses) for points in episodes.unbind(1)], -1)
    for points, costs in zip(episodes, found, strict=True):
        assert costs.tolist() == pytest.approx(plain(points, weights, mine, horizon), rel=1e-4, abs=1e-4)
    assert masses.max() < 1e-6  # all of it was moved


def test_atoms_are_standardised_by_their_weights() -> None:
    features = torch.tensor([[1.0, 0.3], [4.0, 0.3]])
    two = atoms(features, 2, torch.tensor([2.0, 1.0]))  # mean 2, variance (2 * 1 + 4) / 3 = 2
    assert two.points[:, 0].tolist() == pytest.approx([-1 / sqrt(2), 2 / sqrt(2)])
    assert two.std[1] == 1.0 and two.points[:, 1].tolist() == [0.0, 0.0]  # a constant feature
    assert two.masses.tolist() == pytest.approx([4 / 3, 2 / 3])


@pytest.mark.parametrize(("state_only", "size"), [(False, 5), (True, 3)])
def test_reward_by_hand(state_only: bool, size: int) -> None:
    options: dict[str, Any] = {"reward_scale": 2.0, "reward_bandwidth_scale": 3.0, "state_only": state_only}
    pwil = make_pwil(**options)
    transitions = walk(1)
    features = torch.cat([transitions[0].observations, transitions[0].actions], -1)[0, :, :size]
    cost = pwil.atoms.couple(features, pwil.atoms.masses.clone().unsqueeze(0)).item()
    assert collect(pwil, transitions).item() == pytest.approx(2 * exp(-3 / sqrt(size) * cost), rel=1e-5)


def test_state_only_looks_at_no_action() -> None:
    for state_only in (True, False):
        moved = [dataclasses.replace(t, actions=torch.zeros(1, 1, 2)) for t in walk(4)]
        found = [collect(make_pwil(state_only=state_only), transitions) for transitions in (walk(4), moved)]
        assert torch.equal(*found) == state_only


def test_absorbing_states_change_no_reward() -> None:
    plain, extended = make_pwil(), make_pwil(absorbing=True)
    assert torch.equal(plain.atoms.points, extended.atoms.points)  # the bit and the state itself are left out

    def with_bit(observations: Tensor) -> Tensor:
        return torch.cat([observations, torch.zeros(1, 1, 1)], -1)

    transitions = walk(4)
    names = ("observations", "next_observations")
    longer = [dataclasses.replace(t, **{name: with_bit(getattr(t, name)) for name in names}) for t in transitions]
    assert torch.equal(collect(plain, transitions), collect(extended, longer))


def test_rows_that_subsampling_always_keeps_weigh_no_more_than_others() -> None:  # K13
    demonstrations = demonstrated(episode(7), episode(9, False, 1), subsample=3, absorbing=True)
    rows = demonstrations.rows()
    weights = rows.weights[0][rows.absorbing[0] == 0]
    masses = make_pwil(demonstrations, absorbing=True).atoms.masses
    assert sorted(set(weights.tolist())) == pytest.approx([1 / 3, 1.0])  # the step into the absorbing state
    assert masses.tolist() == pytest.approx((HORIZON * weights / weights.sum()).tolist())


@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_an_episode_s_end_is_a_new_beginning_there_alone(flag: str) -> None:
    transitions = walk(6, runs=2, envs=3)
    transitions[2] = with_end(transitions[2], flag, env=1)
    found = collect(make_pwil(seeds=(0, 1)), transitions)
    for run in range(2):
        for env in range(3):
            own = of(transitions, run, env)
            parts = [own[:3], own[3:]] if env == 1 else [own]
            expected = torch.cat([collect(make_pwil(), part)[0, 0] for part in parts])
            assert torch.allclose(found[run, env], expected, rtol=1e-4)
    going_on = collect(make_pwil(seeds=(0, 1)), walk(6, runs=2, envs=3))
    assert not torch.allclose(found[:, 1, 3:], going_on[:, 1, 3:], rtol=1e-2)


def test_a_simulator_that_began_anew_does_so_with_all_mass() -> None:
    pwil, transitions = make_pwil(), walk(4)
    collect(pwil, transitions[:3])
    assert collect(pwil, walk(2, seed=50)).equal(collect(make_pwil(), walk(2, seed=50)))


def test_steps_beyond_the_time_limit_cost_nothing_and_break_nothing() -> None:
    found = collect(make_pwil(), walk(HORIZON + 3))
    assert found.isfinite().all() and found[0, 0, HORIZON:].tolist() == pytest.approx([5.0] * 3)


@pytest.mark.parametrize("subsample", [1, 3])
@pytest.mark.parametrize("absorbing", [False, True])
def test_demonstrated_rows_are_rewarded_trajectory_by_trajectory(subsample: int, absorbing: bool) -> None:  # K9
    trajectories = [episode(7, True), episode(9, False, 1), episode(5, True, 2)] * 5
    demonstrations = demonstrated(*trajectories, subsample=subsample, absorbing=absorbing)
    pwil = make_pwil(demonstrations, absorbing=absorbing, mix_expert_data="prefill_memory")
    rows = pwil.prepare(demonstrations).rows()
    assert rows.rewards.isfinite().all() and demonstrations.rows().rewards.isnan().all()
    features, rewards = torch.cat([rows.observations[..., :3], rows.actions], -1)[0], rows.rewards[0]
    real, weights = rows.absorbing[0] == 0, rows.weights[0]
    for trajectory in torch.arange(len(real)).split(demonstrations.trajectory_lengths):
        own = trajectory[real[trajectory]]
        costs = plain(features[own], weights[real], pwil.atoms, HORIZON)
        expected = [5 * exp(-5 / sqrt(5) * cost) for cost in costs]
        assert rewards[own].tolist() == pytest.approx(expected, rel=1e-3)
    assert rewards[~real].tolist() == [0.0] * int((~real).sum())  # as the memory writes for the learner
    assert (len(real) > real.sum()) == absorbing


def test_demonstrations_that_are_longer_than_an_episode_start_again() -> None:
    demonstrations = demonstrated(episode(5))
    rewards = make_pwil(horizon=2).prepare(demonstrations).rows().rewards
    assert rewards.isnan().all()  # nobody trains on them
    pwil = make_pwil(demonstrations, horizon=2, mix_expert_data="prefill_memory")
    rows = pwil.prepare(demonstrations).rows()
    features = torch.cat([rows.observations, rows.actions], -1)[0]
    costs = [plain(part, torch.ones(5), pwil.atoms, 2) for part in features.split(2)]
    expected = [5 * exp(-5 / sqrt(5) * cost) for part in costs for cost in part]
    assert rows.rewards[0].tolist() == pytest.approx(expected, rel=1e-3)


def test_mixed_batches_carry_the_rewards_of_both_kinds_of_rows() -> None:  # K8
    demonstrations = demonstrated()
    pwil = make_pwil(demonstrations, mix_expert_data="mixed_batch")
    given = pwil.prepare(demonstrations)
    batch, expert_batch = make_batch(1, 8), given.sample(8)
    mixed = pwil.mix(batch, expert_batch)
    rewards = pwil.relabel(mixed, expert_batch, POLICY).rewards
    assert torch.equal(rewards, torch.cat([expert_batch.rewards[:, :4], batch.rewards[:, 4:]], 1))
    assert rewards.isfinite().all() and set(rewards[0, :4].tolist()) <= set(given.rows().rewards[0].tolist())


def test_preparing_again_gives_the_same() -> None:
    demonstrations = demonstrated()
    pwil = make_pwil(demonstrations, mix_expert_data="prefill_memory")
    pwil.annotate(walk(1)[0])
    masses, state = pwil.masses, pwil.atoms.masses.clone()
    rewards = [pwil.prepare(demonstrations).rows().rewards for _ in range(2)]
    assert torch.equal(*rewards) and pwil.masses is masses and torch.equal(pwil.atoms.masses, state)


def test_environments_without_a_time_limit_are_refused() -> None:
    with pytest.raises(UserError, match=r"algorithm=PWIL needs a time limit.*env\.id"):
        PWIL(PWILConfig(), make_context(horizon=None))


def test_the_logged_cost_is_the_mean_over_the_last_steps() -> None:
    pwil = make_pwil(seeds=(0, 1), horizon=2)
    rewards = collect(pwil, walk(3, runs=2, envs=2))
    costs = (-torch.log(rewards / 5) * sqrt(5) / 5).mean(1)  # of each step, mean over environments
    logged = pwil.update(make_batch(2), make_batch(2), POLICY)["pwil/coupling_cost"]
    assert torch.allclose(logged, ((costs[:, 0] + costs[:, 1]) / 2 + costs[:, 2]) / 2, rtol=1e-4)


def test_another_run_changes_nothing() -> None:
    transitions = walk(5, runs=2, envs=2)
    others = [t.map(lambda column: torch.cat([column[:1], 2 * column[1:]])) for t in transitions]
    found, changed = (collect(make_pwil(seeds=(0, 1)), steps) for steps in (transitions, others))
    assert torch.equal(found[0], changed[0]) and not torch.equal(found[1], changed[1])


@pytest.mark.parametrize("taken", [0, 3])
def test_saved_state_continues_exactly_in_the_middle_of_an_episode(taken: int) -> None:
    transitions = walk(7, runs=2, envs=3)
    first, second = (make_pwil(seeds=(0, 1)) for _ in range(2))
    for transition in transitions[:taken]:
        first.annotate(transition)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # knows nothing of the number of environments
    found = [collect(pwil, transitions[taken:]) for pwil in (first, second)]
    assert torch.equal(*found)
    assert torch.equal(first.masses, second.masses) and torch.equal(first.cost, second.cost)
    assert first.next_observations.shape == (2, 3, 3) and not (first.next_observations == inf).any()
