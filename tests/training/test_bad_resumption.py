"""A resumption that cannot go on exactly is refused in one line, and nothing in the run's folder is changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.commands import QUICK, assert_refused, fingerprint, run, run_folders
from tests.training.helpers import hopper_demonstrations


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run that has finished."""
    parent = tmp_path_factory.mktemp("finished")
    outcome = run("algorithm=SAC", "steps=40", *QUICK, f"output_folder={parent}")
    assert outcome.status == 0, outcome.error
    return run_folders(parent)[0]


def _edit_checkpoint(path: Path, **changes: object) -> None:
    content = torch.load(path, weights_only=True) | changes
    torch.save({key: value for key, value in content.items() if value != "absent"}, path)


def _prepare(folder: Path, what: str) -> None:
    """Damage a copy of a finished run in one way."""
    checkpoint, hydra = folder / "checkpoint.pt", folder / ".hydra"
    data = checkpoint.read_bytes()
    middle = len(data) // 2
    damages: dict[str, Callable[[], object]] = {
        "flipped": lambda: checkpoint.write_bytes(data[:middle] + b"\xa5" * 300 + data[middle + 300 :]),
        "truncated": lambda: checkpoint.write_bytes(data[:middle]),
        "empty": lambda: checkpoint.write_bytes(b""),
        "junk": lambda: checkpoint.write_bytes(b"junk" * 1000),
        "absent": checkpoint.unlink,
        "policy": lambda: shutil.copy(folder / "policy.pt", checkpoint),
        "format": lambda: _edit_checkpoint(checkpoint, format=999),
        "unformatted": lambda: _edit_checkpoint(checkpoint, format="absent"),
        "parts": lambda: _edit_checkpoint(checkpoint, parts={}),
        "phase": lambda: _edit_checkpoint(checkpoint, phase="daydreaming"),
        "table": lambda: (folder / "metrics.csv").write_text("phase\n"),
        "no table": (folder / "evaluations.csv").unlink,
        "no config": (hydra / "config.yaml").unlink,
        "config": lambda: (hydra / "config.yaml").write_text("{[" * 9),
        "list": lambda: (hydra / "config.yaml").write_text("- 1\n"),
        "overrides": lambda: (hydra / "overrides.yaml").write_text("a: 1\n"),
        "binary": lambda: (hydra / "overrides.yaml").write_bytes(bytes(range(256))),
    }
    if what in damages:
        damages[what]()


RESUMED: list[tuple[str, str, list[str]]] = [
    ("flipped", "steps=60", ["checkpoint.pt", "damaged"]),
    ("truncated", "steps=60", ["checkpoint.pt", "damaged"]),
    ("empty", "steps=60", ["checkpoint.pt", "damaged"]),
    ("junk", "steps=60", ["checkpoint.pt", "damaged"]),
    ("absent", "steps=60", ["no checkpoint.pt"]),
    ("policy", "steps=60", ["not a run's checkpoint"]),
    ("format", "steps=60", ["format 999", "format 1"]),
    ("unformatted", "steps=60", ["not a checkpoint of this program"]),
    ("parts", "steps=60", ["checkpoint.pt", "does not fit"]),
    ("phase", "steps=60", ["checkpoint.pt", "does not fit", "daydreaming"]),
    ("table", "steps=60", ["metrics.csv", "cut off"]),
    ("no table", "steps=60", ["evaluations.csv", "missing"]),
    ("no config", "steps=60", ["config.yaml", "missing"]),
    ("config", "steps=60", ["config.yaml", "damaged"]),
    ("list", "steps=60", ["config.yaml", "damaged"]),
    ("overrides", "steps=60", ["overrides.yaml", "damaged"]),
    ("binary", "steps=60", ["overrides.yaml", "damaged"]),
    ("", "steps=60 seed=5", ["seed=5", "seed=0"]),
    ("", "steps=60 algorithm=GAIL env.demonstrations={demonstrations} env=hopper", ["algorithm=GAIL"]),
    ("", "steps=60 env=hopper", ["env.name=hopper", "which has env.name=pendulum"]),
    ("", "steps=60 reinforcement.discount=0.5", ["reinforcement.discount=0.5", "0.99"]),
    ("", "steps=60 sead=5", ["sead", "did you mean 'seed'?"]),
    ("", "steps=30", ["steps=30", "taken 40 steps"]),
    ("", "steps=40", ["has finished", "steps=<more than 40>"]),
    ("", "", ["has finished", "steps=<more than 40>"]),
]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hopper_demonstrations(tmp_path_factory.mktemp("demonstrations") / "good.hdf5")


@pytest.mark.parametrize(("damage", "typed", "words"), RESUMED)
def test_refused_and_the_folder_left_alone(
    damage: str, typed: str, words: list[str], finished: Path, demonstrations: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    _prepare(folder, damage)
    before = fingerprint(folder)
    outcome = run(*typed.replace("{demonstrations}", str(demonstrations)).split(), f"resume={folder}")
    assert_refused(outcome, *words)
    assert fingerprint(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
