"""GAIL of imitation on its Stable-Baselines3's PPO; see scripts/peer_stable_baselines3.py."""

import tempfile
from typing import Any

import numpy as np
import seals  # noqa: F401  # registers environments
import torch
from imitation.algorithms.adversarial.gail import GAIL
from imitation.data.types import Trajectory
from imitation.policies.base import NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet, NormalizedRewardNet
from imitation.util.logger import configure
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from peer_stable_baselines3 import make_ppo, serve, steps_taken


def make(settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The trainer, warmed up, and what that took. Nothing is logged."""
    options = settings["imitation"]
    rng = np.random.default_rng(0)
    envs = make_vec_env(settings["environment_id"], rng=rng, n_envs=settings["num_envs"])
    discriminator = BasicRewardNet(
        envs.observation_space,
        envs.action_space,
        hid_sizes=options["hidden_sizes"],
        normalize_input_layer=RunningNorm,
    )
    learner = make_ppo(
        settings,
        envs,
        features_extractor_class=NormalizeFeaturesExtractor,
        features_extractor_kwargs={"normalize_class": RunningNorm},
    )
    trainer = GAIL(
        demonstrations=demonstrations(options["demonstrations"]),
        demo_batch_size=options["batch_size"],
        venv=envs,
        gen_algo=learner,
        reward_net=NormalizedRewardNet(discriminator, RunningNorm),
        n_disc_updates_per_round=options["updates"],
        gen_replay_buffer_capacity=options["buffer_size"],
        disc_opt_cls=torch.optim.Adam,
        disc_opt_kwargs={"lr": options["learning_rate"]},
        custom_logger=configure(tempfile.gettempdir(), []),
    )
    run(trainer, "rollouts", 1)
    work = {"steps": learner.num_timesteps, "updates": steps_taken(learner.policy.optimizer)}
    return trainer, work | {"discriminator_updates": steps_taken(trainer._disc_opt)}


def demonstrations(path: str) -> list[Trajectory]:
    with np.load(path, allow_pickle=False) as file:
        count = len(file.files) // 2
        columns = [(file[f"observations_{index}"], file[f"actions_{index}"]) for index in range(count)]
    return [Trajectory(observations, actions, infos=None, terminal=True) for observations, actions in columns]


def run(trainer: Any, kind: str, steps: int) -> None:
    trainer.train(steps * trainer.gen_train_timesteps)


if __name__ == "__main__":
    serve(make, run)
