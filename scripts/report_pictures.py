"""Pictures of a report, as SVG in the colours of the page: learning curves, sample efficiency, performance profiles."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from scripts.report_tables import Configuration, Group, Report, step_label
from training.pictures import FEW, STYLE
from training.sweeps import statistics as robust
from training.sweeps.results import SeedResult

MOST_CURVES = 8  # in one picture
MOST_POINTS = 100  # of one curve
RESAMPLES = 1000  # for each point
COLOURS = 8  # that the page's style sheet defines, as --curve-0 to --curve-7
DASHES = ("", "6 2", "2 2", "6 2 2 2")  # for eyes that do not tell the colours apart
STYLES = COLOURS * len(DASHES)
# What Matplotlib draws with, and what the page has in its place.
PLACEHOLDERS = {f"#0000a{number}": f"var(--curve-{number})" for number in range(COLOURS)}
INK = {"#000000": "currentColor", STYLE["grid.color"]: "var(--line)"}
VECTORS: dict[Any, Any] = {
    "font.sans-serif": ["DejaVu Sans"],
    "lines.scale_dashes": False,
    "svg.fonttype": "none",  # letters, not their outlines
    "svg.hashsalt": "report",  # the same names every time
    "text.parse_math": False,
}

Curve = tuple[Float[np.ndarray, "_"], Float[np.ndarray, "3 _"]]  # of each point: where it is; its value, low, high


@dataclass(frozen=True)
class Candidate:
    """A curve that may be drawn."""

    name: str
    configuration: str  # has the same colour in all pictures, if it can
    rank: float  # the highest are drawn
    curve: Callable[[], Curve]


@dataclass(frozen=True)
class Line:
    """A curve that is drawn, and how."""

    name: str
    colour: int
    dashes: str


@dataclass(frozen=True)
class Picture:
    title: str
    svg: str
    lines: Sequence[Line]
    left_out: int  # further curves


def learning_curves(report: Report) -> list[Picture]:
    """A picture for each environment, with the IQM over seeds; returns where no scores are known."""
    panels: dict[tuple[str, str, str], list[Candidate]] = {}
    for group in report.groups:
        if group.counted:
            what = "score" if group.scored else "return per episode"
            rank = robust.trimmed_mean(group.measured(report.measure))
            candidate = Candidate(group.name, group.configuration, rank, partial(curve, [group]))
            panels.setdefault((group.environment, step_label(group), what), []).append(candidate)
    return _drawn(report, panels)


def sample_efficiency(report: Report) -> list[Picture]:
    """The IQM over the seeds of several environments; a picture for each set of environments."""
    panels: dict[tuple[str, str, str], list[Candidate]] = {}
    for configuration in report.configurations:
        if len(configuration.groups) > 1:
            units = ", ".join(sorted({step_label(group) for group in configuration.groups}))
            candidate = _candidate(configuration, report, partial(curve, configuration.groups))
            panels.setdefault((", ".join(configuration.environments), units, "score"), []).append(candidate)
    return _drawn(report, panels)


def performance_profiles(report: Report) -> list[Picture]:
    """The share of runs above each score; a picture for each set of environments."""
    panels: dict[tuple[str, str, str], list[Candidate]] = {}
    for configuration in report.configurations:
        candidate = _candidate(configuration, report, partial(profile, configuration.scores(report.measure)))
        title = ", ".join(configuration.environments)
        panels.setdefault((title, f"{report.measure} score", "share of runs above"), []).append(candidate)
    return _drawn(report, panels)


def _candidate(configuration: Configuration, report: Report, curve: Callable[[], Curve]) -> Candidate:
    rank = robust.interquartile_mean(configuration.scores(report.measure))
    return Candidate(configuration.name, configuration.groups[0].configuration, rank, curve)


def curve(groups: Sequence[Group]) -> Curve:
    """The IQM over seeds and environments, with its interval, at the steps where all of them were evaluated, if any."""
    tasks = [[_values(result, group.scored) for result in group.counted] for group in groups]
    steps = sorted(set.intersection(*(set(values) for task in tasks for values in task)))
    chosen = np.linspace(0, len(steps) - 1, min(len(steps), MOST_POINTS)).round().astype(int)
    steps = [steps[index] for index in chosen]
    points = np.empty((3, len(steps)))
    for index, step in enumerate(steps):
        scores = [np.array([values[step] for values in task]) for task in tasks]
        points[:, index] = robust.interquartile_mean(scores), *robust.iqm_interval(scores, resamples=RESAMPLES)
    return np.array(steps, dtype=float), points


def _values(result: SeedResult, scored: bool) -> dict[int, float]:
    return {point.step: point.score if scored else point.episode_return for point in result.last_phase}


def profile(scores: robust.Scores) -> Curve:
    """The performance profile from the lowest to the highest score, at least from 0 to 1."""
    every = np.concatenate(scores)
    thresholds = np.linspace(min(0.0, every.min()), max(1.0, every.max()), MOST_POINTS)
    middle = robust.performance_profile(scores, thresholds)
    return thresholds, np.stack([middle, *robust.profile_interval(scores, thresholds, resamples=RESAMPLES)])


def _drawn(report: Report, panels: dict[tuple[str, str, str], list[Candidate]]) -> list[Picture]:
    """By title, what is along, and what is up; none where there is nothing to draw."""
    order = {key: index for index, key in enumerate(dict.fromkeys(group.configuration for group in report.groups))}
    drawn = []
    for (title, along, up), candidates in panels.items():
        # One by one, as intervals take a while. There are no points where no step is common to all seeds.
        ranked = sorted(candidates, key=lambda candidate: -candidate.rank)
        curves = ((candidate, candidate.curve()) for candidate in ranked)
        best = dict(islice(((one, points) for one, points in curves if len(points[0])), MOST_CURVES))
        if not best:
            continue
        styles: dict[int, Candidate] = {}
        for candidate in (one for one in candidates if one in best):
            style = order[candidate.configuration] % STYLES
            while style in styles:
                style = (style + 1) % STYLES
            styles[style] = candidate
        lines = [Line(one.name, style % COLOURS, DASHES[style // COLOURS]) for style, one in styles.items()]
        svg = _svg(lines, [best[candidate] for candidate in styles.values()], along, up)
        drawn.append(Picture(title, svg, lines, len(candidates) - len(best)))
    return drawn


def _svg(lines: Sequence[Line], curves: Sequence[Curve], along: str, up: str) -> str:
    with matplotlib.rc_context({**STYLE, **VECTORS}):
        figure = Figure(figsize=(5.6, 3.3), layout="constrained", facecolor="none")
        axes = figure.subplots()
        axes.patch.set_visible(False)
        for line, (steps, (middle, low, high)) in zip(lines, curves, strict=True):
            colour = list(PLACEHOLDERS)[line.colour]
            style = (0, [float(length) for length in line.dashes.split()]) if line.dashes else "-"
            marker = "o" if len(steps) < FEW else ""
            axes.plot(steps, middle, color=colour, linestyle=style, linewidth=1.8, marker=marker, markersize=3.5)
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
            if len(steps) == 1:
                axes.vlines(steps, low, high, color=colour)
        axes.set_xlabel(along)
        axes.set_ylabel(up)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        if max(steps[-1] for steps, _ in curves) >= 1000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = stream.getvalue()
    text = re.sub(r' id="[\w.]+_\d+"', "", text[text.index("<svg") :])  # the same in all pictures, and of no use
    for placeholder, colour in (PLACEHOLDERS | INK).items():
        text = text.replace(placeholder, colour)
    return text
