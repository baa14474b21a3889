"""Short real runs for tests."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from environments.formats.d4rl import write_d4rl
from environments.trajectories import Trajectory
from training.build import build
from training.config import Config, parse
from training.folder import new_folder
from training.loop import Loop
from training.sweeps import plan

SMALL = (
    "env=hopper",
    "training.start=50",
    "training.batch_size=16",
    "reinforcement.actor.hidden_size=16",
    "reinforcement.critic.hidden_size=16",
    "evaluation.interval=100",
    "evaluation.episodes=2",
    "logging.interval=50",
    "logging.tensorboard=false",
    "logging.progress=false",
    "checkpoint.interval=50",
)


def composed(*overrides: str) -> DictConfig:
    return plan.composed(overrides)


def configured(*overrides: str) -> Config:
    return parse(composed(*overrides))


def make_loop(config: Config, parent: Path, resumed: dict[str, object] | None = None) -> Loop:
    return Loop(config, build(config), new_folder(parent), resumed)


def hopper_demonstrations(path: Path, episodes: int = 3, steps: int = 40, terminated: bool = True) -> Path:
    """Random numbers in the shape of Hopper's demonstrations, with true terminations."""
    generator = np.random.default_rng(0)
    trajectories = []
    for _ in range(episodes):
        states = generator.normal(size=(steps + 1, 11)).astype(np.float32)
        actions = generator.uniform(-1, 1, size=(steps, 3)).astype(np.float32)
        rewards = generator.normal(size=steps).astype(np.float32)
        trajectories.append(Trajectory(states[:-1], actions, rewards, states[1:], terminated))
    write_d4rl(path, trajectories, {})
    return path
