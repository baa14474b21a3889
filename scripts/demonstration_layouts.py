"""Observations of the same robot in other layouts: with or without its positions, with or without contact forces.

| robot | positions that Gymnasium leaves out | observation without and with them | with contact forces |
|---|---|---|---|
| Hopper | 1 | 11, 12 (seals) | |
| HalfCheetah | 1 | 17, 18 (seals) | |
| Walker2d | 1 | 17, 18 (seals) | |
| Swimmer | 2 | 8, 10 (seals) | |
| Ant | 2 | 27, 29 (seals) | 111 (v2, D4RL), 105 (v5) |

Positions are the first of MuJoCo's qpos, and stand first; contact forces stand last.
"""

import dataclasses
import re
from collections.abc import Callable

import gymnasium
import numpy as np
from jaxtyping import Float32

from conf.errors import UserError
from environments.formats.base import ENVIRONMENT_KEYS, DemonstrationSet
from environments.trajectories import LazyTrajectories, Trajectory, lengths_of
from scripts.demonstration_checks import EnvironmentFacts, environment_facts

Observations = Float32[np.ndarray, "rows observation"]


@dataclasses.dataclass(frozen=True)
class Robot:
    """What the layouts of one robot have in common."""

    size: int  # without positions and contact forces
    positions: int
    contact_forces: tuple[int, ...] = ()

    def parts(self, size: int, name: str) -> tuple[int, int]:
        """How many positions and contact forces there are in an observation of that size.

        Raises:
            UserError: there is no such layout.
        """
        for positions in (0, self.positions):
            for forces in (0, *self.contact_forces):
                if size == self.size + positions + forces:
                    return positions, forces
        raise UserError(f"there is no rule for {name} with observations of {size} numbers")


ROBOTS = {
    "Hopper": Robot(11, 1),
    "HalfCheetah": Robot(17, 1),
    "Walker2d": Robot(17, 1),
    "Swimmer": Robot(8, 2),
    "Ant": Robot(27, 2, (84, 78)),
}


def robot_of(environment_id: str) -> str:
    """The robot in an environment's id, such as Hopper in seals/Hopper-v1 and Hopper-v4.

    Raises:
        UserError: there are no rules for it.
    """
    match = re.fullmatch(r"(?:.*/)?(\w+?)-v\d+", environment_id)
    if match is None or match[1] not in ROBOTS:
        raise UserError(f"there is no rule for the observations of {environment_id}; known: {', '.join(ROBOTS)}")
    return match[1]


def narrowing(environment_id: str, size: int, wanted: int) -> Callable[[Observations], Observations]:
    """From observations of one layout to those of another that leaves something out.

    Raises:
        UserError: the wanted layout holds more.
    """
    robot = ROBOTS[robot_of(environment_id)]
    positions, forces = robot.parts(size, environment_id)
    kept_positions, kept_forces = robot.parts(wanted, environment_id)
    if kept_positions > positions or kept_forces not in (0, forces):
        raise UserError(f"{environment_id}: observations of {size} numbers do not hold what those of {wanted} do")
    start, stop = positions - kept_positions, size - (forces - kept_forces)
    return lambda observations: observations[:, start:stop]


def converted(content: DemonstrationSet, target: str, source: str) -> DemonstrationSet:
    """The same episodes as another environment of the same robot shows them; the notes say what was done.

    Raises:
        UserError: there is no rule, or something is needed that is not in the file.
    """
    facts = environment_facts(target)
    name = robot_of(facts.id)
    if content.environment_id in gymnasium.registry and robot_of(str(content.environment_id)) != name:
        raise UserError(f"{source} was recorded in {content.environment_id}, which is not a {name}")
    robot, size = ROBOTS[name], content.trajectories[0].observations.shape[1]
    positions, forces = robot.parts(size, name)
    wanted_positions, wanted_forces = robot.parts(facts.observation_size, name)
    if wanted_forces and wanted_forces != forces:
        raise UserError(f"{source} holds no {wanted_forces} contact forces, which {facts.id} observes")
    if wanted_positions > positions and "qpos" not in content.trajectories[0].infos:
        raise UserError(f"{source} holds no infos/qpos, where the positions that {facts.id} observes would be")
    notes = [
        f"observations of {size} numbers become {facts.observation_size}, as in {facts.id}",
        *([f"the last {forces} numbers (contact forces) are left out"] if forces > wanted_forces else []),
        *([f"the first {positions} (positions) are left out"] if positions > wanted_positions else []),
    ]
    if wanted_positions > positions:
        notes.append(
            f"{wanted_positions} positions come from infos/qpos; the last step of an episode has none and goes"
        )
    changed = _changed(content, facts, (positions, forces), (wanted_positions, wanted_forces), notes)
    others = {key: value for key, value in content.attributes.items() if key not in ENVIRONMENT_KEYS}
    attributes = {**others, "environment_id": facts.id, "converted_from": content.environment_id or "unknown"}
    if "return_mean" in others:
        returns = [trajectory.episode_return or 0.0 for trajectory in changed.trajectories]
        attributes |= {"return_mean": float(np.mean(returns)), "return_std": float(np.std(returns))}
    return dataclasses.replace(changed, attributes=attributes, notes=(*content.notes, *notes))


def _changed(
    content: DemonstrationSet,
    facts: EnvironmentFacts,
    present: tuple[int, int],
    wanted: tuple[int, int],
    notes: list[str],
) -> DemonstrationSet:
    added, dropped = max(0, wanted[0] - present[0]), max(0, present[0] - wanted[0])
    forces = present[1] - wanted[1]
    never_ends = facts.id.startswith("seals/")
    trajectories = content.trajectories
    if never_ends and any(trajectory.terminated for trajectory in trajectories):
        notes.append(f"true ends become cuts, since {facts.id} does not end early")

    def load(index: int) -> Trajectory:
        trajectory = trajectories[kept[index]]
        length = trajectory.length - bool(added)
        both = []
        for shift, column in enumerate((trajectory.observations, trajectory.next_observations)):
            values = column[:length, dropped : column.shape[1] - forces]
            if added:
                values = np.concatenate([trajectory.infos["qpos"][shift : shift + length, :added], values], 1)
            both.append(np.asarray(values, np.float32))
        ended = trajectory.terminated and not never_ends and not added
        return dataclasses.replace(
            trajectory,
            observations=both[0],
            next_observations=both[1],
            actions=None if trajectory.actions is None else trajectory.actions[:length],
            rewards=None if trajectory.rewards is None else trajectory.rewards[:length],
            infos={name: values[:length] for name, values in trajectory.infos.items()},
            terminated=ended,
        )

    lengths = [length - bool(added) for length in lengths_of(trajectories)]
    kept = [index for index, length in enumerate(lengths) if length]
    if not kept:
        raise UserError("every episode has one step only, whose successor's position is not in the file")
    lazy = LazyTrajectories([lengths[index] for index in kept], load)
    result = lazy if isinstance(trajectories, LazyTrajectories) else list(lazy)
    return dataclasses.replace(content, trajectories=result)
