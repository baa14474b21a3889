"""Blocks of a run's work, timed in turn: the parts are those that train.py would build."""

import gc
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol, TypeVar

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from algorithms.learners.sac import SACConfig
from conf.errors import UserError
from memory.replay import ReplayMemory
from models.mlp import MLPConfig
from training.build import build
from training.cli import CONF
from training.config import Config, parse, register_schemas
from training.explain import check_overrides, explain, parse_overrides
from training.phases import Interaction
from training.precision import DTYPES

CHOSEN = ("algorithm", "precision", "threads", "runs", "reinforcement.actor.hidden_size")
Result = TypeVar("Result")
WARM_UP = 10  # steps before the first block: optimisers and memory pools are then in place


@dataclass(frozen=True)
class Setting:
    """What a row of the table stands for."""

    algorithm: str
    precision: str
    threads: int
    runs: int
    hidden_size: int

    @property
    def overrides(self) -> list[str]:
        values = (self.algorithm, self.precision, self.threads, self.runs, self.hidden_size)
        chosen = [f"{key}={value}" for key, value in zip(CHOSEN, values, strict=True)]
        return [*chosen, f"reinforcement.critic.hidden_size={self.hidden_size}"]


def configuration(setting: Setting, overrides: Sequence[str], demonstrations: Path | None) -> Config:
    """One update a step from the first step on, unless `overrides` say otherwise.

    Raises:
        UserError: the overrides are wrong, or there is nothing to time.
    """
    chosen = ["env=hopper", "training.start=1", *overrides, *setting.overrides]
    if any(override.startswith("env.id=") for override in overrides):
        chosen[0] = "env=custom"
    elif any(override.startswith("env=") for override in overrides):
        chosen = chosen[1:]
    config = parse(composed(chosen, setting.algorithm, demonstrations))
    if config.steps == 0 or not isinstance(config.reinforcement, SACConfig):
        raise UserError(f"algorithm={setting.algorithm} with {chosen[0]}: only runs that learn by SAC can be timed")
    return config


def composed(chosen: Sequence[str], algorithm: str, demonstrations: Path | None = None) -> DictConfig:
    """What train.py would make of these options.

    Raises:
        UserError: they are wrong.
    """
    register_schemas()
    try:
        check_overrides(parse_overrides(chosen), several=False)
        with initialize_config_dir(str(CONF)):
            config = compose("config", list(chosen))
        if demonstrations is not None:
            OmegaConf.update(config, "env.demonstrations", str(demonstrations))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, algorithm)) from error
    return config


def product_flops(inputs: int, outputs: int, config: MLPConfig, rows: int) -> tuple[int, int]:
    """Of a network's forward pass, and of its first layer alone: 2 for every weight and row."""
    first = inputs * config.hidden_size
    rest = (config.depth - 1) * config.hidden_size**2 + config.hidden_size * outputs
    return 2 * rows * (first + rest), 2 * rows * first


def update_flops(observation_size: int, action_size: int, config: SACConfig, rows: int) -> int:
    """Matrix products of one SAC update of one run.

    A backward pass costs one forward pass for the weights' gradients and one for the inputs', which no first layer
    needs where its inputs are data. Critic: policy and target critics forward, critics forward and backward. Actor:
    policy forward and backward, critics forward and, towards the actions alone, backward.
    """
    policy, policy_first = product_flops(observation_size, 2 * action_size, config.actor, rows)
    critics, critics_first = (2 * n for n in product_flops(observation_size + action_size, 1, config.critic, rows))
    return (policy + critics + 3 * critics - critics_first) + (3 * policy - policy_first + 2 * critics)


@dataclass(frozen=True)
class Timing:
    """One block."""

    rate: float  # steps, updates or GFLOP per second
    busy: float  # processor seconds per second: below the number of threads when the machine is shared


class Timed(Protocol):
    """Something with blocks of work."""

    kinds: tuple[str, ...]

    def block(self, kind: str, steps: int) -> Timing: ...


class Cell:
    """One setting's run."""

    kinds: tuple[str, ...] = ("environment", "products", "updates", "loop")

    def __init__(self, setting: Setting, config: Config) -> None:
        self.setting, self.config = setting, config
        torch.set_num_threads(setting.threads)
        self.parts = build(config)
        interaction = self.parts.phases[-1]
        assert isinstance(interaction, Interaction)
        self.interaction = interaction
        self._loop(WARM_UP * config.training.interval)
        self._prepare_products()

    @property
    def flops(self) -> int:
        """Of one update, all runs together."""
        context, config = self.parts.context, self.config
        one = update_flops(
            context.observation_size, context.action_size, config.reinforcement, config.training.batch_size
        )
        return config.runs * one

    def block(self, kind: str, steps: int) -> Timing:
        torch.set_num_threads(self.setting.threads)
        works = {
            "environment": self._environment,
            "products": self._products,
            "updates": self._updates,
            "loop": self._loop,
        }
        work: Callable[[int], float] = works[kind]
        self._synchronise()
        processor, start = time.process_time(), time.perf_counter()
        done = work(steps)
        self._synchronise()
        seconds = time.perf_counter() - start
        return Timing(done / seconds, (time.process_time() - processor) / seconds)

    def _synchronise(self) -> None:
        if self.parts.context.device.type == "cuda":
            torch.cuda.synchronize()

    def _environment(self, steps: int) -> float:
        envs = self.interaction.envs
        actions = torch.rand(*envs.shape, self.parts.context.action_size) * 2 - 1
        for _ in range(steps):
            envs.step(actions)
        return steps * envs.shape[1]

    def _updates(self, steps: int) -> float:
        """The learner alone, with the batch that it draws; rewards are zero."""
        memory, demonstrations = self.interaction.memory, self.parts.demonstrations
        assert isinstance(memory, ReplayMemory)
        cloning = self.config.imitation.bc_aux_loss
        for _ in range(steps):
            batch = memory.sample(self.config.training.batch_size)
            expert = demonstrations.sample_like(batch) if demonstrations and cloning else None
            self.parts.learner.update(batch.with_rewards(torch.zeros_like(batch.rewards)), expert)
        return steps

    def _loop(self, steps: int) -> float:
        for _ in range(steps):
            self.interaction.advance()
        return steps * self.interaction.stride

    def _prepare_products(self) -> None:
        config, device = self.config, self.parts.context.device
        size, members = config.reinforcement.critic.hidden_size, 2 * config.runs
        shape = (members, config.training.batch_size, size)
        dtype = DTYPES[config.precision]
        self.inputs, self.gradients = (torch.randn(shape, device=device, dtype=dtype) for _ in range(2))
        self.weights = torch.randn(members, size, size, device=device, dtype=dtype)
        self._products(WARM_UP)

    def _products(self, steps: int) -> float:
        """GFLOP: the products of the twin critics' hidden layer, forward and backward, and nothing else."""
        inputs, gradients, weights = self.inputs, self.gradients, self.weights
        for _ in range(steps):
            inputs @ weights
            inputs.mT @ gradients
            gradients @ weights.mT
        return steps * 3 * 2 * inputs.numel() * weights.shape[-1] / 1e9


def measure(cells: Sequence[Timed], steps: int, blocks: int) -> list[dict[str, list[Timing]]]:
    """Blocks of each kind, for each cell: in turn, so that a drifting machine hits all of them alike."""
    timings: list[dict[str, list[Timing]]] = [{kind: [] for kind in cell.kinds} for cell in cells]
    for block in range(blocks):
        # Every second round backwards: a steady drift cancels out.
        for cell, timing in list(zip(cells, timings, strict=True))[:: -1 if block % 2 else 1]:
            gc.collect()
            for kind in cell.kinds:
                timing[kind].append(cell.block(kind, max(1, steps // blocks)))
    return timings


def typical(timings: list[Timing]) -> float:
    return median(timing.rate for timing in timings)


def ratio(upper: list[Timing], lower: list[Timing], factor: float = 1.0) -> float:
    """The median over blocks: what was measured at about the same time is compared."""
    return median(factor * u.rate / max(v.rate, 1e-12) for u, v in zip(upper, lower, strict=True))


def peak_memory(config: Config) -> tuple[float, int]:
    """GiB that a process of its own needs to build the run, fill its memory, and take a few steps, on its device (what
    a run on a GPU takes of the other memory is not counted); and the rows."""
    return in_own_process(_filled_run, config)


def in_own_process(work: Callable[[Config], Result], config: Config) -> Result:
    """Where nothing else has taken memory before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, config).result()


def _filled_run(config: Config) -> tuple[float, int]:
    torch.set_num_threads(config.threads)
    parts = build(config)
    interaction, device = parts.phases[-1], parts.context.device
    assert isinstance(interaction, Interaction) and isinstance(interaction.memory, ReplayMemory)
    memory = interaction.memory
    memory.rows.uniform_()
    memory.size = [memory.capacity] * config.runs
    for _ in range(WARM_UP):
        interaction.advance()
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else peak(), memory.capacity


def peak() -> float:
    """GiB of this process at most so far. ru_maxrss would begin with that of its parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    scale = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
