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

import numpy as np
from jaxtyping import Float32

from conf.errors import UserError

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
    if (name := _name(environment_id)) not in ROBOTS:
        raise UserError(f"there is no rule for the observations of {environment_id}; known: {', '.join(ROBOTS)}")
    return name


def _name(environment_id: str) -> str:
    match = re.fullmatch(r"(?:.*/)?(\w+?)-v\d+", environment_id)
    return match[1] if match else environment_id


def narrowing(environment_id: str, size: int, known: str, wanted: int) -> Callable[[Observations], Observations]:
    """From this environment's observations, of `size` numbers, to those of the `known` one, which hold no more.

    Raises:
        UserError: that is another robot, or its observations hold more.
    """
    if size == wanted:
        names = [_name(one) for one in (environment_id, known)]
        if names[0] != names[1] and set(names) <= set(ROBOTS):
            raise UserError(f"{known} is another robot than {environment_id}")
        return lambda observations: observations
    name = robot_of(environment_id)
    if name != robot_of(known):
        raise UserError(f"{known} is another robot than {environment_id}")
    robot = ROBOTS[name]
    positions, forces = robot.parts(size, environment_id)
    kept_positions, kept_forces = robot.parts(wanted, known)
    if kept_positions > positions or kept_forces not in (0, forces):
        raise UserError(f"{environment_id}: observations of {size} numbers do not hold what those of {wanted} do")
    start, stop = positions - kept_positions, size - (forces - kept_forces)
    return lambda observations: observations[:, start:stop]
