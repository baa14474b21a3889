"""What was typed on the command line, checked before Hydra sees it, and Hydra's errors in one line."""

import re
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException

from conf.errors import UserError, did_you_mean
from conf.fields import expected, unwrapped
from training.cli import CONF
from training.config import GROUPS, known_keys, unknown_key

SECTIONS = {
    "imitation": "how demonstrations become rewards follows from algorithm=<name>",
    "reinforcement": "its keys follow from learner=<name>",
}


def parse_overrides(arguments: Iterable[str]) -> list[Override]:
    """The arguments as Hydra understands them.

    Raises:
        UserError: one of them is not key=value.
    """
    parser = OverridesParser.create()
    parsed = []
    for argument in arguments:
        try:
            override = parser.parse_override(argument)
        except HydraException as error:
            raise UserError(f"'{argument}' is not understood: expected key=value{_syntax_hint(argument)}") from error
        if not override.key_or_group:
            raise UserError(f"'{argument}' is not understood: expected key=value, but the key is missing")
        parsed.append(override)
    return parsed


def _syntax_hint(argument: str) -> str:
    if ":" in argument and "=" not in argument:
        return ", as in " + argument.replace(":", "=", 1)
    if argument in known_keys() or argument in GROUPS:
        return f", as in {argument}=<value>"
    key, separator, value = argument.partition("=")
    return f"; special characters need quotes of their own: \"{key}='{value}'\"" if separator else ""


def check_overrides(overrides: list[Override], several: bool) -> None:
    """Refuse what Hydra would take, but not as it was meant. `several`: one run for each value (-m)."""
    seen: dict[str, Override] = {}
    for override in overrides:
        key, text = override.key_or_group, str(override.input_line)
        if key in seen and key in GROUPS:  # of other keys the last one counts, as everywhere in Hydra
            raise UserError(f"{key} is given twice, {seen[key].input_line} and {text}: expected it once")
        seen[key] = override
        if key == "hydra.run.dir":
            raise UserError(f"{text} has no effect: results go to a new folder in output_folder=<folder>")
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            continue
        _check_key(override, key, text)
        if override.is_sweep_override():
            if not several:
                raise UserError(f"{text} gives several values: add -m to train one run for each, or give one value")
        else:
            _check_choice(key, override.value(), text)
    if several and "resume" in seen:
        raise UserError("resume goes on with one run: expected it with train.py and without -m")


def _check_key(override: Override, key: str, text: str) -> None:
    if override.is_delete():
        raise UserError(f"{text}: no key can be removed; expected {key.removeprefix('~')}=<value>")
    if key in SECTIONS:
        raise UserError(f"{text}: {SECTIONS[key]}; leave it out")
    if key not in known_keys() and key not in GROUPS:  # before Hydra complains of something else that is missing
        raise UserError(unknown_key(key, None))
    if key in GROUPS and (override.is_add() or override.is_force_add()):
        raise UserError(f"{text}: {key} already has a value; write {text.lstrip('+')}")


def _check_choice(key: str, value: object, text: str) -> None:
    if key in ("algorithm", "env", "learner") and value in (None, ""):
        raise UserError(f"{text} names nothing: expected one of {', '.join(choices(key))}")
    field = known_keys().get(key)
    # OmegaConf takes any number for true.
    if field and unwrapped(field.type)[0] is bool and isinstance(value, (int, float)) and value not in (0, 1):
        raise UserError(f"{text} is not allowed: expected {expected(field)}")


def choices(group: str) -> list[str]:
    """The names of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def explain(error: Exception, algorithm: str | None) -> str:
    """Hydra's and OmegaConf's errors in one line: what, where, what is allowed."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and "/" in error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return _unknown_choice(group, name, list(error.options or ()), algorithm)
    if match := re.search(r"You must specify '(\w+)'", text):
        return f"{match[1]}=<name> is missing: expected one of {', '.join(choices(match[1]))} (see --help)"
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown(match[1], algorithm)
    if match := re.search(r"Error merging override \+{0,2}([^=]+)=(.*)", text, re.DOTALL):
        return _wrong_value(match[1], match[2], algorithm)
    return _composition_error(text, algorithm)


def _unknown_choice(group: str, name: str, options: list[str], algorithm: str | None) -> str:
    options = choices(group) or sorted(option for option in options if option != "schema")
    if group == "optimised_hyperparameters":  # there are many: those of the algorithm, if it has any
        options = [option for option in options if option.startswith(f"{algorithm}_")] or options
    near = did_you_mean(name, options)
    other = "; any other Gymnasium environment: env.id=<id> without env=" if group == "env" else ""
    return f"{group}={name} is not known: expected one of {', '.join(options) or '(there are none yet)'}{near}{other}"


def _unknown(key: str, algorithm: str | None) -> str:
    if key.startswith("hydra."):
        return f"{key} is not a key of Hydra. See --cfg hydra for all of them"
    return unknown_key(key, algorithm)


def _wrong_value(key: str, value: str, algorithm: str | None) -> str:
    field = known_keys().get(key)
    inside = [name for name in known_keys() if name.startswith(f"{key}.")]
    if inside or key in ("reinforcement", "imitation"):
        names = ", ".join(name.removeprefix(f"{key}.") for name in inside)
        return f"{key}={value} is not allowed: {key} is a section; expected one of its keys, {key}.<name>: {names}"
    if field is None:
        return _unknown(key, algorithm)
    return f"{key}={value} is not allowed: expected {expected(field)}{_as_whole_number(value, field.type)}"


def _as_whole_number(value: str, kind: object) -> str:
    try:
        number = float(value)
        return f"; write {int(number)}" if unwrapped(kind)[0] is int and number.is_integer() else ""
    except (ValueError, OverflowError):
        return ""


def _composition_error(text: str, algorithm: str | None) -> str:
    """Errors in YAML files, and whatever else there is: the first line that says something, with file and key."""
    lines = [line.strip() for line in text.strip().split("\n")]
    file = re.search(r"In '([^']+)'", lines[0])
    where = f"{file[1]}.yaml: " if file else ""
    full = re.search(r"full_key: (\S+)", text)
    if re.search(r"Key '[^']+' (?:is )?not in '\w+'", text) and full:
        return where + _unknown(full[1], algorithm)
    said = lines[1] if file and len(lines) > 1 else lines[0]
    return where + (f"{full[1]}: {said}" if full and full[1] not in said else said)
