"""The process that starts jobs: what it does once, so that no job does it again."""

import json
import subprocess
import sys
from pathlib import Path

from tests.training.commands import QUICK
from training.sweeps.job import composed_job
from training.sweeps.plan import GRID, Plan, planned

OPTIONAL = ("PIL.", "torch.")  # a few milliseconds, within libraries


def test_a_job_imports_nothing(tmp_path: Path) -> None:
    """In a process of its own, which has imported nothing else."""
    overrides = ["algorithm=SAC", "steps=30", *QUICK, "logging.tensorboard=true", "seed=1"]
    Plan(tmp_path, GRID, "", [], [planned("0", overrides)]).save()
    program = f"""
import json, os, sys
from pathlib import Path
from training.sweeps.forkserver import preload
from training.sweeps.job import run_job
preload()
before = set(sys.modules)
status = run_job(Path({str(tmp_path)!r}), "0")
print(json.dumps([status, sorted(set(sys.modules) - before), os.environ.get("MUJOCO_GL")]))
"""
    environment = {"PATH": "", "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"}
    root = Path(__file__).resolve().parents[3]
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    status, imported, display = json.loads(said.stdout.splitlines()[-1])
    assert status == 0
    assert [name for name in imported if not name.startswith(OPTIONAL)] == []
    assert display == "egl"


def test_a_job_is_told_apart_from_its_neighbour_by_seed_and_place(tmp_path: Path) -> None:
    jobs = [planned(str(seed), ["algorithm=SAC", "env=pendulum", f"seed={seed}"]) for seed in (3, 4)]
    Plan(tmp_path, GRID, "", [], jobs).save()
    for seed in (3, 4):
        found = composed_job(tmp_path, str(seed), ["threads=2"])
        assert (found.seed, found.threads, found.hydra.sweep.subdir) == (seed, 2, str(seed))
        assert found.hydra.overrides.task == ["threads=2", "algorithm=SAC", "env=pendulum", f"seed={seed}"]
        assert found.hydra.job.override_dirname == f"algorithm=SAC,env=pendulum,seed={seed},threads=2"
        assert found.hydra.sweep.dir == str(tmp_path)
