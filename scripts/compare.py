"""Whether one set of runs is better than another: probability of improvement, and tests in each environment.

python scripts/compare.py outputs/GAIL_hopper_sweep/<time> outputs/BC_hopper_sweep/<time>
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from conf.errors import UserError
from training.sweeps import statistics as robust
from training.sweeps.launchers import INSTALL
from training.sweeps.results import MEASURES, counted, find_runs, grouped, read_run


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="a folder of runs")
    parser.add_argument("second", type=Path, help="what they are compared with")
    parser.add_argument("--measure", choices=MEASURES, default="final", help="of each seed (default: final)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 compared, 2 refused with one line that says why."""
    options = parser().parse_args(arguments)
    try:
        print(compare(options.first, options.second, options.measure))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def compare(first: Path, second: Path, measure: str) -> str:
    """Raises UserError where a folder mixes configurations, or the two share no environment."""
    try:
        from scipy import stats
    except ImportError as error:
        raise UserError(f"tests need SciPy: {INSTALL}") from error
    ours, theirs = by_environment(first, measure), by_environment(second, measure)
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise UserError(f"{first} and {second} share no environment with finished runs")
    a, b = [ours[name] for name in shared], [theirs[name] for name in shared]
    low, high = robust.improvement_interval(a, b)
    probability = robust.probability_of_improvement(a, b)
    lines = [f"{measure} scores; probability of improvement {probability:.3f} (95% {low:.3f} to {high:.3f})"]
    for name, x, y in zip(shared, a, b, strict=True):
        line = f"{name}: {x.mean():.3f} ({len(x)} seeds) against {y.mean():.3f} ({len(y)})"
        if min(len(x), len(y)) > 1:
            welch = stats.ttest_ind(x, y, equal_var=False).pvalue
            line += f"; Welch's test p = {welch:.3g}, Mann-Whitney p = {stats.mannwhitneyu(x, y).pvalue:.3g}"
        lines.append(line)
    if min(map(len, [*a, *b])) < 5:
        lines.append("fewer than 5 seeds: differences have to be large to show")
    return "\n".join(lines)


def by_environment(folder: Path, measure: str) -> dict[str, np.ndarray]:
    """Scores of the seeds in each environment. Raises UserError where two configurations share one."""
    found: dict[str, np.ndarray] = {}
    for group in grouped(result for run in find_runs([folder]) for result in read_run(run)):
        name = group[0].environment
        if name in found:
            raise UserError(
                f"{folder} has several configurations for {name}: expected one, which differs in seeds alone"
            )
        if own := counted(group):
            found[name] = np.array([result.measured(measure) for result in own])
    return found


if __name__ == "__main__":
    sys.exit(main())
