"""Published tables, in docs/results/published with their sources, beside runs of ours."""

import functools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from omegaconf import OmegaConf

from conf.errors import UserError
from scripts.report_tables import FEW, Group, between, number
from scripts.significance import welch_of_moments
from training.sweeps import statistics as robust
from training.sweeps.preset import PRESETS
from training.sweeps.results import leaves

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results" / "published"
PUBLISHED = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FINAL, PEAK = "final", "peak"


def beside_published(name: str, folder: Path, groups: Sequence[Group]) -> str:
    """Markdown: what was published, ours beside it, and what differs.

    Raises:
        UserError: nothing of ours is in the table, or two configurations would share a row of it.
    """
    table = load(name)
    own = [group for group in groups if group.counted and group.environment in table["environments"]]
    title, lines, used = iqm_table(table, own) if "iqm" in table else return_table(table, own)
    if not used:
        what = "iqm" if "iqm" in table else "returns"
        raise UserError(
            f"{folder} has no finished run of what {name} has: expected algorithms out of {', '.join(table[what])} on "
            f"{', '.join(table['environments'])}" + (" with as many trajectories" if what == "iqm" else "")
        )
    notes = [*table["differences"], *demonstration_notes(table, used), *setting_notes(table, used)]
    if any(len(group.counted) < FEW for group in used):
        notes.append(f"fewer than {FEW} seeds: differences have to be large to show")
    source = f"Published: {table['source']}"
    return "\n\n".join([title, source, "\n".join(lines), "\n".join(f"- {' '.join(note.split())}" for note in notes)])


@functools.cache
def load(name: str) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def iqm_table(table: dict[str, Any], groups: Sequence[Group]) -> tuple[str, list[str], list[Group]]:
    """Interquartile means over environments, with those of our groups that are in it."""
    lines = [
        "| | environments | runs | published | ours | 95% interval | agree |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    used: list[Group] = []
    for algorithm, numbers in table["iqm"].items():
        for trajectories, points in numbers.items():
            own = [
                group
                for group in groups
                if (group.results[0].algorithm, group.results[0].trajectories) == (algorithm, trajectories)
                and group.scored
            ]
            check_single(own)
            used += own
            rows = [iqm_row(table, own, at, published) for at, published in points.items()] if own else []
            lines += [f"| {algorithm}, {trajectories} trajectories, {row}" for row in rows]
    title = (
        f"Interquartile means of scores. They agree where our interval reaches within {table['uncertainty']} of the "
        "published value, which is of all its environments, or nothing is said."
    )
    return title, lines, used


def iqm_row(table: dict[str, Any], groups: Sequence[Group], at: str | int, published: float) -> str:
    scores = None if at == PEAK else [scores_at(group, at) for group in groups]
    ours, interval = peak(groups) if scores is None else iqm(scores)
    complete = {group.environment for group in groups} == set(table["environments"])
    agree = "-"
    if complete and math.isfinite(interval[0]):
        low, high = interval[0] - table["uncertainty"], interval[1] + table["uncertainty"]
        agree = "yes" if low <= published <= high else "no"
    where = "all" if complete else ", ".join(group.environment for group in groups)
    runs = sum(len(group.counted) for group in groups)
    when = f"{at:,} steps" if isinstance(at, int) else at
    return f"{when} | {where} | {runs} | {published:.2f} | {number(ours)} | {between(interval)} | {agree} |"


Interval = tuple[float, float]
NOTHING = (math.nan, (math.nan, math.nan))


def iqm(scores: robust.Scores) -> tuple[float, Interval]:
    """With its interval; NaN where a task has no scores."""
    if not all(len(task) for task in scores):
        return NOTHING
    return robust.interquartile_mean(scores), robust.iqm_interval(scores)


def scores_at(group: Group, at: str | int) -> Float[np.ndarray, "_"]:
    """Of the counted seeds; empty where one was not evaluated at that step."""
    if at == FINAL:
        return group.measured(FINAL)
    found = [[point.score for point in result.last_phase if point.step == at] for result in group.counted]
    return np.array([scores[0] for scores in found]) if all(found) else np.array([])


def peak(groups: Sequence[Group]) -> tuple[float, Interval]:
    """The highest interquartile mean at a step at which every seed was evaluated. Being chosen, it has no interval."""
    results = [result for group in groups for result in group.counted]
    steps = set.intersection(*({point.step for point in result.last_phase} for result in results))
    means = [robust.interquartile_mean([scores_at(group, step) for group in groups]) for step in steps]
    return max(means, default=math.nan), NOTHING[1]


def return_table(table: dict[str, Any], groups: Sequence[Group]) -> tuple[str, list[str], list[Group]]:
    """Returns in each environment, with those of our groups that are in it."""
    lines = ["| | published (seeds) | ours (seeds) | p of Welch's test |", "|---|---:|---:|---:|"]
    used: list[Group] = []
    seeds = table["seeds"]
    for algorithm, environments in table["returns"].items():
        for environment, (mean, deviation) in environments.items():
            own = [g for g in groups if (g.results[0].algorithm, g.environment) == (algorithm, environment)]
            check_single(own)
            used += own
            deviation *= math.sqrt(seeds / (seeds - 1))  # published is that of a population
            for group in own:
                returns = np.array([result.final_return for result in group.counted])
                spread = f" +- {returns.std(ddof=1):.1f}" if len(returns) > 1 else ""
                p = welch_of_moments(returns, mean, deviation, seeds)
                lines.append(
                    f"| {algorithm} {environment} | {mean:.1f} +- {deviation:.1f} ({seeds}) "
                    f"| {returns.mean():.1f}{spread} ({len(returns)}) | {f'{p:.3g}' if math.isfinite(p) else '-'} |"
                )
    return "Mean returns, with sample standard deviations over seeds.", lines, used


def check_single(groups: Sequence[Group]) -> None:
    """Raises UserError where two configurations share an environment."""
    names = [group.environment for group in groups]
    if repeated := [group for group in groups if names.count(group.environment) > 1]:
        raise UserError(
            f"several configurations for a row of the table ({'; '.join(group.name for group in repeated)}): "
            "expected one, which differs in seeds alone"
        )


def demonstration_notes(table: dict[str, Any], groups: Iterable[Group]) -> list[str]:
    """What the experts returned, ours and theirs."""
    notes: dict[str, None] = {}  # each once
    for group in groups:
        ours = demonstration_return(group.counted[0].folder)
        if ours is not None:
            theirs = table["demonstrations"][group.environment]
            notes[f"{group.environment}: demonstrations of mean return {ours:.1f}; published: {theirs:.1f}"] = None
    return list(notes)


def demonstration_return(run: Path) -> float | None:
    try:
        found = json.loads((run / "result.json").read_text())["demonstration_return"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, float) else None


def setting_notes(table: dict[str, Any], groups: Iterable[Group]) -> list[str]:
    """Which of the published settings, tuned or common, our runs did not have."""
    notes = []
    for group in groups:
        run = group.results[0]
        words = {"algorithm": run.algorithm, "trajectories": run.trajectories, "environment": run.environment}
        published = {**preset(table["preset"].format(**words)), **table["settings"]}
        published |= table.get("settings_of", {}).get(run.algorithm, {})
        ours = leaves(run.config)
        different = [
            f"{key}={ours.get(key)} ({value})" for key, value in published.items() if not same(ours.get(key), value)
        ]
        if different:
            notes.append(f"{group.name}: not with the published settings (in brackets): {', '.join(different)}")
    return notes


def preset(name: str) -> dict[str, Any]:
    """Its settings by keys with dots; nothing where there is none of that name."""
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        return {}
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    return leaves({str(key): value for key, value in content.items() if key != "defaults"})


def same(a: Any, b: Any) -> bool:
    """Numbers by value: 1e-05 is text to some YAML parsers."""
    try:
        return float(a) == float(b)
    except (TypeError, ValueError):
        return str(a) == str(b)
