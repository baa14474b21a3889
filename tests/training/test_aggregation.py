"""DAgger: schedules, rounds, what is stored and trained on, and exact continuation."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.imitation.dagger import DAgger, DAggerConfig, RoundCloningConfig, linear_beta
from algorithms.learners.ppo import PPOConfig, TowerConfig
from conf.errors import UserError
from environments.construction import EnvironmentConfig
from memory.batch import Batch
from models.normalisation import RunningNorm
from tests.algorithms.support import WALK, make_config, make_context, push_back
from training.aggregation import Aggregation, Rounds
from training.build import Parts, build

PUSH = "tests.algorithms.support:push_back"
TOWER = TowerConfig(hidden_size=8, depth=1)


def swing(observations: np.ndarray) -> np.ndarray:
    """A simple expert for Pendulum."""
    torque: np.ndarray = np.clip(-2 * observations[:, 1:2] - observations[:, 2:], -2.0, 2.0).astype(np.float32)
    return torque


def halves(index: int) -> float:
    return 0.5**index


def improbable(index: int) -> float:
    return 1.5


def dagger(folder: Path | None, learner: str = "ppo", steps: int = 60, **options: Any) -> tuple[Parts, Aggregation]:
    """A run in Walk; `fields__*` are of the configuration, the others of the module."""
    fields = {name.removeprefix("fields__"): options.pop(name) for name in list(options) if name[:8] == "fields__"}
    defaults: dict[str, Any] = {"expert": PUSH, "round_min_steps": 5, "round_min_episodes": 2, "expert_episodes": 2}
    module = DAggerConfig(**(defaults | {"cloning": RoundCloningConfig(epochs=1)} | options))
    if learner == "ppo":
        fields.setdefault("reinforcement", PPOConfig(actor=TOWER, critic=TOWER, normalise_observations=True))
    config = make_config("dagger", None, learner, module, steps=steps, **fields)
    parts = build(config)
    (phase,) = parts.phases
    assert isinstance(phase, Aggregation)
    if folder is not None:
        phase.open(folder)
    return parts, phase


def run(phase: Aggregation, steps: int | None = None) -> list[dict[str, Tensor]]:
    """As the loop does; returns the metrics of all updates."""
    step = phase.counted
    metrics: list[dict[str, Tensor]] = []
    for _ in range(100_000):
        if step >= (steps or phase.length):
            return metrics
        found = phase.advance()
        step += phase.stride
        metrics += [found] if found else []
    raise AssertionError("it does not end")


def test_a_linear_learning_rate_falls_with_every_update_of_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last round's labels are learned, too."""
    cloning = RoundCloningConfig(epochs=1, learning_rate_schedule="linear")
    _, phase = dagger(tmp_path, steps=60, round_min_steps=10, round_min_episodes=1, cloning=cloning)
    update, shares, moved = phase.cloning.update, [], []

    def observed(batch: Batch, share: float = 0.0) -> dict[str, Tensor]:
        before = [parameter.clone() for parameter in phase.policy.parameters()]
        found = update(batch, share)
        shares.append(share)
        moved.append(any((a != b).any() for a, b in zip(before, phase.policy.parameters(), strict=True)))
        return found

    monkeypatch.setattr(phase.cloning, "update", observed)
    run(phase)
    assert phase.rounds is not None
    sizes = phase.rounds.sizes
    expected = []
    for index in range(len(sizes)):
        updates = sum(sizes[: index + 1]) // 8
        begun, ended = sum(sizes[:index]) / 60, min(1.0, sum(sizes[: index + 1]) / 60)
        expected += [begun + (ended - begun) * number / updates for number in range(updates)]
    assert len(sizes) > 1 and sorted(expected) == expected and shares == pytest.approx(expected)
    assert all(moved)


def test_beta_schedules_by_hand() -> None:
    assert [linear_beta(index, 4) for index in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    context = make_context()
    exponential = DAgger(DAggerConfig(expert=PUSH, beta_schedule="exponential", beta_decay=0.7), context)
    assert [exponential.beta(index) for index in range(3)] == pytest.approx([1.0, 0.7, 0.49])
    own = DAgger(DAggerConfig(expert=PUSH, beta_schedule="tests.training.test_aggregation:halves"), context)
    assert [own.beta(index) for index in range(3)] == [1.0, 0.5, 0.25]
    wrong = DAgger(DAggerConfig(expert=PUSH, beta_schedule="tests.training.test_aggregation:improbable"), context)
    with pytest.raises(UserError, match=r"returns 1.5 for round 0: expected a number from 0 to 1"):
        wrong.beta(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expert": None}, "imitation.expert has no value"),
        ({"expert": "nowhere/policy.pt"}, "there is no nowhere/policy.pt"),
        ({"expert": "tests.nowhere:act"}, "imitation.expert=tests.nowhere:act cannot be imported"),
        ({"beta_schedule": "quadratic"}, "expected linear, exponential, or"),
        ({"beta_schedule": "tests.algorithms.support:WALK"}, "is str: expected a function"),
        ({"absorbing": True}, "absorbing=true does not apply"),
        ({"cloning": RoundCloningConfig(epochs=2, iterations=3)}, "imitation.cloning.iterations=3 and"),
        ({"cloning": RoundCloningConfig(epochs=0)}, "imitation.cloning.epochs=0"),
        ({"steps": 0}, "steps=0: algorithm=dagger"),
        ({"fields__runs": 2}, "runs=2: .* episodes of one length"),
        ({"expert": "keyboard", "fields__runs": 2}, "runs=2"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dagger(None, **options)


@pytest.mark.parametrize(("steps", "episodes"), [(5, 2), (1, 5), (40, 1)])
def test_a_round_has_the_steps_and_the_episodes_that_were_asked_for(
    steps: int, episodes: int, tmp_path: Path
) -> None:  # H2
    _, phase = dagger(tmp_path, round_min_steps=steps, round_min_episodes=episodes)
    metrics = run(phase)
    assert phase.rounds is not None
    for found in metrics:
        assert found["round/episodes"] >= episodes
    assert min(phase.rounds.sizes) >= max(steps, 8)  # a batch
    # Each round ends as soon as it may: Walk's episodes have at most 12 steps, and there are two environments.
    assert max(phase.rounds.sizes) <= max(steps, 8) + 12 * (episodes + 2)
    assert max(float(found["round/episodes"]) for found in metrics) < episodes + 2 + steps


def test_minibatches_may_be_smaller_than_batches(tmp_path: Path) -> None:  # H14
    _, phase = dagger(tmp_path, cloning=RoundCloningConfig(epochs=1, minibatch_size=2))
    assert all(found["bc/loss"].isfinite().all() for found in run(phase))


@pytest.mark.parametrize("learner", ["ppo", "sac"])
def test_stored_actions_are_the_expert_s_whoever_acted(learner: str, tmp_path: Path) -> None:
    _, phase = dagger(tmp_path, learner, beta_schedule="exponential", beta_decay=0.01)
    run(phase)
    for path in sorted((tmp_path / "rounds").glob("*.npy")):
        rows = np.load(path)[:, 0]
        expected = phase.spaces.from_environment(push_back(rows[:, :2]))
        assert np.allclose(rows[:, 2:], expected, atol=1e-6)


@pytest.mark.parametrize(("schedule", "own"), [("linear", False), ("exponential", True)])
def test_who_acts(schedule: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beta is 1 in round 0, and next to nothing in the next with a decay of 1e-9."""
    _, phase = dagger(tmp_path, beta_schedule=schedule, beta_rounds=10**6, beta_decay=1e-9, expert_episodes=0)
    taken: list[tuple[int, bool]] = []
    step = type(phase.envs).step

    def watched(envs: Any, actions: Tensor) -> Any:
        expected = phase.spaces.from_environment(push_back(envs.observations.flatten(0, 1).numpy()))
        same = np.isclose(actions.flatten(0, 1).numpy(), expected, atol=1e-6).all(-1)[phase.active.numpy()]
        taken.append((phase.round, bool(same.all())))
        return step(envs, actions)

    monkeypatch.setattr(type(phase.envs), "step", watched)
    run(phase)
    assert all(same for index, same in taken if index == 0)
    assert any(not same for index, same in taken if index > 0) == own


def test_the_expert_s_return_is_its_own(tmp_path: Path) -> None:  # H3
    """However little of it is in the rounds."""
    parts, phase = dagger(tmp_path, beta_schedule="exponential", beta_decay=1e-9)
    metrics = run(phase)
    returns = {float(found["expert/return"]) for found in metrics}
    mixed = {float(found["round/mixed_return"]) for found in metrics}
    assert len(returns) == 1 and parts.demonstration_return == pytest.approx(returns.pop())
    other, again = dagger(tmp_path / "other", beta_rounds=10**6)
    run(again)
    assert other.demonstration_return == parts.demonstration_return and len(mixed) > 1


def test_steps_count_when_what_follows_from_them_is_learned(tmp_path: Path) -> None:
    _, phase = dagger(tmp_path)
    run(phase)
    assert phase.counted == phase.length == 60 <= phase.taken == sum(phase.rounds.sizes)  # type: ignore[union-attr]  # it has begun
    assert phase.updates == 0 and not phase.rows  # nothing is left over


@pytest.mark.usefixtures("unchecked_shapes")
def test_it_learns_what_the_expert_does(tmp_path: Path) -> None:
    cloning = RoundCloningConfig(epochs=20, learning_rate=0.01)
    parts, phase = dagger(tmp_path, steps=240, beta_rounds=3, round_min_steps=40, cloning=cloning)
    run(phase)
    assert phase.round > 3  # the last ones without the expert's actions
    seen = torch.linspace(-0.5, 0.5, 9).view(1, -1, 1).expand(1, 9, 2).contiguous()
    wanted = torch.from_numpy(phase.spaces.from_environment(push_back(seen[0].numpy())))
    assert torch.allclose(parts.learner.policy.greedy(seen)[0], wanted, atol=0.15)


def fixed(folder: Path, runs: int, seed: int) -> Aggregation:
    environment = EnvironmentConfig(name="pendulum", id="Pendulum-v1", fixed_horizon=True)
    options: dict[str, Any] = {"expert": "tests.training.test_aggregation:swing", "beta_decay": 0.5}
    options["expert_episodes"] = 1
    fields: dict[str, Any] = {"fields__env": environment, "fields__runs": runs, "fields__seed": seed}
    _, phase = dagger(folder, steps=600, beta_schedule="exponential", round_min_episodes=1, **options, **fields)
    run(phase)
    return phase


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_seed_is_the_same_alone_and_beside_others(tmp_path: Path) -> None:
    together = fixed(tmp_path / "together", 2, 3)
    for index, seed in enumerate((3, 4)):
        alone = fixed(tmp_path / f"alone_{seed}", 1, seed)
        for name, value in alone.policy.state_dict().items():
            assert torch.allclose(value[0], together.policy.state_dict()[name][index], atol=2e-4, rtol=1e-3), name
    weights = together.policy.state_dict()["network.final.weight"]
    assert not torch.allclose(weights[0], weights[1])


@pytest.mark.parametrize("calls", [7, 24, 41])
def test_it_goes_on_exactly_where_it_stopped(calls: int, tmp_path: Path) -> None:
    whole, first, second = (dagger(tmp_path / name)[1] for name in ("whole", "parts", "parts"))
    run(whole)
    for _ in range(calls):
        first.advance()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    policy = {name: value.clone() for name, value in first.policy.state_dict().items()}
    for _ in range(5):
        first.advance()  # lost: it died before the next checkpoint
    second.policy.load_state_dict(policy)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(second)
    assert (whole.taken, whole.round, whole.rounds.sizes) == (second.taken, second.round, second.rounds.sizes)  # type: ignore[union-attr]  # it has begun
    for name, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name]), name


@pytest.mark.parametrize("learner", ["ppo", "sac"])
def test_observations_may_be_normalised_by_running_statistics(learner: str, tmp_path: Path) -> None:
    environment = EnvironmentConfig(name="walk", id=WALK, num_envs=2, normalise_observations=True)
    options: dict[str, Any] = (
        {"fields__reinforcement": PPOConfig(actor=TOWER, critic=TOWER)} if learner == "ppo" else {}
    )
    parts, phase = dagger(tmp_path, learner, fields__env=environment, **options)
    run(phase)
    normaliser = parts.learner.policy.normaliser
    assert isinstance(normaliser, RunningNorm)
    assert normaliser.count.item() > 0
    assert (normaliser.variance != 1).any()


def test_rounds_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rounds, "OPEN_FILES", 2)
    rounds = Rounds(tmp_path)
    tables = [torch.randn(size, 2, 3) for size in (4, 7, 1)]
    for table in tables:
        rounds.add(table)
    assert len(rounds) == 12
    indices = torch.tensor([[0, 4, 11, 10], [3, 3, 5, 0]])
    expected = torch.cat(tables)
    for one, row in itertools.product(range(2), range(4)):
        assert torch.equal(rounds.take(indices)[one, row], expected[indices[one, row], one])
    assert len(rounds._files) == 2 and all(isinstance(file, np.memmap) for file in rounds._files.values())
    for damage in (lambda path: path.write_bytes(b""), Path.unlink):
        damage(tmp_path / "round_001.npy")
        with pytest.raises(UserError, match=r"round_001.npy is missing or damaged"):
            rounds.restore([4, 7, 1])


def test_a_person_labels_for_one_seed() -> None:
    _, phase = dagger(None, expert="keyboard", fields__env=EnvironmentConfig(name="walk", id=WALK, num_envs=2))
    assert not phase.expert.automatic and phase.expert_return is None
