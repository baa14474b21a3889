"""Sections of docs/results.md on speed, from what throughput.py and on_policy_speed.py here have measured."""

from collections.abc import Iterable
from typing import Any

COST_COLUMNS = (
    "algorithm",
    "precision",
    "threads",
    "runs",
    "width",
    "environment steps/s",
    "updates/s",
    "loop steps/s",
    "time of a step / SAC's",
    "of the limit",
    "peak GiB",
)
ON_POLICY_COLUMNS = (
    "algorithm",
    "environment",
    "threads of simulators",
    "rollout",
    "minibatch",
    "epochs",
    "steps/s",
    "steps / processor s",
    "environments alone",
    "peak GiB",
    "beside it",
    "its steps/s",
    "its steps / processor s",
    "ratio by time",
    "ratio by processor time",
)


def costs(report: dict[str, Any]) -> str:
    """What scripts/throughput.py measured, each row beside SAC of the same size in the same precision."""

    def size(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[key] for key in ("precision", "threads", "runs", "hidden_size"))

    sac = {size(row): row["loop"] for row in report["rows"] if row["algorithm"] == "SAC"}
    memory = {row["algorithm"]: row["peak_gib"] for row in report["peak_memory"]}
    rows = [
        [
            row["algorithm"],
            *map(str, size(row)),
            *(f"{row[key]:.0f}" for key in ("environment", "updates", "loop")),
            f"{sac[size(row)] / row['loop']:.2f}" if size(row) in sac else "-",
            f"{row['of_limit']:.0%}",
            f"{memory[row['algorithm']]:.2f}",
        ]
        for row in report["rows"]
    ]
    parts = [
        f"## Speed: {', '.join(dict.fromkeys(row['algorithm'] for row in report['rows']))}",
        f"    {report['command']}",
        markdown_table(COST_COLUMNS, rows),
        f"- {report['processor']}. Medians of blocks that take turns, per run. *updates*: the learner's alone; *loop*: "
        "all that a step takes. *of the limit*: an update beside its matrix products alone. *peak GiB*: on its device, "
        f"a run with {report['peak_memory'][0]['rows']:,} replay rows, of the first row of the algorithm.",
    ]
    return "\n\n".join(parts) + "\n"


def on_policy_speed(report: dict[str, Any]) -> str:
    """What scripts/on_policy_speed.py measured, each row beside the library that did the same work."""
    rows, software = [], {}
    for row in report["rows"]:
        sizes = (str(row[key]) for key in ("env_threads", "rollout", "minibatch", "epochs"))
        rates = (f"{row[key]:.0f}" for key in ("rate", "processor_rate"))
        theirs = ["-"] * 5
        if peer := row.get("peer"):
            theirs = [peer["name"], *(f"{peer[key]:.0f}" for key in ("rate", "processor_rate"))]
            theirs += [f"{peer[key]:.2f}" for key in ("ratio", "processor_ratio")]
            software[peer["name"]] = peer["versions"]
        own = [*sizes, *rates, f"{row['environments_rate']:.0f}", f"{row['peak_gib']:.2f}"]
        rows.append([row["algorithm"], row["environment"], *own, *theirs])
    busy = [part["busy"] for row in report["rows"] for part in (row, row.get("peer", row))]
    notes = [
        f"- {report['processor']}, one thread of PyTorch, {report['rows'][0]['envs']} environments, no evaluations. "
        "Medians of blocks that take turns; ratios are medians over blocks. Every process had at least "
        f"{min(busy):.0%} of a processor: the lower, the less *steps/s* and *ratio by time* say; rates by processor "
        "time are those to compare. Both sides of a row take the same number of steps in the environment, of the "
        "policy and of the discriminator for each rollout. *environments alone*: the same ones, per second of "
        "processor time, stepped by random actions and with nothing to learn."
    ]
    for name, versions in {"Ours": report["versions"], **software}.items():
        notes.append(f"- {name} ran with {', '.join(f'{package} {version}' for package, version in versions.items())}.")
    table = markdown_table(ON_POLICY_COLUMNS, rows)
    return "\n\n".join(["## Speed on-policy", f"    {report['command']}", table, "\n".join(notes)]) + "\n"


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
