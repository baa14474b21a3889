"""Write docs/results.md and its pictures from the raw files in docs/results, which scripts/keep_results.py keeps.

    python scripts/make_results.py

A section for each folder in docs/results, beginning with its README.md where there is one, and beside the table of
docs/results/published that its published.txt names, if any; one for each report of scripts/throughput.py
(throughput*.json), and one for that of scripts/on_policy_speed.py (on_policy_speed.json). The same files make the same
text: a test checks that docs/results.md is up to date.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from scripts.command_line import Parser, exit_status
from scripts.kept_runs import KeptRun, SeedRun, known, load_experiment, read_json
from scripts.published import load
from scripts.result_pictures import draw
from scripts.speed_tables import costs, markdown_table, on_policy_speed
from training.folder import write_atomically

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
HEADER = """\
# Results

Written by `python scripts/make_results.py` from the raw files in [results/](results/); do not edit.
`python scripts/keep_results.py` adds runs.

- A row stands for runs that share everything but the seed; values are means over seeds, +- the sample standard
  deviation. `runs=n` in a command: the n seeds were trained side by side in one program and share its wall time.
- Every evaluation plays greedy episodes. *final*: the last evaluation. *last 5*: the mean of the last five evaluations
  (of the last phase; of all where there are fewer). *best evaluation*: the highest of all evaluations of a seed, chosen
  by its result and hence optimistic.
- *score*: 0 is a random policy, 1 the expert. */ demonstrations*: as a fraction of the mean return of the
  demonstrations, left out where that is not positive.
- *to 90%*: wall seconds, and environment steps (iterations where there are no others), until the first evaluation at or
  above 90% of the demonstrations' mean return. It is the median over all seeds, those that never get there counted as
  infinitely late, and in brackets how many got there. Seconds begin when everything is loaded; before that, starting
  a program takes some more, about five on a slow machine.
- Runs that did not finish are marked, and nothing is known of their demonstrations' return.
- *wall s* and *steps/s*: of the whole program with its evaluations, mean over programs; steps are those of each seed
  in the last phase.
"""
UNINTERESTING = ("evaluation.", "checkpoint.")  # options that do not name a row in pictures
COLUMNS = (
    "seeds",
    "steps",
    "demonstrations' return",
    "final return",
    "final score",
    "last 5",
    "best evaluation",
    "final / demonstrations",
    "best evaluation / demonstrations",
    "s to 90%",
    "steps to 90%",
    "wall s",
    "steps/s",
)
SEED_COLUMNS = (
    "raw files",
    "seed",
    "steps",
    "final return",
    "final score",
    "last 5",
    "best evaluation",
    "at step",
    "s to 90%",
    "steps to 90%",
    "wall s",
    "steps/s",
)


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to read (default: docs/results)")
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write (default: <results>.md); pictures go to the folder beside it that is called like it",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 refused with one line that says why."""
    return exit_status(lambda: make(parser().parse_args(arguments)))


def make(options: argparse.Namespace) -> None:
    """Raises UserError where nothing is kept, or a file is missing or damaged; then nothing has been written."""
    results: Path = options.results
    output: Path = options.output or results.with_suffix(".md")
    folders = sorted(path for path in results.glob("*/") if any(path.glob("*/")))
    if not folders:
        raise UserError(f"no results in {results}: keep some with scripts/keep_results.py first")
    experiments = {folder: load_experiment(folder) for folder in folders}
    reports = [read_json(file) for file in sorted(results.glob("throughput*.json"))]
    sections = [section(folder, rows) for folder, rows in experiments.items()]
    on_policy = [read_json(file) for file in results.glob("on_policy_speed.json")]
    text = "\n".join([HEADER, *sections, *map(costs, reports), *map(on_policy_speed, on_policy)])
    pictures = output.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    write_atomically(output, text)
    for folder, rows in experiments.items():
        draw(pictures / f"{folder.name}.png", rows, labels(rows), title(folder))
    print(f"{len(experiments)} experiments in {output}")


def title(folder: Path) -> str:
    name = folder.name.replace("_", " ").replace("-", " ")
    return name[:1].upper() + name[1:]


def section(folder: Path, rows: Sequence[Sequence[KeptRun]]) -> str:
    """One experiment: introduction, commands, a row for each, a row per seed, where it ran, and the picture."""
    introduction = folder / "README.md"
    parts = [f"## {title(folder)}"]
    if introduction.exists():
        parts.append(introduction.read_text().strip())
    parts += [
        "\n".join(f"{number}. `{runs[0].command}`{_state(runs)}" for number, runs in enumerate(rows, 1)),
        markdown_table(("", *COLUMNS), ([f"**{number}**", *_row(runs)] for number, runs in enumerate(rows, 1))),
        markdown_table(("", *SEED_COLUMNS), _seed_rows(folder, rows)),
        *_published(folder, rows),
        "\n".join([*_notes(rows), *_references(rows), *_software(rows)]),
        f"![Returns over steps](results/{folder.name}.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _published(folder: Path, rows: Sequence[Sequence[KeptRun]]) -> list[str]:
    """Ours beside the table that the folder's published.txt names, each as a fraction of its own expert's return."""
    name = folder / "published.txt"
    if not name.exists():
        return []
    table = load(name.read_text().strip())
    lines = []
    for number, runs in enumerate(rows, 1):
        algorithm, environment = runs[0].config["algorithm"], runs[0].config["env"]["name"]
        mean, _ = table["returns"].get(algorithm, {}).get(environment, (None, None))
        if mean is None:
            continue
        seeds, expert = [seed for run in runs for seed in run.seeds], table["demonstrations"][environment]
        final = [seed.final.episode_return for seed in seeds]
        ours = [_mean_and_deviation(final, 1), _number(seeds[0].demonstrations or math.nan, 1)]
        fractions = [_mean(map(seeds[0].fraction, final)), mean / expert]
        theirs = [f"{mean:.1f}", f"{expert:.1f}"]
        cells = [*ours, _number(fractions[0], 2), *theirs, _number(fractions[1], 2)]
        lines.append([f"**{number}** {algorithm} {environment}", *cells])
    header = ("", "ours", "expert", "ours / expert", "published", "its expert", "published / its expert")
    return [
        f"Final returns beside those that were published ({table['seeds']} seeds), whose experts were others. "
        f"{' '.join(table['source'].split())}",
        markdown_table(header, lines),
        "\n".join(f"- {' '.join(text.split())}" for text in table["differences"]),
    ]


def labels(rows: Sequence[Sequence[KeptRun]]) -> list[str]:
    """What tells the rows apart, among the options that were given to any of them."""
    if len(rows) == 1:
        return [rows[0][0].name]
    runs = [row[0] for row in rows]
    keys = dict.fromkeys(key for run in runs for key in run.own_overrides if not key.startswith(UNINTERESTING))
    values = {key: [run.own_overrides.get(key) or _setting(run.config, key) for run in runs] for key in keys}
    different = {key: found for key, found in values.items() if len(set(found)) > 1}
    names = [[f"{key}={found[i]}" for key, found in different.items() if found[i]] for i in range(len(runs))]
    return [
        f"{number}. {' '.join(name) or run.name}{'' if run.state == 'finished' else f' ({run.state})'}"
        for number, (name, run) in enumerate(zip(names, runs, strict=True), 1)
    ]


def _setting(config: Any, key: str) -> str:
    """What a run had for an option that it was not given; empty where that is not a single value."""
    for part in key.lstrip("+").split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return "" if config is None or isinstance(config, dict) else json.dumps(config).strip('"')


def _state(runs: Sequence[KeptRun]) -> str:
    return "" if runs[0].state == "finished" else f" **({runs[0].state})**"


def _row(runs: Sequence[KeptRun]) -> list[str]:
    seeds = [seed for run in runs for seed in run.seeds]
    distinct = len({seed.seed for seed in seeds})
    demonstrations = seeds[0].demonstrations
    return [
        str(distinct) if distinct == len(seeds) else f"{distinct} ({len(seeds)} runs)",
        _between([seed.final.step for seed in seeds]),
        _number(math.nan if demonstrations is None else demonstrations, 1),
        _mean_and_deviation([seed.final.episode_return for seed in seeds], 1),
        _mean_and_deviation([seed.final.score for seed in seeds], 3),
        _mean_and_deviation([seed.last_mean for seed in seeds], 1),
        _mean_and_deviation([seed.best.episode_return for seed in seeds], 1),
        _number(_mean(seed.fraction(seed.final.episode_return) for seed in seeds), 2),
        _number(_mean(seed.fraction(seed.best.episode_return) for seed in seeds), 2),
        median(seeds, [seed.seconds_to_reach for seed in seeds]),
        median(seeds, [seed.steps_to_reach for seed in seeds]),
        _number(_mean(run.wall_seconds for run in runs), 0),
        _number(_mean(run.steps_per_second for run in runs), 0),
    ]


def _seed_rows(folder: Path, rows: Sequence[Sequence[KeptRun]]) -> list[list[str]]:
    return [
        [f"**{number}**", f"[{run.run_id}](results/{folder.name}/{run.run_id})", str(seed.seed), *_seed_row(run, seed)]
        for number, runs in enumerate(rows, 1)
        for run in runs
        for seed in run.seeds
    ]


def _seed_row(run: KeptRun, seed: SeedRun) -> list[str]:
    phase = "" if seed.best.phase == seed.final.phase else f" of {seed.best.phase.replace('_', ' ')}"
    return [
        f"{seed.final.step:,}",
        _number(seed.final.episode_return, 1),
        _number(seed.final.score, 3),
        _number(seed.last_mean, 1),
        _number(seed.best.episode_return, 1),
        f"{seed.best.step:,}{phase}",
        _reached(seed, seed.seconds_to_reach),
        _reached(seed, seed.steps_to_reach),
        _number(run.wall_seconds, 0),
        _number(run.steps_per_second, 0),
    ]


def _notes(rows: Sequence[Sequence[KeptRun]]) -> list[str]:
    every = [run for runs in rows for run in runs]
    notes: dict[str, list[str]] = {}
    for run in every:
        notes.setdefault(" ".join(run.note.split()), []).append(run.run_id)
    notes.pop("", None)
    return [
        f"- Note on {'all runs' if len(names) == len(every) else ', '.join(names)}: {note}"
        for note, names in notes.items()
    ]


def _references(rows: Sequence[Sequence[KeptRun]]) -> list[str]:
    """What the scores mean, for each environment."""
    found: dict[str, None] = {}
    for run in (run for runs in rows for run in runs):
        references = run.result.get("references", {})
        expert, random = known(references.get("expert")), known(references.get("random"))
        if expert is not None and random is not None:
            found[
                f"- {run.config['env']['id']}: score 1 is a return of {expert:.1f}, score 0 one of {random:.1f} "
                f"({references.get('source')})."
            ] = None
    return list(found)


def _software(rows: Sequence[Sequence[KeptRun]]) -> list[str]:
    """What the runs were made with, and which where that differs."""
    found: dict[str, list[str]] = {}
    for run in (run for runs in rows for run in runs):
        versions = {"Python": run.status.get("python"), **run.status.get("versions", {})}
        shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        found.setdefault(f"Device {run.status.get('device')}, {shown}", []).append(run.run_id)
    return [f"- {line}{'' if len(found) == 1 else ': ' + ', '.join(names)}." for line, names in found.items()]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _mean_and_deviation(values: Sequence[float], digits: int) -> str:
    mean = _number(_mean(values), digits)
    return mean if len(values) == 1 or mean == "-" else f"{mean} +- {statistics.stdev(values):.{digits}f}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _between(steps: Sequence[int]) -> str:
    return f"{steps[0]:,}" if len(set(steps)) == 1 else f"{min(steps):,} to {max(steps):,}"


def _reached(seed: SeedRun, value: float) -> str:
    return "-" if not seed.comparable else f"{value:,.0f}" if math.isfinite(value) else "never"


def median(seeds: Sequence[SeedRun], values: Sequence[float]) -> str:
    """Median over seeds, and how many got there."""
    if not seeds[0].comparable:
        return "-"
    count = sum(map(math.isfinite, values))
    return f"{_reached(seeds[0], statistics.median(values))} ({count} of {len(values)})"


if __name__ == "__main__":
    sys.exit(main())
