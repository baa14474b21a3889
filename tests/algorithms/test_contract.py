"""What every learner and every imitation module must hold, over the registry: new ones are covered by being in it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms import IMITATION_MODULES, LEARNERS
from algorithms.base import ImitationModule, Learner, Metrics
from conf.errors import UserError
from conf.fields import Section
from environments.vector import VectorEnvironment
from memory.batch import FIELDS, Batch
from tests.algorithms.support import default_options, make_config, parameters, write_demonstrations
from training.build import Parts, build
from training.phases import ImitationPretraining, Interaction

PAIRS = [
    (learner, module)
    for learner in LEARNERS
    for module in IMITATION_MODULES
    if IMITATION_MODULES[module].provides_rewards
    and (IMITATION_MODULES[module].supports_on_policy or not LEARNERS[learner].on_policy)
]
LIMIT = 4000  # steps in which a learner must have updated


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demonstrations(tmp_path_factory.mktemp("demonstrations") / "d.hdf5")


def make(learner: str, module: str, demonstrations: Path, seed: int = 0, **options: Any) -> tuple[Parts, Interaction]:
    """The parts of a tiny run of two seeds, after its pretraining."""
    imitation = default_options(module, learner, **options)
    config = make_config(module, demonstrations, learner, imitation, seed=seed, runs=2, steps=LIMIT)
    parts = build(config)
    *before, interaction = parts.phases
    for phase in before:
        for _ in range(phase.length):
            phase.advance()
        phase.finish()
    assert isinstance(interaction, Interaction)
    return parts, interaction


def advance(interaction: Interaction, updates: int) -> list[Metrics]:
    """Steps of the loop until the learner has updated so many times."""
    metrics = []
    for _ in range(LIMIT // interaction.stride):
        if found := interaction.advance():
            metrics.append(found)
        if len(metrics) == updates:
            return metrics
    raise AssertionError(f"fewer than {updates} updates in {LIMIT} steps")


def batches(parts: Parts, interaction: Interaction) -> Iterator[tuple[Batch, Batch]]:
    """What the loop would give to the imitation module."""
    assert parts.demonstrations is not None
    for _ in range(LIMIT // interaction.stride):
        transition = interaction.envs.step(parts.learner.act(interaction.envs.observations))
        interaction.memory.add(parts.imitation.annotate(transition))
        for batch in interaction.memory.batches():
            yield batch, parts.demonstrations.sample_like(batch)
    raise AssertionError(f"no batch in {LIMIT} steps")


def copied(batch: Batch) -> Batch:
    return batch.map(torch.Tensor.clone)


def assert_unchanged(batch: Batch, before: Batch) -> None:
    for name in FIELDS:
        # Bit for bit: NaN is the same as NaN here.
        first, second = (getattr(b, name).contiguous().view(torch.int32) for b in (batch, before))
        assert torch.equal(first, second), name


def refused(module: str, **options: Any) -> bool:
    try:
        IMITATION_MODULES[module].config_class(**options).check()
    except UserError:
        return True
    return False


def with_demonstrations(pair: tuple[str, str]) -> bool:
    return IMITATION_MODULES[pair[1]].uses_demonstrations


IMITATING = [pair for pair in PAIRS if with_demonstrations(pair)]
# On-policy learners take no demonstrations among their rows, and some modules refuse one way or another of mixing.
MIXED = [
    (learner, module, mix)
    for learner, module in PAIRS
    for mix in ("none", "mixed_batch", "prefill_memory")
    if mix == "none" or (with_demonstrations((learner, module)) and not LEARNERS[learner].on_policy)
    if not refused(module, mix_expert_data=mix)
]
PRETRAINED = [name for name, module in IMITATION_MODULES.items() if module.pretrain is not ImitationModule.pretrain]


def test_registered_classes_declare_what_they_are() -> None:
    for learner in LEARNERS.values():
        assert issubclass(learner, Learner) and isinstance(learner.on_policy, bool)
    for module in IMITATION_MODULES.values():
        assert issubclass(module, ImitationModule)
    schemas: list[type[Section]] = [learner.config_class for learner in LEARNERS.values()]
    schemas += [module.config_class for module in IMITATION_MODULES.values()]
    assert len(set(schemas)) == len(schemas)  # a configuration names its class


@pytest.mark.parametrize(("learner", "module", "mix"), MIXED)
def test_updates_are_finite(learner: str, module: str, mix: str, demonstrations: Path) -> None:
    parts, interaction = make(learner, module, demonstrations, mix_expert_data=mix)
    for metrics in advance(interaction, 5):
        for name, value in metrics.items():
            assert value.shape == (2,) and value.isfinite().all() and not value.requires_grad, name
            assert "/" in name
    for name, parameter in {**parameters(parts.learner), **parameters(parts.imitation)}.items():
        assert parameter.isfinite().all(), name


@pytest.mark.parametrize(
    ("learner", "module", "mix"),
    [case for case in MIXED if with_demonstrations(case[:2]) and case[2] != "prefill_memory"],
)
def test_relabelling_gives_finite_rewards_and_changes_no_input(
    learner: str, module: str, mix: str, demonstrations: Path
) -> None:
    parts, interaction = make(learner, module, demonstrations, mix_expert_data=mix)
    imitation, policy = parts.imitation, parts.learner.policy
    batch, expert_batch = next(batches(parts, interaction))
    kept, expert_kept, policy_kept = copied(batch), copied(expert_batch), parameters(policy)
    imitation.update(batch, expert_batch, policy)
    mixed = imitation.mix(batch, expert_batch)
    mixed_kept, own_kept = copied(mixed), parameters(imitation)
    rewarded = imitation.relabel(mixed, expert_batch, policy)
    again = imitation.relabel(mixed, expert_batch, policy)
    assert rewarded.rewards.isfinite().all() and not rewarded.rewards.requires_grad
    assert torch.equal(rewarded.rewards, again.rewards)  # it has no state of its own
    for before, after in ((kept, batch), (expert_kept, expert_batch), (mixed_kept, mixed)):
        assert_unchanged(after, before)
    assert_unchanged(rewarded.with_rewards(mixed.rewards), mixed)  # and gives back the same rows
    for before_parameters, owner in ((policy_kept, policy), (own_kept, imitation)):
        for name, value in parameters(owner).items():
            assert torch.equal(value, before_parameters[name]), name


@pytest.mark.parametrize("module", [module for learner, module in IMITATING if learner == "ppo"])
def test_what_a_policy_draws_beyond_the_bounds_changes_no_reward(module: str, demonstrations: Path) -> None:
    """The environment clips it, so what is judged is what was carried out."""
    rewards = []
    for limit in (50.0, 1.0):
        parts, interaction = make("ppo", module, demonstrations)
        assert parts.demonstrations is not None
        drawn = torch.full((*interaction.envs.shape, parts.spaces.action_size), 50.0).clamp(-limit, limit)
        annotated = parts.imitation.annotate(interaction.envs.step(drawn))
        expert_batch = parts.demonstrations.sample_like(annotated)
        rewards.append(parts.imitation.relabel(annotated, expert_batch, parts.learner.policy).rewards)
    assert torch.equal(*rewards) and rewards[0].isfinite().all()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("learner", "module"), PAIRS)
def test_the_same_seed_gives_the_same_parameters(learner: str, module: str, demonstrations: Path) -> None:
    ends: list[dict[str, Tensor]] = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(ends))  # nothing may hang on the global generator
        parts, interaction = make(learner, module, demonstrations, seed)
        advance(interaction, 3)
        ends.append({**parameters(parts.learner), **parameters(parts.imitation)})
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert not all(torch.equal(value, ends[2][name]) for name, value in ends[0].items())


def true_rewards_times(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    step = VectorEnvironment.step

    def changed(envs: VectorEnvironment, actions: Tensor) -> Batch:
        batch = step(envs, actions)
        return batch.with_rewards(factor * batch.rewards + factor)

    monkeypatch.setattr(VectorEnvironment, "step", changed)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("learner", "module"), PAIRS)
def test_no_true_reward_reaches_a_learner_that_imitates(learner: str, module: str, demonstrations: Path) -> None:
    ends: list[dict[str, Tensor]] = []
    for factor in (1.0, -100.0):
        with pytest.MonkeyPatch.context() as patch:
            true_rewards_times(factor, patch)
            parts, interaction = make(learner, module, demonstrations)
            advance(interaction, 3)
        ends.append({**parameters(parts.learner), **parameters(parts.imitation)})
    same = all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert same == (module != "none")


@pytest.mark.parametrize(("learner", "module"), PAIRS)
def test_collected_rewards_are_hidden(learner: str, module: str, demonstrations: Path) -> None:
    parts, interaction = make(learner, module, demonstrations)
    transition = interaction.envs.step(parts.learner.act(interaction.envs.observations))
    annotated = parts.imitation.annotate(transition).rewards
    if module == "none":
        assert torch.equal(annotated, transition.rewards)
    elif IMITATION_MODULES[module].annotate is ImitationModule.annotate:
        assert annotated.isnan().all()
    else:  # rewards of its own
        assert not torch.equal(annotated, transition.rewards)
    assert transition.rewards.isfinite().all()


@pytest.mark.parametrize(
    ("learner", "module"),  # but for those whose rewards are given when rows are collected
    [pair for pair in IMITATING if IMITATION_MODULES[pair[1]].annotate is ImitationModule.annotate],
)
def test_forgetting_to_relabel_is_loud(
    learner: str, module: str, demonstrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, interaction = make(learner, module, demonstrations)
    monkeypatch.setattr(parts.imitation, "relabel", lambda batch, expert_batch, policy: batch)
    (metrics,) = advance(interaction, 1)
    assert any(value.isnan().any() for name, value in metrics.items() if "loss" in name)


@pytest.mark.parametrize(("learner", "module"), IMITATING)
def test_the_auxiliary_cloning_loss_is_logged(learner: str, module: str, demonstrations: Path) -> None:
    _, interaction = make(learner, module, demonstrations, bc_aux_loss=True)
    (metrics,) = advance(interaction, 1)
    assert any("cloning" in name and value.isfinite().all() for name, value in metrics.items())


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("learner", "module"), PAIRS)
def test_saved_parts_continue_exactly(learner: str, module: str, demonstrations: Path, tmp_path: Path) -> None:
    (first, own), (second, other) = (make(learner, module, demonstrations, seed) for seed in (0, 50))
    advance(own, 2)
    pairs = [(first.learner, second.learner), (first.imitation, second.imitation)]
    pairs += [(first.demonstrations, second.demonstrations)] if first.demonstrations else []  # type: ignore[list-item]  # any state
    pairs += [(own.envs, other.envs), (own.memory, other.memory)]  # type: ignore[list-item]  # any state
    for index, (source, target) in enumerate(pairs):
        torch.save(source.state_dict(), tmp_path / f"{index}.pt")
        target.load_state_dict(torch.load(tmp_path / f"{index}.pt", weights_only=True))
    for metrics, others in zip(advance(own, 3), advance(other, 3), strict=True):
        assert metrics.keys() == others.keys()
        for name, value in metrics.items():
            assert torch.equal(value, others[name]), name
    for one, two in pairs[:2]:
        for name, value in parameters(one).items():
            assert torch.equal(value, parameters(two)[name]), name


@pytest.mark.parametrize("module", PRETRAINED)
def test_pretraining_goes_on_exactly_where_it_stopped(module: str, demonstrations: Path, tmp_path: Path) -> None:
    config = make_config(module, demonstrations, runs=2)
    whole, resumed = build(config), build(config)
    assert whole.imitation.pretraining_iterations
    phase, other = (next(p for p in parts.phases if isinstance(p, ImitationPretraining)) for parts in (whole, resumed))
    phase.advance()
    for name in ("imitation", "demonstrations"):
        torch.save(getattr(whole, name).state_dict(), tmp_path / name)
        getattr(resumed, name).load_state_dict(torch.load(tmp_path / name, weights_only=True))
    for _ in range(phase.length - 1):
        metrics, again = phase.advance(), other.advance()
        assert metrics and metrics.keys() == again.keys()
        for name, value in metrics.items():
            assert re.fullmatch(r"\w+/\w+", name) and value.shape == (2,) and not value.requires_grad, name
            assert torch.equal(value, again[name]), name
    for ended in (phase, other, other):  # twice where a run was stopped right behind it
        ended.finish()
    values, others = whole.imitation.state_dict(), resumed.imitation.state_dict()
    for name, value in values.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, others[name]) and value.isfinite().all(), name
