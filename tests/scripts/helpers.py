"""Untrained policies in files, as a run leaves them; a full disk; and what a tool says when it refuses."""

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from tests.training.helpers import SMALL, configured, make_loop
from training.folder import write_atomically


def save_policy(parent: Path, *overrides: str) -> Path:
    """`policy.pt` in the folder of a run, with the command that made it."""
    torch.set_num_threads(1)
    loop = make_loop(configured(*SMALL, "algorithm=SAC", *overrides), parent)
    loop.save_policy("policy.pt", loop.parts.learner.policy.state_dict())
    (loop.folder / ".hydra").mkdir()
    saved = "- algorithm=SAC\n- env.demonstrations=/home/me/data/mine.hdf5\n- output_folder=/home/me/out\n"
    write_atomically(loop.folder / ".hydra" / "overrides.yaml", saved)
    return loop.folder / "policy.pt"


@contextlib.contextmanager
def full_disk(room: int = 100) -> Iterator[None]:
    """It has room for so many bytes of each file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # it would be truncated, and the next program would fail on it
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_refused(
    main: Callable[[Sequence[str]], int], arguments: Sequence[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and one line on stderr with these words."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert words in error
