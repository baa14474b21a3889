"""What an optimisation searches: intervals and choices in Hydra's grammar, from a file and from the command line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from omegaconf import OmegaConf

from conf.errors import UserError, did_you_mean
from conf.fields import unwrapped
from training.cli import CONF
from training.config import known_keys
from training.explain import parse_overrides
from training.sweeps.plan import planned

FOLDER = CONF / "hyperparameter_search_space"
Value = float | int | str | bool
NOT_SEARCHED = ("seed", "runs", "env", "algorithm", "learner", "optimised_hyperparameters")


@dataclass(frozen=True)
class Interval:
    """All numbers, or whole numbers, from `low` to `high`."""

    key: str
    low: float | int
    high: float | int
    whole: bool
    logarithmic: bool


@dataclass(frozen=True)
class Choice:
    """One of several values of one kind."""

    key: str
    values: tuple[Value, ...]


Parameter = Interval | Choice


@dataclass(frozen=True)
class Space:
    """What is searched, and what a file fixes beside it."""

    parameters: tuple[Parameter, ...]
    fixed: tuple[str, ...]

    def overrides(self, values: dict[str, Value]) -> list[str]:
        return [*self.fixed, *(f"{key}={written(value)}" for key, value in values.items())]


def search_space(name: str | None, algorithm: str, typed: Sequence[Override]) -> tuple[Space, list[str]]:
    """The space in conf/hyperparameter_search_space/<name>.yaml with what was typed in its place, and what is left.

    Without a name it is the one called like the algorithm, and like the learner where that is typed and has one of its
    own; `none` searches what is typed alone.

    Raises:
        UserError: the file, a key or a range is wrong, or there is nothing to search.
    """
    learner = next((override.value() for override in typed if override.key_or_group == "learner"), None)
    own = f"{algorithm}_{learner}"
    lines = {} if name == "none" else read_file(name or (own if (FOLDER / f"{own}.yaml").is_file() else algorithm))
    others = [override for override in typed if not override.is_sweep_override()]
    for override in others:
        lines.pop(override.key_or_group, None)
    lines |= {override.key_or_group: str(override.input_line) for override in typed if override.is_sweep_override()}
    parsed = parse_overrides(lines.values())
    parameters = tuple(parameter(override) for override in parsed if override.is_sweep_override())
    if not parameters:
        raise UserError("nothing to search: expected a search space, or key=interval(low, high) or key=1,2,3")
    fixed = tuple(str(override.input_line) for override in parsed if not override.is_sweep_override())
    return Space(parameters, fixed), [str(override.input_line) for override in others]


def read_file(name: str) -> dict[str, str]:
    """Overrides by key, those of `defaults` first. Raises UserError where a file is missing or damaged."""
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        names = sorted(found.stem for found in FOLDER.glob("*.yaml"))
        raise UserError(
            f"hyperparameter_search_space={name} is not known: expected one of {', '.join(names)}, or none"
            f"{did_you_mean(name, names)}"
        )
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:  # whatever a YAML parser may raise
        raise UserError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: expected keys with ranges")
    lines: dict[str, str] = {}
    for default in content.pop("defaults", []):
        if default != "_self_":
            lines |= read_file(str(default))
    return lines | {str(key): f"{key!s}={written(value)}" for key, value in content.items()}


def parameter(override: Override) -> Parameter:
    """Raises UserError where a range is empty, or its key is unknown or no hyperparameter."""
    key, value, text = override.key_or_group, override.value(), str(override.input_line)
    if key in NOT_SEARCHED or key.startswith("env."):
        raise UserError(f"{text}: {key} is not searched; expected one value")
    field = known_keys().get(key)
    if field is None:
        raise UserError(f"{key} in the search space is not a key{did_you_mean(key, known_keys())}")
    if isinstance(value, IntervalSweep):
        if value.start is None or value.end is None or not value.start < value.end:
            raise UserError(f"{text} is empty: expected interval(low, high) with low < high")
        if "log" in value.tags and value.start <= 0:
            raise UserError(f"{text}: a logarithmic interval begins above 0")
        return Interval(key, value.start, value.end, unwrapped(field.type)[0] is int, "log" in value.tags)
    if not isinstance(value, (ChoiceSweep, RangeSweep)) or isinstance(value, Glob):
        raise UserError(f"{text} cannot be searched: expected interval(low, high) or values")
    values = tuple(dict.fromkeys(override.sweep_iterator()))
    if not values:
        raise UserError(f"{text} is empty: expected values")
    return Choice(key, uniform(values, text))


def uniform(values: Sequence[object], text: str) -> tuple[Value, ...]:
    """Values of one kind: numbers become all whole or all not, anything else must be alike. Raises UserError."""
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        return tuple(float(str(value)) for value in values)
    if len(kinds) == 1 and kinds <= {int, float, bool}:
        return tuple(values)  # type: ignore[arg-type]  # just checked
    if all(not isinstance(value, (int, float, bool, list, dict)) for value in values):
        return tuple(str(value) for value in values)
    raise UserError(f"{text}: expected values of one kind")


def written(value: object) -> str:
    """As Hydra's grammar reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def check_ends(space: Space, overrides: Iterable[str]) -> None:
    """Raises UserError, HydraException or OmegaConfBaseException where a run would refuse the ends of a range."""
    ends = [{p.key: p.low if isinstance(p, Interval) else p.values[0] for p in space.parameters}]
    ends.append({p.key: p.high if isinstance(p, Interval) else p.values[-1] for p in space.parameters})
    whole = {p.key for p in space.parameters if isinstance(p, Interval) and p.whole}
    for values in ends:
        checked = {key: int(value) if key in whole else value for key, value in values.items()}
        planned("", [*overrides, *space.overrides(checked)])
