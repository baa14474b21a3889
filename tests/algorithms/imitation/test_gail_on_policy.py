"""GAIL and AIRL with an on-policy learner: what the discriminator is trained on, and what the learner gets."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.imitation.gail import GAIL, GAILConfig
from conf.errors import UserError
from environments.formats.d4rl import read_d4rl, write_d4rl
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from models.actors import GaussianActor
from models.discriminators import DiscriminatorConfig
from models.streams import Streams
from tests.algorithms.support import make_batch, make_config, make_context, small_network, write_demonstrations
from tests.training.helpers import configured
from training.build import build
from training.phases import Interaction

TIME, ENVS = 40, 4


def make_gail(seeds: tuple[int, ...] = (0,), model: dict[str, Any] | None = None, **options: Any) -> GAIL:
    network = DiscriminatorConfig(**{"hidden_size": 8, "depth": 1, **(model or {})})
    defaults = {"learning_rate": 1e-2, "weight_decay": 0.0, "grad_penalty": 0.0, "spectral_norm": False}
    return GAIL(GAILConfig(model=network, **(defaults | options)), make_context(seeds))


def make_policy(runs: int = 1, normalise: bool = False) -> GaussianActor:
    return GaussianActor(3, 2, small_network(), Streams(range(runs), "policy"), normalise=normalise)


class Rows(Demonstrations):
    """Stands for demonstrations: random rows, and how many were asked for."""

    def __init__(self, runs: int = 1) -> None:
        self.runs, self.sizes, self.state_only = runs, list[int](), False

    def sample(self, size: int) -> Batch:
        self.sizes.append(size)
        return make_batch(self.runs, size, seed=100 + len(self.sizes))


def prepared(gail: GAIL, runs: int = 1) -> Rows:
    rows = Rows(runs)
    gail.prepare(rows)
    return rows


def labelled_rollout(number: int = 0) -> Batch:
    """[1, time * envs], step by step; observations say (rollout, time, environment)."""
    time, env = (t.flatten().float() for t in torch.meshgrid(torch.arange(TIME), torch.arange(ENVS), indexing="ij"))
    labels = torch.stack([torch.full_like(time, number), time, env], -1).unsqueeze(0)
    return make_batch(1, TIME * ENVS, observations=labels)


def kept(gail: GAIL) -> Tensor:
    """Labels of the rows from which the discriminator's batches are drawn."""
    assert gail.recent is not None
    return gail.recent.layout.unpack(gail.recent.rows[:, : gail.recent.size[0]]).observations[0]


def test_a_small_buffer_is_a_fair_sample_of_all_environments_and_times() -> None:  # H17
    """The last rows of a rollout would be one environment's, or the end of every episode."""
    gail = make_gail(batch_size=8, buffer_size=40)
    prepared(gail)
    gail.update(labelled_rollout(), make_batch(), make_policy())
    _, times, envs = kept(gail).T
    assert len(kept(gail)) == 40 == len(kept(gail).unique(dim=0))
    assert torch.bincount(envs.long(), minlength=ENVS).min() >= 4  # 10 expected of each
    assert (times < TIME / 2).sum() in range(10, 31) and times.min() < 8 and times.max() >= 32


def test_a_large_buffer_keeps_the_latest_rollouts_and_a_fair_part_of_the_oldest() -> None:
    gail = make_gail(batch_size=8, buffer_size=400)  # two and a half rollouts
    prepared(gail)
    for number in range(5):
        gail.update(labelled_rollout(number), make_batch(), make_policy())
    rollouts, times, envs = kept(gail).T
    assert torch.bincount(rollouts.long()).tolist() == [0, 0, 80, 160, 160]
    oldest = rollouts == 2
    assert torch.bincount(envs[oldest].long(), minlength=ENVS).min() >= 10  # 20 expected of each
    assert (times[oldest] < TIME / 2).sum() in range(25, 56)


def test_updates_use_batches_of_their_own() -> None:
    gail = make_gail(updates=5, batch_size=16, buffer_size=100)
    rows = prepared(gail)
    before = gail.discriminator.network.final.weight.detach().clone()
    metrics = gail.update(labelled_rollout(), make_batch(), make_policy())
    assert rows.sizes == [16] * 5
    assert not torch.equal(before, gail.discriminator.network.final.weight)
    assert metrics["discriminator/loss"].shape == (1,)


def test_metrics_are_means_over_all_updates(monkeypatch: pytest.MonkeyPatch) -> None:  # H20
    gail = make_gail(updates=3)
    losses = iter([1.0, 2.0, 6.0])
    monkeypatch.setattr(gail, "_step", lambda *rows: {"x/loss": torch.tensor([next(losses)])})
    assert gail.update(make_batch(), make_batch(), make_policy())["x/loss"].tolist() == [3.0]


def test_rewards_are_minus_log_of_one_minus_p() -> None:
    gail, batch = make_gail(model={"reward_function": "GAIL"}), make_batch()
    logits = gail.discriminator(batch, None)
    rewards = gail.relabel(batch, batch, make_policy()).rewards
    assert torch.allclose(rewards, F.softplus(logits), atol=1e-5) and (rewards >= 0).all()


def test_inputs_and_rewards_are_normalised() -> None:  # H4
    """And by what has really been seen: statistics that are never updated leave everything as it is."""
    gail = make_gail(
        (0, 1), {"normalise_inputs": True}, normalise_rewards=True, updates=2, batch_size=30, buffer_size=99
    )
    prepared(gail, 2)
    scale = torch.tensor([1.0, 100.0]).view(2, 1, 1)
    batch = make_batch(2, 200)
    batch = Batch(**{**vars(batch), "observations": batch.observations * scale + 5})
    policy = make_policy(2)
    gail.update(batch, make_batch(2), policy)
    normaliser, rewards = gail.discriminator.normaliser, gail.reward_normaliser
    assert normaliser is not None and rewards is not None and gail.discriminator.action_normaliser is not None
    assert normaliser.count.tolist() == gail.discriminator.action_normaliser.count.tolist() == [120.0] * 2
    assert rewards.count.tolist() == [200.0] * 2
    assert normaliser.variance[1].mean() > 300 * normaliser.variance[0].mean() > 0
    found = gail.relabel(batch, batch, policy).rewards
    assert torch.allclose(found.mean(-1), torch.zeros(2), atol=1e-4)
    assert torch.allclose(found.std(-1), torch.ones(2), atol=2e-2)


def test_relabelling_changes_no_statistics() -> None:
    gail = make_gail(model={"normalise_inputs": True}, normalise_rewards=True)
    batch, policy = make_batch(size=50), make_policy(normalise=True)
    gail.update(batch, make_batch(size=50, seed=3), policy)
    before = [{k: v.clone() for k, v in part.state_dict().items() if torch.is_tensor(v)} for part in (gail, policy)]
    gail.relabel(batch, batch, policy)
    gail.diagnose(batch, batch, policy)
    for part, state in zip((gail, policy), before, strict=True):
        assert all(torch.equal(part.state_dict()[name], value) for name, value in state.items())


def test_the_logit_of_airl() -> None:  # H18
    """D = f - log pi(a|s) with f = g(s, a) + gamma h(s') - h(s); the learner is paid f."""
    gail = make_gail(
        model={"reward_shaping": True, "reward_depth": 1, "subtract_log_policy": True, "reward_function": "f"}
    )
    policy, batch = make_policy(), make_batch()
    drawn = torch.tensor([[[1.7, -0.2], [-3.0, 0.4], [0.1, 0.2], [0.0, 1.1], [2.0, 2.0], [-0.5, 0.5]]])
    batch = Batch(**{**vars(batch), "actions": drawn})
    network = gail.discriminator
    seen = torch.cat([batch.observations, drawn.clamp(-1, 1)], -1)
    f = network.reward(seen).squeeze(-1)
    f = (
        f
        + 0.9 * network.potential(batch.next_observations).squeeze(-1)
        - network.potential(batch.observations).squeeze(-1)
    )
    assert torch.allclose(gail.relabel(batch, batch, policy).rewards, f, atol=1e-5)
    # The density is that of what was drawn, not of what the environment made of it.
    mean = policy.greedy(batch.observations)
    log_probs = torch.distributions.Normal(mean, 1.0).log_prob(drawn).sum(-1)
    logits = gail.discriminator(batch, gail._log_probs(batch, policy))
    assert torch.allclose(logits, f - log_probs, atol=1e-5)


def test_the_discriminator_sees_what_the_environment_carries_out() -> None:
    gail, policy = make_gail(), make_policy()
    far, near = (make_batch(actions=torch.full((1, 6, 2), value)) for value in (50.0, 1.0))
    assert torch.equal(gail.relabel(far, far, policy).rewards, gail.relabel(near, near, policy).rewards)


@pytest.mark.parametrize("learner", ["sac", "ppo"])
def test_shaping_has_the_discount_of_the_learner(learner: str, tmp_path: Path) -> None:  # H16
    path = write_demonstrations(tmp_path / "d.hdf5", observation=12, action=3)
    common = ("env=seals_hopper", f"env.demonstrations={path}", "reinforcement.discount=0.95")
    parts = build(configured("algorithm=AIRL", f"learner={learner}", *common))
    assert isinstance(parts.imitation, GAIL)
    assert parts.imitation.discriminator.discount == 0.95


@pytest.mark.parametrize("config", [GAILConfig(batch_size=8), GAILConfig(buffer_size=8)])
def test_what_belongs_together(config: GAILConfig) -> None:
    with pytest.raises(UserError, match=r"_size=8.* expected both 0 or both above"):
        config.check()


def test_probabilities_of_actions_need_actions(tmp_path: Path) -> None:
    trajectories = [dataclasses.replace(t, actions=None) for t in read_d4rl(write_demonstrations(tmp_path / "d.hdf5"))]
    write_d4rl(tmp_path / "states.hdf5", trajectories, {})
    imitation = GAILConfig(state_only=True, model=DiscriminatorConfig(subtract_log_policy=True))
    with pytest.raises(UserError, match=r"subtract_log_policy=true .* these have none"):
        build(make_config("gail", tmp_path / "states.hdf5", imitation=imitation))


def test_saved_state_goes_on_with_ppo(tmp_path: Path) -> None:
    """Buffer, statistics and random numbers; the loop's tests cover everything else."""
    path = write_demonstrations(tmp_path / "d.hdf5")
    options = {"batch_size": 6, "buffer_size": 40, "updates": 2, "normalise_rewards": True}
    imitation = GAILConfig(
        model=DiscriminatorConfig(hidden_size=8, normalise_inputs=True),
        absorbing=False,
        allow_variable_horizon=True,
        **options,  # type: ignore[arg-type]  # of several types
    )
    ends = []
    for stop in (False, True):
        parts = build(make_config("gail", path, "ppo", imitation, runs=2))
        interaction = parts.phases[-1]
        assert isinstance(interaction, Interaction) and isinstance(parts.demonstrations, Demonstrations)
        for step in range(40):
            if stop and step == 21:
                saved = {name: getattr(parts, name).state_dict() for name in ("learner", "imitation", "demonstrations")}
                inner = {name: part.state_dict() for name, part in interaction.parts().items()}
                torch.save((saved, inner), tmp_path / "state.pt")
                parts = build(make_config("gail", path, "ppo", imitation, runs=2))
                interaction = parts.phases[-1]
                assert isinstance(interaction, Interaction)
                saved, inner = torch.load(tmp_path / "state.pt", weights_only=True)
                for name, state in saved.items():
                    getattr(parts, name).load_state_dict(state)
                for name, state in inner.items():
                    interaction.parts()[name].load_state_dict(state)
            interaction.advance()
        ends.append({**parts.learner.state_dict(), **parts.imitation.state_dict()})
    for name, value in ends[0].items():
        assert not isinstance(value, Tensor) or torch.equal(value, ends[1][name]), name
