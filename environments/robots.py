"""Gymnasium's MuJoCo robots stepped together.

A step in Gymnasium spends a third of its time around the simulator: in wrappers, in infos that nobody reads, and in
forces that no observation holds. Here the simulators alone are stepped one by one, in several threads if asked for
(MuJoCo does not hold Python's lock), and observations and rewards are worked out for all at once. Episodes are the same
bit for bit, and begin in Gymnasium's own reset.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from environments.construction import ResumableEnvironment

States = Float64[np.ndarray, "envs state"]  # positions, then velocities
Limits = Float64[np.ndarray, "2 state"]  # the lowest and the highest values of a healthy robot, which has no NaN
Flags = Bool[np.ndarray, " envs"]


def _unlimited(robot: Any) -> Limits:
    return np.tile(np.array([[-np.inf], [np.inf]]), robot.model.nq + robot.model.nv)


def _between(bounds: tuple[float, float]) -> Float64[np.ndarray, " 2"]:
    """The first and the last number between these, both excluded."""
    return np.asarray(np.nextafter(bounds, (np.inf, -np.inf)))


def _ant(robot: Any) -> Limits:
    limits: Limits = np.nan_to_num(_unlimited(robot))  # all finite
    limits[:, 2] = robot._healthy_z_range
    return limits


def _upright(robot: Any) -> Limits:
    """Height and angle of a planar robot's torso."""
    limits = _unlimited(robot)
    limits[:, 1] = _between(robot._healthy_z_range)
    limits[:, 2] = _between(robot._healthy_angle_range)
    return limits


def _hopper(robot: Any) -> Limits:
    limits = _upright(robot)
    low, high = _between(robot._healthy_state_range)
    limits[:, 2:] = limits[0, 2:].clip(low), limits[1, 2:].clip(None, high)
    return limits


@dataclass(frozen=True)
class Kind:
    """What tells one robot's observations and rewards from another's."""

    places: int = 1  # leading positions that say where it is; left out of observations by default
    velocity_limit: float = np.inf  # in observations
    limits: Callable[[Any], Limits] = _unlimited
    torso: bool = False  # is it where its torso's frame was computed last, rather than where its first position says?


KINDS = {
    "gymnasium.envs.mujoco.ant_v4.AntEnv": Kind(2, limits=_ant, torso=True),
    "gymnasium.envs.mujoco.half_cheetah_v4.HalfCheetahEnv": Kind(),
    "gymnasium.envs.mujoco.hopper_v4.HopperEnv": Kind(1, 10.0, _hopper),
    "gymnasium.envs.mujoco.swimmer_v4.SwimmerEnv": Kind(2),
    "gymnasium.envs.mujoco.walker2d_v4.Walker2dEnv": Kind(1, 10.0, _upright),
}


def kind_of(env: ResumableEnvironment) -> Kind | None:
    """None: not one of these robots, or with contact forces in its observations."""
    robot = env.unwrapped
    kind = KINDS.get(f"{type(robot).__module__}.{type(robot).__qualname__}")
    return None if getattr(robot, "_use_contact_forces", False) else kind


class Robots:
    """Robots of one kind; they are reset by their environments."""

    def __init__(self, envs: Sequence[ResumableEnvironment], kind: Kind, threads: int) -> None:
        import mujoco

        self._advance = mujoco.mj_step
        self.envs, self.kind = envs, kind
        robots: list[Any] = [env.unwrapped for env in envs]
        self.robot = robots[0]  # for what all have in common
        self.low, self.high = kind.limits(self.robot)
        self.horizon = envs[0].spec.max_episode_steps if envs[0].spec else None
        self.simulators = [(robot.model, robot.data) for robot in robots]
        # Views: they show the present state.
        self.controls = [robot.data.ctrl for robot in robots]
        self.states = [state for robot in robots for state in (robot.data.qpos, robot.data.qvel)]
        self.places = [robot.data.body("torso").xpos if kind.torso else robot.data.qpos for robot in robots]
        self.shares = [self.simulators[start::threads] for start in range(min(threads, len(robots)))]
        self.pool = ThreadPoolExecutor(len(self.shares) - 1) if len(self.shares) > 1 else None

    def step(
        self, actions: Float32[np.ndarray, "envs action"]
    ) -> tuple[Float64[np.ndarray, "envs observation"], Float64[np.ndarray, " envs"], Flags, Flags]:
        """Successors, rewards, terminated, truncated."""
        for env, control, action in zip(self.envs, self.controls, actions.copy(), strict=True):
            env.record(action)
            control[:] = action
        before = self._places()
        self._simulate()
        velocity = (self._places() - before) / self.robot.dt
        states = np.concatenate(self.states).reshape(len(self.envs), -1)
        healthy = self.healthy(states)
        terminates = getattr(self.robot, "_terminate_when_unhealthy", False)
        rewards = self._rewards(velocity, healthy | terminates, actions)
        terminated = ~healthy if terminates else np.zeros(len(healthy), bool)
        truncated = np.array([env.elapsed == self.horizon for env in self.envs])
        return self._observations(states), rewards, terminated, truncated

    def healthy(self, states: States) -> Flags:
        return np.asarray(((self.low <= states) & (states <= self.high)).all(-1))

    def _places(self) -> Float64[np.ndarray, " envs"]:
        return np.array([place[0] for place in self.places])

    def _simulate(self) -> None:
        if self.pool is None:
            self._simulate_share(self.simulators)
            return
        others = [self.pool.submit(self._simulate_share, share) for share in self.shares[1:]]
        self._simulate_share(self.shares[0])
        for other in others:
            other.result()

    def _simulate_share(self, simulators: Sequence[tuple[Any, Any]]) -> None:
        steps = self.robot.frame_skip
        for model, data in simulators:
            self._advance(model, data, nstep=steps)

    def _rewards(
        self,
        velocity: Float64[np.ndarray, " envs"],
        rewarded: Flags,
        actions: Float32[np.ndarray, "envs action"],
    ) -> Float64[np.ndarray, " envs"]:
        """In the order of Gymnasium's own sums: other orders round differently."""
        robot = self.robot
        forward = getattr(robot, "_forward_reward_weight", 1.0) * velocity
        rewards = forward + rewarded * getattr(robot, "_healthy_reward", 0.0)
        result: np.ndarray = rewards - robot._ctrl_cost_weight * np.square(actions).sum(-1)
        return result

    def _observations(self, states: States) -> Float64[np.ndarray, "envs observation"]:
        limit = self.kind.velocity_limit
        velocities = states[:, self.robot.model.nq :]
        velocities.clip(-limit, limit, out=velocities)
        return states[:, self.kind.places if self.robot._exclude_current_positions_from_observation else 0 :]

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown()
