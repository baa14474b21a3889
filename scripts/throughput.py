"""Measure how fast runs are on this machine, at the published sizes unless key=value says otherwise.

    python scripts/throughput.py --demonstrations hopper.hdf5 --runs 1 5 --hidden-sizes 256 64
    python scripts/throughput.py --algorithms SAC --vs stable-baselines3

Figures are per run, medians of a few short blocks; the blocks of all rows take turns. `busy` is processor time over
wall time in the whole loop. Well below the number of threads, other programs share the machine, and ratios between
rows hold better than the figures themselves. `of limit`: how near an update comes to its matrix products alone, at
the speed that products of a hidden layer's shapes reach in the same row (GFLOP/s).
"""

import argparse
import contextlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from scripts.command_line import Parser, check_output, exit_status, positive
from scripts.peers import REQUIREMENTS, Peer, install
from scripts.provenance import processor, versions, without_paths
from scripts.timing import CHOSEN, Cell, Setting, Timed, Timing, configuration, measure, peak_memory, ratio, typical
from training.config import Config
from training.folder import write_json
from training.precision import fastest_precision

HEADER = "algorithm precision threads runs width  env steps/s  updates/s  GFLOP/s  of limit  loop steps/s  busy"
ROW = (
    "{algorithm:<9} {precision:<9} {threads:>7} {runs:>4} {hidden_size:>5}  {environment:>11.0f}  {updates:>9.1f}  "
    "{products:>7.1f}  {of_limit:>8.0%}  {loop:>12.1f}  {busy:>4.2f}"
)


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--algorithms", nargs="+", default=["SAC", "GAIL"], metavar="NAME", help="(default: SAC GAIL)")
    fast = list(dict.fromkeys(["fp32", fastest_precision(torch.device("cpu"))]))  # the other one is emulated
    add("--precision", nargs="+", default=fast, choices=["fp32", "bf16"], help=f"(default: {' '.join(fast)})")
    add("--threads", nargs="+", type=positive, default=[1], metavar="N", help="of PyTorch (default: 1)")
    add("--runs", nargs="+", type=positive, default=[1], metavar="N", help="seeds side by side (default: 1)")
    add("--hidden-sizes", nargs="+", type=positive, default=[256], metavar="N", help="actor, critic (default: 256)")
    add("--steps", type=positive, default=500, help="per row and figure (default: %(default)s)")
    add("--blocks", type=positive, default=5, help="that these steps are cut into (default: %(default)s)")
    add("--demonstrations", type=Path, help="D4RL HDF5 file (default: the bundled set)")
    add("--vs", choices=["stable-baselines3"], help="also time another library's SAC, in an environment of its own")
    add("--json", type=Path, help="file to write all figures to")
    add("overrides", nargs="*", metavar="key=value", help="of the configuration, as for train.py")
    return parser


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Overrides may stand anywhere, also behind an option that takes several values."""
    files = {"--demonstrations", "--json"}
    before = ["", *arguments[:-1]]
    is_override = [
        bool(re.match(r"[+~]*[a-z_.]+=", argument)) and previous not in files
        for previous, argument in zip(before, arguments, strict=bool(arguments))
    ]
    options = parser().parse_args(list(itertools.compress(arguments, (not answer for answer in is_override))))
    if options.overrides:
        raise UserError(f"{options.overrides[0]}: expected key=value, or an option of --help")
    options.overrides = list(itertools.compress(arguments, is_override))
    options.command = without_paths(shlex.join(["python", "scripts/throughput.py", *arguments]))
    for override in options.overrides:
        if (key := override.split("=")[0].lstrip("+~")) in (*CHOSEN, "reinforcement.critic.hidden_size"):
            option = "hidden-sizes" if "hidden_size" in key else f"{key}s" if key == "algorithm" else key
            raise UserError(f"{override}: use --{option} {override.split('=', 1)[1]}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 2 refused with one line that says why."""
    return exit_status(lambda: throughput(parse_arguments(sys.argv[1:] if arguments is None else arguments)))


def throughput(options: argparse.Namespace) -> None:
    """Build, measure, print.

    Raises:
        UserError: something cannot be built or installed.
    """
    lists = (options.algorithms, options.precision, options.threads, options.runs, options.hidden_sizes)
    settings = [Setting(*values) for values in itertools.product(*map(dict.fromkeys, lists))]
    configurations = {s: configuration(s, options.overrides, options.demonstrations) for s in settings}
    if options.json:
        check_output("--json", options.json)
    cells = [Cell(setting, config) for setting, config in configurations.items()]
    with peers(options.vs, cells) as others:
        timed: list[Timed] = [*cells, *others.values()]
        results = measure(timed, options.steps, options.blocks)
    timings = dict(zip(settings, results, strict=False))
    rows = [row(cell, timings[cell.setting]) for cell in cells]
    print("\n".join([HEADER, *(ROW.format(**values) for values in rows)]))
    models = processor(config.device for config in configurations.values())
    report: dict[str, Any] = {"command": options.command, "processor": models, "versions": versions()}
    report |= {"steps": options.steps, "rows": rows}
    report["side_by_side"] = side_by_side(timings)
    report["peers"] = compared(options.vs, timings, dict(zip(others, results[len(cells) :], strict=True)))
    report["peak_memory"] = memory(configurations)
    if options.json:
        write_json(options.json, report)


@contextlib.contextmanager
def peers(name: str | None, cells: list[Cell]) -> Iterator[dict[tuple[int, int], Peer]]:
    """One for each number of threads and width of SAC alone, by these two."""
    partners = {comparable(cell.setting): cell for cell in cells if comparable(cell.setting)}
    if name and not partners:
        raise UserError(f"--vs {name} needs a row to compare it with: --algorithms SAC --runs 1")
    if name and any(cell.config.device != "cpu" for cell in partners.values()):
        raise UserError(f"--vs {name} is timed on the CPU: expected device=cpu")
    with contextlib.ExitStack() as stack:
        started: dict[tuple[int, int], Peer] = {}
        python = install(name) if name else None
        for key, cell in partners.items():
            if name and python and key:
                started[key] = Peer(name, python, sac_settings(cell.config), ("updates", "loop"))
                stack.callback(started[key].close)
        yield started


def sac_settings(config: Config) -> dict[str, Any]:
    """What another library needs to know to make the same SAC."""
    return {
        "algorithm": "SAC",
        "environment_id": config.env.id,
        "threads": config.threads,
        "hidden_sizes": [config.reinforcement.actor.hidden_size] * config.reinforcement.actor.depth,
        "batch_size": config.training.batch_size,
        "interval": config.training.interval,
        "memory_size": config.memory.size,
        "learning_rate": config.training.learning_rate,
    }


def comparable(setting: Setting) -> tuple[int, int] | None:
    return (setting.threads, setting.hidden_size) if (setting.algorithm, setting.runs) == ("SAC", 1) else None


def row(cell: Cell, timings: dict[str, list[Timing]]) -> dict[str, Any]:
    figures = {kind: typical(blocks) for kind, blocks in timings.items()}
    of_limit = ratio(timings["updates"], timings["products"], cell.flops / 1e9)
    busy = sorted(timing.busy for timing in timings["loop"])[len(timings["loop"]) // 2]
    gflop = cell.flops / 1e9
    return {**asdict(cell.setting), **figures, "of_limit": of_limit, "busy": busy, "gflop_per_update": gflop}


def side_by_side(timings: dict[Setting, dict[str, list[Timing]]]) -> list[dict[str, Any]]:
    """What several runs in one program gain over the same runs one after the other."""
    gains = []
    for setting, several in timings.items():
        one = timings.get(Setting(**{**asdict(setting), "runs": 1}))
        if setting.runs > 1 and one:
            gain = ratio(several["loop"], one["loop"], setting.runs)
            gains.append({**asdict(setting), "gain": gain})
            print(
                f"{setting.algorithm}, {setting.precision}, {setting.threads} threads, width {setting.hidden_size}: "
                f"{setting.runs} runs side by side take {gain:.2f} times the steps of {setting.runs} one after another"
            )
    return gains


def compared(
    name: str | None, timings: dict[Setting, dict[str, list[Timing]]], others: dict[Any, dict[str, list[Timing]]]
) -> list[dict[str, Any]]:
    """Ours over theirs."""
    comparisons = []
    for setting, ours in timings.items():
        if (theirs := others.get(comparable(setting))) is None:
            continue
        figures = {kind: typical(blocks) for kind, blocks in theirs.items()}
        ratios = {f"{kind}_ratio": ratio(ours[kind], blocks) for kind, blocks in theirs.items()}
        comparisons.append({"peer": name, **asdict(setting), **figures, **ratios})
        print(
            f"{REQUIREMENTS[str(name)]}, SAC, fp32, {setting.threads} threads, width {setting.hidden_size}: "
            f"{figures['updates']:.1f} updates/s, {figures['loop']:.1f} loop steps/s; ours in {setting.precision}: "
            f"{ratios['updates_ratio']:.2f} and {ratios['loop_ratio']:.2f} times that"
        )
    return comparisons


def memory(configurations: dict[Setting, Any]) -> list[dict[str, Any]]:
    """Peak memory, on the device, of the first setting of each algorithm, in a process of its own."""
    peaks: dict[str, dict[str, Any]] = {}
    for setting, config in configurations.items():
        if setting.algorithm not in peaks:
            gib, rows = peak_memory(config)
            peaks[setting.algorithm] = {**asdict(setting), "peak_gib": gib, "rows": rows}
            print(f"peak memory of {setting.algorithm} with {rows} rows in each of {setting.runs}: {gib:.2f} GiB")
    return list(peaks.values())


if __name__ == "__main__":
    sys.exit(main())
