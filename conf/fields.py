"""Dataclass fields that carry their own range, so that a schema states what is allowed beside each default."""

import dataclasses
import math
import types
from typing import Any, get_args

from conf.errors import UserError

KINDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


def ranged(default: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False) -> Any:
    """A finite number in [low, high], or (low, high] with `open_low`."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "open_low": open_low})


def choice(default: str, *allowed: str) -> Any:
    """One word out of `allowed`."""
    return dataclasses.field(default=default, metadata={"allowed": allowed})


def problem(field: dataclasses.Field[Any], value: Any) -> str | None:
    """What is allowed for this field, if `value` is not; otherwise None."""
    allowed = field.metadata.get("allowed")
    if allowed is not None and value not in allowed:
        return expected(field)
    if "low" in field.metadata and value is not None:
        low, high, open_low = (field.metadata[key] for key in ("low", "high", "open_low"))
        inside = (low < value if open_low else low <= value) and value <= high
        if not inside or not math.isfinite(value):
            return expected(field)
    return None


def expected(field: dataclasses.Field[Any]) -> str:
    """What a field takes, in words: `a whole number of at least 1`."""
    if "allowed" in field.metadata:
        return "one of " + ", ".join(field.metadata["allowed"])
    kind, optional = unwrapped(field.type)
    words = KINDS.get(kind, "something else")
    if "low" in field.metadata:
        low, high = (_number(field.metadata[key]) for key in ("low", "high"))
        above = f"above {low}" if field.metadata["open_low"] else f"of at least {low}"
        below = "" if high is None else f" and at most {high}"
        if low is not None and high is not None and not field.metadata["open_low"]:
            words += f" from {low} to {high}"
        elif low is not None:
            words += f" {above}{below}"
    return f"{words}, or null" if optional else words


def unwrapped(kind: Any) -> tuple[Any, bool]:
    """The type in `X | None`, and whether None is allowed."""
    options = get_args(kind)
    if types.NoneType in options:
        return next(option for option in options if option is not types.NoneType), True
    return kind, False


def _number(bound: float) -> str | None:
    return None if math.isinf(bound) else f"{bound:.10g}"


class Section:
    """Base of the configuration dataclasses: checks the ranges of its fields when it is made.

    Raises:
        UserError: a value is outside what its field allows.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            allowed = problem(field, getattr(self, field.name))
            if allowed:
                raise UserError(f"{field.name}={getattr(self, field.name)!r} is not allowed: expected {allowed}")
