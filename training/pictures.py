"""Pictures of a run, from its tables: returns, losses, predicted rewards, entropy and Q-values."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

BLUE, ORANGE, GREEN, GREY = "#1f5fa8", "#d9742b", "#2e8b57", "#777777"
STEP_LABELS = {
    "interaction": "environment steps",
    "behavioural_cloning": "behavioural-cloning iterations",
    "imitation_pretraining": "pretraining iterations",
}
METRIC_LABELS = {
    "actor/entropy": "entropy of the policy (nats)",
    "actor/temperature": "temperature alpha",
    "batch/reward": "mean reward per step in batches",
    "bc/loss": "behavioural-cloning loss",
    "critic/value": "Q-value (discounted return)",
    "diagnosis/reward_rank_correlation": "rank correlation with the true reward",
}
TITLES = {
    "discriminator": "on training batches",
    "diagnosis": "at evaluations",
    "diagnosis/reward_rank_correlation": "on evaluation episodes",
    "batch/reward": "what the learner is trained on",
}
REFERENCE_LINES = {"expert": (GREEN, "--"), "demonstrations": (GREY, ":"), "random": (ORANGE, "-.")}
FEW = 30  # points that are marked one by one
COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2}  # for so many panels; 3 for more
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}

Values = Float[np.ndarray, "_"]  # each seed may have its own steps
Curve = tuple[Values, Values]  # steps, values
Metric = dict[int, Curve]  # of each seed
Metrics = dict[tuple[str, str], Metric]  # of each phase and name


@dataclass(frozen=True)
class References:
    """Mean returns to compare with; None where unknown."""

    expert: float | None = None
    random: float | None = None
    demonstrations: float | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes, how they are filled, and the label of what is measured."""

    phase: str
    draw: Callable[[Axes], None]
    label: str
    title: str = ""
    log_scale: bool = False


def draw(folder: Path, title: str = "", references: References | None = None) -> list[Path]:
    """Draw `<folder>/*.png` from the tables in `folder`; what was not measured has no picture."""
    metrics = read_metrics(folder / "metrics.csv", "metric", "value")
    returns = read_returns(folder / "evaluations.csv")
    pictures = {
        "returns": _return_panels(returns, references or References()),
        "losses": _panels(metrics, lambda name: name.endswith("loss")),
        "rewards": _reward_panels(metrics),
        "entropy": _panels(metrics, lambda name: name.rsplit("/")[-1] in ("entropy", "temperature")),
        "values": _panels(metrics, lambda name: name.rsplit("/")[-1] in ("value", "values")),
    }
    written = []
    for name, panels in pictures.items():
        if panels:
            written.append(folder / f"{name}.png")
            _save(written[-1], panels, title, shared=name == "returns")
    return written


def read_metrics(path: Path, name_column: str | None, value_column: str) -> Metrics:
    """Curves by phase and name; a name column of None makes one curve named after the value column."""
    curves: dict[tuple[str, str], dict[int, tuple[list[float], list[float]]]] = {}
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        phase, step, seed, value = (header.index(name) for name in ("phase", "step", "seed", value_column))
        name = None if name_column is None else header.index(name_column)
        for row in rows:
            key = (row[phase], value_column if name is None else row[name])
            steps, values = curves.setdefault(key, {}).setdefault(int(row[seed]), ([], []))
            steps.append(float(row[step]))
            values.append(float(row[value]))
    return {
        key: {number: (np.array(steps), np.array(values)) for number, (steps, values) in seeds.items()}
        for key, seeds in curves.items()
    }


def read_returns(path: Path) -> dict[str, tuple[Metric, Metric]]:
    """Mean return and its standard deviation over episodes, of each phase."""
    means = read_metrics(path, None, "return_mean")
    deviations = read_metrics(path, None, "return_std")
    return {phase: (means[phase, "return_mean"], deviations[phase, "return_std"]) for phase, _ in means}


def mean_curve(metric: Metric) -> Curve:
    """The mean over seeds, at the steps that all of them have."""
    steps = sorted(set.intersection(*(set(own.tolist()) for own, _ in metric.values())))
    values = [dict(zip(own.tolist(), values.tolist(), strict=True)) for own, values in metric.values()]
    return np.array(steps), np.array([np.mean([seed[step] for seed in values]) for step in steps])


def _panels(metrics: Metrics, wanted: Callable[[str], bool], who: str = "") -> list[Panel]:
    """A panel for each metric of each phase."""
    panels = []
    for (phase, name), metric in metrics.items():
        if wanted(name):
            label = METRIC_LABELS.get(name, name.replace("/", " ").replace("_", " "))
            curves = _curves(metric, BLUE, who)
            panels.append(Panel(phase, curves, label, TITLES.get(name, ""), log_scale=spread(metric) > 100))
    return panels


def spread(metric: Metric) -> float:
    """Largest over smallest value, where all are positive; otherwise 1. Tells which axes are to be logarithmic."""
    values = np.concatenate([values for _, values in metric.values()])
    values = values[np.isfinite(values)]
    return float(values.max() / values.min()) if values.size and values.min() > 0 else 1.0


def _return_panels(returns: Mapping[str, tuple[Metric, Metric]], references: References) -> list[Panel]:
    panels = []
    for phase, (means, deviations) in returns.items():

        def fill(axes: Axes, means: Metric = means, deviations: Metric = deviations) -> None:
            for name, (colour, style) in REFERENCE_LINES.items():
                if (value := getattr(references, name)) is not None:
                    axes.axhline(value, color=colour, linestyle=style, label=f"{name} {value:.0f}", zorder=1.5)
            if len(means) == 1:
                ((steps, mean),), ((_, deviation),) = means.values(), deviations.values()
                label = "standard deviation over episodes"
                axes.fill_between(steps, mean - deviation, mean + deviation, color=BLUE, alpha=0.2, lw=0, label=label)
            _curves(means)(axes)

        panels.append(Panel(phase, fill, "return per episode (sum of rewards)"))
    return panels


def _reward_panels(metrics: Metrics) -> list[Panel]:
    """What the module rewards the expert and the learner with, and what reaches the learner."""
    panels = []
    for (phase, name), expert in metrics.items():
        group, _, last = name.partition("/")
        learner = metrics.get((phase, f"{group}/learner_reward"))
        if last == "expert_reward" and learner:

            def fill(axes: Axes, expert: Metric = expert, learner: Metric = learner) -> None:
                _curves(expert, GREEN, "expert")(axes)
                _curves(learner, BLUE, "learner")(axes)

            panels.append(Panel(phase, fill, "mean predicted reward per step", TITLES.get(group, group)))
    others = ("diagnosis/reward_rank_correlation", "batch/reward")
    return panels + _panels(metrics, lambda name: name in others, "learner")


def _curves(metric: Metric, colour: str = BLUE, who: str = "") -> Callable[[Axes], None]:
    """Draws a thin line per seed and a thick one for their mean, or one thick line where there is one seed."""

    def fill(axes: Axes) -> None:
        seeds = sorted(metric)
        name = f"{who}, " if who else ""
        if len(seeds) == 1:
            _line(axes, metric[seeds[0]], colour, f"{name}seed {seeds[0]}")
            return
        for seed in seeds:
            label = f"{name}seeds {seeds[0]} to {seeds[-1]}" if seed == seeds[0] else None
            marker = "o" if len(metric[seed][0]) < FEW else None
            axes.plot(*metric[seed], color=colour, alpha=0.35, linewidth=0.9, marker=marker, markersize=2, label=label)
        _line(axes, mean_curve(metric), colour, f"{name}mean of {len(seeds)} seeds")

    return fill


def _line(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    marker = "o" if len(curve[0]) < FEW else None
    axes.plot(*curve, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=label, zorder=3)


def _save(path: Path, panels: Sequence[Panel], title: str, shared: bool) -> None:
    """Lay the panels out on one figure, with one legend where all panels would repeat it."""
    columns = COLUMNS.get(len(panels), 3)
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        # A figure of its own, not pyplot's: it needs no display, and nothing of it stays behind.
        width = 7.0 if columns == 1 else 4.6 * columns
        figure = Figure(figsize=(width, 3.4 * rows + 0.9), layout="constrained", dpi=120)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=shared)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _fill(axes, panel, named_phase=len({panel.phase for panel in panels}) > 1)
        for axes in list(grid.flat)[len(panels) :]:
            axes.remove()
        for axes in grid[:, 1:].flat if shared else ():
            axes.set_ylabel("")
        figure.suptitle(title, fontsize=12)
        _legend(figure, list(grid.flat)[: len(panels)])
        partial = path.with_name(f"{path.stem}.part.png")
        # `savefig` would draw it once more, to lay it out before.
        FigureCanvasAgg(figure).print_png(partial)  # type: ignore[no-untyped-call]  # Matplotlib's are not typed
        partial.replace(path)


def _fill(axes: Axes, panel: Panel, named_phase: bool) -> None:
    panel.draw(axes)
    axes.set_xlabel(STEP_LABELS.get(panel.phase, f"steps of {panel.phase.replace('_', ' ')}"))
    axes.set_ylabel(panel.label)
    phase = panel.phase.replace("_", " ") if named_phase else ""
    axes.set_title(", ".join(part for part in (phase, panel.title) if part))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if panel.log_scale:
        axes.set_yscale("log")


def _legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """One legend under the figure, with every label once."""
    handles: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3 if len(grid) == 1 else 6)
