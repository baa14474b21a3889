"""The command line inside this process: torch is imported once, and what goes wrong can be planted."""

import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from train import train
from training.cli import command_line

QUICK = (
    "env=pendulum",
    "training.start=20",
    "training.batch_size=8",
    "reinforcement.actor.hidden_size=8",
    "reinforcement.critic.hidden_size=8",
    "evaluation.interval=100000",
    "evaluation.episodes=1",
    "logging.interval=10",
    "logging.tensorboard=false",
    "logging.progress=false",
    "checkpoint.interval=20",
)


@dataclass(frozen=True)
class Outcome:
    status: int
    output: str
    error: str


def run(*arguments: str, task: Callable[[DictConfig], float | None] = train) -> Outcome:
    """`python train.py <arguments>` in the current directory."""
    GlobalHydra.instance().clear()
    output, error, status = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["train.py", *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
    ):
        try:
            command_line(task)
        except SystemExit as exit:
            status = int(exit.code or 0)
    return Outcome(status, output.getvalue(), error.getvalue())


def run_folders(outputs: Path) -> list[Path]:
    """The folders of runs: `outputs/<name>/<time>`."""
    return sorted(path for path in outputs.glob("*/*") if path.is_dir())


def status_of(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "status.json").read_text())
    return content


def fingerprint(folder: Path) -> dict[str, str]:
    """The content of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_refused(outcome: Outcome, *words: str) -> None:
    """One line on stderr with all of these words, and exit status 2."""
    assert outcome.status == 2, outcome
    assert outcome.error.count("\n") == 1, outcome.error
    assert outcome.error.startswith("error: ")
    assert "Traceback" not in outcome.error + outcome.output
    for word in words:
        assert word in outcome.error
