"""The measurements in README.md: numbers worked out by hand, and whether the committed ones are current."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts import make_readme
from tests.scripts.test_results import ROOT, keep, make_run

LEARNING, SPEED = (
    f"<!-- {name}: written by make figures -->\nold\n<!-- end of {name} -->\n" for name in ("learning", "speed")
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
    return make_readme.main(["--results", str(tmp_path / "results"), "--readme", str(tmp_path / "README.md")])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Two seeds, and a page to write them into."""
    assert keep(tmp_path, "trial", make_run(tmp_path / "0"), make_run(tmp_path / "1", seed=1)) == 0
    (tmp_path / "results" / "readme.yaml").write_text(ENTRIES)
    (tmp_path / "results" / "throughput.json").write_text(json.dumps(REPORT))
    (tmp_path / "README.md").write_text(f"before\n{LEARNING}between\n{SPEED}after\n")
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


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "README.md",
            "no comments",
            "expected <!-- learning: written by make figures --> and <!-- end of learning -->",
        ),
        ("README.md", LEARNING + LEARNING, "each once"),
        ("results/readme.yaml", "- what: nothing", "expected a list with what and runs"),
        ("results/readme.yaml", "- {what: lost, runs: nowhere/*}", "there are no runs nowhere/* for 'lost'"),
        ("results/trial/GAIL_hopper_1/evaluations.csv", "x", "evaluations.csv"),
        ("results/throughput.json", "{", "throughput.json is missing or damaged"),
    ],
)
def test_bad_input(kept: Path, file: str, content: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    (kept / file).write_text(content)
    before = (kept / "README.md").read_text()
    assert make(kept) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error
    assert (kept / "README.md").read_text() == before


def test_the_committed_tables_are_up_to_date(tmp_path: Path) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    assert make_readme.main(["--readme", str(tmp_path / "README.md")]) == 0
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text(), "run make figures"
