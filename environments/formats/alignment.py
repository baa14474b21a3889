"""Does next_observations[t] equal observations[t + 1]? Files exist where it is the observation before or after."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from tqdm import tqdm

from environments.formats.base import DemonstrationSet
from environments.trajectories import LazyTrajectories, Trajectory

SHARE = 0.99  # of the rows, to call a file shifted
TOLERANCE = 1e-5  # for numbers that went through another type
KINDS = {"connected": 1, "same": 0, "ahead": 2}  # next_observations[t] == observations[t + shift]
DESCRIPTIONS = {
    "connected": "next_observations[t] equals observations[t + 1]",
    "same": "off by one: next_observations[t] equals observations[t], not observations[t + 1]",
    "ahead": "off by one: next_observations[t] equals observations[t + 2], not observations[t + 1]",
    "unconnected": "next_observations[t] differs from observations[t + 1]: the rows are not consecutive steps",
}


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How the successors of a set lie, with the share of its rows that connect."""

    kind: str  # of DESCRIPTIONS
    share: float


def _matches(trajectory: Trajectory, shift: int) -> Bool[np.ndarray, "compared"]:
    observations = trajectory.observations[shift:]
    successors = trajectory.next_observations[: len(observations)]
    result: np.ndarray = np.isclose(successors, observations, TOLERANCE, TOLERANCE).all(1)
    return result


def alignment(trajectories: Sequence[Trajectory]) -> Alignment:
    """Of the rows that have a row behind them; episodes of one step say nothing."""
    matching = dict.fromkeys(KINDS, 0)
    compared = dict.fromkeys(KINDS, 0)
    for trajectory in tqdm(trajectories, "comparing successors", leave=False, disable=None):
        if trajectory.length < 2:
            continue
        connected = trajectory.connected  # as most are: then nothing else has to be tried
        for kind, shift in KINDS.items():
            compared[kind] += trajectory.length - shift
            if not connected:
                matching[kind] += int(_matches(trajectory, shift).sum())
        matching["connected"] += (trajectory.length - 1) * connected
    shares = {kind: matching[kind] / compared[kind] if compared[kind] else 0.0 for kind in KINDS}
    if not compared["connected"] or shares["connected"] == 1:
        return Alignment("connected", 1.0)
    shifted = [kind for kind in ("same", "ahead") if shares[kind] >= SHARE and shares[kind] > shares["connected"]]
    return Alignment(shifted[0] if shifted else "unconnected", shares["connected"])


def repaired(content: DemonstrationSet) -> DemonstrationSet:
    """A set whose successors are off by one, with the right ones. Where there is something to say it is in the notes.

    A last successor that is nowhere in the file does not matter after a true end, and the observation is repeated; of
    an episode that was cut, the last row is left out.
    """
    found = alignment(content.trajectories)
    kind = found.kind
    if kind == "unconnected":
        note = f"{DESCRIPTIONS[kind]} ({found.share:.1%} of them connect)"
        return dataclasses.replace(content, notes=(*content.notes, note))
    if kind == "connected":
        return content
    trajectories = content.trajectories
    lengths = _lengths(trajectories, kind)
    kept = [index for index, length in enumerate(lengths) if length]

    def load(index: int) -> Trajectory:
        return _shifted(trajectories[kept[index]], kind, lengths[kept[index]])

    lazy = LazyTrajectories([lengths[index] for index in kept], load)
    note = f"next_observations are {DESCRIPTIONS[kind].split(':')[0]}: taken from the observations instead"
    result = lazy if isinstance(trajectories, LazyTrajectories) else list(lazy)
    return dataclasses.replace(content, trajectories=result, notes=(*content.notes, note))


def _lengths(trajectories: Sequence[Trajectory], kind: str) -> list[int]:
    """Steps of which the successor is known or does not matter."""
    return [t.length - (not t.terminated and (kind == "same" or t.length < 2)) for t in trajectories]


def _shifted(trajectory: Trajectory, kind: str, length: int) -> Trajectory:
    observations = trajectory.observations
    known = kind == "ahead" and trajectory.length > 1
    last = trajectory.next_observations[-2:-1] if known else observations[-1:]
    successors = np.concatenate([observations[1:], last])
    return dataclasses.replace(
        trajectory,
        observations=observations[:length],
        actions=None if trajectory.actions is None else trajectory.actions[:length],
        rewards=None if trajectory.rewards is None else trajectory.rewards[:length],
        next_observations=successors[:length],
        infos={name: values[:length] for name, values in trajectory.infos.items()},
    )
