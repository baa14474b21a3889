"""Keep the small raw files of finished runs in docs/results, so that claims can be checked against them.

    python scripts/keep_results.py gail_hopper outputs/GAIL_hopper/<run> [<run> ...] --note "demonstrations: ..."

Copied to docs/results/<experiment>/<algorithm>_<environment>_<seeds>/: evaluations.csv, result.json, status.json,
overrides.yaml and config.yaml, without what names the machine: host, process, and folders in front of files.
Then `python scripts/make_results.py` writes the tables.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omegaconf import OmegaConf

from conf.errors import UserError
from scripts.command_line import Parser, exit_status
from scripts.kept_runs import evaluations_of, read_config, read_json, read_overrides, read_result, seeds_of
from scripts.provenance import without_paths
from training.folder import ROOT, new_folder, write_atomically

RESULTS = ROOT / "docs" / "results"
OF_THE_MACHINE = ("host", "process", "process_start")  # in status.json


@dataclass(frozen=True)
class Selection:
    """What is kept of one run: the text of each file, by name."""

    source: Path
    run_id: str
    files: dict[str, str]


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("experiment", help="folder in docs/results, a section of docs/results.md: letters, digits, _")
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, as in outputs/GAIL_hopper/<run>")
    parser.add_argument("--note", help="kept as note.txt with each run: say where demonstrations come from, and such")
    parser.add_argument("--unfinished", action="store_true", help="also keep runs that failed or were interrupted")
    parser.add_argument("--results", type=Path, default=RESULTS, help="instead of docs/results")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 kept, 2 refused with one line that says why; then nothing has been written."""
    return exit_status(lambda: keep(parser().parse_args(arguments)))


def keep(options: argparse.Namespace) -> None:
    """Read and check all runs, then write.

    Raises:
        UserError: the experiment's name or a run cannot be used, or a run has been kept before.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", options.experiment):
        raise UserError(f"experiment {options.experiment!r}: expected a name of letters, digits, _ and -")
    experiment: Path = options.results / options.experiment
    kept = {path.read_text(): path.parent.name for path in sorted(experiment.glob("*/evaluations.csv"))}
    selections = []
    for folder in options.runs:
        selection = select(folder, options.unfinished)
        table = selection.files["evaluations.csv"]
        if table in kept:
            raise UserError(f"{folder} has been kept before, as {kept[table]}")
        kept[table] = selection.run_id
        selections.append(selection)
    for selection in selections:
        notes = {"note.txt": options.note.strip() + "\n"} if options.note else {}
        target = written(experiment, selection.run_id, selection.files | notes)
        print(f"{selection.source} is kept in {target}")


def written(experiment: Path, run_id: str, files: dict[str, str]) -> Path:
    """A new folder of the experiment, which has all of these files from the beginning."""
    # Beside the experiment, as all folders in it are runs. What a killed program left there is of no use.
    temporary = experiment.with_name(f".{experiment.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, text in files.items():
            write_atomically(temporary / name, text)
        return temporary.rename(new_folder(experiment, run_id))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def select(folder: Path, unfinished: bool) -> Selection:
    """What is to be kept of a run.

    Raises:
        UserError: it is no run, it has not finished, or a file is missing or damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: expected that of a run, as in outputs/GAIL_hopper/<run>")
    status = read_json(folder / "status.json")
    state = status.get("state")
    if state != "finished" and not unfinished:
        raise UserError(f"{folder} has not finished, it is {state}; --unfinished keeps it all the same")
    config = without_machine(read_config(folder / ".hydra" / "config.yaml"))
    overrides = [shown for item in read_overrides(folder / ".hydra" / "overrides.yaml") if (shown := override(item))]
    seeds = seeds_of(config)
    evaluations_of(folder / "evaluations.csv", seeds)
    kept_status = {name: _without_paths(value) for name, value in status.items() if name not in OF_THE_MACHINE}
    files = {
        "evaluations.csv": (folder / "evaluations.csv").read_text(),
        "status.json": json.dumps(kept_status, indent=2) + "\n",
        "config.yaml": OmegaConf.to_yaml(OmegaConf.create(config)),
        "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create(overrides)),
    }
    if state == "finished" or (folder / "result.json").exists():
        read_result(folder / "result.json")
        files["result.json"] = (folder / "result.json").read_text()
    numbers = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}"
    environment = re.sub(r"[^\w-]", "-", config["env"]["name"])
    return Selection(folder, f"{config['algorithm']}_{environment}_{numbers}", files)


def without_machine(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings without the folders of the machine; demonstrations go by the name of their file."""
    demonstrations = config["env"].get("demonstrations")
    cleaned: dict[str, Any] = _without_paths(config)
    cleaned |= {"output_folder": "outputs", "resume": None}
    cleaned["env"]["demonstrations"] = Path(str(demonstrations)).name if demonstrations else None
    return cleaned


def override(item: str) -> str | None:
    """The same for a single `key=value`; None for `resume`, which means something on the machine only."""
    key, _, value = item.partition("=")
    name = key.lstrip("+")
    if name == "env.demonstrations":
        file = Path(value.strip("\"'")).name
        return f"{key}={file}"
    if name == "output_folder":
        return f"{key}=outputs"
    return None if name == "resume" else without_paths(item)


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    return without_paths(value) if isinstance(value, str) else value


if __name__ == "__main__":
    sys.exit(main())
