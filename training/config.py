"""The root of the configuration, and the way from what was typed to checked dataclasses."""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from algorithms import IMITATION_MODULES, LEARNERS
from algorithms.base import MemoryConfig, TrainingConfig
from algorithms.behavioural_cloning import BCPretrainingConfig
from conf.errors import UserError
from conf.fields import Section, choice, problem, ranged
from environments.construction import EnvironmentConfig


@dataclass
class EvaluationConfig(Section):
    interval: int = ranged(10_000, 1)  # steps (or behavioural-cloning iterations) between evaluations
    episodes: int = ranged(30, 1)  # greedy episodes per evaluation and run


@dataclass
class LoggingConfig(Section):
    interval: int = ranged(1000, 1)
    tensorboard: bool = True
    wandb: bool = False
    progress: bool = True


@dataclass
class CheckpointConfig(Section):
    interval: int = ranged(10_000, 0)  # 0: only at the end and when interrupted


@dataclass
class Config(Section):
    """Everything a run needs. `reinforcement` and `imitation` have the schema of the learner and module chosen."""

    algorithm: str = MISSING
    seed: int = ranged(0, 0, 2**31 - 1)
    runs: int = ranged(1, 1)  # seeds seed, seed + 1, ... trained side by side in one program
    steps: int = ranged(1_000_000, 0)  # environment steps of each run
    device: str = "cpu"  # cpu, cuda, cuda:0, ...
    threads: int = ranged(1, 1)  # of PyTorch; several small networks run best with one thread each
    precision: str = choice("fp32", "fp32", "bf16")
    resume: str | None = None  # folder of a run to go on with
    output_folder: str = "outputs"
    save_trajectories: bool = False  # keep the episodes of the last evaluation
    render: bool = False  # film one greedy episode at the end
    debug: bool = False  # show tracebacks
    env: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    reinforcement: Any = MISSING
    imitation: Any = MISSING
    bc_pretraining: BCPretrainingConfig = field(default_factory=BCPretrainingConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.runs))


@cache
def register_schemas() -> None:
    """Make the dataclasses known to Hydra: the root, one schema per learner and one per imitation module."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="env", name="schema", node=EnvironmentConfig, package="env")
    for name, learner in LEARNERS.items():
        store.store(group="learner", name=name, node=learner.config_class, package="reinforcement")
    for name, module in IMITATION_MODULES.items():
        store.store(group="imitation", name=name, node=module.config_class, package="imitation")


def parse(composed: DictConfig) -> Config:
    """The composed configuration as checked dataclasses.

    Raises:
        UserError: a value is out of range, or values do not fit together.
    """
    check_ranges(composed)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    check_combinations(config)
    return config


def check_ranges(node: DictConfig, path: str = "") -> None:
    """Check every value against the range of its field, naming the full key."""
    schema = OmegaConf.get_type(node)
    fields = {f.name: f for f in dataclasses.fields(schema)} if dataclasses.is_dataclass(schema) else {}
    for key in map(str, node):
        full = f"{path}{key}"
        if OmegaConf.is_missing(node, key):
            raise UserError(f"{full} has no value")
        value = node[key]
        if isinstance(value, DictConfig):
            check_ranges(value, f"{full}.")
        elif key in fields and (allowed := problem(fields[key], value)):
            raise UserError(f"{full}={value!r} is not allowed: expected {allowed}")


def check_combinations(config: Config) -> None:
    """What single ranges cannot express."""
    module = imitation_class(config)
    learner = learner_class(config)
    imitation = config.imitation
    if learner.on_policy and not module.supports_on_policy:
        raise UserError(f"algorithm={config.algorithm} does not work with this learner: it is on-policy")
    if not module.provides_rewards and config.steps > 0:
        raise UserError(
            f"steps={config.steps}: algorithm={config.algorithm} takes no environment steps; "
            "set bc_pretraining.iterations instead"
        )
    if config.steps == 0 and config.bc_pretraining.iterations == 0:
        raise UserError("nothing to train: steps=0 and bc_pretraining.iterations=0; set one of them above 0")
    if imitation.state_only:
        needs_actions = {
            "bc_pretraining.iterations": config.bc_pretraining.iterations > 0,
            "imitation.bc_aux_loss": imitation.bc_aux_loss,
            "imitation.mix_expert_data": imitation.mix_expert_data != "none",
        }
        for key, used in needs_actions.items():
            if used:
                raise UserError(f"{key} needs the demonstrations' actions: not allowed with imitation.state_only=true")
    if not module.uses_demonstrations and imitation.mix_expert_data != "none":
        raise UserError(
            f"imitation.mix_expert_data={imitation.mix_expert_data} is not allowed with algorithm={config.algorithm}: "
            "demonstrations carry no true reward; expected none"
        )
    check_device(config.device)
    if config.env.backend == "envpool" and config.env.num_envs < 1:
        raise UserError("env.num_envs must be at least 1")


def check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name} is not a device: expected cpu, cuda or cuda:<number>") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported: expected cpu, cuda or cuda:<number>")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name} is not there: PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs"
        )


def learner_class(config: Config) -> Any:
    return next(c for c in LEARNERS.values() if c.config_class is type(config.reinforcement))


def imitation_class(config: Config) -> Any:
    return next(c for c in IMITATION_MODULES.values() if c.config_class is type(config.imitation))
