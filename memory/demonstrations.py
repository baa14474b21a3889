"""Expert transitions: from trajectories to rows, and samples of them."""

import copy
import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from conf.errors import UserError
from environments.construction import Spaces
from environments.trajectories import Trajectory
from memory.absorbing import lead_into_absorbing, self_loops
from memory.batch import Batch, Layout
from models.streams import Streams

CLIP_TOLERANCE = 1e-4  # in units of [-1, 1]; float32 actions at the bounds are not worth a warning
MIN_STD = 1e-3  # of an observation's feature: nearly constant ones would drown the others
FORCED = 2  # rows about the absorbing state: the step into it, and the self-loop


def subsampled(
    length: int, factor: int, start: int, forced: int
) -> tuple[Int64[Tensor, "kept"], Float[Tensor, "kept"]]:
    """Rows start, start + factor, ... and the last `forced` ones, in order and once each, with their weights.

    With `start` uniform below `factor` a row is kept with probability 1 / factor; a forced row always is, so it
    weighs 1 / factor, whether or not the stride meets it: the expected weight is the same for every row.
    """
    kept = torch.zeros(length, dtype=torch.bool)
    kept[start::factor] = True
    kept[length - forced :] = True
    weights = torch.ones(length)
    weights[length - forced :] = 1 / factor
    return kept.nonzero().squeeze(-1), weights[kept]


def first_row(index: int, factor: int, length: int, forced: int) -> int:
    """Where the stride starts in trajectory `index`: random, but the same for every run, seed and device.

    Below the length of a trajectory without forced rows, so that at least one row of it stays.
    """
    high = factor if forced else min(factor, length)
    return int(Streams([index], "demonstrations/subsample").integers(high, 1))


def transitions(trajectory: Trajectory, spaces: Spaces, actions: Float[Tensor, "time action"]) -> Batch:
    """All steps of a trajectory as learners see them, in shape [1, time]; rewards are NaN."""
    zeros = torch.zeros(1, trajectory.length)
    last = zeros.clone()
    last[0, -1] = 1.0
    return Batch(
        observations=spaces.observe(trajectory.observations)[None],
        actions=actions[None],
        rewards=torch.full_like(zeros, torch.nan),
        next_observations=spaces.observe(trajectory.next_observations)[None],
        terminated=last if trajectory.terminated else zeros,
        truncated=zeros if trajectory.terminated else last,
        weights=torch.ones_like(zeros),
        collected_at=torch.full_like(zeros, -1.0),
        absorbing=zeros,
        next_absorbing=zeros,
    )


def with_absorbing(batch: Batch, layout: Layout, state: Float[Tensor, " extended"]) -> Batch:
    """One trajectory with the absorbing state after a true end (never after a time limit)."""
    if not batch.terminated.any():
        return batch
    loop = self_loops(batch.map(lambda column: column[:, -1:]), state)
    loop = loop.with_rewards(torch.full_like(loop.rewards, torch.nan))
    return layout.unpack(torch.cat([layout.pack(lead_into_absorbing(batch, state)), layout.pack(loop)], 1))


class Demonstrations:
    """One table of expert rows that all runs share, so that seeds differ in the algorithm and not in the data.

    The first `limit` trajectories (0: all) are used, the others are held out; each is wrapped with the absorbing
    state, then subsampled. Rewards are NaN: the true ones are hidden. State-only data has zeros for actions.
    Raises UserError where the demonstrations do not fit the environment or are fewer than `limit`.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        *,
        limit: int,
        subsample: int,
        seeds: Sequence[int],
        device: torch.device | str,
        spaces: Spaces,
    ) -> None:
        _check(trajectories, limit, spaces)
        self.state_only = any(trajectory.actions is None for trajectory in trajectories)
        self.layout = Layout(spaces.learned_size, spaces.action_size)
        self.streams = Streams(seeds, "demonstrations", device)
        self._subsample, self._spaces = subsample, spaces
        self._unused = trajectories[limit:] if limit else ()
        used = trajectories[: limit or None]
        tables = [self._table(index, trajectory) for index, trajectory in enumerate(used)]
        self.trajectory_lengths = [len(table) for table in tables]  # rows, after wrapping and subsampling
        self._rows = torch.cat(tables).to(device)
        returns = [trajectory.episode_return for trajectory in used if trajectory.episode_return is not None]
        # For reports alone: no module and no learner reads it.
        self.mean_return = float(np.mean(returns)) if len(returns) == len(used) else None
        self.clipped_share = self._clipped_share(used)  # of the action entries that are out of bounds

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def trajectory_count(self) -> int:
        return len(self.trajectory_lengths)

    def sample(self, size: int) -> Batch:
        """[runs, size] rows, drawn evenly and with replacement: any number, however few rows there are."""
        return self.layout.unpack(self._rows[self.streams.integers(len(self), size)])

    def sample_like(self, batch: Batch) -> Batch:
        return self.sample(batch.shape[1])

    def rows(self) -> Batch:
        """All rows in order, in shape [1, rows], trajectory after trajectory."""
        return self.layout.unpack(self._rows[None])

    @cached_property
    def held_out(self) -> Batch | None:
        """The rows [1, rows] of the unused trajectories, prepared alike, on the CPU; None where all are used."""
        if not self._unused:
            return None
        tables = [self._table(self.trajectory_count + index, t) for index, t in enumerate(self._unused)]
        return self.layout.unpack(torch.cat(tables)[None])

    def with_rewards(self, rewards: Float[Tensor, "rows"]) -> "Demonstrations":
        """A copy with these rewards, for modules that compute expert rewards once; it draws from the same streams."""
        result = copy.copy(self)
        result._rows = self.layout.pack(self.rows().with_rewards(rewards[None]))[0]
        return result

    def observation_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Weighted mean and standard deviation [observation] of the rows, but for those of the absorbing state.

        The deviation of a feature that never changes is given as 1.
        """
        rows = self.rows().map(Tensor.cpu)
        real = rows.absorbing[0] == 0
        weights = rows.weights[0, real].double()
        observations = rows.observations[0, real, : self._spaces.observation_size].double()
        mean = (weights @ observations) / weights.sum()
        std = (weights @ (observations - mean).square() / weights.sum()).sqrt()
        std[(observations == observations[0]).all(0)] = 1.0
        return mean.numpy(), std.clamp_min(MIN_STD).numpy()

    def state_dict(self) -> dict[str, Any]:
        return {"streams": self.streams.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state["streams"])

    def _table(self, index: int, trajectory: Trajectory) -> Float[Tensor, "rows width"]:
        spaces = self._spaces
        batch = transitions(trajectory, spaces, self._rescaled(trajectory).clamp(-1.0, 1.0))
        if spaces.absorbing:
            batch = with_absorbing(batch, self.layout, spaces.absorbing_state)
        forced = FORCED if spaces.absorbing and trajectory.terminated else 0
        length = batch.shape[1]
        start = first_row(index, self._subsample, length, forced)
        kept, weights = subsampled(length, self._subsample, start, forced)
        batch = dataclasses.replace(batch.map(lambda column: column[:, kept]), weights=weights[None])
        return self.layout.pack(batch)[0]

    def _rescaled(self, trajectory: Trajectory) -> Float[Tensor, "time action"]:
        """Actions from the environment's units to [-1, 1], not yet clipped, or to one-hot vectors."""
        if self.state_only:
            return torch.zeros(trajectory.length, self.layout.action_size)
        if self._spaces.discrete:
            return F.one_hot(torch.tensor(trajectory.actions), self.layout.action_size).float()
        low, high = torch.tensor(self._spaces.action_low), torch.tensor(self._spaces.action_high)
        return (2 * torch.tensor(trajectory.actions) - (high + low)) / (high - low)  # exact where bounds are [-1, 1]

    def _clipped_share(self, trajectories: Sequence[Trajectory]) -> float:
        actions = torch.cat([self._rescaled(trajectory) for trajectory in trajectories])
        return float((actions.abs() > 1 + CLIP_TOLERANCE).float().mean())


def _check(trajectories: Sequence[Trajectory], limit: int, spaces: Spaces) -> None:
    observation_size, action_size, discrete = spaces.observation_size, spaces.action_size, spaces.discrete
    if not trajectories or limit > len(trajectories):
        raise UserError(
            f"imitation.trajectories={limit}, but the demonstrations hold {len(trajectories)} trajectories; "
            f"expected at most that many, or 0 for all of them"
        )
    for trajectory in trajectories:
        sizes = {"observations": (trajectory.observations.shape[1], observation_size)}
        if trajectory.actions is not None:
            if trajectory.discrete != discrete:
                found, expected = ("discrete", "continuous")[:: 1 if trajectory.discrete else -1]
                raise UserError(
                    f"the actions of the demonstrations are {found}; the environment expects {expected} ones: they "
                    "come from another environment"
                )
            if discrete and not 0 <= trajectory.actions.min() <= trajectory.actions.max() < action_size:
                raise UserError(
                    f"the actions of the demonstrations go from {trajectory.actions.min()} to "
                    f"{trajectory.actions.max()}; the environment expects 0 to {action_size - 1}"
                )
            if not discrete:
                sizes["actions"] = (trajectory.actions.shape[1], action_size)
        for name, (size, expected_size) in sizes.items():
            if size != expected_size:
                raise UserError(
                    f"the {name} of the demonstrations have {size} numbers; the environment expects {expected_size}: "
                    "they come from another environment or version"
                )
