"""The root of the configuration, and the way from what was typed to checked dataclasses."""

import dataclasses
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from algorithms import IMITATION_MODULES, LEARNERS
from algorithms.base import ImitationModule, Learner, MemoryConfig, TrainingConfig
from algorithms.behavioural_cloning import BCPretrainingConfig
from conf.errors import UserError, did_you_mean
from conf.fields import Section, choice, expected, problem, ranged, unwrapped
from environments.construction import EnvironmentConfig
from environments.envpool import load_envpool
from training.cli import CONF
from training.precision import fastest_precision

GROUPS = ("algorithm", "env", "learner", "optimised_hyperparameters")  # what is chosen by name


@dataclass
class EvaluationConfig(Section):
    interval: int = ranged(10_000, 1)  # steps (or behavioural-cloning iterations) between evaluations
    episodes: int = ranged(30, 1, 100_000)  # greedy episodes per evaluation and run


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
    runs: int = ranged(1, 1, 10_000)  # seeds seed, seed + 1, ... trained side by side in one program
    steps: int = ranged(1_000_000, 0)  # environment steps of each run
    device: str = "cpu"  # cpu, cuda, cuda:0, ...
    threads: int = ranged(1, 1, 1024)  # of PyTorch; several small networks run best with one thread each
    precision: str = choice("fp32", "fp32", "bf16", "auto")  # auto: bf16 where the device has instructions for it
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
        store.store(group="learner/schema", name=name, node=learner.config_class)
    for name, module in IMITATION_MODULES.items():
        store.store(group="imitation", name=name, node=module.config_class, package="imitation")


def parse(composed: DictConfig, elsewhere: bool = False) -> Config:
    """The composed configuration as checked dataclasses.

    `elsewhere`: the run will be on another machine, whose devices are not known here. `precision=auto` stays then.

    Raises:
        UserError: a value is out of range, or values do not fit together; or the device is not there.
    """
    algorithm = OmegaConf.select(composed, "algorithm")
    check_values(composed, algorithm)
    check_environment(composed.env)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    check_combinations(config)
    if not elsewhere:
        check_presence(config.device)
        if config.precision == "auto":  # also in `composed`: what a run keeps says what was chosen
            begun = begun_precision(config.resume)
            config.precision = composed.precision = begun or fastest_precision(torch.device(config.device))
    return config


def begun_precision(resume: str | None) -> str | None:
    """That of the run which is to be resumed, perhaps on a machine where another one is faster; None: there is none."""
    try:
        saved = OmegaConf.load(Path(resume) / ".hydra" / "config.yaml").precision if resume else None
    except Exception:  # whatever a YAML parser may raise: the folder is refused later, in words of its own
        return None
    return saved if saved in ("fp32", "bf16") else None


def check_values(node: DictConfig, algorithm: str | None, path: str = "") -> None:
    """Check every key and value against its field, naming the full key: `+key=` would bypass the schemas."""
    schema = OmegaConf.get_type(node)
    fields = {f.name: f for f in dataclasses.fields(schema)} if dataclasses.is_dataclass(schema) else None
    for key in map(str, node):
        full = f"{path}{key}"
        if fields is not None and key not in fields:
            raise UserError(unknown_key(full, algorithm))
        if OmegaConf.is_missing(node, key):
            raise UserError(f"{full} has no value" + (f": expected {expected(fields[key])}" if fields else ""))
        value = node[key]
        if isinstance(value, DictConfig):
            check_values(value, algorithm, f"{full}.")
        elif fields and (allowed := problem(fields[key], value)):
            near = did_you_mean(str(value), fields[key].metadata.get("allowed", ()))
            raise UserError(f"{full}={value} is not allowed: expected {allowed}{near}")


def check_combinations(config: Config) -> None:
    """What single ranges cannot express."""
    module = imitation_class(config)
    learner = learner_class(config)
    imitation = config.imitation
    imitation.check()
    config.bc_pretraining.check("bc_pretraining", config.training.batch_size)
    check_name(config.algorithm, learner)
    # Without rewards there are no rollouts, which would have to share out their steps among environments.
    learner.check(config.reinforcement, config.training, config.env.num_envs if module.provides_rewards else 1)
    if learner.on_policy:
        check_on_policy(config, module)
    check_steps(config, module)
    if imitation.state_only:
        needs_actions = {
            "bc_pretraining.iterations": config.bc_pretraining.iterations > 0,
            "bc_pretraining.epochs": config.bc_pretraining.epochs > 0,
            "imitation.bc_aux_loss": imitation.bc_aux_loss,
            "imitation.mix_expert_data": imitation.mix_expert_data != "none",
        }
        for key, used in needs_actions.items():
            if used:
                raise UserError(f"{key} needs the demonstrations' actions: not allowed with imitation.state_only=true")
    if not module.uses_demonstrations and imitation.mix_expert_data != "none":
        raise UserError(
            f"imitation.mix_expert_data={imitation.mix_expert_data} is not allowed with algorithm={config.algorithm}: "
            "it has no reward for demonstrations; expected none"
        )
    if config.seeds[-1] >= 2**31:
        raise UserError(f"seed={config.seed} with runs={config.runs} goes beyond the largest seed, {2**31 - 1}")
    if config.env.backend == "envpool":
        if config.env.threads > 1:
            raise UserError(f"env.threads={config.env.threads} is not for env.backend=envpool: expected 1")
        load_envpool()
    check_device(config.device)


def check_steps(config: Config, module: type[ImitationModule]) -> None:
    """Is there something to train, in the environment or outside of it?"""
    if module.queries_expert and config.steps == 0:
        raise UserError(f"steps=0: algorithm={config.algorithm} learns in its environment steps; expected at least 1")
    if not module.provides_rewards and not module.queries_expert and config.steps > 0:
        raise UserError(
            f"steps={config.steps}: algorithm={config.algorithm} takes no environment steps; "
            "set bc_pretraining.iterations instead"
        )
    if config.steps == 0 and not config.bc_pretraining.used:
        raise UserError(
            "nothing to train: steps=0, bc_pretraining.iterations=0 and bc_pretraining.epochs=0; set one above 0"
        )


def check_name(algorithm: str, learner: type[Learner]) -> None:
    """`algorithm=SAC` is SAC on the true reward, and nothing else may be recorded under that name."""
    own = LEARNERS.get(algorithm.lower(), learner)
    if learner is not own:
        raise UserError(f"algorithm={algorithm} is learner={algorithm.lower()} on the true reward: leave learner out")


def check_on_policy(config: Config, module: type[ImitationModule]) -> None:
    """A learner that trains on its own transitions alone, and on each of them once."""
    imitation = config.imitation
    if not module.supports_on_policy:
        raise UserError(f"algorithm={config.algorithm} does not work with this learner: it is on-policy")
    if imitation.mix_expert_data != "none":
        raise UserError(
            f"imitation.mix_expert_data={imitation.mix_expert_data} is not allowed with an on-policy learner, which "
            "trains on its own transitions alone: expected none"
        )
    if imitation.absorbing:
        raise UserError(
            "imitation.absorbing=true is not allowed with an on-policy learner, which collects no transitions of the "
            "absorbing state: expected false"
        )
    guarded = module.uses_demonstrations and module.provides_rewards
    if guarded and not (config.env.fixed_horizon or imitation.allow_variable_horizon):
        raise UserError(
            f"imitation.allow_variable_horizon=false: episodes of env={config.env.name} may end early, and a learned "
            "reward of one sign then pays for surviving or dying, whatever was demonstrated; choose an environment of "
            "fixed length, as env=seals_*, say env.fixed_horizon=true if this is one, or "
            "imitation.allow_variable_horizon=true"
        )


def check_environment(env: DictConfig) -> None:
    """A named environment keeps its id: its demonstrations and folders go by the name."""
    if not env.id:
        raise UserError("env.id has no value: expected the id of a Gymnasium environment, as in env.id=Swimmer-v4")
    if env.version not in (None, "v4", "v5"):
        raise UserError(f"env.version={env.version} is not allowed: expected v4 or v5")
    path = CONF / "env" / f"{env.name}.yaml"
    if not path.is_file():
        return
    if env.id == env.name:
        raise UserError(f"env.id={env.id} is no id of Gymnasium but a name of ours: write env={env.id}")
    pattern = str(OmegaConf.to_container(OmegaConf.load(path))["id"])  # type: ignore[call-overload, index]  # a mapping
    if not re.fullmatch(re.escape(pattern).replace(re.escape("${.version}"), r"v\d+"), env.id):
        raise UserError(f"env.id={env.id} is not env={env.name}: leave out env={env.name} and its env.version")
    if env.version is not None and env.id != pattern.replace("${.version}", env.version):
        advice = f"write env.version={env.id[-2:]} instead" if "${.version}" in pattern else "leave env.version out"
        raise UserError(f"env.version={env.version} does not apply to {env.id}: {advice}")


def check_device(name: str) -> torch.device:
    """Raises UserError for what is no device, or none that is supported."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name} is not a device: expected cpu, cuda or cuda:<number>") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported: expected cpu, cuda or cuda:<number>")
    return device


def check_presence(name: str) -> None:
    """Raises UserError where this machine does not have the device, or nothing is called so."""
    device = check_device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name} is not there: PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs"
        )


def learner_class(config: Config) -> Any:
    return next(c for c in LEARNERS.values() if c.config_class is type(config.reinforcement))


def imitation_class(config: Config) -> Any:
    return next(c for c in IMITATION_MODULES.values() if c.config_class is type(config.imitation))


def check_preset(preset: object, algorithm: object) -> None:
    """`<ALGORITHM>_<case>` is for its algorithm alone: of GAIL's, some would make FAIRL of GAIL again.

    Raises:
        UserError: it would silently turn another algorithm into something else.
    """
    owner = str(preset).partition("_")[0]
    if owner != algorithm and {owner, algorithm} <= {path.stem for path in (CONF / "algorithm").glob("*.yaml")}:
        own = ", ".join(sorted(path.stem for path in (CONF / "optimised_hyperparameters").glob(f"{algorithm}_*.yaml")))
        raise UserError(
            f"optimised_hyperparameters={preset} is for algorithm={owner}, not algorithm={algorithm}: "
            + (f"expected one of {own}" if own else "it has none")
        )


@cache
def known_keys() -> dict[str, dataclasses.Field[Any]]:
    """Every key of the root, of every learner and of every imitation module, with its field; sections included."""
    keys = _keys_of(Config, "")
    for learner in LEARNERS.values():
        keys |= _keys_of(learner.config_class, "reinforcement.")
    for module in IMITATION_MODULES.values():
        keys |= _keys_of(module.config_class, "imitation.")
    return keys


def _keys_of(schema: Any, prefix: str) -> dict[str, dataclasses.Field[Any]]:
    keys = {}
    for item in dataclasses.fields(schema):
        keys[f"{prefix}{item.name}"] = item
        kind = unwrapped(item.type)[0]
        if dataclasses.is_dataclass(kind):
            keys |= _keys_of(kind, f"{prefix}{item.name}.")
    return keys


def unknown_key(key: str, algorithm: str | None) -> str:
    """Why a key is refused: whose it is, if it is another algorithm's or learner's, or what is nearest."""
    if key in known_keys():
        owners = _owners(key)
        return f"{key} does not apply to algorithm={algorithm}: it is an option of {', '.join(owners)}"
    return f"{key} is not a key{_nearest_key(key) or '.'} See --cfg job for all keys"


def _owners(key: str) -> list[str]:
    if key.startswith("reinforcement."):
        return [f"learner={name}" for name, c in LEARNERS.items() if key in _keys_of(c.config_class, "reinforcement.")]
    modules = {name for name, c in IMITATION_MODULES.items() if key in _keys_of(c.config_class, "imitation.")}
    return [path.stem for path in sorted((CONF / "algorithm").glob("*.yaml")) if _module_of(path) in modules]


def _module_of(algorithm: Path) -> str | None:
    match = re.search(r"^\s*- override /imitation: (\w+)", algorithm.read_text(), re.MULTILINE)
    return match[1] if match else None


def _nearest_key(key: str) -> str:
    """`; did you mean ...?` by the last word first (batch_size), then by the beginning, then by likeness."""
    names = sorted({*known_keys(), *GROUPS})
    last = key.replace("-", "_").split(".")[-1]
    near = [name for name in names if name.split(".")[-1] == last]
    if not near and "." not in key and len(key) > 2:
        near = [name for name in GROUPS if key.startswith(name) or name.startswith(key)]
    near = near or [name for name in names if name.startswith(key)]
    if near:
        return f"; did you mean {' or '.join(repr(name) for name in near[:3])}?"
    return did_you_mean(key, names) or _nearest_last_word(last, names)


def _nearest_last_word(word: str, names: list[str]) -> str:
    return did_you_mean(word, {name.split(".")[-1] for name in names})
