"""Learner and algorithm, composed: what goes together, what each pair's defaults are, and what is refused why."""

from pathlib import Path

import numpy as np
import pytest
import torch

from conf.errors import UserError
from environments.construction import spaces_of
from environments.formats.d4rl import write_d4rl
from environments.trajectories import Trajectory
from memory.demonstrations import Demonstrations
from tests.training.helpers import SMALL, configured, make_loop
from training.build import build
from training.folder import read_table

GAIL_ON_PPO = ("algorithm=GAIL", "learner=ppo", "env=seals_hopper")


def test_defaults_follow_from_algorithm_and_learner() -> None:
    off, on = configured("algorithm=GAIL"), configured(*GAIL_ON_PPO)
    assert (off.reinforcement.discount, off.reinforcement.polyak_factor) == (0.97, 0.99)
    assert (off.training.start, off.training.interval, off.env.num_envs) == (1000, 1, 1)
    assert off.imitation.absorbing and off.imitation.spectral_norm and off.imitation.batch_size == 0
    assert (on.reinforcement.discount, on.reinforcement.clip_range) == (0.99, 0.2)
    assert (on.training.start, on.training.interval, on.training.batch_size, on.env.num_envs) == (0, 2048, 64, 8)
    assert not on.imitation.absorbing and not on.imitation.spectral_norm
    assert (on.imitation.batch_size, on.imitation.updates, on.imitation.model.reward_function) == (1024, 4, "GAIL")


def test_the_buffer_has_the_length_of_a_rollout() -> None:
    assert configured(*GAIL_ON_PPO, "training.interval=4096").imitation.buffer_size == 4096
    assert configured(*GAIL_ON_PPO, "imitation.buffer_size=512").imitation.buffer_size == 512


@pytest.mark.parametrize("algorithm", ["GAIL", "AIRL", "FAIRL", "DRIL", "GMMIL", "PWIL", "RED", "constant", "BC"])
def test_algorithms_compose_with_ppo(algorithm: str) -> None:
    assert configured(f"algorithm={algorithm}", "learner=ppo", "env=seals_walker").env.fixed_horizon


@pytest.mark.parametrize("algorithm", ["AdRIL", "SQIL"])
def test_replaying_algorithms_need_an_off_policy_learner(algorithm: str) -> None:
    with pytest.raises(UserError, match=f"algorithm={algorithm} does not work with this learner: it is on-policy"):
        configured(f"algorithm={algorithm}", "learner=ppo", "env=seals_hopper")


@pytest.mark.parametrize("environment", ["hopper", "ant", "walker2d", "cartpole", "mountain_car"])
def test_the_horizon_guard(environment: str) -> None:
    """Episodes that may end early tell the reward; what is known never to, passes."""
    chosen = ("algorithm=GAIL", "learner=ppo", f"env={environment}")
    with pytest.raises(UserError, match=r"imitation\.allow_variable_horizon=false: .* may end early"):
        configured(*chosen)
    assert configured(*chosen, "imitation.allow_variable_horizon=true").imitation.allow_variable_horizon
    assert configured("algorithm=PPO", f"env={environment}").reinforcement  # the true reward is another matter
    if environment in ("hopper", "ant", "walker2d"):
        assert configured("algorithm=GAIL", f"env={environment}").imitation.absorbing  # off-policy


@pytest.mark.parametrize(
    "environment", ["pendulum", "halfcheetah", "seals_ant", "seals_cartpole", "seals_mountain_car"]
)
def test_environments_of_fixed_length_pass_the_guard(environment: str) -> None:
    assert configured("algorithm=AIRL", "learner=ppo", f"env={environment}").env.fixed_horizon


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("imitation.absorbing=true", r"imitation\.absorbing=true is not allowed with an on-policy learner"),
        ("imitation.mix_expert_data=mixed_batch", r"mix_expert_data=mixed_batch is not allowed with an on-policy"),
        ("training.interval=1001", r"training\.interval=1001 is not a multiple of env\.num_envs=8"),
        ("training.start=5", r"training\.start=5 is not allowed with learner=ppo"),
        ("imitation.batch_size=0", r"imitation\.batch_size=0 and imitation\.buffer_size=2048 belong together"),
    ],
)
def test_what_ppo_cannot_do(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        configured(*GAIL_ON_PPO, override)


@pytest.mark.parametrize("algorithm", ["BC", "DAgger"])
def test_a_policy_that_collects_no_rollouts_has_as_many_environments_as_it_likes(algorithm: str) -> None:
    assert configured(f"algorithm={algorithm}", "learner=ppo", "env=seals_hopper", "env.num_envs=3").env.num_envs == 3


@pytest.mark.parametrize(("algorithm", "learner"), [("SAC", "ppo"), ("PPO", "sac")])
def test_a_learner_s_name_means_that_learner(algorithm: str, learner: str) -> None:
    with pytest.raises(UserError, match=f"algorithm={algorithm} is learner={algorithm.lower()}"):
        configured(f"algorithm={algorithm}", f"learner={learner}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("algorithm=SAC",), r"discrete actions, but this learner needs continuous ones: expected learner=ppo"),
        (
            ("algorithm=BC", "learner=ppo", "bc_pretraining.loss_function=squared_error"),
            r"bc_pretraining\.loss_function=squared_error needs continuous actions",
        ),
    ],
)
def test_discrete_actions_exclude(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(configured(*overrides, "env=cartpole"))


def pushes(count: int) -> list[Trajectory]:
    """Episodes in CartPole's shape: to the right where the pole leans to the right."""
    generator, episodes = np.random.default_rng(0), []
    for _ in range(count):
        states = generator.normal(size=(41, 4)).astype(np.float32)
        rewards = np.ones(40, np.float32)
        episodes.append(Trajectory(states[:-1], (states[:-1, 2] > 0).astype(np.int64), rewards, states[1:], False))
    return episodes


@pytest.mark.parametrize("algorithm", ["BC", "GAIL"])
def test_discrete_demonstrations(algorithm: str, tmp_path: Path) -> None:
    """Cloned by a choice between actions, and told from the learner's by a discriminator."""
    write_d4rl(tmp_path / "d.hdf5", pushes(8), {})
    small = [word for word in SMALL if not word.startswith(("env=", "training.start"))]
    options = {"BC": ["bc_pretraining.iterations=400"], "GAIL": ["steps=256", "training.interval=128"]}[algorithm]
    options += ["evaluation.interval=1000", "evaluation.episodes=1", "checkpoint.interval=0"]
    options += ["runs=2", f"env.demonstrations={tmp_path / 'd.hdf5'}"]
    config = configured(f"algorithm={algorithm}", "learner=ppo", "env=seals_cartpole", *small, *options)
    loop = make_loop(config, tmp_path / "runs")
    loop.run()
    (table,) = (read_table(path) for path in tmp_path.glob("runs/*/evaluations.csv"))
    assert {row["length_mean"] for row in table} == {"500.0"}
    if algorithm == "BC":
        states = torch.randn(2, 200, 4)
        chosen = loop.parts.learner.act(states, greedy=True).argmax(-1)
        assert (chosen == (states[..., 2] > 0)).float().mean() > 0.9


def test_discrete_demonstrations_are_one_hot_and_checked() -> None:
    def make(trajectories: list[Trajectory], environment: str) -> Demonstrations:
        spaces = spaces_of(environment)
        return Demonstrations(trajectories, limit=0, subsample=1, seeds=(0,), device="cpu", spaces=spaces)

    made = make(pushes(2), "seals/CartPole-v0")
    assert made.rows().actions.sum(-1).unique().tolist() == [1] and made.clipped_share == 0
    with pytest.raises(UserError, match="discrete"):
        make(pushes(2), "Pendulum-v1")
    (episode,) = pushes(1)
    assert episode.actions is not None
    other = Trajectory(episode.observations, episode.actions + 1, None, episode.next_observations, False)
    with pytest.raises(UserError, match="from 1 to 2"):
        make([other], "seals/CartPole-v0")
