"""Write the tables of measurements in README.md and pages of docs from the raw files in docs/results.

    python scripts/make_tables.py

Each goes between two comments of its name. The same files make the same text: a test checks that the pages are current.

- learning: the runs that docs/results/readme.yaml names.
- speed: throughput.json, by
  `python scripts/throughput.py --runs 1 5 --hidden-sizes 256 64 --vs stable-baselines3 --json <that file>`.
- finals: optimisation_bc/optimisation.json, the state of an optimisation.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omegaconf import OmegaConf

from conf.errors import UserError
from scripts.command_line import Parser, duration, exit_status
from scripts.kept_runs import SeedRun, load_run, natural, read_json
from training.folder import write_atomically
from training.sweeps.space import Value
from training.sweeps.trials import Record, Trial, load_record, score

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED_WIDTH = 256


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="of README.md and docs (default: this repository)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 refused with one line that says why."""
    return exit_status(lambda: make(parser().parse_args(arguments).root))


def make(root: Path) -> None:
    """Raises UserError where a file is missing or damaged, or names no runs; then nothing has been written."""
    results = root / "docs" / "results"
    blocks = {
        "README.md": {"learning": learning(results), "speed": speed(read_json(results / "throughput.json"))},
        "docs/results/optimisation_bc/README.md": {"finals": finals(load_record(results / "optimisation_bc"))},
    }
    pages = {root / page: filled(root / page, own) for page, own in blocks.items()}
    for path, text in pages.items():
        write_atomically(path, text)


def filled(path: Path, blocks: Mapping[str, str]) -> str:
    """The page with each block between the comments of its name. Raises UserError where they are not there, once."""
    text = path.read_text()
    for name, block in blocks.items():
        begin, end = f"<!-- {name}: written by make figures -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
            raise UserError(f"expected {begin} and {end} in {path}, each once")
        text = f"{before}{begin}\n{block}\n{end}{rest.partition(end)[2]}"
    return text


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


def finals(record: Record) -> str:
    """Finalists and the default, the best on fresh seeds first."""
    searched = {trial.number: trial for trial in record.trials}
    lines = ["| | in the search | on fresh seeds |", "|---|---|---|"]
    for trial in sorted(record.finals, key=score, reverse=True):
        values = ", ".join(f"`{key}={shown(value)}`" for key, value in trial.values.items())
        what = "default" if trial.number is None else f"trial {trial.number}: {values}"
        lines.append(f"| {what} | {measured(searched.get(trial.number))} | {measured(trial)} |")
    return "\n".join(lines)


def shown(value: Value) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def measured(trial: Trial | None) -> str:
    """Mean over seeds, and its standard error where there are several."""
    if trial is None or trial.mean is None:
        return ""
    error = "" if trial.standard_error is None else f" +- {trial.standard_error:.3f}"
    seeds = len(trial.seeds)
    return f"{trial.mean:.3f}{error} ({seeds} seed{'s' if seeds > 1 else ''})"


if __name__ == "__main__":
    sys.exit(main())
