"""Slurm by submitit's local executor, and Ray on this machine: each trains, and goes on where it was stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conf.errors import UserError
from tests.training.commands import QUICK, assert_refused, run, status_of
from training.folder import read_table
from training.sweeps import launchers
from training.sweeps.job import run_job
from training.sweeps.launchers import LocalLauncher, cores, killed_by, make_launcher, on_devices
from training.sweeps.options import LocalConfig, RayConfig, SlurmConfig
from training.sweeps.plan import GRID, Plan, planned

ROOT = Path(__file__).resolve().parents[3]


def swept(tmp_path: Path, *arguments: str) -> Path:
    """In a process of its own: these libraries start others, which they leave behind."""
    typed = ["-m", "algorithm=SAC", "seed=1,2", "steps=30", *QUICK, f"output_folder={tmp_path}", *arguments]
    command = [sys.executable, str(ROOT / "train.py"), *typed]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    (sweep,) = tmp_path.glob("SAC_pendulum_sweep/*")
    for name in ("0", "1"):
        assert status_of(sweep / name)["state"] == "finished"
        assert read_table(sweep / name / "evaluations.csv")
    return sweep


def test_jobs_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cluster they need some each; on this machine they share the one that has to be there."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert on_devices(LocalConfig(), ["cpu", "cuda"]) == LocalConfig(workers=1)
    alone = make_launcher(on_devices(LocalConfig(), ["cuda"]), Path(), 9)
    assert isinstance(alone, LocalLauncher)
    assert (alone.slots, alone.extra) == (1, [f"threads={cores()}"])
    assert on_devices(LocalConfig(workers=3), ["cuda:0"]) == LocalConfig(workers=3)
    assert on_devices(LocalConfig(), ["cpu"]) == on_devices(LocalConfig(), []) == LocalConfig()
    with pytest.raises(UserError, match=r"device=cuda:1 is not there: .* sees 1 GPUs"):
        on_devices(LocalConfig(), ["cuda:1"])
    for config in (SlurmConfig(gpus=1), RayConfig(gpus=0.5)):
        assert on_devices(config, ["cuda:7"]) == config  # who knows
    for config in (SlurmConfig(), RayConfig()):
        with pytest.raises(UserError, match=r"device=cuda needs a GPU .* launcher.gpus=0: expected launcher.gpus=1"):
            on_devices(config, ["cpu", "cuda"])


def test_jobs_are_planned_where_there_is_no_gpu(tmp_path: Path) -> None:
    """As on the machine of a cluster that submits them; on this machine they could not run."""
    assert planned("0", ["algorithm=SAC", "env=pendulum", "device=cuda:9"]).overrides[-1] == "device=cuda:9"
    typed = ("algorithm=SAC", "env=pendulum", f"output_folder={tmp_path}")
    assert_refused(run("-m", *typed, "device=cpu,cuda:9"), "device=cuda:9 is not there")
    assert_refused(run("-m", *typed, "device=cudax"), "device=cudax is not a device", "cuda:<number>")
    assert not list(tmp_path.iterdir())


def test_slurm(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    sweep = swept(tmp_path, "launcher=slurm", "launcher.executor=local", "launcher.minutes=5")
    assert list((sweep / "submitit").glob("*_submission.sh")) or list((sweep / "submitit").iterdir())
    assert (sweep / "slurm.json").exists()


def test_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    swept(tmp_path, "launcher=ray", "launcher.cpus=0.5")


def test_a_time_limit_leads_to_a_checkpoint_and_back_into_the_queue(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    from training.sweeps.launchers import JobProcess

    plan = Plan(tmp_path / "sweep", GRID, "", [], [planned("0", ["algorithm=SAC", "steps=1500", *QUICK])])
    plan.save()
    executor = submitit.LocalExecutor(tmp_path / "submitit")
    executor.update_parameters(timeout_min=30)
    job = executor.submit(JobProcess(plan.folder, "0", 1))
    deadline = time.monotonic() + 60
    while not (plan.folder / "0" / "checkpoint.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process = int(str(status_of(plan.folder / "0")["process"]))
    task = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])  # its parent
    os.kill(task, signal.SIGUSR2)  # as Slurm does before the time is over
    assert job.result() == 0
    assert status_of(plan.folder / "0")["state"] == "finished"
    assert not (plan.folder / "attempts").exists()
    assert "interrupted: SIGTERM" in (plan.folder / "logs" / "0.txt").read_text()


def test_a_finished_job_is_left_alone(tmp_path: Path) -> None:
    plan = Plan(tmp_path, GRID, "", [], [planned("0", ["algorithm=SAC", "env=pendulum"])])
    plan.save()
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "status.json").write_text('{"state": "finished"}')
    assert run_job(tmp_path, "0") == 0
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["status.json"]


def test_reasons() -> None:
    assert killed_by(1) is None
    assert killed_by(-9) == "the process was killed by SIGKILL (out of memory?)"
    assert killed_by(-15) == "the process was killed by SIGTERM"


def test_what_is_missing_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ("-m", "algorithm=SAC", "seed=1", *QUICK, f"output_folder={tmp_path}")
    assert_refused(run(*typed, "launcher=slurm", "launcher.executor=pbs"), "launcher.executor=pbs", "slurm, local")
    monkeypatch.setattr(launchers, "find_spec", lambda package: None)
    assert_refused(run(*typed, "launcher=slurm"), "launcher=slurm needs submitit", "requirements-sweeps.txt")
    assert_refused(run(*typed, "launcher=ray"), "launcher=ray needs ray", "requirements-sweeps.txt")
    monkeypatch.setattr(launchers, "find_spec", lambda package: package)
    monkeypatch.setattr(launchers, "which", lambda program: None)
    assert_refused(run(*typed, "launcher=slurm"), "there is no srun")
    assert not list(tmp_path.iterdir())
