"""Demonstrations as another environment of the same robot shows them; the rules are in environments/layouts.py."""

import dataclasses

import gymnasium
import numpy as np

from conf.errors import UserError
from environments.formats.base import ENVIRONMENT_KEYS, DemonstrationSet
from environments.layouts import ROBOTS, robot_of
from environments.trajectories import LazyTrajectories, Trajectory, lengths_of
from scripts.demonstration_checks import EnvironmentFacts, check_states, environment_facts


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
    if wanted_positions > positions:
        check_states(content.trajectories, source, "qpos")
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
