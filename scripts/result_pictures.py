"""Pictures of kept runs: returns over steps, a panel for each row of the table."""

import hashlib
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from scripts.kept_runs import KeptRun, SeedRun
from training.pictures import BLUE, COLUMNS, FEW, REFERENCE_LINES, STEP_LABELS, STYLE, Curve, mean_curve


def draw(path: Path, rows: Sequence[Sequence[KeptRun]], labels: Sequence[str], title: str) -> None:
    """The same input makes the same file: nothing of the time or the machine is in it, but a digest of the input is."""
    columns = COLUMNS.get(len(rows), 3)
    lines = -(-len(rows) // columns)
    shared = len({row[0].name.split(" on ")[1] for row in rows}) == 1
    last_steps: dict[str, int] = {}  # of each phase, so that panels can be compared
    for final in (seed.final for row in rows for run in row for seed in run.seeds):
        last_steps[final.phase] = max(final.step, last_steps.get(final.phase, 1))
    width = 7.0 if columns == 1 else 4.6 * columns
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 3.4 * lines + 0.9), layout="constrained", dpi=120)
        grid = list(figure.subplots(lines, columns, squeeze=False, sharey=shared).flat)
        for axes, runs, label in zip(grid, rows, labels, strict=False):
            seeds = [seed for run in runs for seed in run.seeds]
            _fill(axes, seeds)
            axes.set_xlim(0, 1.04 * last_steps[seeds[0].final.phase])
            axes.set_title("\n".join(textwrap.wrap(label, 75 if columns == 1 else 50, break_long_words=True)[:3]))
        for position, axes in enumerate(grid):
            if position >= len(rows):
                axes.remove()
            elif not shared or position % columns == 0:
                axes.set_ylabel("return per episode")
        figure.suptitle(title, fontsize=12)
        handles = {
            label: handle
            for axes in grid[: len(rows)]
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4 if columns == 1 else 5)
        figure.savefig(path, metadata={"Software": None, "Description": digest(rows, labels, title)})


def digest(rows: Sequence[Sequence[KeptRun]], labels: Sequence[str], title: str) -> str:
    """Of all that is drawn. A picture can be told from an outdated one by it, where fonts make other pixels."""
    seeds = [[seed for run in runs for seed in run.seeds] for runs in rows]
    drawn = [
        [(seed.demonstrations, seed.expert, [(e.step, e.episode_return) for e in seed.last_phase]) for seed in own]
        for own in seeds
    ]
    return hashlib.sha256(json.dumps([title, list(labels), drawn]).encode()).hexdigest()


def _fill(axes: Axes, seeds: Sequence[SeedRun]) -> None:
    """A thin line per seed, a thick one for their mean, and what they are compared with."""
    for name, (colour, style) in REFERENCE_LINES.items():
        if (value := getattr(seeds[0], name, None)) is not None:
            axes.axhline(value, color=colour, linestyle=style, label=name, zorder=1.5)
    curves = dict(enumerate(map(_curve, seeds)))
    marker = "o" if max(len(steps) for steps, _ in curves.values()) < FEW else None
    if len(curves) == 1:
        axes.plot(*curves[0], color=BLUE, linewidth=1.8, marker=marker, markersize=3.5, label="the only seed", zorder=3)
    else:
        for curve in curves.values():
            axes.plot(*curve, color=BLUE, alpha=0.4, linewidth=0.9, marker=marker, markersize=2, label="one seed")
        axes.plot(
            *mean_curve(curves),
            color=BLUE,
            linewidth=1.8,
            marker=marker,
            markersize=3,
            label="mean over seeds",
            zorder=3,
        )
    phase = seeds[0].final.phase
    axes.set_xlabel(STEP_LABELS.get(phase, f"steps of {phase.replace('_', ' ')}"))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _curve(seed: SeedRun) -> Curve:
    evaluations = seed.last_phase
    return np.array([float(e.step) for e in evaluations]), np.array([e.episode_return for e in evaluations])
