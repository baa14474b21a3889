"""A process that has imported everything and forks one child for each job: a job starts in a moment, apart from others.

It reads lines of JSON on its standard input, {"sweep": ..., "name": ..., "extra": [...]}, and writes a line
{"name": ..., "status": ...} for each job that has ended. When its input ends, and so also when the sweep's own process
is killed, it asks the jobs to stop, which makes them write a checkpoint, and waits for them.
"""

import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from training.folder import git_commit
from training.sweeps.job import composed_job, end_with_parent, log_path, run_job
from training.sweeps.plan import composed

PRELOADED = (  # what a job would import by itself
    "matplotlib.backends.backend_agg",
    "mujoco",
    "torch.utils.tensorboard",
    "training.loop",
    "training.pictures",
    "training.report",
    "training.run",
)
STOPS = {signal.SIGTERM}


class ForkServer:
    """Owns the children. Has one thread, as a process that forks has to."""

    def __init__(self) -> None:
        self.children: dict[int, str] = {}  # names of jobs by process
        self.unread = b""
        self.open = True

    def serve(self) -> None:
        preload()
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: self._stop())
        while self.open or self.children:
            ready, _, _ = select.select([wake, *([0] if self.open else [])], [], [])
            if wake in ready:
                os.read(wake, 4096)
                self._reap()
            if 0 in ready:
                self._read()

    def _read(self) -> None:
        received = os.read(0, 1 << 16)
        if not received:
            self._stop()
            return
        *lines, self.unread = (self.unread + received).split(b"\n")
        for line in lines:
            self._fork(json.loads(line))

    def _fork(self, job: dict[str, Any]) -> None:
        sweep, name, extra = Path(job["sweep"]), job["name"], job["extra"]
        with suppress(Exception):  # the job says what is wrong with it
            composed_job(sweep, name, extra)  # for this job and those that differ from it in values
        server = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # a child would take it for the server's, and work on
        process = os.fork()
        if process == 0:
            become_job(server, sweep, name, extra)
        self.children[process] = name
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def _stop(self) -> None:
        self.open = False
        for process in self.children:
            os.kill(process, signal.SIGTERM)

    def _reap(self) -> None:
        while self.children:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            self._report({"name": self.children.pop(process), "status": os.waitstatus_to_exitcode(status)})

    def _report(self, content: dict[str, Any]) -> None:
        try:
            os.write(1, json.dumps(content).encode() + b"\n")
        except BrokenPipeError:  # nobody is left to tell
            self._stop()


def preload() -> None:
    """Do once what every job would do again."""
    display = os.environ.get("MUJOCO_GL")
    # MuJoCo would open a display, which does not survive a fork; films open theirs.
    os.environ["MUJOCO_GL"] = "disable"
    for module in PRELOADED:
        with suppress(ImportError):  # a job says what it misses, if it needs it
            import_module(module)
    del os.environ["MUJOCO_GL"]
    if display is not None:
        os.environ["MUJOCO_GL"] = display
    git_commit()
    composed(["algorithm=BC"])  # Hydra's plugins and parsers are slow the first time


def become_job(server: int, sweep: Path, name: str, extra: list[str]) -> NoReturn:
    """Never returns: the child ends with its job."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        end_with_parent(server)
        log_path(sweep, name).parent.mkdir(parents=True, exist_ok=True)
        with open(os.devnull) as nothing, log_path(sweep, name).open("a") as log:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        status = run_job(sweep, name, extra)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    ForkServer().serve()
