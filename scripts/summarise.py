"""Tables of any runs: a tidy CSV with a row for each seed, Markdown with robust statistics, and one page with pictures.

    python scripts/summarise.py outputs/GAIL_hopper_sweep/<time> outputs/BC_hopper_sweep/<time> --output report

writes report.csv, report.md and report.html, which needs no network. Seeds that did not finish are rows, too, and count
in no statistic. The same runs make the same files.
"""

import argparse
import csv
import io
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from scripts.command_line import Parser, exit_status
from scripts.report_page import page
from scripts.report_tables import Group, Report, Table, make_report, notes, tables
from training.folder import write_atomically
from training.sweeps.results import MEASURES, SeedResult, expert_return, find_runs, missing_jobs, read_run

COLUMNS = (
    "algo", "env", "seed", "trajectories", "state", "measure", "score", "expert_score", "return", "expert_return",
    "steps", "left_out", "group", "run",
)  # fmt: skip
MEANING = {
    "final": "the last evaluation",
    "best": "the best evaluation of its last phase, hence optimistic",
    "mean": "the mean of all evaluations of its last phase",
}
BEGINNINGS = {".csv": "algo,env,seed,", ".md": "# Report\n", ".html": "<!doctype html>\n<!-- Report"}


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="runs, sweeps, or folders of such")
    parser.add_argument("--output", type=Path, default=Path("report"), help="name of the files, without ending")
    parser.add_argument(
        "--measure",
        choices=MEASURES,
        default="final",
        help="of each seed: its last evaluation (default), or the best or the mean of those of its last phase",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 refused with one line that says why."""

    def work() -> None:
        options = parser().parse_args(arguments)
        print(summarise(options.folders, options.output, options.measure))

    return exit_status(work)


def summarise(folders: Sequence[Path], output: Path, measure: str) -> str:
    """Write `<output>.csv`, `<output>.md` and `<output>.html`; returns the Markdown.

    Raises:
        UserError: there is no run, or nothing can be written there; then no file has been touched.
    """
    runs = find_runs(folders)
    if output.is_dir() or output.name in ("", ".."):
        raise UserError(f"--output {output} is a folder: expected the name of the files, without ending")
    paths = {ending: output.with_name(named(output) + ending) for ending in BEGINNINGS}
    check_writable(paths)
    found = {run: read_run(run) for run in runs}
    report = make_report(
        [result for results in found.values() for result in results],
        measure,
        damaged=[run for run, results in found.items() if not results],
        missing=missing_jobs(folders),
        beside=output.resolve().parent,
    )
    introduction = f"Scores: 0 is a random policy, 1 the expert. Of each seed: {MEANING[measure]}."
    warnings, shown = notes(report), tables(report)
    rows = seed_rows(report)
    content = {
        ".csv": as_csv(rows),
        ".md": markdown(introduction, warnings, shown),
        ".html": page(report, introduction, warnings, shown, as_table(rows)),
    }
    try:
        for ending, path in paths.items():
            write_atomically(path, content[ending])
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return content[".md"]


def named(output: Path) -> str:
    return output.stem if output.suffix in BEGINNINGS else output.name


def check_writable(paths: dict[str, Path]) -> None:
    """Make their folder. Raises UserError where that cannot be written, or one of the files is not a report."""
    for ending, path in paths.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beginning = path.read_text()[: len(BEGINNINGS[ending])] if path.exists() else BEGINNINGS[ending]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot write {path}: {error}") from error
        if not os.access(path.parent, os.W_OK):
            raise UserError(f"cannot write {path}: its folder is read-only")
        if beginning != BEGINNINGS[ending]:
            raise UserError(f"{path} is not a report, and is left as it is: expected another --output")


def seed_rows(report: Report) -> list[dict[str, str]]:
    """Every seed of every run that was found; cells are empty where nothing is known."""
    rows = [
        seed_row(group, result, reason, report)
        for group in report.groups
        for result, reason in zip(group.results, group.left_out, strict=True)
    ]
    for path, reason in report.unread:
        rows.append({"state": "unknown", "left_out": reason, "run": path})
    return [{column: row.get(column, "") for column in COLUMNS} for row in rows]


def seed_row(group: Group, result: SeedResult, reason: str, report: Report) -> dict[str, str]:
    expert = expert_return(str(result.config["env"]["id"]))
    row = {
        "algo": result.algorithm,
        "env": result.environment,
        "seed": str(result.seed),
        "trajectories": str(result.trajectories),
        "state": result.state,
        "measure": report.measure,
        "expert_score": "1" if math.isfinite(expert) else "",
        "expert_return": exact(expert),
        "left_out": reason,
        "group": group.name,
        "run": report.shown(result.folder),
    }
    if result.finished:
        row["score"] = exact(result.measured(report.measure))
        row["return"] = exact(result.measured_return(report.measure))
        row["steps"] = str(result.steps)
    return row


def exact(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def as_csv(rows: Sequence[dict[str, str]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_table(rows: Sequence[dict[str, str]]) -> Table:
    cells = [tuple(row[column] or "-" for column in COLUMNS) for row in rows]
    return Table("Every seed", "What is in the CSV file.", COLUMNS, cells)


def markdown(introduction: str, warnings: Sequence[str], shown: Sequence[Table]) -> str:
    parts = ["# Report", introduction]
    if warnings:
        parts.append("\n".join(f"- {in_markdown(warning)}" for warning in warnings))
    for table in shown:
        lines = [f"| {' | '.join(map(in_markdown, cells))} |" for cells in (table.columns, *table.rows)]
        lines.insert(1, f"|{'---|' * len(table.columns)}")
        parts += [f"## {table.title}", table.note, "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def in_markdown(text: str) -> str:
    """Text of others as it stands: no columns, no HTML, no new lines."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


if __name__ == "__main__":
    sys.exit(main())
