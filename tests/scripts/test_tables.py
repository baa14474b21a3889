"""The measurements in pages: numbers worked out by hand, and whether the committed ones are current."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts import make_tables
from tests.scripts.helpers import assert_refused, full_disk
from tests.scripts.test_results import ROOT, keep, make_run
from training.sweeps.space import Value
from training.sweeps.trials import Record, Trial

PAGES = ("README.md", "docs/results/optimisation_bc/README.md")
LEARNING, SPEED, FINALS = (
    f"<!-- {name}: written by make figures -->\nold\n<!-- end of {name} -->\n"
    for name in ("learning", "speed", "finals")
)
ENTRIES = "- {what: both, runs: trial/*}\n- {what: the second, runs: trial/GAIL_hopper_1}\n"


def measured(algorithm: str, precision: str, runs: int, width: int, **figures: float) -> dict[str, Any]:
    return {"algorithm": algorithm, "precision": precision, "threads": 1, "runs": runs, "hidden_size": width, **figures}


FIGURES = {"updates": 125.4, "loop": 114.0, "of_limit": 0.683, "busy": 0.96}
REPORT = {
    "command": "python scripts/throughput.py --runs 1 5",
    "processor": "Abacus 3000",
    "rows": [
        measured("SAC", "fp32", 1, 256, **FIGURES),
        measured("SAC", "fp32", 1, 64, **(FIGURES | {"busy": 1.0})),
        measured("SAC", "fp32", 5, 256, **FIGURES),
    ],
    "peers": [measured("SAC", p, 1, 256, updates=101.6, loop=97.0) | {"peer": "other"} for p in ("fp32", "bf16")],
    "side_by_side": [
        measured("GAIL", "fp32", 5, 256, gain=1.31),
        measured("GAIL", "bf16", 5, 256, gain=1.84),
        measured("GAIL", "fp32", 5, 64, gain=2.96),
    ],
    "peak_memory": [{"algorithm": "SAC", "rows": 1_000_000, "peak_gib": 0.47}],
}


def make(tmp_path: Path) -> int:
    return make_tables.main(["--root", str(tmp_path)])


def trial(number: int | None, seeds: int, mean: float, error: float | None, **values: Value) -> Trial:
    return Trial(number, values, list(range(seeds)), "completed", mean=mean, standard_error=error)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Two seeds, speed, an optimisation, and pages to write them into."""
    docs, results = tmp_path / "docs", tmp_path / "docs" / "results"
    assert keep(docs, "trial", make_run(docs / "0"), make_run(docs / "1", seed=1)) == 0
    (results / "readme.yaml").write_text(ENTRIES)
    (results / "throughput.json").write_text(json.dumps(REPORT))
    optimisation = results / "optimisation_bc"
    optimisation.mkdir()
    values: dict[str, Value] = {"rate": 0.00457, "rows": 64, "loss": "L2"}
    searched = [trial(0, 3, 0.1, 0.2, rate=1.0), trial(1, 3, 0.87, 0.0554, **values)]
    fresh = [trial(None, 1, 0.5, None), trial(1, 2, 0.75, 0.0625, **values)]
    Record(optimisation, "BC", ["hopper"], [], searched, fresh, {}).save()
    pages = (f"before\n{LEARNING}between\n{SPEED}after\n", FINALS)
    for page, text in zip(PAGES, pages, strict=True):
        (tmp_path / page).write_text(text)
    return tmp_path


def test_learning(kept: Path) -> None:
    """Demonstrations of 1000. Best 1000 and 880, last 1000 and 600; the first passes 900 after 30 s, the other not."""
    assert make(kept) == 0
    text = (kept / "README.md").read_text()
    assert "| both | 2 | 7,000 | 1000 | 0.88 to 1.00 | 0.60 to 1.00 | never (1 of 2) | 72 s |\n" in text
    assert "| the second | 1 | 7,000 | 1000 | 0.88 | 0.60 | never (0 of 1) | 72 s |\n<!-- end of learning -->\n" in text
    assert text.startswith("before\n<!-- learning: ") and "<!-- end of learning -->\nbetween\n<!-- speed: " in text
    assert make(kept) == 0
    assert (kept / "README.md").read_text() == text


def test_speed(kept: Path) -> None:
    assert make(kept) == 0
    text = (kept / "README.md").read_text()
    assert "(Abacus 3000; busy 0.96 to 1.00 of the time" in text
    assert "\n\n    python scripts/throughput.py --runs 1 5\n\n" in text
    assert text.count("| SAC, fp32 |") == 1
    assert "| SAC, fp32 | 125 | 114 | 68% |\n| other, SAC, fp32, in the same run | 102 | 97 | |\n" in text
    assert "- SAC with 1,000,000 replay rows takes 0.5 GiB.\n" in text
    assert (
        "- GAIL, 5 seeds as `runs=5`: 1.3 to 1.8 times as fast as one after another, with networks of 256 units" in text
    )
    assert "3.0 times as fast as one after another, with networks of 64 units.\n<!-- end of speed -->\nafter\n" in text


def test_finals(kept: Path) -> None:
    assert make(kept) == 0
    assert (
        (kept / "docs/results/optimisation_bc/README.md")
        .read_text()
        .endswith(
            "| | in the search | on fresh seeds |\n|---|---|---|\n"
            "| trial 1: `rate=0.0046`, `rows=64`, `loss=L2` | 0.870 +- 0.055 (3 seeds) | 0.750 +- 0.062 (2 seeds) |\n"
            "| default |  | 0.500 (1 seed) |\n<!-- end of finals -->\n"
        )
    )


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "README.md",
            "no comments",
            "expected <!-- learning: written by make figures --> and <!-- end of learning -->",
        ),
        ("README.md", LEARNING + LEARNING, "each once"),
        ("docs/results/readme.yaml", "- what: nothing", "expected a list with what and runs"),
        ("docs/results/readme.yaml", "- {what: lost, runs: nowhere/*}", "there are no runs nowhere/* for 'lost'"),
        ("docs/results/trial/GAIL_hopper_1/evaluations.csv", "x", "evaluations.csv"),
        ("docs/results/throughput.json", "{", "throughput.json is missing or damaged"),
        ("docs/results/optimisation_bc/optimisation.json", "{", "optimisation.json is damaged"),
        ("docs/results/optimisation_bc/README.md", "", "expected <!-- finals: written by make figures -->"),
    ],
)
def test_bad_input(kept: Path, file: str, content: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (kept / file).write_text(content)
    before = [(kept / page).read_text() for page in PAGES]
    assert make(kept) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error
    assert [(kept / page).read_text() for page in PAGES] == before


def test_a_full_disk_leaves_pages_as_they_are(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_text() for path in (kept / page for page in PAGES)}
    with full_disk():
        assert_refused(make_tables.main, ["--root", str(kept)], "File too large", capsys)
    assert {path: path.read_text() for path in before} == before
    assert not list(kept.rglob("*.part"))


def test_the_committed_tables_are_up_to_date(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.png"))
    shutil.copy(ROOT / "README.md", tmp_path)
    assert make(tmp_path) == 0
    for page in PAGES:
        assert (tmp_path / page).read_text() == (ROOT / page).read_text(), f"{page}: run make figures"
