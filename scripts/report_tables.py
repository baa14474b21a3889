"""What there is to say about runs of any kind: groups of seeds, configurations over environments, what is left out."""

import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from training.folder import read_status
from training.pictures import STEP_LABELS
from training.sweeps import statistics as robust
from training.sweeps.results import NO_SCORE, SeedResult, grouped, labels, left_out

PROFILE = (0.25, 0.5, 0.75, 0.9, 1.0)  # scores whose reaching a performance profile shows
REACHED = (0.5, 0.9)  # scores the steps to which are counted
FEW = 5  # seeds
NAMED = 5  # groups in a note


@dataclass(frozen=True)
class Table:
    """Cells as text, for Markdown and for the page; `-` where nothing is known."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Group:
    """Results that share everything but the seed."""

    name: str
    results: Sequence[SeedResult]

    @cached_property
    def left_out(self) -> list[str]:
        """Of each result, why no statistic counts it; empty where it is counted."""
        return left_out(self.results)

    @cached_property
    def counted(self) -> list[SeedResult]:
        """Finished seeds with scores; without scores where no reference returns are known for any."""
        results = list(zip(self.results, self.left_out, strict=True))
        scored = [result for result, reason in results if not reason]
        return scored or [result for result, reason in results if reason == NO_SCORE]

    @property
    def scored(self) -> bool:
        return bool(self.counted) and self.counted[0].scored

    @property
    def environment(self) -> str:
        return self.results[0].environment

    @property
    def configuration(self) -> str:
        """The same for groups that share everything but the environment."""
        return self.results[0].group_over_environments

    def measured(self, measure: str) -> Float[np.ndarray, "_"]:
        """The score of each counted seed, or its return where there are no scores."""
        if not self.scored:
            return self.measured_returns(measure)
        return np.array([result.measured(measure) for result in self.counted])

    def measured_returns(self, measure: str) -> Float[np.ndarray, "_"]:
        return np.array([result.measured_return(measure) for result in self.counted])


@dataclass(frozen=True)
class Configuration:
    """Groups with scores that share everything but seed and environment, one for each environment."""

    name: str
    groups: list[Group]

    @property
    def environments(self) -> tuple[str, ...]:
        return tuple(sorted(group.environment for group in self.groups))

    def scores(self, measure: str) -> robust.Scores:
        """Tasks are the environments: seeds are drawn again within them."""
        return [group.measured(measure) for group in self.groups]


@dataclass(frozen=True)
class Report:
    """All runs that were found."""

    measure: str
    groups: list[Group]
    damaged: list[Path]  # folders of runs whose configuration cannot be read
    missing: list[Path]  # what jobs of a sweep have not made; its plan where that cannot be read
    beside: Path  # the report's own folder

    def shown(self, path: Path) -> str:
        """From the report's folder, so that both can be moved together."""
        return os.path.relpath(path, self.beside)

    @cached_property
    def unread(self) -> list[tuple[str, str]]:
        """Folders of which nothing but the name is known, and why."""
        found = []
        for path in self.damaged:
            error = read_status(path).get("error")  # of a job that was refused before it had a configuration
            why = f"failed: {error}" if error else "its configuration cannot be read"
            found.append((self.shown(path), f"incomplete ({why})"))
        for path in self.missing:
            why = "the plan of this sweep cannot be read" if path.is_file() else "incomplete (never begun)"
            found.append((self.shown(path), why))
        return found

    @cached_property
    def configurations(self) -> list[Configuration]:
        found: dict[str, list[Group]] = {}
        for group in self.groups:
            if group.scored:
                alike = found.setdefault(group.configuration, [])
                if group.environment not in {other.environment for other in alike}:
                    alike.append(group)
                else:  # for example with other demonstrations: the environments of both must not be mixed
                    found[group.results[0].group] = [group]
        names = labels([groups[0].results for groups in found.values()], over_environments=True)
        return [
            Configuration(name if key == groups[0].configuration else groups[0].name, groups)
            for name, (key, groups) in zip(names, found.items(), strict=True)
        ]


def make_report(
    results: Iterable[SeedResult], measure: str, damaged: list[Path], missing: list[Path], beside: Path
) -> Report:
    groups = grouped(results)
    found = [Group(*pair) for pair in zip(labels(groups), groups, strict=True)]
    return Report(measure, found, damaged, missing, beside)


def tables(report: Report) -> list[Table]:
    """What Markdown and page share."""
    found = [group_table(report), environment_table(report), efficiency_table(report), left_out_table(report)]
    return [table for table in found if table.rows]


def group_table(report: Report) -> Table:
    measure = report.measure
    rows = []
    for group in report.groups:
        scores = group.measured(measure) if group.scored else np.array([])
        returns = group.measured_returns(measure)
        rows.append(
            (
                group.name,
                str(len(group.counted)),
                number(scores.mean() if len(scores) else math.nan),
                number(scores.std(ddof=1) if len(scores) > 1 else math.nan),
                number(robust.trimmed_mean(scores) if len(scores) else math.nan),
                between(robust.iqm_interval([scores]) if len(scores) else (math.nan, math.nan)),
                f"{statistics.fmean(returns):.1f}" if len(returns) else "-",
            )
        )
    columns = ("runs", "seeds", "mean", "std", "IQM", "95% interval", "mean return")
    note = (
        f"Over the {measure} scores of seeds, with the interval of the IQM, and in the last column {measure} returns."
    )
    return Table("Runs that share everything but the seed", note, columns, rows)


def environment_table(report: Report) -> Table:
    rows = []
    for configuration in report.configurations:
        scores = configuration.scores(report.measure)
        shares = robust.performance_profile(scores, np.array(PROFILE))
        rows.append(
            (
                configuration.name,
                ", ".join(configuration.environments),
                str(sum(map(len, scores))),
                number(robust.mean(scores)),
                number(robust.interquartile_mean(scores)),
                between(robust.iqm_interval(scores)),
                *(f"{share:.2f}" for share in shares),
            )
        )
    columns = ("runs", "environments", "number", "mean", "IQM", "95% interval")
    note = (
        f"Of the {report.measure} scores, with the interval of the IQM. The last columns are performance profiles: the "
        "share of runs above a score, the mean over environments."
    )
    return Table("Over environments", note, columns + tuple(f"> {score}" for score in PROFILE), rows)


def efficiency_table(report: Report) -> Table:
    rows = []
    for group in report.groups:
        if group.scored:
            cells = []
            for score in REACHED:
                steps = [steps_to(result, score) for result in group.counted]
                median = statistics.median(steps)
                reached = f"({sum(map(math.isfinite, steps))} of {len(steps)})"
                cells.append(f"{median:.0f} {reached}" if math.isfinite(median) else f"- {reached}")
            rows.append((group.name, step_label(group), *cells))
    columns = ("runs", "counted in", *(f"to score {score}" for score in REACHED))
    note = (
        "Steps of the last phase until the first evaluation with a score: the median over seeds, and how many reached "
        "it; those that did not count as infinitely late."
    )
    return Table("Sample efficiency", note, columns, rows)


def steps_to(result: SeedResult, score: float) -> float:
    """Of the last phase, until the first evaluation with this score; infinite where there is none."""
    return next((evaluation.step for evaluation in result.last_phase if evaluation.score >= score), math.inf)


def step_label(group: Group) -> str:
    return STEP_LABELS.get(group.counted[0].evaluations[-1].phase, "steps")


def left_out_table(report: Report) -> Table:
    rows = [
        (group.name, str(result.seed), reason, report.shown(result.folder))
        for group in report.groups
        for result, reason in zip(group.results, group.left_out, strict=True)
        if reason
    ]
    rows += [("-", "-", reason, path) for path, reason in report.unread]
    note = "Incomplete, repeated and unscored runs. They count in no statistic of scores."
    return Table("Left out", note, ("runs", "seed", "why", "folder"), rows)


def notes(report: Report) -> list[str]:
    """Warnings."""
    found = []
    few = [group.name for group in report.groups if len(group.counted) < FEW]
    if few:
        more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
        found.append(f"fewer than {FEW} seeds, so that intervals are rough: {'; '.join(few[:NAMED])}{more}")
    if len({group.environment for group in report.groups}) == 1:
        found.append("one environment: what holds here need not hold elsewhere")
    return found


def number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def between(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if math.isfinite(interval[0]) else "-"
