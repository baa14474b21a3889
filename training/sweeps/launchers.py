"""Where the jobs of a sweep run: processes on this machine, a Slurm cluster, or a Ray cluster.

A launcher starts jobs and says which have ended; what became of a job is in its own folder.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, Protocol, runtime_checkable

from conf.errors import UserError
from training.cli import CONF
from training.config import check_device, check_presence
from training.folder import write_json
from training.sweeps.job import log_path
from training.sweeps.options import LauncherConfig, LocalConfig, RayConfig, SlurmConfig

ROOT = CONF.parent
INSTALL = "pip install -r requirements-sweeps.txt"


@runtime_checkable
class Launcher(Protocol):
    """Runs jobs of one sweep, by name."""

    slots: int  # jobs at once

    def submit(self, names: Sequence[str]) -> None: ...

    def ended(self, seconds: float) -> dict[str, str | None]:
        """Jobs that have ended, waiting so long for one; with a reason where the process was killed."""
        ...

    def close(self) -> None:
        """Stop what runs as a part of this process, with checkpoints."""
        ...


def require(config: LauncherConfig) -> None:
    """Before anything is written.

    Raises:
        UserError: what the launcher needs is not installed.
    """
    name, package = {SlurmConfig: ("slurm", "submitit"), RayConfig: ("ray", "ray")}.get(type(config), ("local", ""))
    if package and find_spec(package) is None:
        raise UserError(f"launcher={name} needs {package}: {INSTALL}")
    if isinstance(config, SlurmConfig) and config.executor == "slurm" and which("srun") is None:
        raise UserError("launcher=slurm: there is no srun; is this a machine of the cluster?")


def on_devices(config: LauncherConfig, devices: Sequence[str]) -> LauncherConfig:
    """The same for jobs on these devices. Those on this machine share its GPU: one at once, unless `workers` says more.

    Raises:
        UserError: jobs would have no GPU.
    """
    gpus = [name for name in devices if check_device(name).type == "cuda"]
    if not gpus:
        return config
    if isinstance(config, LocalConfig):
        for name in gpus:
            check_presence(name)
        return replace(config, workers=config.workers or 1)
    if not config.gpus:
        raise UserError(f"device={gpus[0]} needs a GPU for each job, and launcher.gpus=0: expected launcher.gpus=1")
    return config


def make_launcher(config: LauncherConfig, sweep: Path, jobs: int) -> Launcher:
    """`jobs`: how many there are to run, or that could run at once.

    Raises:
        UserError: what the launcher needs cannot be reached.
    """
    if isinstance(config, SlurmConfig):
        return SlurmLauncher(config, sweep)
    if isinstance(config, RayConfig):
        return RayLauncher(config, sweep)
    return LocalLauncher(config, sweep, jobs)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalLauncher:
    """As many jobs at once as there are cores, the threads divided among them; each in a process of its own."""

    def __init__(self, config: LocalConfig, sweep: Path, jobs: int) -> None:
        self.sweep = sweep
        self.slots = max(1, min(config.workers or cores(), jobs))
        self.extra = [f"threads={max(1, cores() // self.slots)}"]
        self.waiting: deque[str] = deque()
        self.running: set[str] = set()
        self.server: subprocess.Popen[bytes] | None = None
        self.unread = b""

    def submit(self, names: Sequence[str]) -> None:
        self.waiting += names
        self._fill()

    def ended(self, seconds: float) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for report in self._reports(seconds):
            self.running.discard(report["name"])
            found[report["name"]] = killed_by(report["status"])
        self._fill()
        return found

    def close(self) -> None:
        self.waiting.clear()
        if self.server and self.server.stdin:
            with suppress(BrokenPipeError):
                self.server.stdin.close()
            self.server.wait()
            if self.server.stdout:
                self.server.stdout.close()

    def _fill(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            name = self.waiting.popleft()
            self.running.add(name)
            self._send({"sweep": str(self.sweep), "name": name, "extra": self.extra})

    def _send(self, job: dict[str, Any]) -> None:
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "training.sweeps.forkserver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches the jobs through this process alone
                env=job_environment() | {"OPENBLAS_NUM_THREADS": "1"},  # threads would not survive a fork
            )
        assert self.server.stdin
        self.server.stdin.write(json.dumps(job).encode() + b"\n")
        self.server.stdin.flush()

    def _reports(self, seconds: float) -> list[dict[str, Any]]:
        if self.server is None or not self.server.stdout:
            time.sleep(seconds)
            return []
        if not select.select([self.server.stdout], [], [], seconds)[0]:
            return []
        received = os.read(self.server.stdout.fileno(), 1 << 16)
        if not received:
            status = self.server.wait()
            reason = killed_by(status) or f"status {status}"
            raise RuntimeError(f"no more jobs can be started: {reason}; go on with resume_sweep={self.sweep}")
        *lines, self.unread = (self.unread + received).split(b"\n")
        return [json.loads(line) for line in lines]


def job_environment() -> dict[str, str]:
    """For a process that imports this program, wherever it was started."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def killed_by(status: int) -> str | None:
    """Why a process ended that could not say so itself."""
    if status >= 0:
        return None
    name = signal.Signals(-status).name
    return f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


class JobProcess:
    """A job as a child of a process on a cluster's node, which it outlives in nothing. Sent to the node by pickle."""

    def __init__(self, sweep: Path, name: str, threads: int) -> None:
        self.sweep, self.name, self.threads = sweep, name, threads
        self.directory = Path.cwd()
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        log = log_path(self.sweep, self.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "training.sweeps.job", str(self.sweep), self.name, f"threads={self.threads}"]
        with log.open("a") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, cwd=self.directory, env=job_environment()
            )
        return self.process.wait()

    def checkpoint(self) -> Any:
        """Called by submitit before a job's time is over: the job writes a checkpoint, and is queued again."""
        from submitit.helpers import DelayedSubmission

        if self.process:
            self.process.send_signal(signal.SIGTERM)
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)  # `__call__` is inside `wait`, with its lock
        return DelayedSubmission(JobProcess(self.sweep, self.name, self.threads))


class SlurmLauncher:
    """Jobs of an array, by submitit. They stay in the queue when this process ends; a resumed sweep waits for them."""

    def __init__(self, config: SlurmConfig, sweep: Path) -> None:
        import submitit

        self.config, self.sweep = config, sweep
        self.slots = config.array
        self.ids_path = sweep / "slurm.json"
        self.jobs: dict[str, Any] = {}
        self.executor = submitit.AutoExecutor(
            sweep / "submitit", cluster=config.executor, slurm_max_num_timeout=config.requeues
        )
        self.executor.update_parameters(**self._parameters())

    def _parameters(self) -> dict[str, Any]:
        config = self.config
        parameters: dict[str, Any] = {
            "name": "sweep",
            "timeout_min": config.minutes,
            "cpus_per_task": config.cpus,
            "gpus_per_node": config.gpus,
            "slurm_mem": config.memory,
            "slurm_array_parallelism": config.array,
            "slurm_signal_delay_s": config.warning_seconds,
            "slurm_setup": list(config.setup),
        }
        named = {"slurm_partition": config.partition, "slurm_account": config.account}
        return parameters | {name: value for name, value in named.items() if value}

    def submit(self, names: Sequence[str]) -> None:
        queued = self._queued()
        self.jobs |= {name: queued[name] for name in names if name in queued}
        new = [name for name in names if name not in queued]
        if new:
            processes = [JobProcess(self.sweep, name, self.config.cpus) for name in new]
            with self.executor.batch():
                submitted: list[Any] = [self.executor.submit(process) for process in processes]
            self.jobs |= dict(zip(new, submitted, strict=True))
        write_json(self.ids_path, {name: job.job_id for name, job in self.jobs.items()})

    def _queued(self) -> dict[str, Any]:
        """What an earlier process of this sweep has put into the queue and is still there."""
        if self.config.executor != "slurm" or not self.ids_path.is_file():
            return {}
        import submitit

        ids = json.loads(self.ids_path.read_text())
        jobs: dict[str, Any] = {
            name: submitit.SlurmJob(self.sweep / "submitit", job_id) for name, job_id in ids.items()
        }
        return {name: job for name, job in jobs.items() if not job.done()}

    def ended(self, seconds: float) -> dict[str, str | None]:
        found = {name: self._problem(job) for name, job in self.jobs.items() if job.done()}
        for name in found:
            del self.jobs[name]
        if not found:
            time.sleep(seconds)
        return found

    def _problem(self, job: Any) -> str | None:
        error = job.exception()
        return None if error is None else f"{job.state}: {' '.join(str(error).split())[:300]}"

    def close(self) -> None:
        if self.jobs and self.config.executor == "slurm":
            print(f"{len(self.jobs)} jobs stay in the queue; scancel ends them", file=sys.stderr)
        if self.config.executor == "local":
            for job in self.jobs.values():
                job.cancel()


class RayLauncher:
    """Tasks of a Ray cluster."""

    def __init__(self, config: RayConfig, sweep: Path) -> None:
        import ray

        self.ray: Any = ray
        self.config, self.sweep = config, sweep
        environment = {"env_vars": {"PYTHONPATH": job_environment()["PYTHONPATH"]}}
        try:
            ray.init(config.address, runtime_env=environment, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"launcher.address={config.address}: no Ray cluster answers ({error})") from error
        self.slots = max(1, int(self.ray.cluster_resources().get("CPU", 1) / max(config.cpus, 0.01)))
        self.tasks: dict[Any, str] = {}

    def submit(self, names: Sequence[str]) -> None:
        task = self.ray.remote(num_cpus=self.config.cpus, num_gpus=self.config.gpus, max_retries=0)(run_task)
        threads = max(1, int(self.config.cpus))
        self.tasks |= {task.remote(self.sweep, name, threads, str(Path.cwd())): name for name in names}

    def ended(self, seconds: float) -> dict[str, str | None]:
        if not self.tasks:
            time.sleep(seconds)
            return {}
        done, _ = self.ray.wait(list(self.tasks), num_returns=len(self.tasks), timeout=seconds)
        return {self.tasks.pop(task): self._problem(task) for task in done}

    def _problem(self, task: Any) -> str | None:
        try:
            return killed_by(self.ray.get(task))
        except Exception as error:  # of many kinds: the worker or its node is gone
            return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

    def close(self) -> None:
        for task in self.tasks:
            self.ray.cancel(task)
        self.ray.shutdown()


def run_task(sweep: Path, name: str, threads: int, directory: str) -> int:
    """What a Ray worker runs."""
    process = JobProcess(sweep, name, threads)
    process.directory = Path(directory)
    return process()
