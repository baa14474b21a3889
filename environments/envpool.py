"""EnvPool (Weng et al. 2022, arXiv:2206.10558): the same environments, simulated in C++. An optional extra."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from conf.errors import UserError
from environments.construction import spaces_of
from environments.seals import origin
from models.streams import stream_seed

REQUIREMENT = "envpool==1.2.5"  # as in requirements-envpool.txt
NO_LIMIT = 2**31 - 1


def load_envpool() -> Any:
    """The package.

    Raises:
        UserError: it is not installed, or does not work here.
    """
    try:
        import envpool
    except ImportError as error:
        missing = "is not installed" if error.name == "envpool" else f"cannot be imported ({error})"
        raise UserError(
            f"env.backend=envpool {missing}: pip install {REQUIREMENT} (about 700 MB), or env.backend=gymnasium"
        ) from error
    return envpool


class EnvPoolBackend:
    """EnvPool's vector environment with Gymnasium's flags, reset by hand.

    EnvPool merges a termination in the last step before the time limit into a truncation, so it runs without a limit
    here and the steps are counted. It cannot restore its simulators: a resumed run begins new episodes, with seeds
    that differ from those of the start and of every earlier resumption.
    """

    observations: np.ndarray

    def __init__(self, environment_id: str, seeds: Sequence[int]) -> None:
        self.environment_id, self.seeds = environment_id, list(seeds)
        self.resumptions = 0
        self.horizon = spaces_of(environment_id).horizon or NO_LIMIT
        self._start(self.seeds)

    def _start(self, seeds: list[int]) -> None:
        self.envs = make(self.environment_id, seeds)
        self.elapsed = np.zeros(len(seeds), np.int64)  # steps of each present episode
        self.observations = self.envs.reset()[0]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """True successors, rewards, terminated, truncated. Afterwards `observations` holds where each one goes on."""
        successors, rewards, terminated, _, _ = self.envs.step(actions)
        self.elapsed += 1
        truncated = self.elapsed >= self.horizon
        ends = terminated | truncated
        self.observations = successors
        if ends.any():
            # Left alone, it would spend the next step on the reset.
            self.observations = successors.copy()
            self.observations[ends] = self.envs.reset(np.flatnonzero(ends).astype(np.int32))[0]
            self.elapsed[ends] = 0
        return successors, rewards, terminated, truncated

    def state_dict(self) -> dict[str, Any]:
        return {"seeds": self.seeds, "resumptions": self.resumptions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.close()
        self.seeds, self.resumptions = list(state["seeds"]), state["resumptions"] + 1
        self._start([stream_seed(seed, f"resumption/{self.resumptions}") for seed in self.seeds])

    def close(self) -> None:
        self.envs.close()


def make(environment_id: str, seeds: list[int]) -> Any:
    """EnvPool's environments, one for each seed, without a time limit.

    Raises:
        UserError: there is no such environment, or its spaces are not those of Gymnasium's.
    """
    envpool = load_envpool()
    name, options = origin(environment_id)
    if name not in envpool.list_all_envs():
        raise UserError(
            f"env.id={environment_id} is not in EnvPool {envpool.__version__}: expected env.backend=gymnasium"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*precision lowered", UserWarning)  # of the limits of its spaces
        envs = envpool.make_gymnasium(
            name,
            num_envs=len(seeds),
            num_threads=1,
            seed=[seed % NO_LIMIT for seed in seeds],
            max_episode_steps=NO_LIMIT,
            **options,
        )
        observations, actions = envs.observation_space, envs.action_space
    spaces = spaces_of(environment_id)
    same = observations.shape == (spaces.observation_size,)
    if isinstance(actions, Discrete):
        same &= spaces.discrete and actions.n == spaces.action_size
    else:
        limits = np.array_equal(actions.low, spaces.action_low) and np.array_equal(actions.high, spaces.action_high)
        same &= not spaces.discrete and limits
    if not same:
        raise UserError(
            f"env.id={environment_id} differs between EnvPool and Gymnasium: expected env.backend=gymnasium"
        )
    return envs
