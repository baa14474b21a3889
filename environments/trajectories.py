"""What every reader of demonstration files returns: one episode, in the environment's own units."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True)
class Trajectory:
    """One episode of at least one step. `terminated` is a true end; otherwise a time limit or a cut ended it."""

    observations: Float32[np.ndarray, "time observation"]
    actions: Float32[np.ndarray, "time action"] | None  # None: state-only data
    rewards: Float32[np.ndarray, "time"] | None
    next_observations: Float32[np.ndarray, "time observation"]
    terminated: bool

    def __post_init__(self) -> None:
        if len(self.observations) == 0:
            raise ValueError("a trajectory has at least one step")

    @property
    def length(self) -> int:
        """Steps."""
        return len(self.observations)

    @property
    def episode_return(self) -> float | None:
        """The undiscounted sum of rewards; None without rewards."""
        return None if self.rewards is None else float(self.rewards.sum(dtype=np.float64))
