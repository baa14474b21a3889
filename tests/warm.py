"""`python train.py ...` in processes that need not import anything: each is forked from one that has.

Importing takes most of the time of a short run, and tests start many. A test that asks what a process of its own
does (signals, kills, locks, exit statuses) holds a `Process`. The processes that start the jobs of sweeps, which these
processes start, are forked in the same way.
"""

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

from tests.training.commands import Outcome

ROOT = Path(__file__).resolve().parents[1]


class Process:
    """`python <program> <arguments>`: train.py, for example. Used as a process of `subprocess`."""

    def __init__(self, program: str, *arguments: str, cwd: Path | None = None, start_new_session: bool = False) -> None:
        server, parent = _server()
        self._folder = Path(tempfile.mkdtemp(dir=parent))
        request = {
            "arguments": [str(ROOT / program), *arguments],
            "folder": str(self._folder),
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ),
            "new_session": start_new_session,
        }
        assert server.stdin
        server.stdin.write(f"{json.dumps(request)}\n")
        server.stdin.flush()
        while not (found := self._read("pid")):
            assert server.poll() is None
            time.sleep(0.01)
        self.pid = int(found)

    def _read(self, name: str) -> str:
        path = self._folder / name
        return path.read_text() if path.exists() else ""

    @property
    def output(self) -> str:
        return self._read("output")

    @property
    def error(self) -> str:
        return self._read("error")

    def poll(self) -> int | None:
        """How it ended, as in `subprocess`: -9 where it was killed. None while it runs."""
        ended = self._read("ended")
        return int(ended) if ended else None

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("python", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended a moment ago, which is being written down
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run_apart(*arguments: str, program: str = "train.py") -> Outcome:
    """`python train.py <arguments>` in a process of its own."""
    process = Process(program, *arguments)
    return Outcome(process.wait(), process.output, process.error)


@cache
def _server() -> tuple[subprocess.Popen[str], str]:
    """The process that forks, and a folder for what others say. Both end with this process."""
    folder = tempfile.TemporaryDirectory()
    server = subprocess.Popen([sys.executable, "-m", "tests.warm"], cwd=ROOT, stdin=subprocess.PIPE, text=True)
    atexit.register(folder.cleanup)
    atexit.register(server.communicate)
    return server, folder.name


def serve() -> None:
    """Fork a process for each line of standard input. Has one thread, as a process that forks has to."""
    from tests.pictures import leave_out
    from training.sweeps.forkserver import preload

    preload()
    leave_out()
    subprocess.Popen = ForkedPopen  # type: ignore[misc, assignment]  # a class in place of a class
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that watch
    for line in sys.stdin:
        if os.fork() == 0:
            watch(**json.loads(line))


def watch(arguments: list[str], folder: str, cwd: str, environment: dict[str, str], new_session: bool) -> NoReturn:
    """Fork once more: this process waits for the other, and writes down how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(cwd)
    process = os.fork()
    if process == 0:
        if new_session:
            os.setsid()
        for number, path in enumerate((os.devnull, f"{folder}/output", f"{folder}/error")):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        become(arguments, environment)
    write_whole(Path(folder, "pid"), process)
    _, status = os.waitpid(process, 0)
    write_whole(Path(folder, "ended"), os.waitstatus_to_exitcode(status))
    os._exit(0)


def write_whole(path: Path, number: int) -> None:
    part = path.with_suffix(".part")
    part.write_text(str(number))
    part.replace(path)


def become(arguments: list[str], environment: dict[str, str]) -> NoReturn:
    """Be `python <arguments>`."""
    os.closerange(3, 256)
    os.environ.clear()
    os.environ.update(environment)
    run: Callable[..., Any] = runpy.run_path
    if arguments[0] == "-m":
        arguments, run = arguments[1:], partial(runpy.run_module, alter_sys=True)
        sys.modules.pop(arguments[0], None)
    else:
        sys.path[0] = str(Path(arguments[0]).parent)
    sys.argv[:] = arguments
    status: Any = 0
    try:
        run(arguments[0], run_name="__main__")
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class ForkedPopen(subprocess.Popen[Any]):
    """A program of this repository is run where `subprocess` has forked, before it would run Python anew."""

    def __init__(self, command: Any, **options: Any) -> None:
        if command[:2] == [sys.executable, "-m"] and command[2].startswith("training."):
            options["preexec_fn"] = partial(become, command[1:], options.get("env") or dict(os.environ))
        super().__init__(command, **options)


if __name__ == "__main__":
    serve()
