"""Making one environment: by name or Gymnasium id, checked, and able to go back to where it was."""

import functools
import sys
import warnings
from dataclasses import dataclass, fields, replace
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float
from torch import Tensor

import environments.seals  # noqa: F401  # registers environments
from conf.errors import UserError
from conf.fields import Section, choice, ranged
from memory.absorbing import append_bit


@dataclass
class EnvironmentConfig(Section):
    """Where the agent acts. `conf/env/*.yaml` holds the named ones."""

    name: str = "custom"
    id: str = "Hopper-v4"  # any Gymnasium id with a vector of observations, and continuous or discrete actions
    version: str | None = None  # v4 or v5, for the MuJoCo environments
    fixed_horizon: bool = False  # does an episode end by its time limit alone?
    num_envs: int = ranged(1, 1)  # environments per run, stepped together
    backend: str = choice("gymnasium", "gymnasium", "envpool")
    threads: int = ranged(1, 1, 1024)  # that simulate MuJoCo's robots side by side (v4, seals); other environments: 1
    demonstrations: str | None = None  # a file or folder of any format; null: the bundled set
    # To mean 0 and deviation 1 in the demonstrations, for everything that learns; without demonstrations, running ones.
    normalise_observations: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version is not None and not self.id.endswith(f"-{self.version}"):
            raise UserError(f"env.version={self.version} does not apply to {self.id}: leave it out")


CLIP = 5.0  # normalised observations; beyond, no demonstration tells anything


@dataclass(frozen=True)
class Spaces:
    """Sizes and limits of an environment, and the way between its units and those of everything that learns.

    Discrete actions are one-hot vectors for learners. With `absorbing`, their observations have one more feature, 1 in
    the absorbing state alone.
    """

    observation_size: int
    action_size: int  # of discrete ones: how many there are to choose from
    action_low: np.ndarray  # of continuous actions
    action_high: np.ndarray
    horizon: int | None  # its time limit in steps
    discrete: bool = False
    absorbing: bool = False
    observation_mean: np.ndarray | None = None  # [observation]; None: observations are not normalised
    observation_std: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """Of plain types, for files; `Spaces.from_dict` is its inverse."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Spaces":
        values: dict[str, Any] = {field.name: content[field.name] for field in fields(cls)}
        arrays = {name: np.array(value, np.float32) for name, value in values.items() if isinstance(value, list)}
        return cls(**(values | arrays))

    def normalised(self, mean: np.ndarray, std: np.ndarray) -> "Spaces":
        """With observations of this mean and standard deviation brought to 0 and 1."""
        return replace(self, observation_mean=mean.astype(np.float32), observation_std=std.astype(np.float32))

    def observe(self, observations: np.ndarray) -> Float[Tensor, "*batch learned"]:
        """The environment's observations [..., observation] as learners see them."""
        observations = observations.astype(np.float32, copy=False)
        if self.observation_mean is not None:
            observations = np.clip((observations - self.observation_mean) / self.observation_std, -CLIP, CLIP)
        tensor = torch.from_numpy(observations)
        return append_bit(tensor) if self.absorbing else tensor

    @property
    def learned_size(self) -> int:
        """Of observations as learners see them."""
        return self.observation_size + self.absorbing

    @property
    def absorbing_state(self) -> Float[Tensor, " learned"]:
        """Where zeros of the environment lie, with the bit: the learner's own zeros would be the mean of the expert."""
        state = self.observe(np.zeros(self.observation_size))
        state[-1] = 1.0
        return state

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Actions of a learner, [..., action_size], in the environment's units.

        Continuous ones are scaled from [-1, 1], and clipped outside; of discrete ones the largest entry is chosen.
        """
        if self.discrete:
            return np.asarray(actions.argmax(-1))
        share = (actions.clip(-1.0, 1.0) + 1.0) / 2.0
        scaled: np.ndarray = self.action_low + share * (self.action_high - self.action_low)
        return scaled.astype(np.float32, copy=False)

    def from_environment(self, actions: np.ndarray) -> np.ndarray:
        """Actions in the environment's units as a learner's, [-1, 1] or one-hot."""
        if self.discrete:
            one_hot: np.ndarray = np.eye(self.action_size, dtype=np.float32)[actions]
            return one_hot
        share: np.ndarray = (actions - self.action_low) / (self.action_high - self.action_low)
        return np.clip(2.0 * share - 1.0, -1.0, 1.0).astype(np.float32)


class ResumableEnvironment(gymnasium.Wrapper):
    """Remembers how the present episode came about, so that a fresh copy can be brought to the same point.

    The random state before the episode's reset and the actions since then determine any deterministic simulator,
    whatever it keeps inside; replaying them is exact and needs nothing of the simulator's own.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._seed: int | None = None
        self._generator_state: dict[str, Any] | None = None
        self._actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._seed = seed
        self._generator_state = None if seed is not None else dict(self.unwrapped.np_random.bit_generator.state)
        self._actions = []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: np.ndarray | np.int64) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        self._actions.append(np.array(action))
        return self.env.step(action)

    def record(self, action: np.ndarray) -> None:
        """Note an action, which nobody may change later, with which the simulator is stepped from outside."""
        self._actions.append(action)

    @property
    def elapsed(self) -> int:
        """Steps of the present episode."""
        return len(self._actions)

    def state_dict(self) -> dict[str, Any]:
        actions = torch.from_numpy(np.stack(self._actions)) if self._actions else None
        return {"seed": self._seed, "generator": self._generator_state, "actions": actions}

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        """Go back to the saved point of the saved episode; returns its observation."""
        if state["generator"] is not None:
            self.unwrapped.np_random.bit_generator.state = state["generator"]
        observation: np.ndarray = self.reset(seed=state["seed"])[0]
        self._generator_state = state["generator"]
        for action in [] if state["actions"] is None else state["actions"].numpy():
            observation = self.step(action)[0]
        return observation


@functools.cache
def _hear_mujoco() -> None:
    """Its warnings on stderr, without a log file in the working directory, and without the one on Gymnasium's models:
    that HalfCheetah scales its masses in a manner that MuJoCo will give up, at every environment that is made."""
    try:
        import mujoco
    except ImportError:
        return

    def warn(message: str) -> None:
        if "settotalmass" not in message:
            print(f"MuJoCo: {message}", file=sys.stderr)

    mujoco.set_mju_user_warning(warn)


def make_environment(environment_id: str, render_mode: str | None = None) -> ResumableEnvironment:
    """One environment, with its time limit.

    Raises:
        UserError: there is no such environment, or something that it needs is not installed.
    """
    _hear_mujoco()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # v4 is chosen on purpose: D4RL's data fits it
            env = gymnasium.make(environment_id, render_mode=render_mode, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:  # as for MuJoCo's robots of versions 2 and 3
        raise UserError(f"env.id={environment_id}: {' '.join(str(error).split())}") from error
    return ResumableEnvironment(env)


def spaces_of(environment_id: str, absorbing: bool = False) -> Spaces:
    """Sizes and limits of an environment with a vector of observations, and actions that are bounded or discrete.

    Raises:
        UserError: the environment does not exist, or is not of that kind.
    """
    env = make_environment(environment_id)
    observations, actions = env.observation_space, env.action_space
    horizon = env.spec.max_episode_steps if env.spec else None
    env.close()
    if not isinstance(observations, Box) or len(observations.shape) != 1:
        raise UserError(f"env.id={environment_id} has observations {observations}: expected a vector of numbers")
    size = observations.shape[0]
    if isinstance(actions, Discrete) and actions.start == 0:
        count = int(actions.n)
        return Spaces(size, count, np.full(count, -1, np.float32), np.ones(count, np.float32), horizon, True, absorbing)
    if not isinstance(actions, Box) or len(actions.shape) != 1:
        raise UserError(f"env.id={environment_id} has actions {actions}: expected a continuous vector, or Discrete(n)")
    if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise UserError(f"env.id={environment_id} has unbounded actions: expected finite limits")
    return Spaces(size, actions.shape[0], actions.low, actions.high, horizon, absorbing=absorbing)
