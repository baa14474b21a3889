"""The pages: their commands are understood, their keys and values exist, their links lead somewhere."""

import importlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import Field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from conf.fields import problem, unwrapped
from scripts.run_benchmark import parser as benchmark_parser
from scripts.run_benchmark import run_benchmark
from tests.training.helpers import composed, configured
from training import cli
from training.config import GROUPS, known_keys
from training.explain import choices, parse_overrides
from training.sweeps.command import checked, train_everywhere, train_sweep
from training.sweeps.options import is_sweep_key

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "algorithms").glob("*.md")])
SECTIONS = {key.split(".")[0] for key in known_keys() if "." in key}
INVENTED = "Nearest"  # the algorithm that docs/adding_an_algorithm.md makes, with a key of its own
# That, a file, and keys of the systems that users come from: they begin like keys of ours.
FOREIGN = re.compile(
    r"imitation\.(scale|discriminator|scripts|state-only)\b|checkpoint\.pt|logging\.(wandb_logging|interval=0)"
)


def text_of(page: Path) -> str:
    """Lines that are continued are joined."""
    return re.sub(r"\\\n\s*", " ", page.read_text())


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands() -> list[tuple[str, str]]:
    """What pages run, each once, and a page that does. A program without arguments is a mention of it, no command."""
    pattern = r"python ((?:train|train_all|scripts/\w+)\.py [^\n`#]+)"
    found = {command.strip(): name_of(page) for page in PAGES for command in re.findall(pattern, text_of(page))}
    return [(page, command) for command, page in found.items() if "..." not in command and INVENTED not in command]


def words(command: str) -> list[str]:
    """With something in place of <placeholders> and [--options]."""
    return shlex.split(re.sub(r"\[(--[\w-]+)\]", r"\1", re.sub(r"<[\w ]+>", "something", command)))


class AcceptedError(Exception):
    """All that was typed is right: now a sweep would make its folder."""


def accept(*_: object) -> None:
    raise AcceptedError


def test_there_are_commands_and_tables() -> None:
    assert len(commands()) > 80
    assert len(defaults()) > 40


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_are_understood(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = words(command)
    assert (ROOT / program).is_file()
    bare = re.sub(r"'[^']*'|\"[^\"]*\"|<[\w ]+>", "", command)
    assert not re.search(r"[();&|<>]", bare), "a shell would not take it"
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    monkeypatch.setattr(cli, "saved_overrides", lambda folder: ["algorithm=GAIL"])  # of the run that is resumed
    monkeypatch.setattr("training.sweeps.optimise.require_ax", lambda: None)
    for sweep in ("grid", "joint", "optimise"):
        monkeypatch.setattr(f"training.sweeps.{sweep}.sweep_folder", accept)
    monkeypatch.setattr("scripts.run_benchmark.new_folder", accept)
    if "--help" in arguments:
        return
    if any(argument.startswith("resume_sweep=") for argument in arguments):
        checked(parse_overrides(arguments))
    elif program == "scripts/run_benchmark.py":
        with pytest.raises(AcceptedError):
            run_benchmark(benchmark_parser().parse_intermixed_args(arguments).overrides, dry_run=False)
    elif program.startswith("scripts/"):
        module = importlib.import_module(program.removesuffix(".py").replace("/", "."))
        parse = getattr(module, "parse_arguments", None) or module.parser().parse_args
        parse(arguments)
    elif program == "train_all.py":
        with pytest.raises(AcceptedError):
            train_everywhere(arguments)
    elif cli.prepare_arguments():
        with pytest.raises(AcceptedError):
            train_sweep(arguments)
    else:
        configured(*cli.options_parser().parse_intermixed_args(sys.argv[1:]).overrides)


def expanded(text: str) -> list[str]:
    """`a.{b,c}` is short for a.b and a.c."""
    parts = [part.split(",") if number % 2 else [part] for number, part in enumerate(re.split(r"[{}]", text))]
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def mentions(page: Path) -> Iterator[tuple[str, str]]:
    """Keys of ours that a page has between backticks, and their values, where it gives them."""
    for span in re.findall(r"`([^`\n]+)`", text_of(page)):
        for word in itertools.chain.from_iterable(map(expanded, span.split())):
            key, equals, value = word.partition("=")
            dotted = key.split(".")[0] in SECTIONS and "." in key
            named = key in GROUPS or is_sweep_key(key) or (equals and key in known_keys())
            if (dotted or named) and re.fullmatch(r"[\w.*-]+", key) and not FOREIGN.match(word):
                yield key.removesuffix(".*"), value


def exists(key: str) -> bool:
    """As a key, as a section of keys, or as a module of Python."""
    keys = {*known_keys(), *GROUPS}
    if key in keys or is_sweep_key(key) or any(known.startswith(f"{key}.") for known in keys):
        return True
    return any((ROOT / "/".join(key.split(".")[:n])).with_suffix(".py").is_file() for n in range(2, 5))


def allowed(key: str, value: str) -> bool:
    """Whether a run takes it. Placeholders and what Hydra searches are not looked at."""
    if key in GROUPS:
        names = re.sub(r"<[\w ]+>|\.\.\.", "*", value).split(",")
        return all(name == INVENTED or any(fnmatchcase(known, name) for known in choices(key)) for name in names)
    field = known_keys().get(key)
    kind = unwrapped(field.type)[0] if field else str
    literals = re.findall(r"(?<![^,])(?:-?[\d.]+(?:e-?\d+)?|\w\w+)(?![^,])", value)
    return field is None or all(taken(field, kind, literal) for literal in literals)


def taken(field: Field[Any], kind: type, literal: str) -> bool:
    value = yaml.safe_load(literal)
    if kind is float and not isinstance(value, bool):
        value = float(value)  # YAML takes 1e-3 for a text
    typed = kind not in (bool, int, float) or type(value) is kind or value is None
    return typed and problem(field, value) is None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_keys_and_values_exist(page: Path) -> None:
    assert [key for key, _ in mentions(page) if not exists(key)] == []
    assert [(key, value) for key, value in mentions(page) if value and not allowed(key, value)] == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(((?!https?:)[^)#\s]*)(#([^)\s]+))?\)", page.read_text()):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def defaults() -> list[tuple[str, str, str, str]]:
    """Rows of the tables "library | its default | here | default with `...`": page, overrides, keys, value."""
    rows = []
    for page in sorted((ROOT / "docs").glob("coming_from_*.md")):
        overrides = None
        for line in page.read_text().splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not cells:
                overrides = None
            elif match := re.fullmatch(r"default with `(.+)`", cells[-1]):
                overrides = match[1]
            elif overrides and (key := re.fullmatch(r"`([^`]+)`", cells[-2])):
                rows.append((name_of(page), overrides, key[1], cells[-1]))
    return rows


@cache
def composed_once(overrides: str) -> DictConfig:
    return composed(*overrides.split())


@pytest.mark.parametrize(("page", "overrides", "keys", "values"), defaults())
def test_defaults_in_tables(page: str, overrides: str, keys: str, values: str) -> None:
    """`a.{b,c}` with "1, 2": the first value is that of the first key."""
    config = composed_once(overrides)
    said = [yaml.safe_load(value) for value in values.split(", ")]
    found = [OmegaConf.select(config, key) for key in expanded(keys)]
    assert [float(v) if isinstance(f, float) else v for v, f in zip(said, found, strict=True)] == found


def test_bugs_of_the_references_are_listed_as_tests_name_them() -> None:
    listed = re.findall(r"^\| ([KH]\d+) \|", (ROOT / "docs" / "reference_bugs.md").read_text(), re.MULTILINE)
    comments = [c for path in (ROOT / "tests").rglob("test_*.py") for c in re.findall("#.*", path.read_text())]
    assert sorted(listed) == sorted(set(re.findall(r"\b[KH]\d+\b", "\n".join(comments))))
