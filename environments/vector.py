"""Environments side by side for training.

Termination and time limit are never merged, and a reset never hides the last observation of an episode:
environments do not reset themselves, they are reset here after the transition is complete.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conf.errors import UserError
from environments.construction import EnvironmentConfig, ResumableEnvironment, Spaces, make_environment
from environments.envpool import EnvPoolBackend
from environments.robots import Robots, kind_of
from memory.batch import Batch
from models.streams import stream_seed

Transitions = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # successors, rewards, terminated, truncated


def reset_seeds(seeds: Sequence[int], count: int, purpose: str) -> list[int]:
    """`count` seeds for each run's environments, run by run, within the 31 bits that every simulator accepts."""
    return [stream_seed(seed, f"{purpose}/{index}") % 2**31 for seed in seeds for index in range(count)]


class VectorEnvironment:
    """`num_envs` environments for each run. `observations` is [runs, num_envs, observation]."""

    observations: Float[Tensor, "runs envs observation"]

    def __init__(self, config: EnvironmentConfig, spaces: Spaces, seeds: Sequence[int]) -> None:
        self.spaces, self.fixed_horizon = spaces, config.fixed_horizon
        self.shape = (len(seeds), config.num_envs)
        self.steps = 0  # of each run
        self._ones, self._zeros = torch.ones(self.shape), torch.zeros(self.shape)  # batches are never mutated
        self.backend = _make_backend(config, reset_seeds(seeds, config.num_envs, "environment"))
        self.observations = self._observe(self.backend.observations)

    def step(self, actions: Float[Tensor, "runs envs action"]) -> Batch:
        """The transition of one step in every environment, [runs, num_envs], with the true reward, on the CPU."""
        observations = self.observations
        actions = actions.cpu()
        scaled = self.spaces.to_environment(actions.numpy().reshape(-1, self.spaces.action_size))
        successors, rewards, terminated, truncated = self.backend.step(scaled)
        if not math.isfinite(successors.sum()):
            what = "observation" if torch.isfinite(actions).all() else "action"
            raise FloatingPointError(f"an {what} is not finite")  # before it is stored
        if self.fixed_horizon and terminated.any():
            raise UserError("an episode ended before its time limit: env.fixed_horizon=true is wrong here")
        self.observations = next_observations = self._observe(successors)
        flags = (self._zeros, self._zeros)
        if terminated.any() or truncated.any():
            flags = (self._tensor(terminated), self._tensor(truncated))
            self.observations = self._observe(self.backend.observations)
        self.steps += self.shape[1]
        return Batch(
            observations=observations,
            actions=actions,
            rewards=self._tensor(rewards),
            next_observations=next_observations,
            terminated=flags[0],
            truncated=flags[1],
            weights=self._ones,
            collected_at=torch.full(self.shape, float(self.steps)),
            absorbing=self._zeros,
            next_absorbing=self._zeros,
        )

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32, copy=False)).view(self.shape)

    def _observe(self, observations: np.ndarray) -> Tensor:
        return self.spaces.observe(observations).view(*self.shape, -1)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "backend": self.backend.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.backend.load_state_dict(state["backend"])
        self.observations = self._observe(self.backend.observations)

    def close(self) -> None:
        self.backend.close()


class OneByOne:
    """Any environments. Their infos are dropped: gathering those costs more than simulating a small one."""

    def __init__(self, envs: Sequence[ResumableEnvironment]) -> None:
        self.envs = envs

    def step(self, actions: np.ndarray) -> Transitions:
        results = [env.step(action) for env, action in zip(self.envs, actions, strict=True)]
        observations, rewards, terminated, truncated, _ = zip(*results, strict=True)
        return np.stack(observations), np.array(rewards), np.array(terminated), np.array(truncated)

    def close(self) -> None:
        pass


class GymnasiumBackend:
    """Gymnasium's environments; each is reset here when its episode is over. MuJoCo's robots step together.

    Raises:
        UserError: an environment cannot be made, or is none of those that several threads can simulate.
    """

    def __init__(self, environment_id: str, seeds: list[int], threads: int = 1) -> None:
        self.envs = [make_environment(environment_id) for _ in seeds]
        kind = kind_of(self.envs[0])
        if kind is None and threads > 1:
            raise UserError(
                f"env.threads={threads} is not for {environment_id}: expected 1 "
                "(MuJoCo's robots of version 4 and of seals take more)"
            )
        self.simulation = Robots(self.envs, kind, threads) if kind else OneByOne(self.envs)
        self._gather([env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)])

    def _gather(self, observations: list[np.ndarray]) -> None:
        self.observations = np.stack(observations).astype(np.float32)

    def step(self, actions: np.ndarray) -> Transitions:
        """True successors, rewards, terminated, truncated. Afterwards `observations` holds where each one goes on."""
        successors, rewards, terminated, truncated = self.simulation.step(actions)
        self.observations = successors = successors.astype(np.float32)
        ends = terminated | truncated
        if ends.any():
            self.observations = successors.copy()
            for index in np.flatnonzero(ends).tolist():
                self.observations[index] = self.envs[index].reset()[0]
        return successors, rewards.astype(np.float32), terminated, truncated

    def state_dict(self) -> list[dict[str, Any]]:
        return [env.state_dict() for env in self.envs]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        self._gather([env.restore(saved) for env, saved in zip(self.envs, state, strict=True)])

    def close(self) -> None:
        self.simulation.close()
        for env in self.envs:
            env.close()


def _make_backend(config: EnvironmentConfig, seeds: list[int]) -> Any:
    if config.backend == "envpool":
        return EnvPoolBackend(config.id, seeds)
    return GymnasiumBackend(config.id, seeds, config.threads)
