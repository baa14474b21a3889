"""Options of a sweep as a whole, apart from those of its runs: launcher, seeds to pack, what to optimise and how."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError, did_you_mean
from conf.fields import Section, choice, expected, problem, ranged
from training.cli import CONF

LAUNCHERS = CONF / "launcher"
T = TypeVar("T", bound=Section)


@dataclass
class LocalConfig(Section):
    """Processes on this machine."""

    kind: str = "local"
    workers: int | None = ranged(None, 1)  # jobs at once; null: as many as cores, with device=cuda one


@dataclass
class SlurmConfig(Section):
    """An array job of a Slurm cluster. Every node must see the same folders."""

    kind: str = "slurm"
    executor: str = choice("slurm", "slurm", "local")  # local: submitit without a cluster, to try things out
    partition: str | None = None
    account: str | None = None
    array: int = ranged(100, 1)  # jobs at once
    cpus: int = ranged(1, 1)  # of each job; also the threads of PyTorch
    gpus: int = ranged(0, 0)
    memory: str = "8GB"
    minutes: int = ranged(24 * 60, 1)  # time limit; a job that reaches it writes a checkpoint and is queued again
    warning_seconds: int = ranged(120, 1)  # before the limit, to write the checkpoint
    requeues: int = ranged(100, 0)  # how often a job may reach its time limit
    setup: list[str] = field(default_factory=list)  # lines of shell before each job


@dataclass
class RayConfig(Section):
    """Tasks of a Ray cluster. Every node must see the same folders."""

    kind: str = "ray"
    address: str | None = None  # null: a cluster on this machine, for this sweep alone
    cpus: float = ranged(1.0, 0.0)  # of each job; also the threads of PyTorch
    gpus: float = ranged(0.0, 0.0)


LauncherConfig = LocalConfig | SlurmConfig | RayConfig
KINDS: dict[str, type[LauncherConfig]] = {"local": LocalConfig, "slurm": SlurmConfig, "ray": RayConfig}


@dataclass
class SweepConfig(Section):
    """What holds for every sweep."""

    resume_sweep: str | None = None  # folder of a sweep to go on with
    pack_seeds: int = ranged(1, 1, 10_000)  # neighbouring seeds that one process trains side by side


@dataclass
class JointConfig(SweepConfig):
    """All benchmark environments, judged together."""

    objective: str = choice("min", "min", "mean")  # over environments; min as published
    measure: str = choice("final", "final", "mean")  # of each seed: the last evaluation, or the mean of all
    demonstrations: str | None = None  # folder with a file <environment>*.hdf5 for each


@dataclass
class OptimisationConfig(JointConfig):
    """Bayesian optimisation of an algorithm's search space."""

    hyperparameter_search_space: str | None = None  # null: the one called like the algorithm, if nothing is typed
    trials: int = ranged(30, 1, 10_000)
    patience: int = ranged(5, 0)  # stop after so many trials without improvement; 0: never
    seeds_per_trial: int = ranged(3, 1, 1000)
    parallel_trials: int | None = ranged(None, 1)  # null: enough to keep the launcher busy
    finalists: int = ranged(3, 1, 1000)  # the best trials, run again on fresh seeds
    final_seeds: int = ranged(5, 1, 1000)


@dataclass
class BenchmarkConfig(SweepConfig):
    """Algorithms, environments, numbers of trajectories and seeds, each with each."""

    presets: bool = False  # for each algorithm the one of its environment, or of its number of trajectories
    demonstrations: str | None = None  # folder with a file <environment>*.hdf5 for each
    measure: str = choice("final", "final", "best", "mean")  # what the report counts of each seed


@dataclass(frozen=True)
class Options:
    """What was typed about the sweep, checked."""

    sweep: SweepConfig
    launcher: LauncherConfig


ALL_KEYS = {f.name for schema in (OptimisationConfig, BenchmarkConfig) for f in dataclasses.fields(schema)} | {
    "launcher"
}


def is_sweep_key(key: str) -> bool:
    return key in ALL_KEYS or key.startswith("launcher.")


def parse_options(overrides: Sequence[Override], schema: type[SweepConfig], command: str) -> Options:
    """Options of a sweep from those overrides that `is_sweep_key` accepts; the last one counts.

    Raises:
        UserError: a launcher, key or value is not known.
    """
    typed = {override.key_or_group: override.value() for override in overrides}
    for override in overrides:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} gives several values: expected one for the whole sweep")
    name = str(typed.pop("launcher", "local"))
    launcher = launcher_config(name)
    own = {key.removeprefix("launcher."): value for key, value in typed.items() if key.startswith("launcher.")}
    general = {key: value for key, value in typed.items() if not key.startswith("launcher.")}
    known = {f.name for f in dataclasses.fields(schema)}
    for key in general:
        if key not in known:
            raise UserError(f"{key} is not an option of {command}: expected one of {', '.join(sorted(known))}")
    return Options(filled(schema(), general, ""), filled(launcher, own, "launcher.", f"launcher={name}"))


def launcher_config(name: str) -> LauncherConfig:
    """The settings in conf/launcher/<name>.yaml.

    Raises:
        UserError: there is no such file, or what it says is not known.
    """
    path = LAUNCHERS / f"{name}.yaml"
    if not path.is_file():
        names = sorted(path.stem for path in LAUNCHERS.glob("*.yaml"))
        raise UserError(
            f"launcher={name} is not known: expected one of {', '.join(names)}{did_you_mean(name, names)}; "
            "launcher.<option>=<value> sets its options"
        )
    content = OmegaConf.to_container(OmegaConf.load(path))
    kind = content.pop("kind", None) if isinstance(content, dict) else None
    if kind not in KINDS or not isinstance(content, dict):
        raise UserError(f"{path}: kind={kind} is not known: expected one of {', '.join(KINDS)}")
    return filled(KINDS[kind](), {str(key): value for key, value in content.items()}, f"{path.name}: ")


def filled(config: T, values: dict[str, Any], prefix: str, owner: str = "") -> T:
    """`config` with `values`, checked against its fields.

    Raises:
        UserError: a key or value is not known.
    """
    fields = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]  # every Section is a dataclass
    node = OmegaConf.structured(config)
    for key, value in values.items():
        if key not in fields or key == "kind":
            owned = f" of {owner}" if owner else ""
            known = ", ".join(name for name in fields if name != "kind")
            raise UserError(f"{prefix}{key} is not an option{owned}: expected one of {known}")
        try:
            OmegaConf.update(node, key, value)
            taken_for_true = isinstance(node[key], bool) and isinstance(value, (int, float)) and value not in (0, 1)
            wrong = expected(fields[key]) if taken_for_true else problem(fields[key], node[key])
        except OmegaConfBaseException:
            wrong = expected(fields[key])
        if wrong:
            raise UserError(f"{prefix}{key}={value} is not allowed: expected {wrong}")
    return cast(T, OmegaConf.to_object(node))


def refuse_sweep_keys(overrides: Iterable[Override]) -> None:
    """Raises UserError where a single run is given an option of sweeps."""
    for override in overrides:
        if is_sweep_key(override.key_or_group):
            raise UserError(f"{override.input_line} is an option of sweeps: add -m, or leave it out")


def split(overrides: Iterable[Override]) -> tuple[list[Override], list[Override]]:
    """Overrides of the sweep, and those of its runs."""
    listed = list(overrides)
    own = [override for override in listed if is_sweep_key(override.key_or_group)]
    return own, [override for override in listed if not is_sweep_key(override.key_or_group)]
