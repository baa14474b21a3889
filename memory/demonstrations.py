"""Expert transitions: from trajectories to rows, and samples of them."""

import copy
import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from conf.errors import UserError
from environments.construction import Spaces
from environments.trajectories import Trajectory, lengths_of
from memory.absorbing import lead_into_absorbing, self_loops
from memory.batch import Batch, Layout
from models.streams import Streams

CLIP_TOLERANCE = 1e-4  # in units of [-1, 1]; float32 actions at the bounds are not worth a warning
MIN_STD = 1e-3  # of an observation's feature: nearly constant ones would drown the others
HELD_OUT = 100  # unused trajectories that serve for judging; large files have more than anyone needs
PIECE_ROWS = 10_000  # that are converted to 64 bits at a time
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
        if not trajectories or limit > len(trajectories):
            raise UserError(
                f"imitation.trajectories={limit}, but the demonstrations hold {len(trajectories)} trajectories; "
                f"expected at most that many, or 0 for all of them"
            )
        self.state_only = trajectories[0].actions is None
        self.layout = Layout(spaces.learned_size, spaces.action_size)
        self.streams = Streams(seeds, "demonstrations", device)
        self._subsample, self._spaces = subsample, spaces
        self._unused = trajectories[limit : limit + HELD_OUT] if limit else ()
        used = trajectories[: limit or None]
        # Trajectories may be read one by one, since a file can be larger than memory, and only their rows stay.
        room = sum(lengths_of(used)) + len(used)  # with a self-loop each; what is not filled takes no memory
        rows = torch.empty(room, self.layout.width)
        self.trajectory_lengths: list[int] = []  # rows, after wrapping and subsampling
        returns, filled, outside, values = [], 0, 0, 0
        self._checksum = 0  # of what was read: rows may differ in the last bit on another machine
        for index, trajectory in enumerate(used):
            table = self._table(index, trajectory)
            rows[filled : filled + len(table)] = table
            filled += len(table)
            self.trajectory_lengths.append(len(table))
            if trajectory.episode_return is not None:
                returns.append(trajectory.episode_return)
            for column in (trajectory.observations, trajectory.actions, trajectory.next_observations):
                if column is not None:
                    self._checksum = zlib.crc32(np.ascontiguousarray(column).data, self._checksum)
            self._checksum = zlib.crc32(bytes([trajectory.terminated]), self._checksum)
            actions = self._rescaled(trajectory)
            outside += int((actions.abs() > 1 + CLIP_TOLERANCE).sum())
            values += actions.numel()
        self._rows = rows[:filled].to(device)
        # For reports alone: no module and no learner reads it.
        self.mean_return = float(np.mean(returns)) if len(returns) == len(used) else None
        self.clipped_share = outside / values  # of the action entries that are out of bounds

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def trajectory_count(self) -> int:
        return len(self.trajectory_lengths)

    @property
    def device(self) -> torch.device:
        return self._rows.device

    def sample(self, size: int) -> Batch:
        """[runs, size] rows, drawn evenly and with replacement: any number, however few rows there are."""
        return self.take(self.streams.integers(len(self), size))

    def take(self, indices: Int64[Tensor, "runs batch"]) -> Batch:
        """These rows for each run."""
        return self.layout.unpack(self._rows[indices])

    def split(self, share: float) -> tuple["Demonstrations", "Demonstrations"]:
        """The first trajectories, and about this share of them, the last, but at least one: views, nothing is copied.

        Both draw from the same streams as this.

        Raises:
            UserError: there is only one trajectory.
        """
        kept = self.trajectory_count - max(1, round(share * self.trajectory_count))
        if kept < 1:
            raise UserError(
                f"bc_pretraining.validation_share={share:g} needs at least 2 trajectories, and "
                f"{self.trajectory_count} is used: expected 0"
            )
        row = sum(self.trajectory_lengths[:kept])
        parts = []
        for rows, lengths in (
            (self._rows[:row], self.trajectory_lengths[:kept]),
            (self._rows[row:], self.trajectory_lengths[kept:]),
        ):
            part = copy.copy(self)
            part._rows, part.trajectory_lengths = rows, lengths
            parts.append(part)
        return parts[0], parts[1]

    def sample_like(self, batch: Batch) -> Batch:
        return self.sample(batch.shape[1])

    def rows(self) -> Batch:
        """All rows in order, in shape [1, rows], trajectory after trajectory."""
        return self.layout.unpack(self._rows[None])

    @cached_property
    def held_out(self) -> Batch | None:
        """The rows [1, rows] of unused trajectories, prepared alike, on the CPU; None where all are used."""
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
        weight = torch.zeros((), dtype=torch.float64)
        total, squares = torch.zeros(2, self._spaces.observation_size, dtype=torch.float64)
        low, high = torch.full_like(total, torch.inf), torch.full_like(total, -torch.inf)
        for weights, observations in self._pieces():
            weight, total = weight + weights.sum(), total + weights @ observations
            low, high = low.minimum(observations.amin(0)), high.maximum(observations.amax(0))
        mean = total / weight
        for weights, observations in self._pieces():
            squares += weights @ (observations - mean).square()
        std = (squares / weight).sqrt()
        std[low == high] = 1.0
        return mean.numpy(), std.clamp_min(MIN_STD).numpy()

    def _pieces(self) -> Iterator[tuple[Float[Tensor, " rows"], Float[Tensor, "rows observation"]]]:
        """Weights and observations of the rows, but for those of the absorbing state, in 64 bits on the CPU."""
        for start in range(0, len(self), PIECE_ROWS):
            piece = self.layout.unpack(self._rows[None, start : start + PIECE_ROWS].cpu())
            real = piece.absorbing[0] == 0
            if real.any():
                observations = piece.observations[0, real, : self._spaces.observation_size]
                yield piece.weights[0, real].double(), observations.double()

    def state_dict(self) -> dict[str, Any]:
        return {"streams": self.streams.state_dict(), "checksum": self._checksum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError where the state was saved with other demonstrations."""
        if state["checksum"] != self._checksum:
            raise UserError("the demonstrations are not those that the run was begun with: has their file changed?")
        self.streams.load_state_dict(state["streams"])

    def _table(self, index: int, trajectory: Trajectory) -> Float[Tensor, "rows width"]:
        spaces = self._spaces
        _check(trajectory, spaces, self.state_only)
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


def _check(trajectory: Trajectory, spaces: Spaces, state_only: bool) -> None:
    """Does it fit the environment, and the other trajectories?"""
    sizes = {"observations": (trajectory.observations.shape[1], spaces.observation_size)}
    if (trajectory.actions is None) != state_only:
        raise UserError("some of the demonstrations have actions and some do not; expected all or none")
    if trajectory.actions is not None:
        if trajectory.discrete != spaces.discrete:
            found, expected = ("discrete", "continuous")[:: 1 if trajectory.discrete else -1]
            expected += " ones" if trajectory.discrete else " ones, integers from 0"
            raise UserError(
                f"the actions of the demonstrations are {found}; the environment expects {expected}: they "
                "come from another environment"
            )
        if spaces.discrete and not 0 <= trajectory.actions.min() <= trajectory.actions.max() < spaces.action_size:
            raise UserError(
                f"the actions of the demonstrations go from {trajectory.actions.min()} to "
                f"{trajectory.actions.max()}; the environment expects 0 to {spaces.action_size - 1}"
            )
        if not spaces.discrete:
            sizes["actions"] = (trajectory.actions.shape[1], spaces.action_size)
    for name, (size, expected_size) in sizes.items():
        if size != expected_size:
            raise UserError(
                f"the {name} of the demonstrations have {size} numbers; the environment expects {expected_size}: "
                "they come from another environment or version"
            )
