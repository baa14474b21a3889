"""Whole episodes of a policy, in several environments side by side, with the simulator's state."""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from jaxtyping import Float32

from environments.construction import Spaces, make_environment
from environments.trajectories import Trajectory
from environments.vector import reset_seeds
from training.policy import SavedPolicy

Observations = Float32[np.ndarray, "envs observation"]
Actions = Float32[np.ndarray, "envs action"]
Act = Callable[[Observations], Actions]  # in the environment's units

SIMULATOR_STATE = ("qpos", "qvel")


@dataclass(frozen=True)
class Rollouts:
    """Episodes; their infos are the simulator's state at each of their observations, where it has one."""

    trajectories: list[Trajectory]

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted, of each episode."""
        return np.array([trajectory.episode_return for trajectory in self.trajectories])

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode."""
        return np.array([trajectory.length for trajectory in self.trajectories])


class _Episode:
    """One environment and what has been seen in it."""

    def __init__(self, environment_id: str, seed: int) -> None:
        self.seed = seed
        self.env: gymnasium.Env = make_environment(environment_id)
        self.observations = [np.asarray(self.env.reset(seed=seed)[0], np.float32)]
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.infos: dict[str, list[np.ndarray]] = {}
        self.terminated, self.over = False, False

    def step(self, action: np.ndarray) -> None:
        data = getattr(self.env.unwrapped, "data", None)
        for name in SIMULATOR_STATE:
            if hasattr(data, name):
                self.infos.setdefault(name, []).append(getattr(data, name).copy())
        observation, reward, terminated, truncated, _ = self.env.step(action)
        self.observations.append(np.asarray(observation, np.float32))
        self.actions.append(action)
        self.rewards.append(float(reward))
        self.terminated, self.over = bool(terminated), bool(terminated or truncated)

    def trajectory(self) -> Trajectory:
        return Trajectory.from_observations(
            np.stack(self.observations),
            np.stack(self.actions),
            np.array(self.rewards, np.float32),
            self.terminated,
            {name: np.stack(values).astype(np.float32) for name, values in self.infos.items()},
            self.seed,
        )


def play(environment_id: str, act: Act, seed: int) -> Trajectory:
    """One episode from the reset with that seed."""
    run = _Episode(environment_id, seed)
    while not run.over:
        run.step(act(run.observations[-1][None])[0])
    run.env.close()
    return run.trajectory()


def roll_out(environment_id: str, act: Act, episodes: int, seed: int) -> Rollouts:
    """Episodes that begin where `seed` says. `act` always sees all environments, also those that are over."""
    runs = [_Episode(environment_id, start) for start in reset_seeds([seed], episodes, "rollouts")]
    while not all(run.over for run in runs):
        actions = act(np.stack([run.observations[-1] for run in runs]))
        for run, action in zip(runs, actions, strict=True):
            if not run.over:
                run.step(action)
    for run in runs:
        run.env.close()
    return Rollouts([run.trajectory() for run in runs])


def greedy(policy: SavedPolicy, run_index: int) -> Act:
    """The most likely actions of one of the policies in the file."""

    def act(observations: Observations) -> Actions:
        batch = torch.from_numpy(observations).expand(len(policy.seeds), *observations.shape)
        return policy.spaces.to_environment(policy.greedy(batch)[run_index].numpy())

    return act


def uniform(spaces: Spaces, seed: int) -> Act:
    """Actions drawn uniformly from the action space."""
    generator = np.random.default_rng(seed)
    size = spaces.action_size

    def act(observations: Observations) -> Actions:
        return spaces.to_environment(generator.uniform(-1.0, 1.0, (len(observations), size)).astype(np.float32))

    return act
