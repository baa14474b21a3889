"""Greedy episodes with the current policy, outside the training environments."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from environments.construction import Spaces, make_environment
from environments.trajectories import Trajectory
from environments.vector import reset_seeds


class Evaluator:
    """Plays `episodes` whole episodes of every run side by side."""

    def __init__(
        self,
        environment_id: str,
        spaces: Spaces,
        seeds: Sequence[int],
        episodes: int,
        device: torch.device | str,
    ) -> None:
        self.spaces, self.seeds, self.episodes, self.device = spaces, tuple(seeds), episodes, device
        self.envs = [make_environment(environment_id).env for _ in range(len(seeds) * episodes)]

    def play(self, act: Callable[[Tensor], Tensor], purpose: str) -> list[list[Trajectory]]:
        """Episodes of each run, in the environment's own units. `purpose` decides where they begin."""
        starts = reset_seeds(self.seeds, self.episodes, purpose)
        first = [env.reset(seed=seed)[0] for env, seed in zip(self.envs, starts, strict=True)]
        current = np.stack(first).astype(np.float32)
        seen = [[observation] for observation in current.copy()]
        taken: list[list[np.ndarray]] = [[] for _ in self.envs]
        rewards: list[list[float]] = [[] for _ in self.envs]
        terminated = [False] * len(self.envs)
        active = list(range(len(self.envs)))
        while active:
            actions = self.spaces.to_environment(self._actions(act, current))
            running = []
            for index in active:
                observation, reward, ended, cut, _ = self.envs[index].step(actions[index])
                current[index] = observation
                seen[index].append(current[index].copy())
                taken[index].append(actions[index])
                rewards[index].append(float(reward))
                terminated[index] = bool(ended)
                if not (ended or cut):
                    running.append(index)
            active = running
        episodes = [
            Trajectory(
                observations=np.stack(o[:-1]),
                actions=np.stack(a),  # discrete ones are integers
                rewards=np.array(r, dtype=np.float32),
                next_observations=np.stack(o[1:]),
                terminated=t,
            )
            for o, a, r, t in zip(seen, taken, rewards, terminated, strict=True)
        ]
        return [episodes[run * self.episodes : (run + 1) * self.episodes] for run in range(len(self.seeds))]

    def _actions(self, act: Callable[[Tensor], Tensor], observations: np.ndarray) -> np.ndarray:
        batch = self.spaces.observe(observations).view(len(self.seeds), self.episodes, -1)
        actions = act(batch.to(self.device))
        return actions.cpu().numpy().reshape(len(self.envs), -1)
