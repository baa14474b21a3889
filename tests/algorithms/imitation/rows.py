"""Demonstrations made of given rows."""

import numpy as np

from environments.trajectories import Trajectory
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from tests.algorithms.support import make_spaces


def demonstrations_of(batch: Batch, trajectories: int = 1, seeds: tuple[int, ...] = (0,)) -> Demonstrations:
    """The rows of `batch`, [1, rows], as they are, said to be of so many trajectories."""
    observation, action = batch.observations.shape[-1], batch.actions.shape[-1]
    states = np.zeros((2, observation), np.float32)
    blank = Trajectory(states[:1], np.zeros((1, action), np.float32), np.zeros(1, np.float32), states[1:], False)
    demonstrations = Demonstrations(
        [blank] * trajectories,
        limit=0,
        subsample=1,
        seeds=seeds,
        device="cpu",
        spaces=make_spaces(observation, action),
    )
    demonstrations._rows = demonstrations.layout.pack(batch)[0]
    return demonstrations
