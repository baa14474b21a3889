"""What the command-line tools share."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import UserError
from scripts.command_line import Parser, check_output, duration, exit_status

ROOT = Path(__file__).resolve().parents[2]


def nothing() -> None:
    pass


def refuse() -> None:
    raise UserError("first\n  second")


def no_disk() -> None:
    raise OSError("no space left")


def interrupt() -> None:
    raise KeyboardInterrupt  # a program in the background may ignore the signal itself


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    raise AssertionError("the signal was not heard")


@pytest.mark.parametrize(
    ("work", "status", "line"),
    [
        (nothing, 0, ""),
        (refuse, 2, "error: first second\n"),
        (no_disk, 2, "error: no space left\n"),
        (interrupt, 130, "interrupted\n"),
        (terminate, 143, "interrupted\n"),
    ],
)
def test_exit_status(work: Callable[[], None], status: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert exit_status(work) == status
    assert capsys.readouterr().err == line
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_has_seen_enough() -> None:
    """As `head` behind train.py and behind a script."""
    reading, writing = os.pipe()
    os.close(reading)
    script = "from scripts.command_line import exit_status; raise SystemExit(exit_status(lambda: print('text')))"
    try:
        for words in (["-c", script], ["train.py", "--help"]):
            done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE)
            assert (done.returncode, done.stderr) == (0, b"")
    finally:
        os.close(writing)


def test_what_is_under_way_cleans_up_behind_itself() -> None:
    done = []

    def work() -> None:
        try:
            terminate()
        finally:
            done.append(True)

    assert exit_status(work) == 143
    assert done


def test_wrong_arguments_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^unrecognized arguments: --no \(see --help\)$"):
        Parser().parse_args(["--no"])


def test_where_a_file_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.json").touch()
    for name in ("new.json", "old.json"):
        check_output("--json", tmp_path / name)
    for path, words in (
        (tmp_path, "is not a file: expected the name of one"),
        (Path(os.devnull), "is not a file: expected the name of one"),
        (tmp_path / "nowhere" / "x.json", "there is no such folder"),
    ):
        with pytest.raises(UserError, match=f"^--json {path}:? .*{words}"):
            check_output("--json", path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=f"^--json {tmp_path}/x: {tmp_path} is a folder that cannot be written to"):
        check_output("--json", tmp_path / "x")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (720, "12 min"), (12240, "3.4 h"), (float("inf"), "never"), (float("nan"), "unknown")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
