"""What is measured before and around training stays within its limits."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import UserError
from scripts import launch_cost
from scripts.launch_cost import first_step, main, processor_seconds
from tests.scripts.helpers import assert_refused
from tests.warm import run_apart

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_step_comes_as_soon_as_the_libraries_are_there(tmp_path: Path) -> None:
    """Without PyTorch's compiler, which its optimisers would import: it takes as long as all of these."""
    libraries = "import torch, hydra, gymnasium, mujoco, h5py"
    assert any(first_step(tmp_path) < 1.3 * processor_seconds(sys.executable, "-c", libraries) for _ in range(2))


def test_processor_time_counts_the_processes_of_a_process() -> None:
    spin = "import time\nwhile time.process_time() < {}: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin.format(0.5)!r}])"
    assert 0.5 < processor_seconds(sys.executable, "-c", child) < 1.5


def test_the_parts_make_the_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def seconds(python: str, program: str, *arguments: str) -> float:
        assert (python, program) == (sys.executable, str(ROOT / "train.py"))
        done = run_apart(*arguments)
        assert done.status == 0, done.error
        return 8.0 if "-m" in arguments else 0.5

    monkeypatch.setattr(launch_cost, "first_step", lambda folder: 1.25)  # which another test measures
    monkeypatch.setattr(launch_cost, "processor_seconds", seconds)
    assert main(["--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("help: 0.50 s\nfirst step: 1.25 s\neach of 2 jobs: 4.000 s, ")
    found = re.search(r"its own (\S+) s, launching it (\S+) s", said)
    assert found
    own, launching = map(float, found.groups())
    assert 0 < own < 4
    assert abs(own + launching - 4) < 0.002


def test_it_is_a_program() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "launch_cost.py"), "--help"]
    assert "--jobs" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_child_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"'import nothing_here' ended with exit status 1: .*No module named"):
        processor_seconds(sys.executable, "-c", "import nothing_here")
    for child, words in (("raise OSError('no disk')", "OSError: no disk"), ("", "it said nothing")):
        monkeypatch.setattr(launch_cost, "FIRST_STEP", child)
        with pytest.raises(UserError, match=rf"train.py algorithm=GAIL .* ended with exit status [01]: {words}"):
            first_step(tmp_path)
    monkeypatch.setattr(launch_cost, "ROOT", tmp_path)  # has no train.py
    assert_refused(main, ["--jobs", "1"], "No such file or directory", capsys)


@pytest.mark.parametrize("typed", [("--jobs", "0"), ("--jobs", "many"), ("--job",)])
def test_bad_input(typed: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
