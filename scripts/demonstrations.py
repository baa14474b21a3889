"""Demonstrations: list, record, import, export, inspect, verify and convert them.

    python scripts/demonstrations.py list
    python scripts/demonstrations.py record outputs/SAC_hopper/<run> --output hopper.hdf5 --episodes 25
    python scripts/demonstrations.py import theirs.npz mine.hdf5 --env hopper
    python scripts/demonstrations.py export mine.hdf5 folder --format imitation
    python scripts/demonstrations.py inspect mine.hdf5 --picture mine.png
    python scripts/demonstrations.py verify mine.hdf5
    python scripts/demonstrations.py convert ant_111.hdf5 ant.hdf5 --to ant

A source is a file or folder of any of the formats, the id of a Minari dataset, hf://<owner>/<name>, or a URL. Nothing
in it is ever executed. Exit status: 0, or 2 with one line that says what is wrong, and nothing written.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from environments.formats import FORMATS, for_output, named, read
from environments.formats.base import DemonstrationSet, Format, check_replaceable
from environments.formats.remote import fetched
from environments.trajectories import lengths_of
from scripts import demonstration_inspection, demonstration_recording, demonstration_replay, demonstration_report
from scripts.command_line import Parser, exit_status
from scripts.demonstration_checks import ACTIONS, prepared
from scripts.demonstration_layouts import converted
from scripts.demonstration_recording import PolicySource, datasheet_path
from scripts.provenance import training_command

BUNDLED = Path(__file__).resolve().parents[1] / "environments" / "demonstrations"
LICENCE = "MIT"
LARGEST_SEED = 2**31 - 1  # as of the resets that are made from it: every format and simulator holds so many bits


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    formats = ", ".join(f"{form.name} ({form.description})" for form in FORMATS.values())

    def command(name: str, function: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=about, description=about, epilog=f"formats: {formats}", formatter_class=argparse.HelpFormatter
        )
        added.set_defaults(function=function)
        return added

    added = command("list", list_sets, "what there is, with returns and sizes")
    added.add_argument("folders", nargs="*", type=Path, default=[BUNDLED], help="(default: the bundled sets)")
    added.add_argument("--json", action="store_true", help="for programs")
    _add_record(command("record", record, "roll out a saved policy"))
    for name, function, about in (
        ("import", import_set, "check demonstrations, put right what can be, and write them in a format of ours"),
        ("export", export_set, "write demonstrations in someone else's format"),
        ("convert", convert_set, "change the layout of observations by a known rule"),
    ):
        added = command(name, function, about)
        _add_source(added)
        _add_output(added)
    _add_import(commands.choices["import"])
    commands.choices["convert"].add_argument("--to", required=True, help="environment, by name or Gymnasium id")
    added = command("inspect", inspect_set, "what is in a set, what is wrong with it, and what to do")
    _add_source(added)
    added.add_argument("--env", help="environment to compare with (default: the one that the file names)")
    added.add_argument("--picture", type=Path, help="PNG of returns and of each column's distribution")
    added.add_argument("--json", action="store_true", help="for programs")
    added = command("verify", verify_set, "replay the stored actions in today's simulator")
    _add_source(added)
    added.add_argument("--env", help="environment to replay in (default: the one that the file names)")
    added.add_argument("--episodes", type=int, help="the first so many (default: all)")
    added.add_argument("--json", action="store_true", help="for programs")
    return parser


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", help="file, folder, Minari id, hf://<owner>/<name> or URL")
    command.add_argument("--from-format", choices=FORMATS, help="(default: what it looks like)")
    command.add_argument("--sha256", help="checksum of the source; a URL needs one")


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", type=Path, help="file or folder to write")
    command.add_argument("--format", choices=FORMATS, help="(default: by the ending of the output)")
    command.add_argument("--overwrite", action="store_true", help="replace what is there")


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument("--env", help="environment that they have to fit (default: the one that the file names)")
    command.add_argument("--actions", choices=ACTIONS, default="clip", help="outside the space (default: %(default)s)")
    command.add_argument("--rename", action="store_true", help="take what names another environment for --env")
    command.add_argument("--time-limit", type=int, help="episodes of so many steps were cut off and did not truly end")


def _add_record(command: argparse.ArgumentParser) -> None:
    command.add_argument("policy", type=Path, help="policy.pt, a run's folder, or a zip of Stable-Baselines3")
    command.add_argument("--output", type=Path, required=True, help="to write; the datasheet beside it is <name>.md")
    command.add_argument("--format", choices=FORMATS, help="(default: by the ending of the output)")
    command.add_argument("--overwrite", action="store_true", help="replace what is there")
    command.add_argument("--episodes", type=int, default=25, help="whole episodes (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="where the episodes begin (default: %(default)s)")
    command.add_argument("--run-index", type=int, default=0, help="which of several seeds in the file (default: first)")
    command.add_argument("--env", help="environment (default: the one that the policy names)")
    command.add_argument("--adapt", action="store_true", help="to an --env whose observations hold the policy's")
    command.add_argument("--sampled", action="store_true", help="draw actions instead of taking the most likely")
    command.add_argument("--workers", type=int, help="processes (default: by the number of cores and episodes)")
    command.add_argument("--command", help="command that trained the policy (default: from the run's .hydra folder)")
    command.add_argument("--author", default="not stated", help="who made the demonstrations, for the datasheet")
    command.add_argument("--licence", default=LICENCE, help="of the demonstrations (default: %(default)s)")
    command.add_argument("--minimum-return", type=float, help="write nothing if the mean return is below this")
    command.add_argument("--keep-policy", type=Path, help="file for the policy, in 16 bits, as it then plays")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused with one line that says why, 130 or 143 interrupted."""
    return exit_status(lambda: run(parser().parse_args(arguments)))


def run(options: argparse.Namespace) -> None:
    """Do what a sub-command says."""
    try:
        options.function(options)
    except MemoryError as error:
        raise UserError("not enough memory: d4rl and minari are read and written piece by piece") from error
    except KeyboardInterrupt:
        if options.function is record:
            print("the same command goes on where this one stops", file=sys.stderr)
        raise


def list_sets(options: argparse.Namespace) -> None:
    """A line for each set in the folders; what cannot be read says so."""
    found = []
    for folder in options.folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
        for path in sorted(folder.iterdir()):
            if path.suffix not in (".md", ".png", ".json", ".pt") and not path.name.startswith("."):
                found.append(summary(path))
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'set':<24}{'environment':<24}{'episodes':>9}{'steps':>9}{'return':>22}{'MB':>8}")
    for row in found:
        if "error" in row:
            print(f"{row['set']:<24}{row['error']}")
            continue
        spread = f"{row['return']:.2f} +- {row['return_std']:.2f}" if row["return"] is not None else "unknown"
        sizes = f"{row['episodes']:>9}{row['steps']:>9}{spread:>22}{row['bytes'] / 1e6:>8.1f}"
        print(f"{row['set']:<24}{row['environment'] or 'unknown':<24}{sizes}")


def summary(path: Path) -> dict[str, Any]:
    """What `list` says about one set, which may be that it cannot be read."""
    try:
        return _summary(path)
    except (UserError, OSError) as error:
        return {"set": path.name, "error": " ".join(str(error).split())}


def _summary(path: Path) -> dict[str, Any]:
    content = read(path)
    returns = [value for t in content.trajectories if (value := t.episode_return) is not None]
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {
        "set": path.name,
        "environment": content.environment_id,
        "episodes": len(content.trajectories),
        "steps": content.steps,
        "return": float(np.mean(returns)) if returns else None,
        "return_std": float(np.std(returns)) if returns else None,
        "bytes": sum(file.stat().st_size for file in files),
    }


def record(options: argparse.Namespace) -> None:
    """Roll out, judge, and write, with a datasheet; what an interruption left behind is taken up again.

    Raises:
        UserError: the policy cannot be used, files exist already, or the policy is not good enough.
    """
    output: Path = options.output
    form = for_output(output, options.format)
    if options.episodes < 1 or options.seed < 0 or (options.workers or 1) < 1:
        raise UserError("--episodes, --seed, --workers: expected at least 1, 0 and 1")
    if options.seed > LARGEST_SEED:
        raise UserError(f"--seed {options.seed}: expected 0 to {LARGEST_SEED}")
    kept: Path | None = options.keep_policy
    check_outputs(form, output, options.overwrite, datasheet_path(output), *([kept] if kept else []))
    source = PolicySource(options.policy, options.env, options.run_index, options.sampled, options.adapt)
    if kept and kept.resolve() == source.file.resolve():
        raise UserError(f"--keep-policy {kept} is the policy to record, and would be replaced: choose another name")
    command = options.command or training_command(source.file)
    folder = output.with_name(f".{output.name}.recording")
    player = demonstration_recording.load(source)
    if kept:
        source = replace(source, path=demonstration_recording.halved(source, folder / kept.name))
        player = demonstration_recording.load(source)
    workers = options.workers or demonstration_recording.default_workers(options.episodes)
    trajectories = demonstration_recording.recorded(source, options.episodes, options.seed, workers, folder)
    returns = np.array([trajectory.episode_return for trajectory in trajectories])
    if options.minimum_return is not None and not returns.mean() >= options.minimum_return:
        demonstration_recording.remove(folder)
        limit = f"--minimum-return {options.minimum_return:g}"
        raise UserError(f"mean return {returns.mean():.2f} is below {limit}: nothing written")
    facts = demonstration_recording.provenance(
        source, player, options.seed, returns, command, options.author, options.licence
    )
    content = DemonstrationSet(trajectories, facts)
    say_losses(form.losses(content), form.name)
    form.write(output, content)
    datasheet_path(output).write_text(demonstration_recording.datasheet(output, form.description, content))
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source.file, kept)
    demonstration_recording.remove(folder)
    print(f"{output}: {options.episodes} episodes, return {returns.mean():.2f} +- {returns.std():.2f}")


def check_outputs(form: Format, output: Path, overwrite: bool, *beside: Path) -> None:
    """Before anything is done: where a set is to be written, and the files `beside` it.

    Raises:
        UserError: there is something, and it is not to be replaced, or one of them would replace another.
    """
    for path in (output, *beside):
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists: choose another output, or give --overwrite")
        check_replaceable(path, form.files if path == output else frozenset())
    places = {output.resolve(): "demonstrations"}
    for path, what in zip(beside, ("datasheet", "policy"), strict=False):
        if path.resolve() in places:
            raise UserError(f"{path} would hold the {places[path.resolve()]} and the {what}: choose another name")
        places[path.resolve()] = what


def import_set(options: argparse.Namespace) -> None:
    """Any source, checked and put right, to a file of ours."""
    form = for_output(options.output, options.format)
    check_outputs(form, options.output, options.overwrite)
    with fetched(options.source, options.sha256) as path:
        content = read(path, options.from_format)
        content = prepared(content, options.source, options.env, options.actions, options.time_limit, options.rename)
        written(content, options.output, form.name)


def export_set(options: argparse.Namespace) -> None:
    """Any source, as it is, in another format."""
    form = for_output(options.output, options.format)
    check_outputs(form, options.output, options.overwrite)
    with fetched(options.source, options.sha256) as path:
        written(read(path, options.from_format), options.output, form.name)


def convert_set(options: argparse.Namespace) -> None:
    """Observations in the layout of another environment of the same robot."""
    form = for_output(options.output, options.format)
    sheet = datasheet_path(options.output)
    check_outputs(form, options.output, options.overwrite, sheet)
    with fetched(options.source, options.sha256) as path:
        content = converted(read(path, options.from_format), options.to, options.source)
        written(content, options.output, form.name)
        if "command" in content.attributes:  # a recording of ours
            sheet.write_text(demonstration_recording.datasheet(options.output, form.description, content))


def written(content: DemonstrationSet, output: Path, name: str) -> None:
    """Write a set in the named format, after saying what is lost and what was changed.

    Raises:
        UserError: the format cannot keep it.
    """
    form = named(name)
    lost = form.losses(content)
    for note in content.notes:
        print(f"note: {note}", file=sys.stderr)
    say_losses(lost, name)
    form.write(output, content)
    print(f"{output}: {len(content.trajectories)} episodes, {sum(lengths_of(content.trajectories))} steps ({name})")


def say_losses(lost: list[str], name: str) -> None:
    for line in lost:
        print(f"note: {name} cannot carry {line}", file=sys.stderr)


def inspect_set(options: argparse.Namespace) -> None:
    """Statistics, problems, and a verdict."""
    if options.picture:
        check_picture(options.picture, Path(options.source))
    with fetched(options.source, options.sha256) as path:
        content = read(path, options.from_format)
        report = demonstration_inspection.inspected(content, options.source, options.env, options.picture)
    print(json.dumps(report.as_dict()) if options.json else demonstration_report.described(report))


def check_picture(picture: Path, source: Path) -> None:
    """Before the rows are looked at, which may take minutes.

    Raises:
        UserError: it is no PNG, or would replace the demonstrations or cannot replace a folder.
    """
    if picture.suffix.lower() != ".png":
        raise UserError(f"--picture {picture}: expected an ending of .png")
    if picture.is_dir() or picture.resolve() == source.resolve():
        raise UserError(f"--picture {picture}: a folder or the demonstrations themselves; choose another name")


def verify_set(options: argparse.Namespace) -> None:
    """Drift between the file and today's simulator, and a verdict."""
    if options.episodes is not None and options.episodes < 1:
        raise UserError(f"--episodes {options.episodes}: expected at least 1")
    with fetched(options.source, options.sha256) as path:
        content = read(path, options.from_format)
        result = demonstration_replay.verified(content, options.source, options.env, options.episodes)
    print(json.dumps(result.as_dict()) if options.json else demonstration_replay.described(result))


if __name__ == "__main__":
    sys.exit(main())
