"""Dataclass fields that carry their own range, so that a schema states what is allowed beside each default."""

import dataclasses
import math
from typing import Any

from conf.errors import UserError


def ranged(default: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False) -> Any:
    """A number in [low, high], or (low, high] with `open_low`. NaN is never allowed, infinity only as a bound."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "open_low": open_low})


def choice(default: str, *allowed: str) -> Any:
    """One word out of `allowed`."""
    return dataclasses.field(default=default, metadata={"allowed": allowed})


def problem(field: dataclasses.Field[Any], value: Any) -> str | None:
    """What is allowed for this field, if `value` is not; otherwise None."""
    allowed = field.metadata.get("allowed")
    if allowed is not None and value not in allowed:
        return "one of " + ", ".join(allowed)
    if "low" in field.metadata and value is not None:
        low, high, open_low = (field.metadata[key] for key in ("low", "high", "open_low"))
        inside = (low < value if open_low else low <= value) and value <= high
        if not inside or (math.isinf(value) and not math.isinf(high)) or not math.isfinite(value):
            return f"a finite number in {_interval(low, high, open_low)}"
    return None


def _interval(low: float, high: float, open_low: bool) -> str:
    left = "(-inf" if math.isinf(low) else f"{'(' if open_low else '['}{low:g}"
    right = "inf)" if math.isinf(high) else f"{high:g}]"
    return f"{left}, {right}"


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
