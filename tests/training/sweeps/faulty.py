"""Environments that break in their 30th step: `env.id=tests.training.sweeps.faulty:Raising-v0`, in any process."""

import math
import os
import signal
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.pendulum import PendulumEnv


def raising() -> float:
    raise RuntimeError("planted")


def killed() -> float:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out
    return 0.0


class Faulty(PendulumEnv):
    """Pendulum, but for one reward."""

    def __init__(self, fault: Callable[[], float], render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.fault, self.steps_left = fault, 30

    def step(self, action: np.ndarray) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps_left -= 1
        return observation, self.fault() if self.steps_left == 0 else reward, terminated, truncated, info


for name, fault in {"Raising": raising, "NaN": lambda: math.nan, "Killed": killed}.items():
    gymnasium.register(f"{name}-v0", entry_point=Faulty, max_episode_steps=200, kwargs={"fault": fault})
