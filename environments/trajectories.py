"""What every reader of demonstration files returns: episodes, in the environment's own units."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True)
class Trajectory:
    """One episode of at least one step. `terminated` is a true end; otherwise a time limit or a cut ended it.

    It holds rows, (s, a, r, s'), and not one array of T + 1 observations: files exist whose rows do not connect
    (thinned out, or with successors that are off by one), and they have to be read before they can be judged. Where
    rows do connect, `from_observations` makes both columns views of one array, and `all_observations` joins them.

    Raises ValueError where the columns disagree about the number of steps.
    """

    observations: Float32[np.ndarray, "time observation"]
    actions: (
        Float32[np.ndarray, "time action"] | Int64[np.ndarray, "time"] | None
    )  # integers: discrete; None: state-only
    rewards: Float32[np.ndarray, "time"] | None
    next_observations: Float32[np.ndarray, "time observation"]
    terminated: bool
    infos: Mapping[str, np.ndarray] = field(default_factory=dict)  # [time, ...], at the time of the observations
    seed: int | None = None  # of the environment's reset

    def __post_init__(self) -> None:
        if len(self.observations) == 0:
            raise ValueError("a trajectory has at least one step")
        columns = {"actions": self.actions, "rewards": self.rewards, "next_observations": self.next_observations}
        for name, values in {**columns, **self.infos}.items():
            if values is not None and len(values) != len(self.observations):
                raise ValueError(f"{name}: {len(values)} rows for {len(self.observations)} steps")

    @classmethod
    def from_observations(
        cls,
        observations: Float32[np.ndarray, "time_and_one observation"],
        actions: Float32[np.ndarray, "time action"] | Int64[np.ndarray, "time"] | None,
        rewards: Float32[np.ndarray, "time"] | None,
        terminated: bool,
        infos: Mapping[str, np.ndarray] | None = None,
        seed: int | None = None,
    ) -> "Trajectory":
        """An episode of T steps from its T + 1 observations, which are not copied."""
        return cls(observations[:-1], actions, rewards, observations[1:], terminated, infos or {}, seed)

    @property
    def length(self) -> int:
        """Steps."""
        return len(self.observations)

    @property
    def episode_return(self) -> float | None:
        """The undiscounted sum of rewards; None without rewards."""
        return None if self.rewards is None else float(self.rewards.sum(dtype=np.float64))

    @property
    def discrete(self) -> bool:
        """Are the actions integers?"""
        return self.actions is not None and self.actions.ndim == 1

    @property
    def connected(self) -> bool:
        """Is every successor the next row's observation? Then T + 1 observations say everything."""
        return np.array_equal(self.next_observations[:-1], self.observations[1:])

    @property
    def all_observations(self) -> Float32[np.ndarray, "time_and_one observation"]:
        """The T + 1 observations of connected rows, in order."""
        return np.concatenate([self.observations, self.next_observations[-1:]])


class LazyTrajectories(Sequence[Trajectory]):
    """Trajectories that are read when they are asked for, so that a file may be larger than memory.

    `lengths` are their steps; `load(index)` reads one of them.
    """

    def __init__(self, lengths: Sequence[int], load: Callable[[int], Trajectory]) -> None:
        self.lengths = list(lengths)
        self._load = load

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> "LazyTrajectories": ...
    def __getitem__(self, index: int | slice) -> "Trajectory | LazyTrajectories":
        if isinstance(index, slice):
            chosen = range(len(self))[index]
            return LazyTrajectories(self.lengths[index], lambda i: self._load(chosen[i]))
        return self._load(range(len(self))[index])  # raises IndexError, which ends an iteration


def lengths_of(trajectories: Sequence[Trajectory]) -> list[int]:
    """Steps of each, without reading what is read lazily."""
    if isinstance(trajectories, LazyTrajectories):
        return trajectories.lengths
    return [trajectory.length for trajectory in trajectories]


def mapped(trajectories: Sequence[Trajectory], function: Callable[[Trajectory], Trajectory]) -> Sequence[Trajectory]:
    """Each changed in a way that keeps its length; lazily where they are read lazily."""
    if isinstance(trajectories, LazyTrajectories):
        return LazyTrajectories(trajectories.lengths, lambda index: function(trajectories[index]))
    return [function(trajectory) for trajectory in trajectories]
