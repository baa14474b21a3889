"""What there is to say about a set of demonstrations: statistics, as text and as a picture."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from environments.formats.alignment import DESCRIPTIONS, Alignment

SAMPLED = 50_000  # rows for the pictures of columns
PANELS = 48  # columns that are drawn


@dataclasses.dataclass
class Column:
    """Statistics of one number of observations, actions or rewards."""

    name: str
    minimum: float
    maximum: float
    mean: float
    deviation: float

    @property
    def constant(self) -> bool:
        return self.minimum == self.maximum


@dataclasses.dataclass
class Report:
    """All that `inspect` finds out."""

    source: str
    environment: str | None
    episodes: int
    steps: int
    lengths: dict[str, float]
    returns: dict[str, float] | None
    ends: dict[str, int]
    types: dict[str, str]
    infos: list[str]
    columns: list[Column]
    alignment: Alignment
    actions_outside: float | None  # share; None where no action space is known
    actions_at_limit: float | None
    duplicate_episodes: int
    duplicate_rows: float
    notes: list[str]
    problems: list[str] = dataclasses.field(default_factory=list)  # with what to do
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One line to act on."""
        if self.problems:
            return f"not as it is: {len(self.problems)} problem{'s' * (len(self.problems) > 1)} to put right first"
        if self.warnings:
            return "usable; look at the warnings"
        return "good to train on"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


class Statistics:
    """Sums over rows that are seen once, and a sample of them."""

    def __init__(self, names: Sequence[str], steps: int) -> None:
        self.names = list(names)
        self.minimum = np.full(len(names), np.inf)
        self.maximum = np.full(len(names), -np.inf)
        self.total, self.squares, self.count = np.zeros(len(names)), np.zeros(len(names)), 0
        self.shift: Float64[np.ndarray, column] | None = None
        self.every = max(1, steps // SAMPLED)
        self.sample: list[Float32[np.ndarray, "rows column"]] = []

    def add(self, rows: Float32[np.ndarray, "rows column"]) -> None:
        values = rows.astype(np.float64)
        if self.shift is None:
            self.shift = values[0]  # sums of squares about a typical value do not cancel
        self.minimum = np.minimum(self.minimum, values.min(0))
        self.maximum = np.maximum(self.maximum, values.max(0))
        self.total += (values - self.shift).sum(0)
        self.squares += np.square(values - self.shift).sum(0)
        self.sample.append(rows[-self.count % self.every :: self.every].copy())
        self.count += len(rows)

    def columns(self) -> list[Column]:
        assert self.shift is not None  # a set has at least one row
        mean = self.total / self.count
        deviation = np.sqrt(np.maximum(0, self.squares / self.count - np.square(mean)))
        numbers = zip(self.names, self.minimum, self.maximum, self.shift + mean, deviation, strict=True)
        return [Column(name, *map(float, rest)) for name, *rest in numbers]


def described(report: Report) -> str:
    """For people."""
    lines = [
        f"{report.source}: {report.episodes} episodes, {report.steps} steps"
        f" of {report.environment or 'an unnamed environment'}",
        f"lengths   {_numbers(report.lengths)}",
        f"returns   {_numbers(report.returns) if report.returns else 'unknown: no rewards'}",
        f"ends      {report.ends['terminated']} true ends, {report.ends['cut']} cut off",
        f"successor {DESCRIPTIONS[report.alignment.kind]}",
        f"types     {', '.join(f'{name} {kind}' for name, kind in report.types.items()) or 'unknown'}",
    ]
    if report.infos:
        lines.append(f"infos     {', '.join(report.infos)}")
    if report.actions_at_limit is not None:
        lines.append(
            f"actions   {report.actions_at_limit:.2%} of the values at or beyond a limit, "
            f"{report.actions_outside or 0:.2%} beyond"
        )
    lines.append(f"copies    {report.duplicate_episodes} episodes, {report.duplicate_rows:.2%} of the rows")
    lines += ["", f"{'column':<16}{'minimum':>12}{'maximum':>12}{'mean':>12}{'std':>12}"]
    for column in report.columns:
        numbers = (column.minimum, column.maximum, column.mean, column.deviation)
        constant = "  constant" if column.constant else ""
        lines.append(f"{column.name:<16}" + "".join(f"{value:>12.4g}" for value in numbers) + constant)
    lines += ["", *(f"problem: {line}" for line in report.problems), *(f"warning: {line}" for line in report.warnings)]
    return "\n".join([*lines, f"verdict: {report.verdict}"])


def _numbers(summary: dict[str, float]) -> str:
    spread = f"{summary['minimum']:.6g} to {summary['maximum']:.6g}"
    return f"{summary['mean']:.6g} +- {summary['std']:.4g}, {spread}, median {summary['median']:.6g}"


def draw(report: Report, statistics: Statistics, returns: list[float], path: Path) -> None:
    """Returns, and the distribution of each column (of a sample of the rows)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sample = np.concatenate(statistics.sample)
    shown = report.columns[:PANELS]
    across = 6
    down = 1 + -(-len(shown) // across)
    figure = plt.figure(figsize=(2.6 * across, 1.9 * down), layout="constrained")
    grid = figure.add_gridspec(down, across)
    axes = figure.add_subplot(grid[0, :3])
    axes.plot(range(len(returns)), returns, ".")
    axes.set(title="return of each episode" if returns else "no rewards", xlabel="episode")
    axes = figure.add_subplot(grid[0, 3:])
    if returns:
        axes.hist(returns, bins=30, histtype="stepfilled")
    axes.set(title="returns")
    for index, column in enumerate(shown):
        axes = figure.add_subplot(grid[1 + index // across, index % across])
        axes.hist(sample[:, index], bins=40, histtype="stepfilled")  # one shape: 40 bars each take far longer
        axes.set_title(column.name, fontsize=8)
        axes.tick_params(labelsize=6)
        axes.set_yticks([])
    left = len(report.columns) - len(shown)
    more = f"; {left} more columns are not drawn" if left else ""
    figure.suptitle(f"{Path(report.source).name}: {report.episodes} episodes{more}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
