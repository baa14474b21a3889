"""Does today's simulator do what a file says that it did? Stored actions are replayed from stored states.

MuJoCo's observations leave out positions and clip velocities (Hopper, Walker2d), so its state is taken from infos/qpos
and infos/qvel where the file has them, and otherwise from observations that were not clipped, or from the seed of the
reset. What cannot be known is counted and not judged.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from conf.errors import UserError
from environments.construction import make_environment
from environments.formats.base import DemonstrationSet
from environments.layouts import ROBOTS, robot_of
from environments.trajectories import Trajectory
from scripts.demonstration_checks import (
    EnvironmentFacts,
    check_fit,
    check_states,
    chosen_environment,
    environment_facts,
)

CLIPPED = {"Hopper": 10.0, "Walker2d": 10.0}  # the limit of observed velocities
OBSERVATION_TOLERANCE, REWARD_TOLERANCE = 1e-2, 1e-2  # relative to the spread of what is compared
SHARE = 0.95  # of the steps have to agree
WARM_UP = 1  # steps before the one that is judged: rewards of MuJoCo v4 need the body positions of the step before
State = Callable[[gymnasium.Env, Trajectory, int], bool]  # go to the state before a step; False where it is not known


@dataclasses.dataclass
class Drift:
    """How far a replay in one environment is from what the file says, over all steps that could be judged."""

    environment: str
    method: str
    steps: int  # judged
    unknown: int  # of which the state is not in the file
    observation: dict[str, float]  # quantiles of the largest error of a step
    reward: dict[str, float]
    observations_agree: float  # shares of the steps
    rewards_agree: float
    ends_agree: float

    @property
    def agrees(self) -> bool:
        return self.steps > 0 and min(self.observations_agree, self.rewards_agree, self.ends_agree) >= SHARE


@dataclasses.dataclass
class Verification:
    """What `verify` finds out."""

    source: str
    drift: Drift
    others: list[Drift]  # in other versions, where this one disagrees

    @property
    def verdict(self) -> str:
        drift = self.drift
        if drift.steps == 0:
            return f"nothing could be judged: the file has neither simulator states nor seeds ({drift.method})"
        if drift.agrees:
            return f"fits {drift.environment} as it is installed here"
        fitting = [other.environment for other in self.others if other.agrees]
        if fitting:
            return f"made for another version of this environment: fits {fitting[0]}, not {drift.environment}"
        if drift.observations_agree >= SHARE and drift.ends_agree >= SHARE:
            return f"made for another version of this environment: same dynamics as {drift.environment}, other rewards"
        return f"made for another version of this environment, or for another one: does not fit {drift.environment}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "agrees": self.drift.agrees, "verdict": self.verdict}


def verified(
    content: DemonstrationSet, source: str, environment: str | None = None, episodes: int | None = None
) -> Verification:
    """Replay the first `episodes` (all of them by default), and where they disagree, in other versions as well.

    Raises:
        UserError: there is nothing to replay, or the file does not fit the environment.
    """
    facts = chosen_environment(content, environment, source)
    if facts is None:
        raise UserError(f"{source} names no environment that can be made here: give --env")
    check_fit(content, facts, source)
    if content.trajectories[0].actions is None:
        raise UserError(f"{source} holds no actions to replay")
    trajectories = [content.trajectories[i] for i in range(min(len(content.trajectories), episodes or 10**9))]
    check_states(trajectories, source, "qpos", "qvel")
    drift = replayed(trajectories, facts)
    others = []
    if drift.steps and not drift.agrees:
        for name in _versions(facts.id):
            with contextlib.suppress(UserError):  # it may need something that is not installed
                other = environment_facts(name)
                if other.observation_size == facts.observation_size:
                    others.append(replayed(trajectories[:2], other))
    return Verification(source, drift, others)


def _versions(environment_id: str) -> Iterator[str]:
    """Other versions that are installed."""
    base = re.sub(r"-v\d+$", "", environment_id)
    for name in sorted(gymnasium.registry):
        if re.sub(r"-v\d+$", "", name) == base and name != environment_id and not name.endswith(("-v2", "-v3")):
            yield name


def replayed(trajectories: list[Trajectory], facts: EnvironmentFacts) -> Drift:
    """Each step from the state before it, or whole episodes from their seeds."""
    env = make_environment(facts.id)
    state, method = _state(env, trajectories[0], facts.id)
    errors: list[tuple[np.ndarray, float, bool]] = []
    unknown = 0
    for trajectory in tqdm(trajectories, f"replaying in {facts.id}", leave=False, disable=None):
        if state is None:
            found = list(_from_seed(env, trajectory)) if trajectory.seed is not None else []
        else:
            found = list(_from_states(env, trajectory, state))
        errors += found
        unknown += trajectory.length - len(found)
    env.close()
    return _drift(trajectories, errors, unknown, facts.id, method)


def _drift(
    trajectories: list[Trajectory], errors: list[tuple[np.ndarray, float, bool]], unknown: int, name: str, method: str
) -> Drift:
    if not errors:
        return Drift(name, method, 0, unknown, {}, {}, 0.0, 0.0, 0.0)
    observations = np.concatenate([trajectory.observations for trajectory in trajectories])
    spread = np.maximum(observations.std(0), 1e-3)
    rewards = [trajectory.rewards for trajectory in trajectories if trajectory.rewards is not None]
    reward_spread = max(float(np.concatenate(rewards).std()), 1e-2) if rewards else 1.0
    scaled = np.array([float((error / spread).max()) for error, _, _ in errors])
    reward_errors = np.array([error for _, error, _ in errors]) / reward_spread
    return Drift(
        environment=name,
        method=method,
        steps=len(errors),
        unknown=unknown,
        observation=_quantiles(np.array([float(error.max()) for error, _, _ in errors])),
        reward=_quantiles(np.array([error for _, error, _ in errors])),
        observations_agree=float((scaled <= OBSERVATION_TOLERANCE).mean()),
        rewards_agree=float((reward_errors <= REWARD_TOLERANCE).mean()),
        ends_agree=float(np.mean([end for _, _, end in errors])),
    )


def _quantiles(values: np.ndarray) -> dict[str, float]:
    median, high, largest = np.quantile(values, [0.5, 0.95, 1.0])
    return {"median": float(median), "95%": float(high), "largest": float(largest)}


def _compared(env: gymnasium.Env, trajectory: Trajectory, step: int) -> tuple[np.ndarray, float, bool]:
    """Take a step, and compare: the largest differences of observations, that of rewards, and whether ends agree."""
    assert trajectory.actions is not None  # checked before
    observation, reward, terminated, _, _ = env.step(trajectory.actions[step])
    difference = np.abs(np.asarray(observation, np.float64) - trajectory.next_observations[step])
    reward_error = 0.0 if trajectory.rewards is None else abs(float(reward) - float(trajectory.rewards[step]))
    ended = trajectory.terminated and step == trajectory.length - 1
    return difference, reward_error, bool(terminated) == ended


def _from_seed(env: gymnasium.Env, trajectory: Trajectory) -> Iterator[tuple[np.ndarray, float, bool]]:
    env.reset(seed=trajectory.seed)
    for step in range(trajectory.length):
        yield _compared(env, trajectory, step)


def _from_states(env: gymnasium.Env, trajectory: Trajectory, state: State) -> Iterator[tuple[np.ndarray, float, bool]]:
    assert trajectory.actions is not None  # checked before
    for step in range(trajectory.length):
        before = max(0, step - WARM_UP)
        env.reset(seed=0)  # also takes back a time limit
        if not state(env, trajectory, before):
            continue
        for earlier in range(before, step):
            env.step(trajectory.actions[earlier])
        yield _compared(env, trajectory, step)


def _state(env: gymnasium.Env, trajectory: Trajectory, name: str) -> tuple[State | None, str]:
    """How to go to a state of this environment, and in words."""
    if hasattr(env.unwrapped, "set_state"):
        if {"qpos", "qvel"} <= trajectory.infos.keys():
            return _from_infos, "from infos/qpos and infos/qvel"
        try:
            robot = robot_of(name)
        except UserError:
            return None, "from the seeds of the resets"
        return _from_observation(robot), "from observations; positions that they leave out do not matter here"
    classic = {"Pendulum": _pendulum, "CartPole": _state_itself, "MountainCar": _state_itself}
    base = re.sub(r"(.*/)?(\w+?)(Continuous)?-v\d+$", r"\2", name)
    if base in classic:
        return classic[base], "from observations"
    return None, "from the seeds of the resets"


def _from_infos(env: gymnasium.Env, trajectory: Trajectory, step: int) -> bool:
    simulator: Any = env.unwrapped
    simulator.set_state(trajectory.infos["qpos"][step].astype(np.float64), trajectory.infos["qvel"][step].astype(float))
    return True


def _from_observation(name: str) -> State:
    robot = ROBOTS[name]

    def restore(env: gymnasium.Env, trajectory: Trajectory, step: int) -> bool:
        simulator: Any = env.unwrapped
        observation = trajectory.observations[step].astype(np.float64)
        positions, _ = robot.parts(len(observation), name)
        qpos, qvel = simulator.init_qpos.copy(), simulator.init_qvel.copy()
        hidden = robot.positions - positions
        qpos[:hidden] = 0.0
        qpos[hidden:] = observation[: len(qpos) - hidden]
        qvel[:] = observation[len(qpos) - hidden :][: len(qvel)]
        if (np.abs(qvel) >= CLIPPED.get(name, np.inf)).any():
            return False  # the true velocity is not in the file
        simulator.set_state(qpos, qvel)
        return True

    return restore


def _pendulum(env: gymnasium.Env, trajectory: Trajectory, step: int) -> bool:
    simulator: Any = env.unwrapped
    cosine, sine, speed = trajectory.observations[step].astype(np.float64)
    simulator.state = np.array([np.arctan2(sine, cosine), speed])
    return True


def _state_itself(env: gymnasium.Env, trajectory: Trajectory, step: int) -> bool:
    simulator: Any = env.unwrapped
    simulator.state = trajectory.observations[step].astype(np.float64)
    return True


def described(result: Verification) -> str:
    """For people."""
    lines = []
    for drift in (result.drift, *result.others):
        lines.append(f"{drift.environment}: {drift.steps} steps replayed {drift.method}")
        if drift.unknown:
            lines.append(f"  {drift.unknown} steps could not be: their states are not in the file")
        if drift.steps:
            for name, values, share in (
                ("observations", drift.observation, drift.observations_agree),
                ("rewards", drift.reward, drift.rewards_agree),
            ):
                numbers = ", ".join(f"{key} {value:.2g}" for key, value in values.items())
                lines.append(f"  {name}: {share:.1%} of the steps agree; error {numbers}")
            lines.append(f"  ends: {drift.ends_agree:.1%} of the steps agree")
    return "\n".join([*lines, f"verdict: {result.verdict}"])
