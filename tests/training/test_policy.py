"""Policy files: they act as the policy that was saved, and anything else is refused in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conf.errors import UserError
from environments.formats.d4rl import read_d4rl
from memory.absorbing import append_bit
from models.actors import GaussianActor, SquashedGaussianActor
from tests.training.helpers import SMALL, configured, hopper_demonstrations, make_loop
from training import checkpoint
from training.loop import Loop
from training.phases import Interaction
from training.policy import load_policy

NORMALISED = ("training.start=0", "training.batch_size=64", "reinforcement.normalise_observations=true")
MESSAGE = "is not a policy file of this program"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """Two untrained GAIL policies, with absorbing states."""
    folder = tmp_path_factory.mktemp("policy")
    demonstrations = hopper_demonstrations(folder / "demonstrations.hdf5")
    config = configured(*SMALL, "algorithm=GAIL", "runs=2", "seed=5", f"env.demonstrations={demonstrations}")
    return make_loop(config, folder / "runs")


def save(loop: Loop) -> Path:
    loop.save_policy("policy.pt", loop.parts.learner.policy.state_dict())
    return loop.folder / "policy.pt"


def test_a_saved_policy_acts_as_before(loop: Loop) -> None:
    policy = load_policy(save(loop))
    observations = torch.randn(2, 7, 11)
    expected = loop.parts.learner.act(append_bit(observations), greedy=True)
    assert torch.equal(policy.greedy(observations), expected)
    assert torch.equal(policy.greedy(observations.numpy()), expected)
    assert not torch.equal(expected[0], expected[1])
    assert (policy.environment_id, policy.algorithm, policy.seeds) == ("Hopper-v4", "GAIL", (5, 6))
    assert policy.spaces.absorbing
    assert policy.spaces.horizon == 1000
    assert policy.spaces.action_low.tolist() == [-1.0] * 3


def test_everything_sees_the_same_normalised_observations(tmp_path: Path) -> None:
    """Training, evaluation, demonstrations, diagnosis, and the policy that was saved."""
    demonstrations = hopper_demonstrations(tmp_path / "demonstrations.hdf5")
    options = ("env.normalise_observations=true", f"env.demonstrations={demonstrations}")
    loop = make_loop(configured(*SMALL, "algorithm=GAIL", *options), tmp_path / "runs")
    parts = loop.parts
    assert parts.demonstrations is not None
    observations = np.stack([t.observations[0] for t in read_d4rl(demonstrations)])
    mean = np.concatenate([t.observations for t in read_d4rl(demonstrations)]).mean(0)
    expected = torch.from_numpy((observations - mean) / parts.spaces.observation_std).clamp(-5, 5)
    expected = append_bit(expected.float())
    assert torch.allclose(parts.demonstrations.rows().observations[0, 0], expected[0], atol=1e-4)

    seen: list[torch.Tensor] = []
    loop.evaluator.play(lambda batch: seen.append(batch) or parts.learner.act(batch), "test")  # type: ignore[func-returns-value]  # append's None
    first = np.stack([env.reset(seed=1)[0] for env in loop.evaluator.envs])
    assert torch.equal(loop.evaluator.spaces.observe(first), parts.spaces.observe(first))
    assert seen[0].shape == (1, 2, 12) and seen[0].abs().max() <= 5
    interaction = parts.phases[-1]
    assert isinstance(interaction, Interaction)
    raw = interaction.envs.backend.observations
    assert torch.equal(interaction.envs.observations[0], parts.spaces.observe(raw))
    saved = load_policy(save(loop))
    acted = parts.learner.act(interaction.envs.observations, greedy=True)
    assert torch.equal(saved.greedy(torch.from_numpy(raw)[None]), acted)


@pytest.mark.parametrize("learner", ["sac", "ppo"])
def test_without_demonstrations_statistics_are_running(learner: str, tmp_path: Path) -> None:
    """Of the observations in which each run acted; the file of the policy carries them."""
    rollouts = ("training.start=0", "training.interval=40", "training.batch_size=16", "env.num_envs=4")
    options = ("steps=40", "runs=2", "env.normalise_observations=true", *(rollouts if learner == "ppo" else ()))
    loop = make_loop(configured(*SMALL, f"algorithm={learner.upper()}", *options), tmp_path / "runs")
    interaction, policy = loop.parts.phases[-1], loop.parts.learner.policy
    assert isinstance(interaction, Interaction)
    assert isinstance(policy, SquashedGaussianActor | GaussianActor)
    seen = []
    for _ in range(interaction.length // interaction.stride):
        seen.append(interaction.envs.observations[..., :11])
        interaction.advance()
    rows = torch.cat(seen, 1)
    assert policy.normaliser is not None
    assert policy.normaliser.count.tolist() == [40, 40]
    assert torch.allclose(policy.normaliser.mean[..., :11], rows.double().mean(1, keepdim=True), atol=1e-5)
    saved = load_policy(save(loop))
    raw = torch.from_numpy(interaction.envs.backend.observations).view(*interaction.envs.shape, -1)
    assert torch.equal(saved.greedy(raw), loop.parts.learner.act(interaction.envs.observations, greedy=True))


@pytest.mark.parametrize(("environment", "observation", "actor"), [("hopper", 11, "Gaussian"), ("cartpole", 4, "Cat")])
def test_policies_of_ppo(environment: str, observation: int, actor: str, tmp_path: Path) -> None:
    """The file names its class; statistics of observations are saved with each seed's parameters."""
    config = configured(*SMALL[2:], "algorithm=PPO", f"env={environment}", "runs=2", *NORMALISED)
    loop = make_loop(config, tmp_path / "runs")
    policy = loop.parts.learner.policy
    policy.observe(torch.randn(2, 100, observation) * torch.tensor([1.0, 5.0]).view(2, 1, 1) + 3)
    saved = load_policy(save(loop))
    assert type(saved.actor).__name__.startswith(actor)
    assert saved.spaces.discrete == (environment == "cartpole")
    observations = torch.randn(2, 7, observation)
    assert torch.equal(saved.greedy(observations), loop.parts.learner.act(observations, greedy=True))


def test_the_best_policy_has_the_statistics_of_its_own_time(tmp_path: Path) -> None:
    config = configured(*SMALL[2:], "algorithm=PPO", "env=cartpole", "runs=2", *NORMALISED)
    loop = make_loop(config, tmp_path / "runs")
    policy = loop.parts.learner.policy
    policy.observe(torch.ones(2, 10, 4))
    loop._keep_best([1.0, 1.0])
    policy.observe(torch.ones(2, 30, 4) * 5)
    loop._keep_best([0.0, 2.0])  # the second seed improves
    best = load_policy(loop.folder / "best_policy.pt").actor.state_dict()
    assert best["normaliser.count"].tolist() == [10, 40]
    assert best["normaliser.mean"][:, 0, 0].tolist() == [1, 4]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no policy\.pt"):
        load_policy(tmp_path / "policy.pt")


def test_a_truncated_file_is_refused(loop: Loop) -> None:
    path = save(loop)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged or not a checkpoint"):
        load_policy(path)


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"hidden_size": 8}},
        {"network": {"width": 16}},
        {"network": None},
        {"seeds": [1]},
        {"seeds": 1},
        {"spaces": {"action_low": ["a"]}},
        {"state": {}},
        {"state": []},
        {"actor": "Nothing"},
        {"actor": "GaussianActor"},
        {"settings": {"normalise": True}},
    ],
    ids=str,
)
def test_a_file_that_does_not_fit_is_refused(loop: Loop, change: dict[str, Any]) -> None:
    path = save(loop)
    checkpoint.save(path, {**checkpoint.load(path), **change})
    with pytest.raises(UserError, match=MESSAGE) as raised:
        load_policy(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["environment_id", "algorithm", "spaces", "state", "actor"])
def test_a_file_without_a_field_is_refused(loop: Loop, name: str) -> None:
    path = save(loop)
    content = checkpoint.load(path)
    del content[name]
    checkpoint.save(path, content)
    with pytest.raises(UserError, match=f"{MESSAGE}.*{name}"):
        load_policy(path)
