"""Write the tables of measurements in README.md from the raw files in docs/results.

    python scripts/make_readme.py

Learning: the runs that docs/results/readme.yaml names. Speed: docs/results/throughput.json, which
`python scripts/throughput.py --runs 1 5 --hidden-sizes 256 64 --vs stable-baselines3 --json <that file>` measures.
Each goes between two comments of its name. The same files make the same text: a test checks that README.md is current.
"""

import argparse
import math
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omegaconf import OmegaConf

from conf.errors import UserError
from scripts.command_line import Parser, duration
from scripts.kept_runs import SeedRun, load_run, natural, read_json

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED_WIDTH = 256


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    results, readme = ROOT / "docs" / "results", ROOT / "README.md"
    parser.add_argument("--results", type=Path, default=results, help="folder to read (default: docs/results)")
    parser.add_argument("--readme", type=Path, default=readme, help="file whose tables are replaced")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 refused with one line that says why."""
    try:
        options = parser().parse_args(arguments)
        make(options.results, options.readme)
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def make(results: Path, readme: Path) -> None:
    """Raises UserError where a file is missing or damaged, or names no runs; then nothing has been written."""
    text = replaced(readme.read_text(), "learning", learning(results))
    text = replaced(text, "speed", speed(read_json(results / "throughput.json")))
    readme.write_text(text)


def replaced(text: str, name: str, block: str) -> str:
    """`text` with `block` between the comments of this name. Raises UserError where they are not there, once."""
    begin, end = f"<!-- {name}: written by make figures -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise UserError(f"expected {begin} and {end} in the README, each once")
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)


def learning(results: Path) -> str:
    """A row for each entry of readme.yaml."""
    path = results / "readme.yaml"
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
        entries = [(str(entry["what"]), str(entry["runs"])) for entry in content]
    except Exception as error:  # whatever a YAML parser may raise
        raise UserError(f"{path} is missing or damaged: expected a list with what and runs") from error
    lines = [
        "| | seeds | steps | demonstrations | best evaluation | last evaluation | median time to 90% | of |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for what, pattern in entries:
        folders = sorted(results.glob(pattern), key=lambda folder: natural(folder.name))
        runs = [load_run(folder) for folder in folders if folder.is_dir()]
        if not runs:
            raise UserError(f"{path}: there are no runs {pattern} for '{what}'")
        seeds = [seed for run in runs for seed in run.seeds]
        of = duration(statistics.median(run.wall_seconds for run in runs))
        lines.append(f"| {what} | {' | '.join(learned(seeds))} | {of} |")
    return "\n".join(lines)


def learned(seeds: Sequence[SeedRun]) -> list[str]:
    """Seeds, steps, the demonstrations' return, fractions of it, and the time to 90% of it."""
    final = seeds[0].final
    unit = " iterations" if final.phase == "behavioural_cloning" else ""
    reached = sum(math.isfinite(seed.seconds_to_reach) for seed in seeds)
    return [
        str(len(seeds)),
        f"{final.step:,}{unit}",
        between((seed.demonstrations or math.nan for seed in seeds), 0),
        between((seed.fraction(seed.best.episode_return) for seed in seeds), 2),
        between((seed.fraction(seed.final.episode_return) for seed in seeds), 2),
        f"{duration(statistics.median(seed.seconds_to_reach for seed in seeds))} ({reached} of {len(seeds)})",
    ]


def between(values: Iterable[float], digits: int) -> str:
    """`0.95 to 0.99`, or one number where both are the same."""
    found = list(values)
    low, high = (f"{value:.{digits}f}" for value in (min(found), max(found)))
    return low if low == high else f"{low} to {high}"


def speed(report: dict[str, Any]) -> str:
    """What scripts/throughput.py has measured, at the published sizes; and what several seeds side by side gain."""
    rows = [row for row in report["rows"] if (row["runs"], row["hidden_size"]) == (1, PUBLISHED_WIDTH)]
    busy = between((row["busy"] for row in report["rows"]), 2)
    lines = [
        f"Speed on one thread ({report['processor']}; busy {busy} of the time, below 1 where others shared it),",
        "published sizes (batch 256, 256x256, one update a step), medians:",
        "",
        f"    {report['command']}",
        "",
        "| | updates/s | loop steps/s | of the matrix-product limit |",
        "|---|---|---|---|",
    ]
    for row in rows:
        figures = f"{row['updates']:.0f} | {row['loop']:.0f} | {row['of_limit']:.0%}"
        lines.append(f"| {row['algorithm']}, {row['precision']} | {figures} |")
    peers = {(peer["peer"], peer["hidden_size"]): peer for peer in report["peers"]}
    for (name, width), peer in peers.items():
        if width == PUBLISHED_WIDTH:
            lines.append(f"| {name}, SAC, fp32, in the same run | {peer['updates']:.0f} | {peer['loop']:.0f} | |")
    lines += ["", *memory(report["peak_memory"]), *side_by_side(report["side_by_side"])]
    return "\n".join(lines)


def memory(peaks: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"- {peak['algorithm']} with {peak['rows']:,} replay rows takes {peak['peak_gib']:.1f} GiB." for peak in peaks
    ]


def side_by_side(gains: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each algorithm, number of seeds and width, over precisions."""
    found: dict[tuple[str, int, int], list[float]] = {}
    for gain in gains:
        found.setdefault((gain["algorithm"], gain["runs"], gain["hidden_size"]), []).append(gain["gain"])
    return [
        f"- {algorithm}, {runs} seeds as `runs={runs}`: {between(own, 1)} times as fast as one after another, with "
        f"networks of {width} units."
        for (algorithm, runs, width), own in found.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
