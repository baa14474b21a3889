"""Environments whose episodes all have the same length, as in the seals suite (Gleave et al. 2020), version 1.

An early end tells an imitator about the true reward, and a reward of one sign then looks like success or failure. Here
nothing ends early, and positions are part of the observations. The dynamics are Gymnasium's MuJoCo v4 and classic
control; registered under seals's own names, so that its files and results can be compared, without the package.
"""

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv, MountainCarEnv

POSITIONS = {"exclude_current_positions_from_observation": False}
NEVER_ENDING = {"terminate_when_unhealthy": False}

MUJOCO: dict[str, tuple[str, dict[str, bool]]] = {
    "Ant": ("ant_v4:AntEnv", POSITIONS | NEVER_ENDING),
    "HalfCheetah": ("half_cheetah_v4:HalfCheetahEnv", POSITIONS),
    "Hopper": ("hopper_v4:HopperEnv", POSITIONS | NEVER_ENDING),
    "Swimmer": ("swimmer_v4:SwimmerEnv", POSITIONS),
    "Walker2d": ("walker2d_v4:Walker2dEnv", POSITIONS | NEVER_ENDING),
}


def origin(environment_id: str) -> tuple[str, dict[str, bool]]:
    """Gymnasium's environment of which this one is a variant, and the options that make it one."""
    variants = {f"seals/{name}-v1": (f"{name}-v4", options) for name, (_, options) in MUJOCO.items()}
    return variants.get(environment_id, (environment_id, {}))


Step = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class FixedHorizonCartPole(CartPoleEnv):
    """CartPole that goes on when the pole has fallen: 1 for each step in which it stands and the cart is in place."""

    def step(self, action: Any) -> Step:
        self.steps_beyond_terminated = None  # or it would warn of every step behind a fall
        super().step(action)  # type: ignore[no-untyped-call]  # Gymnasium states no types here
        assert self.state is not None
        x, _, angle, _ = self.state
        self.state[2] = angle = (angle + math.pi) % (2 * math.pi) - math.pi
        upright = abs(x) < self.x_threshold and abs(angle) < self.theta_threshold_radians
        return self.state.astype(np.float32), float(upright), False, False, {}


class FixedHorizonMountainCar(MountainCarEnv):
    """MountainCar that stays where it reached the goal, for 0 instead of -1 a step."""

    arrived = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.arrived = False
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Step:
        if self.arrived:
            return np.array(self.state, np.float32), 0.0, False, False, {}
        observation, reward, self.arrived, _, _ = super().step(action)
        return observation, reward, False, False, {}


def register() -> None:
    """Under seals's names; where that package has been imported before, its own stay."""
    entries: dict[str, Any] = {
        f"seals/{name}-v1": {
            "entry_point": f"gymnasium.envs.mujoco.{entry_point}",
            "kwargs": options,
            "max_episode_steps": 1000,
        }
        for name, (entry_point, options) in MUJOCO.items()
    }
    entries["seals/CartPole-v0"] = {"entry_point": FixedHorizonCartPole, "max_episode_steps": 500}
    entries["seals/MountainCar-v0"] = {"entry_point": FixedHorizonMountainCar, "max_episode_steps": 200}
    for environment_id, entry in entries.items():
        if environment_id not in gymnasium.registry:
            gymnasium.register(environment_id, **entry)


register()
