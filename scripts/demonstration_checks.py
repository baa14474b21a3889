"""Demonstrations against an environment: do they fit it, and what has to be put right before they are trusted."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box, Discrete
from omegaconf import OmegaConf
from tqdm import tqdm

from conf.errors import UserError
from environments.construction import make_environment
from environments.formats import of_another_environment
from environments.formats.alignment import repaired
from environments.formats.base import ENVIRONMENT_KEYS, DemonstrationSet
from environments.trajectories import Trajectory, mapped

NAMED = Path(__file__).resolve().parents[1] / "conf" / "env"
TOLERANCE = 1e-4  # of the range of an action, as in training
ACTIONS = ("clip", "keep", "refuse")


@dataclasses.dataclass(frozen=True)
class EnvironmentFacts:
    """What an environment says about itself."""

    id: str
    observation_size: int
    actions: Box | Discrete
    horizon: int | None

    @property
    def action_words(self) -> str:
        if isinstance(self.actions, Discrete):
            return f"integers from {self.actions.start} to {self.actions.start + self.actions.n - 1}"
        return f"{self.actions.shape[0]} numbers"


def environment_id(name: str) -> str:
    """The Gymnasium id of an environment of conf/env, such as hopper, or the id itself."""
    file = NAMED / f"{name}.yaml"
    return str(OmegaConf.select(OmegaConf.load(file), "id")) if file.is_file() and name != "custom" else name


def environment_facts(name: str) -> EnvironmentFacts:
    """Of an environment by its name or id.

    Raises:
        UserError: there is none, or its observations or actions are not of a kind that is used here.
    """
    identity = environment_id(name)
    env = make_environment(identity)
    observations, actions = env.observation_space, env.action_space
    horizon = env.spec.max_episode_steps if env.spec else None
    env.close()
    if not isinstance(observations, Box) or len(observations.shape) != 1:
        raise UserError(f"{identity} has observations {observations}: expected a vector of numbers")
    if not isinstance(actions, Discrete) and (not isinstance(actions, Box) or len(actions.shape) != 1):
        raise UserError(f"{identity} has actions {actions}: expected a vector of numbers, or integers")
    return EnvironmentFacts(identity, observations.shape[0], actions, horizon)


def chosen_environment(
    content: DemonstrationSet, wanted: str | None, source: str, rename: bool = False
) -> EnvironmentFacts | None:
    """The environment that was asked for, or else the one that the file names; None where neither is known.

    Raises:
        UserError: the file names another than the one that was asked for, not only another version of it, and it is
            not to be renamed; or there is none like that.
    """
    found = named_environment(content)
    if wanted is None:
        try:
            return environment_facts(found) if found else None
        except UserError:
            return None  # of another simulator or suite: nothing to compare with
    facts = environment_facts(wanted)
    if of_another_environment(content, facts.id) and not rename:
        raise UserError(
            f"{source} says that it was recorded in {found}, not in {facts.id}; where only the layout of observations "
            f"differs, `convert --to {facts.id}` changes it; `import --rename` takes it for that"
        )
    return facts


def named_environment(content: DemonstrationSet) -> str | None:
    """The Gymnasium id of the environment that the file names, if any."""
    return environment_id(content.environment_id) if content.environment_id else None


def other_name(content: DemonstrationSet, facts: EnvironmentFacts) -> list[str]:
    """A note where the file calls its environment something else."""
    found = named_environment(content)
    if found in (None, facts.id):
        return []
    return [f"the file names {found}, and they are taken for {facts.id}: `verify` says whether that fits"]


def check_fit(content: DemonstrationSet, facts: EnvironmentFacts, source: str) -> None:
    """Sizes and kinds, of the first episode: readers see to it that all are alike.

    Raises:
        UserError: the demonstrations are of another environment, or of another layout of it.
    """
    first = content.trajectories[0]
    size = first.observations.shape[1]
    if size != facts.observation_size:
        raise UserError(
            f"{source} has observations of {size} numbers, {facts.id} has {facts.observation_size}: another "
            f"environment or version; where only the layout differs, `convert --to {facts.id}` changes it"
        )
    if first.actions is None:
        return
    if isinstance(facts.actions, Box):
        if first.discrete:
            raise UserError(f"{source} has discrete actions (integers), {facts.id} has {facts.action_words}")
        if first.actions.shape[1:] != facts.actions.shape:
            raise UserError(
                f"{source} has actions of {first.actions.shape[1]} numbers, {facts.id} {facts.action_words}"
            )
    elif not first.discrete and (first.actions.shape[1] != 1 or any(map(_fractions, content.trajectories))):
        kind = f"{first.actions.shape[1]} numbers" if first.actions.shape[1] > 1 else "numbers with fractions"
        raise UserError(f"{source} has actions of {kind}, {facts.id} has {facts.action_words}")


def rows_not_finite(trajectory: Trajectory, name: str) -> int:
    """Rows of infos with NaN or infinite values. Readers let them pass: training does not look at infos."""
    finite = np.isfinite(trajectory.infos[name]).reshape(trajectory.length, -1).all(1)
    return trajectory.length - int(finite.sum())


def check_states(trajectories: Sequence[Trajectory], source: str, *names: str) -> None:
    """The simulator's states, before something is made of them.

    Raises:
        UserError: one of the infos of these `names` holds NaN or infinite values.
    """
    for index, trajectory in enumerate(tqdm(trajectories, "looking at states", leave=False, disable=None)):
        for name in names:
            if name in trajectory.infos and rows_not_finite(trajectory, name):
                raise UserError(
                    f"{source}, episode {index}: NaN or infinite values in infos/{name}; `inspect` counts them"
                )


def _fractions(trajectory: Trajectory) -> bool:
    return trajectory.actions is not None and bool((trajectory.actions != np.round(trajectory.actions)).any())


def outside(trajectories: Sequence[Trajectory], facts: EnvironmentFacts) -> float:
    """The share of the action values that lie outside the action space."""
    space, count, beyond = facts.actions, 0, 0
    for trajectory in tqdm(trajectories, "looking at actions", leave=False, disable=None):
        if trajectory.actions is None:
            continue
        if isinstance(space, Discrete):
            wrong = (trajectory.actions < space.start) | (trajectory.actions >= space.start + space.n)
        else:
            margin = TOLERANCE * np.nan_to_num(space.high - space.low, posinf=0.0)
            wrong = (trajectory.actions < space.low - margin) | (trajectory.actions > space.high + margin)
        count += wrong.size
        beyond += int(wrong.sum())
    return beyond / count if count else 0.0


def late_ends(trajectories: Sequence[Trajectory], facts: EnvironmentFacts) -> list[str]:
    """A line where true ends are time limits in all likelihood."""
    ends = [trajectory.length for trajectory in trajectories if trajectory.terminated]
    limit = facts.horizon
    late = sum(length >= limit for length in ends) if limit else 0
    if not late:
        return []
    return [
        f"{late} of {len(ends)} true ends fall on the time limit of {facts.id}, {limit} steps: probably time limits; "
        f"`import --time-limit {limit}` marks them as cuts"
    ]


def prepared(
    content: DemonstrationSet,
    source: str,
    environment: str | None = None,
    actions: str = "clip",
    time_limit: int | None = None,
    rename: bool = False,
) -> DemonstrationSet:
    """Demonstrations that can be trusted: they fit their environment, and what was put right is in the notes.

    `actions` outside the action space are clipped, kept or refused. With `time_limit`, episodes of that many steps
    count as cut off and not as truly ended. With `rename`, a file that names another environment is taken for this one.

    Raises:
        UserError: they are of another environment, or something cannot be put right.
    """
    content = repaired(content)
    facts = chosen_environment(content, environment, source, rename)
    if time_limit is not None:
        content = _cut(content, time_limit)
    if facts is None:
        note = "no environment is known, so nothing was compared with one: give --env"
        return dataclasses.replace(content, notes=(*content.notes, note))
    check_fit(content, facts, source)
    notes = (*other_name(content, facts), *late_ends(content.trajectories, facts))
    content = dataclasses.replace(content, notes=(*content.notes, *notes))
    content = _with_integers(content, facts)
    content = _within(content, facts, source, actions)
    others = {key: value for key, value in content.attributes.items() if key not in ENVIRONMENT_KEYS}
    return dataclasses.replace(content, attributes={"environment_id": facts.id, **others})


def _cut(content: DemonstrationSet, time_limit: int) -> DemonstrationSet:
    if time_limit < 1:
        raise UserError(f"--time-limit {time_limit}: expected at least 1")

    def cut(trajectory: Trajectory) -> Trajectory:
        ended = trajectory.terminated and trajectory.length < time_limit
        return dataclasses.replace(trajectory, terminated=ended)

    note = f"episodes of {time_limit} steps count as cut off by the time limit"
    notes = (*(note for note in content.notes if "--time-limit" not in note), note)
    return dataclasses.replace(content, trajectories=mapped(content.trajectories, cut), notes=notes)


def _with_integers(content: DemonstrationSet, facts: EnvironmentFacts) -> DemonstrationSet:
    """Discrete actions that were kept as numbers, one per step."""
    first = content.trajectories[0]
    if first.actions is None or first.discrete or isinstance(facts.actions, Box):
        return content

    def as_integers(trajectory: Trajectory) -> Trajectory:
        assert trajectory.actions is not None  # as in the first
        return dataclasses.replace(trajectory, actions=trajectory.actions[:, 0].astype(np.int64))

    trajectories = mapped(content.trajectories, as_integers)
    return dataclasses.replace(content, trajectories=trajectories, notes=(*content.notes, "actions become integers"))


def _within(content: DemonstrationSet, facts: EnvironmentFacts, source: str, actions: str) -> DemonstrationSet:
    share = outside(content.trajectories, facts)
    if share == 0:
        return content
    found = f"{_percent(share)} of the action values lie outside the action space of {facts.id}"
    if isinstance(facts.actions, Discrete):
        raise UserError(f"{source}: {found}, {facts.action_words}")
    if actions == "refuse":
        raise UserError(f"{source}: {found}; --actions clip or keep accepts them")
    low, high = facts.actions.low, facts.actions.high

    def clipped(trajectory: Trajectory) -> Trajectory:
        assert trajectory.actions is not None  # or none would be outside
        return dataclasses.replace(trajectory, actions=np.clip(trajectory.actions, low, high).astype(np.float32))

    done = "are clipped" if actions == "clip" else "are kept: training clips them"
    trajectories = mapped(content.trajectories, clipped) if actions == "clip" else content.trajectories
    return dataclasses.replace(content, trajectories=trajectories, notes=(*content.notes, f"{found} and {done}"))


def _percent(share: float) -> str:
    """With two significant digits, however small it is."""
    digits = max(0, 1 - math.floor(math.log10(100 * share))) if share else 0
    return f"{100 * share:.{digits}f}%"
