"""Whether one set of runs is better than another, or how it compares with what others have published.

    python scripts/compare.py outputs/GAIL_hopper_sweep/<time> outputs/BC_hopper_sweep/<time>
    python scripts/compare.py outputs/benchmark/<time> --published kaixhin

Two folders: probability of improvement over all environments that both have, and tests in each of them. Published
tables are in docs/results/published, with their sources and with what cannot be compared.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from scripts.command_line import Parser, exit_status
from scripts.published import PUBLISHED, beside_published
from scripts.report_tables import FEW, Group, between, make_report
from scripts.significance import mann_whitney, welch
from training.sweeps import statistics as robust
from training.sweeps.results import MEASURES, find_runs, read_run


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="folder", help="runs, and what they are compared with")
    add("--measure", choices=MEASURES, default="final", help="of each seed (default: final)")
    add("--published", choices=PUBLISHED, help="compare one folder with this table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 compared, 2 refused with one line that says why."""
    return exit_status(lambda: print(compared(parser().parse_args(arguments))))


def compared(options: argparse.Namespace) -> str:
    """Raises UserError where folders cannot be compared in this way."""
    wanted = 1 if options.published else 2
    if len(options.folders) != wanted:
        raise UserError(f"{len(options.folders)} folders: expected {'one' if wanted == 1 else 'two, or --published'}")
    if not options.published:
        return compare(options.folders[0], options.folders[1], options.measure)
    if options.measure != "final":
        raise UserError(f"--measure {options.measure}: published are last evaluations, expected final")
    return beside_published(options.published, options.folders[0], groups_in(options.folders[0], "final"))


def compare(first: Path, second: Path, measure: str) -> str:
    """Raises UserError where a folder mixes configurations, or the two share no environment."""
    groups = [groups_in(folder, measure) for folder in (first, second)]
    ours, theirs = by_environment(first, groups[0]), by_environment(second, groups[1])
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise UserError(f"{first} and {second} share no environment of the same version with finished runs")
    scored = {name: ours[name].scored and theirs[name].scored for name in shared}

    def measured(side: dict[str, Group]) -> robust.Scores:
        """Both sides in the same unit: returns where one of them has no scores."""
        return [side[key].measured(measure) if scored[key] else side[key].measured_returns(measure) for key in shared]

    a, b = measured(ours), measured(theirs)
    probability = robust.probability_of_improvement(a, b)
    single = all(len(scores) < 2 for scores in [*a, *b])
    interval = "-" if single else between(robust.improvement_interval(a, b))
    lines = [
        f"{measure} {'scores' if any(scored.values()) else 'returns'} of {first} against those of {second}",
        f"probability of improvement {probability:.3f} (95% {interval}): that a run of the first scores more",
    ]
    for name, x, y in zip(shared, a, b, strict=True):
        unit = "" if scored[name] else ", returns"
        line = f"{name}: {x.mean():.3f} ({len(x)} seeds{unit}) against {y.mean():.3f} ({len(y)})"
        if min(len(x), len(y)) > 1:
            line += f"; Welch's test p = {welch(x, y):.3g}, Mann-Whitney p = {mann_whitney(x, y):.3g}"
        lines.append(line)
    for folder, own, every in zip((first, second), (ours, theirs), groups, strict=True):
        lines += [f"only in {folder}: {name}" for name in own if name not in shared]
        lines += [f"left out of {folder}: {reason}" for group in every for reason in left_out(group)]
    if min(map(len, [*a, *b])) < FEW:
        lines.append(f"fewer than {FEW} seeds: differences have to be large to show")
    return "\n".join(lines)


def groups_in(folder: Path, measure: str) -> list[Group]:
    """Runs that share everything but the seed. Raises UserError where the folder holds no run."""
    results = [result for run in find_runs([folder]) for result in read_run(run)]
    return make_report(results, measure, [], [], folder).groups


def by_environment(folder: Path, groups: Sequence[Group]) -> dict[str, Group]:
    """Those with finished runs, by the environment's id. Raises UserError where two configurations share one."""
    found: dict[str, Group] = {}
    for group in filter(lambda group: group.counted, groups):
        name = str(group.results[0].config["env"]["id"])
        if name in found:
            raise UserError(
                f"{folder} has several configurations for {group.environment}: "
                "expected one, which differs in seeds alone"
            )
        found[name] = group
    return found


def left_out(group: Group) -> list[str]:
    """Seeds that count in nothing here, and why."""
    counted = set(map(id, group.counted))
    return [
        f"{group.name}, seed {result.seed}: {reason}"
        for result, reason in zip(group.results, group.left_out, strict=True)
        if id(result) not in counted
    ]


if __name__ == "__main__":
    sys.exit(main())
