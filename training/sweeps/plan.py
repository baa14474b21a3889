"""The jobs of a sweep: from overrides with several values to runs with names, kept in `sweep.json`."""

import hashlib
import itertools
import json
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError
from training.cli import CONF
from training.config import GROUPS, check_preset, known_keys, parse, register_schemas
from training.explain import parse_overrides
from training.folder import write_json

FORMAT = 2
GRID, JOINT, BENCHMARK = "train.py -m", "train_all.py", "scripts/run_benchmark.py"
OPTIMISATION, JOINT_OPTIMISATION = "train.py -m hydra/sweeper=ax", "train_all.py -m"
# What changes nothing of a run's results; runs that differ in nothing else are the same.
IRRELEVANT = ("threads", "debug", "resume", "output_folder", "logging", "checkpoint", "save_trajectories", "render")


@dataclass(frozen=True)
class Job:
    """One process: one run, or neighbouring seeds side by side."""

    name: str  # its folder in that of the sweep
    overrides: tuple[str, ...]
    key: str = field(compare=False)  # of the configuration that they make


@dataclass
class Plan:
    """What a sweep consists of. Jobs are only ever added."""

    folder: Path
    maker: str  # what began it, and alone can go on with it: one of the above
    command: str  # as typed then
    overrides: list[str]  # as typed
    jobs: list[Job]

    @property
    def path(self) -> Path:
        return self.folder / "sweep.json"

    @property
    def optimises(self) -> bool:
        return self.maker in (OPTIMISATION, JOINT_OPTIMISATION)

    def job(self, name: str) -> Job:
        found = next((job for job in self.jobs if job.name == name), None)
        if found is None:
            raise UserError(f"{self.path} has no job {name}")
        return found

    def save(self) -> None:
        """Raises UserError where the folder cannot be written."""
        content = {
            "format": FORMAT,
            "maker": self.maker,
            "command": self.command,
            "overrides": self.overrides,
            "jobs": [asdict(job) for job in self.jobs],
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.path, content)
        except OSError as error:
            raise UserError(f"cannot write the sweep to {self.folder}: {error.strerror}") from error


def load_plan(folder: Path) -> Plan:
    """Raises UserError where `folder` is not that of a sweep, or its plan is damaged."""
    path = folder / "sweep.json"
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a sweep: there is no sweep.json")
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise UserError(f"{path} has format {content['format']}: this version reads format {FORMAT}")
        jobs = [Job(str(job["name"]), tuple(map(str, job["overrides"])), job["key"]) for job in content["jobs"]]
        return Plan(folder, content["maker"], content["command"], [str(line) for line in content["overrides"]], jobs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): expected a sweep's plan") from error


def resumed_plan(typed: Iterable[Override]) -> Plan | None:
    """That of the sweep in `resume_sweep`, if one is to be gone on with. Raises UserError as `load_plan`."""
    folders = [str(override.value()) for override in typed if override.key_or_group == "resume_sweep"]
    return load_plan(Path(folders[-1]).resolve()) if folders else None


def grid(overrides: Sequence[Override]) -> list[tuple[str, ...]]:
    """The overrides of each run, in the order of Hydra's own sweeps: the last key changes fastest.

    Raises:
        UserError: a range without steps has no place in a grid, or one has no values.
    """
    alternatives = []
    for override in overrides:
        if not override.is_sweep_override():
            alternatives.append([str(override.input_line)])
            continue
        if override.is_interval_sweep():
            raise UserError(
                f"{override.input_line}: an interval has no steps; expected key=1,2,3 or key=range(1,4), "
                "or hydra/sweeper=ax to search it"
            )
        values = list(override.sweep_string_iterator())
        if not values:
            raise UserError(f"{override.input_line} has no values: expected at least one")
        alternatives.append([f"{override.get_key_element()}={value}" for value in values])
    return list(itertools.product(*alternatives))


def fixed_value(overrides: Iterable[Override], key: str, default: str) -> str:
    """The value of a key; all of them, joined, where it is swept."""
    found = values(overrides, key)
    return "-".join(dict.fromkeys(found)) if found else default


def values(overrides: Iterable[Override], key: str) -> list[str]:
    """Those that a key is given; none where it is not."""
    for override in overrides:
        if override.key_or_group == key:
            found = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
            return [value.text if isinstance(value, QuotedString) else str(value) for value in found]
    return []


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration of a run."""
    return without_hydra(composed_with_hydra(overrides))


def composed_with_hydra(overrides: Sequence[str]) -> DictConfig:
    """The same, and Hydra's own under `hydra`.

    Runs that differ in nothing but values, as most of a sweep do, are composed once, as it takes Hydra a while: it puts
    values on top of what is chosen by name, in their order, and so does this.

    Raises:
        UserError, HydraException, OmegaConfBaseException: what is wrong with the overrides.
    """
    parsed = parse_overrides(overrides)
    values = [override for override in parsed if override.key_or_group not in GROUPS]
    if not all(_is_value(override) for override in values):
        return _composed(tuple(overrides))
    chosen = [str(override.input_line) for override in parsed if override.key_or_group in GROUPS]
    configuration = _composed(tuple(chosen))
    try:
        for override in values:
            OmegaConf.update(configuration, override.key_or_group, override.value())
    except OmegaConfBaseException:
        return _composed(tuple(overrides))  # to be refused in Hydra's words
    configuration.hydra.overrides.task = list(overrides)
    return configuration


def without_hydra(configuration: DictConfig) -> DictConfig:
    """The one that is given, which changes: a copy takes about as long as everything else here."""
    with open_dict(configuration):
        del configuration["hydra"]
    return configuration


def _is_value(override: Override) -> bool:
    """`key=value`, of a key that there is, with one value."""
    changes = override.type == OverrideType.CHANGE and override.package is None
    return changes and override.key_or_group in known_keys() and not override.is_sweep_override()


def _composed(overrides: tuple[str, ...]) -> DictConfig:
    """A copy of the caller's own, to change."""
    copy = pickle.loads(_pickled(overrides))
    assert isinstance(copy, DictConfig)
    return copy


@lru_cache(maxsize=256)
def _pickled(overrides: tuple[str, ...]) -> bytes:
    """Unpickling takes a sixth of the time of a deep copy."""
    register_schemas()
    with initialize_config_dir(str(CONF)):
        return pickle.dumps(compose("config", list(overrides), return_hydra_config=True))


def planned(name: str, overrides: Sequence[str]) -> Job:
    """A job whose configuration has been checked, but for what the machine that it will run on has.

    Raises:
        UserError, HydraException, OmegaConfBaseException: what is wrong with it.
    """
    configuration = composed_with_hydra(overrides)
    chosen = configuration.hydra.runtime.choices
    check_preset(chosen.get("optimised_hyperparameters"), chosen.get("algorithm"))
    configuration = without_hydra(configuration)
    parse(configuration, elsewhere=True)
    return Job(name, tuple(overrides), configuration_key(configuration))


def configuration_key(configuration: DictConfig) -> str:
    """The same for runs that must give the same results."""
    content = OmegaConf.to_container(configuration, resolve=True)
    assert isinstance(content, dict)
    relevant = {str(name): value for name, value in content.items() if name not in IRRELEVANT}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[:16]


def own_overrides(jobs: Sequence[Job]) -> dict[str, str]:
    """By name: of each job's overrides, those that not all jobs have."""
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return {job.name: " ".join(text for text in job.overrides if text not in common) for job in jobs}


def packed(runs: Sequence[tuple[str, ...]], pack_seeds: int) -> list[tuple[str, ...]]:
    """Join runs that differ in nothing but neighbouring seeds, `pack_seeds` at a time, into `seed=<first> runs=<n>`.

    Raises:
        UserError: `runs` is given, too: both say how many seeds a process trains.
    """
    if pack_seeds == 1:
        return list(runs)
    groups: dict[tuple[str, ...], list[int]] = {}
    for run in runs:
        if any(override.startswith("runs=") for override in run):
            raise UserError(f"pack_seeds={pack_seeds} chooses runs: leave runs out")
        seeds = [override for override in run if override.startswith("seed=")]
        rest = tuple(override for override in run if not override.startswith("seed="))
        groups.setdefault(rest, []).append(int(seeds[-1].partition("=")[2]) if seeds else 0)
    joined = []
    for rest, numbers in groups.items():
        for first, count in stretches(numbers, pack_seeds):
            joined.append((*rest, f"seed={first}", f"runs={count}") if count > 1 else (*rest, f"seed={first}"))
    return joined


def stretches(numbers: Iterable[int], longest: int) -> list[tuple[int, int]]:
    """First number and length of each stretch of neighbours: [1, 2, 3, 7] by 2 are (1, 2), (3, 1), (7, 1)."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and number == sum(found[-1]) and found[-1][1] < longest:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((number, 1))
    return found
