"""The end of a sweep: what its seeds say together, as a table, curves with intervals, and a list of what failed."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from training.folder import write_atomically
from training.pictures import STEP_LABELS, STYLE
from training.sweeps import statistics as robust
from training.sweeps.plan import Job, own_overrides
from training.sweeps.results import SeedResult, grouped, known, labels, read_run
from training.sweeps.states import job_state

COLUMNS = ("group", "seeds", "score", "std", "iqm", "iqm_low", "iqm_high", "return", "best_score", "unfinished")
COLOURS = ("#1f5fa8", "#d9742b", "#2e8b57", "#8b3a8b", "#777777", "#b8860b", "#008b8b", "#a52a2a")
MOST_CURVES = 12


def summarise(sweep: Path, jobs: Sequence[Job]) -> str:
    """Write `summary.csv`, `summary.md` and `curves.png` into the sweep's folder; returns the text for the terminal."""
    results = [result for job in jobs for result in read_run(sweep / job.name)]
    groups = grouped(results)
    names = labels(groups) if groups else []
    rows = [row(name, group) for name, group in zip(names, groups, strict=True)]
    problems = unfinished(sweep, jobs)
    text = markdown(rows) + "".join(f"\n- {line}" for line in problems)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(sweep / "summary.csv", stream.getvalue())
    write_atomically(sweep / "summary.md", text + "\n")
    draw(sweep / "curves.png", names, groups)
    return text


def unfinished(sweep: Path, jobs: Sequence[Job]) -> list[str]:
    """A line for each job that did not finish, or whose files cannot be read, with its reason."""
    lines = []
    what = own_overrides(jobs)
    for job in jobs:
        state = job_state(sweep / job.name)
        if state.state != "finished":
            reason = f": {' '.join(state.error.split())}" if state.error else ""
            lines.append(f"{job.name} ({what[job.name]}) {state.state}{reason}")
        elif not (results := read_run(sweep / job.name)) or not all(result.finished for result in results):
            reason = results[0].error if results else "its configuration is missing or damaged"
            lines.append(f"{job.name} ({what[job.name]}) damaged: {reason}; remove {sweep / job.name} to run it again")
    return lines


def row(name: str, group: Sequence[SeedResult]) -> dict[str, str]:
    """Final scores over the finished seeds of a group; returns where no scores are known."""
    done = [result for result in group if result.finished]
    scores = known(result.measured("final") for result in done)
    low, high = robust.iqm_interval([np.array(scores)]) if scores else (math.nan, math.nan)
    values = {
        "score": statistics.fmean(scores) if scores else math.nan,
        "std": statistics.stdev(scores) if len(scores) > 1 else math.nan,
        "iqm": robust.trimmed_mean(scores) if scores else math.nan,
        "iqm_low": low,
        "iqm_high": high,
        "return": statistics.fmean(result.final_return for result in done) if done else math.nan,
        "best_score": statistics.fmean(result.measured("best") for result in done) if done else math.nan,
    }
    counts = {"seeds": str(len(done)), "unfinished": str(len(group) - len(done))}
    return {"group": name, **counts, **{key: number(value) for key, value in values.items()}}


def number(value: float) -> str:
    """Empty where unknown."""
    return f"{value:.4g}" if math.isfinite(value) else ""


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Final scores (the last evaluation) over seeds."""
    if not rows:
        return "No run has written anything."
    header = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
    lines = [f"| {' | '.join(row[column] or '-' for column in COLUMNS)} |" for row in rows]
    notes = [
        "score, std, iqm: of the seeds' last evaluations; iqm_low to iqm_high: 95% bootstrap interval over seeds;",
        "best_score: mean over seeds of the highest evaluation of the last phase, hence optimistic.",
    ]
    if any(int(row["seeds"]) < 5 for row in rows):
        notes.append("Fewer than 5 seeds: intervals are rough.")
    return "\n".join([header, *lines, "", " ".join(notes), ""])


def curve(group: Sequence[SeedResult]) -> tuple[str, np.ndarray, np.ndarray] | None:
    """Phase, steps [points] and values [seeds, points] where every seed with evaluations was evaluated."""
    seeds = [result for result in group if result.evaluations]
    if not seeds:
        return None
    phase = seeds[0].evaluations[-1].phase
    scored = all(math.isfinite(result.evaluations[-1].score) for result in seeds)
    tables = []
    for result in seeds:
        own = [evaluation for evaluation in result.evaluations if evaluation.phase == phase]
        tables.append({point.step: point.score if scored else point.episode_return for point in own})
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    return phase, np.array(steps), np.array([[table[step] for step in steps] for table in tables])


def draw(path: Path, names: Sequence[str], groups: Sequence[Sequence[SeedResult]]) -> None:
    """Means over seeds, with 95% bootstrap intervals; a panel for each environment."""
    curves = [(name, group, found) for name, group in zip(names, groups, strict=True) if (found := curve(group))]
    curves = [(name, group, found) for name, group, found in curves if len(found[1])]
    environments = list(dict.fromkeys(group[0].environment for _, group, _ in curves))
    if not environments:
        return
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.5 * len(environments), 4), layout="constrained")
        panels = figure.subplots(1, len(environments), squeeze=False)[0]
        for axes, environment in zip(panels, environments, strict=True):
            own = [(name, found) for name, group, found in curves if group[0].environment == environment]
            for index, (name, (phase, steps, values)) in enumerate(own[:MOST_CURVES]):
                colour = COLOURS[index % len(COLOURS)]
                axes.plot(steps, values.mean(axis=0), color=colour, label=name, marker="." if len(steps) < 30 else "")
                if len(values) > 1:
                    axes.fill_between(steps, *mean_intervals(values), color=colour, alpha=0.2, linewidth=0)
                axes.set_xlabel(STEP_LABELS.get(phase, phase))
            left_out = len(own) - MOST_CURVES
            axes.set_title(environment + (f" ({left_out} more curves left out)" if left_out > 0 else ""))
            axes.set_ylabel("score")
            axes.legend()
        temporary = path.with_suffix(".part.png")
        figure.savefig(temporary, dpi=120)
        temporary.replace(path)


def mean_intervals(values: np.ndarray) -> np.ndarray:
    """Low and high of the mean over seeds [2, points] from values [seeds, points]: 95%, bootstrap."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(values), size=(1000, len(values)))
    tail = (1 - robust.CONFIDENCE) / 2
    return np.asarray(np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail], axis=0))
