"""Trials of an optimisation: a table, the best so far, what mattered, and slices, as CSV and PNG.

    python scripts/print_plot_sweep_results.py --path outputs/BC_all_sweeper/<time>

writes trials.csv and trials.png into that folder. --install copies its preset to conf/optimised_hyperparameters.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from scripts.command_line import Parser, exit_status
from training.pictures import STYLE
from training.sweeps.preset import install
from training.sweeps.trials import Record, Trial, load_record

FEWEST = 3  # trials that say anything of a hyperparameter


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--path", type=Path, required=True, help="folder of the optimisation")
    parser.add_argument("--install", action="store_true", help="copy its preset to where runs find it")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused with one line that says why."""
    return exit_status(lambda: show(parser().parse_args(arguments)))


def show(options: argparse.Namespace) -> None:
    """Raises UserError where there is no optimisation, or it has nothing to install."""
    path: Path = options.path
    record = load_record(path)
    print(table(record))
    write(path / "trials.csv", record)
    draw(path / "trials.png", record)
    if options.install:
        print(f"installed as {install(path)}")


def table(record: Record) -> str:
    """Trials in the order in which they ended, with the best so far; then what mattered."""
    lines = ["trial      score     +-     best  values"]
    best = -np.inf
    for trial in record.trials:
        mean, error = trial.mean, trial.standard_error
        best = max(best, -np.inf if mean is None else mean)
        score = f"{mean:8.3f}" if mean is not None else f"{trial.state:>8}"
        spread = f"{error:6.3f}" if error is not None else "     -"
        values = " ".join(f"{key}={value}" for key, value in trial.values.items())
        lines.append(
            f"{trial.name:>5}  {score} {spread} {best:8.3f}  {values}{' ' + trial.error if trial.error else ''}"
        )
    for trial in record.finals:
        lines.append(f"fresh seeds, {trial.name}: {'-' if trial.mean is None else f'{trial.mean:.3f}'}")
    for key, share in sorted(importance(record.completed).items(), key=lambda item: -item[1]):
        lines.append(f"{share:6.0%} of the ranks' variance: {key}")
    return "\n".join(lines)


def importance(trials: Sequence[Trial]) -> dict[str, float]:
    """For each hyperparameter alone the share of the variance of the scores' ranks that it explains.

    Numbers: the squared rank correlation. Words: the variance between groups over all variance, which is large by
    chance where a word was tried once. Interactions are not seen.
    """
    if len(trials) < FEWEST:
        return {}
    scores = ranks([trial.mean or 0.0 for trial in trials])
    return {key: explained([trial.values[key] for trial in trials], scores) for key in trials[0].values}


def explained(values: Sequence[float | int | str | bool], scores: np.ndarray) -> float:
    total = float(((scores - scores.mean()) ** 2).sum())
    if total == 0 or len(set(values)) < 2:
        return 0.0
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return float(np.corrcoef(ranks([float(value) for value in values]), scores)[0, 1] ** 2)
    groups = [scores[[other == value for other in values]] for value in set(values)]
    return float(sum(len(group) * (group.mean() - scores.mean()) ** 2 for group in groups)) / total


def ranks(values: Sequence[float]) -> np.ndarray:
    """From 1; equal values share the mean of their ranks."""
    array = np.asarray(values)
    below = (array[None, :] < array[:, None]).sum(axis=1)
    equal = (array[None, :] == array[:, None]).sum(axis=1)
    return np.asarray(below + (equal + 1) / 2)


def write(path: Path, record: Record) -> None:
    keys = list(dict.fromkeys(key for trial in record.trials for key in trial.values))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "state", "mean", "standard_error", *keys])
        for trial in record.trials:
            values = [trial.values.get(key, "") for key in keys]
            writer.writerow([trial.name, trial.state, trial.mean, trial.standard_error, *values])


def spans_decades(values: Sequence[float]) -> bool:
    """Are the largest and the smallest more than a factor of 10 apart, as in a search over orders of magnitude?"""
    return 0 < 10 * min(values) < max(values)


def draw(path: Path, record: Record) -> None:
    """Best so far, and a slice along each hyperparameter."""
    trials = record.completed
    if not trials:
        return
    means = np.array([trial.mean for trial in trials], dtype=float)
    errors = np.array([trial.standard_error or 0.0 for trial in trials])
    keys = list(trials[0].values)
    columns = min(4, len(keys) + 1)
    rows = -(-(len(keys) + 1) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 3 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        panels[0].errorbar(range(len(means)), means, errors, fmt="o", markersize=3)
        panels[0].step(range(len(means)), np.maximum.accumulate(means), where="post")
        panels[0].set(xlabel="trial, in the order of their ends", ylabel="score", title="best so far")
        for axes, key in zip(panels[1:], keys, strict=False):
            values = [trial.values[key] for trial in trials]
            words = any(isinstance(value, (str, bool)) for value in values)
            axes.plot([str(value) if words else value for value in values], means, "o", markersize=4)
            axes.set(xlabel=key, ylabel="score")
            if not words and spans_decades([float(value) for value in values]):
                axes.set_xscale("log")
        for axes in panels[len(keys) + 1 :]:
            axes.set_visible(False)
        figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
