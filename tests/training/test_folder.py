"""Folders, small files and tables that a run leaves."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conf.errors import UserError
from training import folder
from training.folder import (
    Table,
    git_commit,
    mark_ended,
    new_folder,
    process_start,
    read_status,
    read_table,
    running_process,
    sweep_folder,
    write_atomically,
    write_json,
)

ROOT = Path(__file__).resolve().parents[2]


def test_runs_of_the_same_second_get_their_own_folders(tmp_path: Path) -> None:
    barrier = threading.Barrier(16)

    def start(_: int) -> Path:
        barrier.wait()
        return new_folder(tmp_path / "GAIL_hopper")

    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(start, range(16)))
    assert len(set(folders)) == 16
    assert all(folder.is_dir() for folder in folders)


def test_processes_of_the_same_second_get_their_own_folders(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from training.folder import new_folder\n"
        "sys.stdin.readline()\n"
        "for _ in range(20): print(new_folder(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "outputs")]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    folders = [line for process in processes for line in process.communicate()[0].split()]
    assert len(set(folders)) == len(folders) == 40


def test_names(tmp_path: Path) -> None:
    assert [new_folder(tmp_path, "0").name for _ in range(3)] == ["0", "0_2", "0_3"]
    (tmp_path / "1").mkdir()  # as Hydra does
    assert [sweep_folder(tmp_path, "1").name for _ in range(3)] == ["1", "1_2", "1_3"]


@pytest.mark.parametrize("parent", ["file", "file/below", "/proc/nowhere"])
def test_nothing_can_be_written(parent: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write results to"):
        new_folder(tmp_path / parent)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        new_folder(tmp_path)


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"state": "running"})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "half")
    mark_ended(tmp_path, "failed", "no room even for this")
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]
    assert json.loads(path.read_text()) == {"state": "running"}


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_end_is_marked_over_a_damaged_status(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_bytes(damage)
    assert read_status(tmp_path) == {}
    mark_ended(tmp_path, "failed", "why")
    assert read_status(tmp_path) == {"state": "failed", "error": "why"}


def test_running_process() -> None:
    here = {"state": "running", "host": platform.node()}
    program = [sys.executable, "-c", "input()"]
    with subprocess.Popen(program, stdin=subprocess.PIPE) as other:
        start = process_start(other.pid)
        assert start is not None
        status = {**here, "process": other.pid, "process_start": start}
        assert running_process(status) == other.pid
        assert running_process({**status, "process_start": start - 1}) is None  # an earlier one with this number
        assert running_process({**status, "state": "interrupted"}) is None
        assert running_process({**status, "host": "elsewhere"}) is None
        other.kill()
        while process_start(other.pid) is not None:  # it is a zombie then: its parent has not asked for it
            time.sleep(0.01)
        assert running_process(status) is None
    assert running_process(status) is None
    assert running_process({**here, "process": os.getpid(), "process_start": process_start(os.getpid())}) is None
    assert running_process({}) is None


def test_table_is_cut_back(tmp_path: Path) -> None:
    table = Table(tmp_path / "rows.csv", ("step", "value"))
    table.append([{"step": 1, "value": 0.5}])
    length = table.sync()
    table.append([{"step": 2, "value": 0.25}])
    resumed = Table(tmp_path / "rows.csv", ("step", "value"), length)
    assert [row["step"] for row in read_table(tmp_path / "rows.csv")] == ["1", "2"]  # the run may yet be refused
    resumed.append([{"step": 3, "value": 1.0}])
    assert [row["step"] for row in read_table(tmp_path / "rows.csv")] == ["1", "3"]


def test_the_commit_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit.__wrapped__() == "unknown"

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    (tmp_path / "a.py").write_text("")
    git("add", "a.py")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "notes.py").write_text("")
    assert git_commit.__wrapped__() == commit
    (tmp_path / "a.py").write_text("changed = True")
    assert git_commit.__wrapped__() == f"{commit} with uncommitted changes"
