"""Tables of any runs: a tidy CSV with a row for each seed, and Markdown with robust statistics.

    python scripts/summarise.py outputs/GAIL_hopper_sweep/<time> outputs/BC_hopper_sweep/<time> --output report

writes report.csv and report.md. Seeds that did not finish are rows, too, and count in no statistic.
"""

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from conf.errors import UserError
from training.folder import write_atomically
from training.sweeps import statistics as robust
from training.sweeps.results import (
    MEASURES,
    SeedResult,
    duplicates,
    expert_return,
    find_runs,
    grouped,
    known,
    labels,
    read_run,
)

COLUMNS = (
    "algo", "env", "seed", "trajectories", "state", "measure", "score", "expert_score", "return", "expert_return",
    "steps", "group", "run",
)  # fmt: skip
PROFILE = (0.25, 0.5, 0.75, 0.9, 1.0)  # scores whose reaching a performance profile shows
FEW = 5  # seeds
MEANING = {
    "final": "the last evaluation",
    "best": "the best evaluation, hence optimistic",
    "mean": "the mean of all evaluations",
}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="runs, sweeps, or folders of such")
    parser.add_argument("--output", type=Path, default=Path("report"), help="name of the files, without ending")
    parser.add_argument(
        "--measure",
        choices=MEASURES,
        default="final",
        help="of each seed: its last evaluation (default), its best one, or the mean of all",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 refused with one line that says why."""
    options = parser().parse_args(arguments)
    try:
        print(summarise(options.folders, options.output, options.measure))
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def summarise(folders: Sequence[Path], output: Path, measure: str) -> str:
    """Write `<output>.csv` and `<output>.md`; returns the Markdown. Raises UserError where there is no run."""
    runs = find_runs(folders)
    found = {run: read_run(run) for run in runs}
    groups = grouped(result for results in found.values() for result in results)
    names = labels(groups)
    damaged = [run for run, results in found.items() if not results]
    text = markdown(names, groups, measure, damaged)
    with output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            row(name, result, measure) for name, group in zip(names, groups, strict=True) for result in group
        )
    write_atomically(output.with_suffix(".md"), text)
    return text


def row(name: str, result: SeedResult, measure: str) -> dict[str, object]:
    expert = expert_return(str(result.config["env"]["id"]))
    measured = {
        "score": shown(result.measured(measure)) if result.finished else "",
        "return": shown(result.final_return) if result.finished else "",
        "steps": result.steps if result.finished else "",
    }
    return {
        "algo": result.algorithm,
        "env": result.environment,
        "seed": result.seed,
        "trajectories": result.trajectories,
        "state": result.state,
        "measure": measure,
        "expert_score": 1.0 if math.isfinite(expert) else "",
        "expert_return": shown(expert),
        "group": name,
        "run": str(result.folder),
        **measured,
    }


def shown(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def counted(group: Sequence[SeedResult]) -> list[SeedResult]:
    """Finished seeds with known scores, each once."""
    again = duplicates(group)
    return [
        result
        for result in group
        if result.finished and not any(result is other for other in again) and known([result.measured("final")])
    ]


def markdown(
    names: Sequence[str], groups: Sequence[Sequence[SeedResult]], measure: str, damaged: Sequence[Path]
) -> str:
    """Each group, each algorithm over its environments, performance profiles, and what is missing."""
    parts = [f"# Report\n\nScores: 0 is a random policy, 1 the expert; of each seed **{measure}**: {MEANING[measure]}."]
    parts.append(group_table(names, groups, measure))
    parts.append(aggregate_table(names, groups, measure))
    notes = [*warnings(names, groups), *(f"{path}: its configuration cannot be read" for path in damaged)]
    if notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def group_table(names: Sequence[str], groups: Sequence[Sequence[SeedResult]], measure: str) -> str:
    lines = ["| runs | seeds | mean | std | IQM | 95% interval of the IQM |", "|---|---:|---:|---:|---:|---:|"]
    for name, group in zip(names, groups, strict=True):
        scores = np.array([result.measured(measure) for result in counted(group)])
        if len(scores) == 0:
            lines.append(f"| {name} | 0 | - | - | - | - |")
            continue
        spread = f"{scores.std(ddof=1):.3f}" if len(scores) > 1 else "-"
        iqm = robust.trimmed_mean(scores)
        interval = between(robust.iqm_interval([scores]))
        lines.append(f"| {name} | {len(scores)} | {scores.mean():.3f} | {spread} | {iqm:.3f} | {interval} |")
    return "\n".join(lines)


def aggregate_table(names: Sequence[str], groups: Sequence[Sequence[SeedResult]], measure: str) -> str:
    """Configurations over environments: tasks are the environments, and seeds are resampled within them."""
    tasks: dict[str, dict[str, list[float]]] = {}
    titles: dict[str, str] = {}
    for name, group in zip(names, groups, strict=True):
        if own := [result.measured(measure) for result in counted(group)]:
            key = group[0].group_over_environments
            titles.setdefault(key, name.replace(f" {group[0].environment}", "", 1))
            tasks.setdefault(key, {})[group[0].environment] = own
    profile = " | ".join(f"> {threshold}" for threshold in PROFILE)
    lines = [
        "## Over environments, and the share of runs above a score",
        "",
        f"| runs | environments | IQM | 95% interval | {profile} |",
        f"|---|---:|---:|---:|{'---:|' * len(PROFILE)}",
    ]
    for key, found in tasks.items():
        scores = [np.array(own) for own in found.values()]
        shares = robust.performance_profile(scores, np.array(PROFILE))
        cells = [f"{robust.interquartile_mean(scores):.3f}", between(robust.iqm_interval(scores))]
        cells += [f"{share:.2f}" for share in shares]
        lines.append(f"| {titles[key]} | {len(scores)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def between(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if math.isfinite(interval[0]) else "-"


def warnings(names: Sequence[str], groups: Sequence[Sequence[SeedResult]]) -> list[str]:
    found = []
    for name, group in zip(names, groups, strict=True):
        if len(counted(group)) < FEW:
            found.append(f"{name}: fewer than {FEW} seeds, so that intervals are rough")
        for result in group:
            if not result.finished:
                reason = f": {' '.join(result.error.split())}" if result.error else ""
                found.append(f"{name}, seed {result.seed}: incomplete ({result.state}{reason})")
            elif not known([result.measured("final")]):
                found.append(f"{name}, seed {result.seed}: no reference returns are known, so that there is no score")
        for result in duplicates(group):
            found.append(f"{name}, seed {result.seed}: another run of it is left out ({result.folder})")
    if len({group[0].environment for group in groups}) < 2:
        found.append("one environment: what holds here need not hold elsewhere")
    return found


if __name__ == "__main__":
    sys.exit(main())
