"""Environments that break in their 30th step: `env.id=tests.training.sweeps.faulty:Raising-v0`, in any process."""

import math
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, SupportsFloat

import gymnasium
from gymnasium.envs.classic_control.pendulum import PendulumEnv


def raising() -> float:
    raise RuntimeError("planted")


def killed() -> float:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out
    return 0.0


class Faulty(gymnasium.RewardWrapper[Any, Any]):
    """Pendulum, but for one reward."""

    def __init__(self, fault: Callable[[], float], render_mode: str | None = None) -> None:
        super().__init__(PendulumEnv(render_mode))
        self.fault, self.steps_left = fault, 30

    def reward(self, reward: SupportsFloat) -> SupportsFloat:
        self.steps_left -= 1
        return self.fault() if self.steps_left == 0 else reward


for name, fault in {"Raising": raising, "NaN": lambda: math.nan, "Killed": killed}.items():
    gymnasium.register(f"{name}-v0", entry_point=partial(Faulty, fault), max_episode_steps=200)
