"""Small things that tests are made of: batches, contexts, a cheap environment with true ends, configurations."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from algorithms import IMITATION_MODULES, LEARNERS
from algorithms.base import Context, ImitationConfig, TrainingConfig
from algorithms.behavioural_cloning import BCPretrainingConfig
from conf.fields import Section
from environments.construction import EnvironmentConfig, Spaces
from environments.formats.d4rl import write_d4rl
from environments.trajectories import Trajectory
from memory.batch import Batch
from models.mlp import MLP, MLPConfig, RunLinear
from training.config import Config, check_combinations

WALK = "tests/Walk-v0"
SMALL = {"hidden_size": 8, "iterations": 3, "epochs": 2}  # values of these names, wherever they are in a configuration


class Walk(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point pushed along a line: a true end beyond 1, a time limit of 12 steps, actions in [-1, 3]."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 3.0, (1,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.5, 0.5, 2).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        noise = self.np_random.normal(0, 0.05)
        self.state = self.state + np.array([0.2 * (action[0] - 1), noise], dtype=np.float32)
        return self.state.copy(), float(self.state[0]), bool(abs(self.state[0]) > 1), False, {}


def push_back(observations: np.ndarray) -> np.ndarray:
    """An expert for Walk: towards 0. Its action 1 is the one that does not push."""
    actions: np.ndarray = np.clip(1 - 2 * observations[:, :1], -1.0, 3.0)
    return actions


if WALK not in gymnasium.registry:
    gymnasium.register(id=WALK, entry_point=partial(Walk), max_episode_steps=12)


def make_batch(
    runs: int = 1, size: int = 6, observation: int = 3, action: int = 2, seed: int = 0, **fields: Any
) -> Batch:
    """Random transitions that all go on; `fields` replaces some of them by tensors or lists."""
    generator = torch.Generator().manual_seed(seed)
    zeros = torch.zeros(runs, size)
    batch = Batch(
        observations=torch.randn(runs, size, observation, generator=generator),
        actions=torch.rand(runs, size, action, generator=generator) * 1.8 - 0.9,
        rewards=torch.randn(runs, size, generator=generator),
        next_observations=torch.randn(runs, size, observation, generator=generator),
        terminated=zeros,
        truncated=zeros,
        weights=torch.ones(runs, size),
        collected_at=zeros,
        absorbing=zeros,
        next_absorbing=zeros,
    )
    return dataclasses.replace(batch, **{name: torch.as_tensor(value) for name, value in fields.items()})


def absorbing_state(size: int) -> Tensor:
    """All zeros but for the bit, the last of `size` features."""
    return nn.functional.one_hot(torch.tensor(size - 1), size).float()


def make_spaces(observation: int = 3, action: int = 2, absorbing: bool = False, **fields: Any) -> Spaces:
    bounds = {"action_low": -np.ones(action, np.float32), "action_high": np.ones(action, np.float32)}
    return Spaces(observation, action, absorbing=absorbing, **({"horizon": 100} | bounds | fields))


def make_context(seeds: tuple[int, ...] = (0,), observation: int = 3, action: int = 2, **fields: Any) -> Context:
    defaults: dict[str, Any] = {
        "horizon": 100,
        "discount": 0.9,
        "absorbing_state": absorbing_state(observation) if fields.pop("absorbing", False) else None,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    return Context(seeds=seeds, observation_size=observation, action_size=action, **(defaults | fields))


def small_network(**options: Any) -> MLPConfig:
    return MLPConfig(**{"hidden_size": 8, "depth": 1, **options})


def layers(network: MLP) -> list[RunLinear]:
    """From the first to the final one."""
    found = [*network.hidden, network.final]
    assert all(isinstance(layer, RunLinear) for layer in found)
    return found


def shrink(section: Section) -> Any:
    """The same configuration with everything of size or length that `SMALL` names made small."""
    for field in dataclasses.fields(section):  # type: ignore[arg-type]  # every section is a dataclass
        value = getattr(section, field.name)
        if isinstance(value, Section):
            shrink(value)
        elif field.name in SMALL and value:
            setattr(section, field.name, SMALL[field.name])
    return section


def write_demonstrations(path: Path, episodes: int = 4, length: int = 8, seed: int = 0, **shape: int) -> Path:
    """Episodes of Walk's shape, or of another one; every second one truly ends."""
    generator = np.random.default_rng(seed)
    observation, action = shape.get("observation", 2), shape.get("action", 1)
    trajectories = []
    for index in range(episodes):
        states = generator.normal(size=(length + 1, observation)).astype(np.float32)
        actions = generator.uniform(-0.9, 0.9, (length, action)).astype(np.float32)
        rewards = generator.normal(size=length).astype(np.float32)
        trajectories.append(Trajectory(states[:-1], actions, rewards, states[1:], index % 2 == 0))
    write_d4rl(path, trajectories, {})
    return path


def default_options(module: str, learner: str, **options: Any) -> Any:
    """Options of a module, small, and such that the learner can be used in Walk, whose episodes end early."""
    defaults: dict[str, Any] = {}
    if LEARNERS[learner].on_policy:
        defaults = {"absorbing": False, "allow_variable_horizon": True}
    if IMITATION_MODULES[module].queries_expert:
        defaults["expert"] = "tests.algorithms.support:push_back"
    return shrink(IMITATION_MODULES[module].config_class(**(defaults | options)))


def make_config(
    module: str,
    demonstrations: Path | None,
    learner: str = "sac",
    imitation: ImitationConfig | None = None,
    **fields: Any,
) -> Config:
    """A tiny run in Walk, checked as a composed one would be."""
    on_policy = LEARNERS[learner].on_policy
    options = imitation or default_options(module, learner)
    defaults: dict[str, Any] = {
        "algorithm": module,
        "steps": 100,
        "env": EnvironmentConfig(
            name="walk", id=WALK, num_envs=2, demonstrations=str(demonstrations) if demonstrations else None
        ),
        "reinforcement": shrink(LEARNERS[learner].config_class()),
        "imitation": options,
        "training": TrainingConfig(start=0, interval=16, batch_size=8) if on_policy else TrainingConfig(8, 1, 8),
    }
    if not IMITATION_MODULES[module].provides_rewards and not IMITATION_MODULES[module].queries_expert:
        defaults |= {"steps": 0, "bc_pretraining": BCPretrainingConfig(iterations=3)}
    config = Config(**(defaults | fields))
    check_combinations(config)
    return config


def parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
