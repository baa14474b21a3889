"""One HTML page of a report, with everything inside: it opens without network, and without JavaScript, too."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from scripts.report_pictures import (
    MOST_CURVES,
    MOST_POINTS,
    Line,
    Picture,
    learning_curves,
    performance_profiles,
    sample_efficiency,
)
from scripts.report_tables import Report, Table
from training.sweeps.results import leaves, shared

STYLE = Path(__file__).with_suffix(".css").read_text()
SCRIPT = Path(__file__).with_suffix(".js").read_text()
NUMBER = re.compile(r"(-|-?[\d.]+(e[-+]?\d+)?)( .*)?")  # what follows a space is an explanation
# Titles of the pictures, what they show, and what draws them.
PICTURES = (
    (
        "Learning curves",
        "The interquartile mean over seeds at the evaluations of the last phase that all seeds have. Bands, here and "
        f"below: 95% stratified bootstrap intervals. A picture has at most {MOST_CURVES} curves, those of the highest "
        f"interquartile means in the tables, and a curve at most {MOST_POINTS} points.",
        learning_curves,
    ),
    ("Performance profiles", "The share of runs above a score, the mean over environments.", performance_profiles),
    (
        "Sample efficiency over environments",
        "The interquartile mean over the seeds of all environments, at the evaluations that all of them have.",
        sample_efficiency,
    ),
)


def page(report: Report, introduction: str, warnings: Sequence[str], shown: Sequence[Table], seeds: Table) -> str:
    """`shown`: the tables of statistics; `seeds`: that of single seeds."""
    sections = [_section(table.title, table.note, table_as_html(table)) for table in shown]
    for title, note, draw in PICTURES:
        if pictures := draw(report):
            sections.append(_section(title, note, f'<div class="pictures">{"".join(map(figure, pictures))}</div>'))
    told = (
        "What each group was told where groups differ, what its runs were told of their own, and last what all share."
    )
    sections.append(_section("Configurations", told, configurations(report)))
    sections.append(_section(seeds.title, seeds.note, table_as_html(seeds)))
    noted = f"<ul>{''.join(f'<li>{escape(warning)}</li>' for warning in warnings)}</ul>" if warnings else ""
    # The page may load nothing and run nothing but its own script, whatever is in the files that it was made from.
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!doctype html>
<!-- Report: scripts/summarise.py -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Report</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>Report</h1>
<p>{escape(introduction)}</p>
{noted}
{"".join(sections)}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _section(title: str, note: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(note)}</p>{content}</section>\n"


def table_as_html(table: Table) -> str:
    """Columns of numbers are marked, for the script that sorts them and for the eye."""
    columns = list(zip(*table.rows, strict=True))
    marks = [' class="number"' if all(map(NUMBER.fullmatch, cells)) else "" for cells in columns]
    head = "".join(
        f'<th scope="col"{mark}>{escape(name)}</th>' for name, mark in zip(table.columns, marks, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(f'<td{mark}>{escape(cell)}</td>' for cell, mark in zip(row, marks, strict=True))}</tr>\n"
        for row in table.rows
    )
    region = f'<div class="scroll" role="region" aria-label="{escape(table.title)}" tabindex="0">'
    return f"{region}<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"


def figure(picture: Picture) -> str:
    title = escape(picture.title)
    names = "".join(f"<li>{_swatch(line)}{escape(line.name)}</li>" for line in picture.lines)
    more = f"<p>{picture.left_out} more curves are left out.</p>" if picture.left_out else ""
    svg = picture.svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return f"<figure><figcaption>{title}</figcaption>{svg}<ul>{names}</ul>{more}</figure>\n"


def _swatch(line: Line) -> str:
    drawn = f'stroke="var(--curve-{line.colour})" stroke-width="2" stroke-dasharray="{line.dashes}"'
    return f'<svg class="swatch" aria-hidden="true"><line x1="0" x2="32" y1="5" y2="5" {drawn}/></svg>'


def configurations(report: Report) -> str:
    """What each run was told: where groups differ, what single runs have of their own, and once what all share."""
    told = [{report.shown(one.folder): leaves(one.config) for one in group.results} for group in report.groups]
    if not told:
        return ""
    everywhere = shared([settings for runs in told for settings in runs.values()])
    parts = []
    for group, runs in zip(report.groups, told, strict=True):
        common = shared(list(runs.values()))
        different = {key: value for key, value in common.items() if key not in everywhere}
        own = (
            f"{folder}: {' '.join(_typed({k: v for k, v in settings.items() if k not in common}))}"
            for folder, settings in runs.items()
        )
        parts.append(_details(group.name, [*_typed(different), "", *own]))
    return "".join([*parts, _details(f"The same in all runs: {len(everywhere)} settings", _typed(everywhere))])


def _details(summary: str, lines: Sequence[str]) -> str:
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(chr(10).join(lines).strip())}</pre></details>\n"


def _typed(settings: dict[str, Any]) -> list[str]:
    """As on the command line."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}"
        for key, value in settings.items()
    ]
