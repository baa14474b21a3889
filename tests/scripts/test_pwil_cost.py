"""The cost of PWIL's coupling: real steps are timed, and what is wrong is refused."""

import re
from pathlib import Path

import pytest

from scripts.pwil_cost import main
from tests.scripts.helpers import assert_refused
from tests.training.helpers import hopper_demonstrations


def test_a_step_costs_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hopper_demonstrations(tmp_path / "hopper.hdf5")
    typed = [f"env.demonstrations={path}", "env.num_envs=2", "reinforcement.actor.depth=1"]
    assert main(["--steps", "3", "--blocks", "2", *typed]) == 0
    said = capsys.readouterr().out
    found = re.fullmatch(r"120 atoms, num_envs=2: (\S+) ms a step \(median of 2 blocks, fastest (\S+) ms\)\n", said)
    assert found
    median, fastest = map(float, found.groups())
    assert 0 < fastest <= median < 1000


@pytest.mark.parametrize(
    ("typed", "words"), [(["--steps", "0"], "at least 1"), (["env=hoper"], "did you mean 'hopper'?")]
)
def test_refused(typed: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(main, typed, words, capsys)
