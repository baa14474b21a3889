"""A file of 1,000,000 steps is inspected, imported and trained on within 1.5 GiB of resident memory."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS, EPISODE = 1_000_000, 5000
LIMIT = 1.5 * 2**20  # KiB
WIDTHS = {"observations": 27, "next_observations": 27, "actions": 8, "infos/qpos": 15, "infos/qvel": 14}
MEASURED = """
import json, resource, runpy, sys
for sys.argv in json.loads(sys.argv[1]):
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as exit:
        assert not exit.code, sys.argv
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in the shapes of Ant, with its simulator's states: more than is read at once."""
    path = tmp_path_factory.mktemp("large") / "ant.hdf5"
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["environment_id"] = "Ant-v4"
        columns = {name: file.create_dataset(name, (STEPS, width), np.float32) for name, width in WIDTHS.items()}
        for start in range(0, STEPS, EPISODE):
            states = generator.standard_normal((EPISODE + 1, 27), np.float32)
            columns["observations"][start : start + EPISODE] = states[:-1]
            columns["next_observations"][start : start + EPISODE] = states[1:]
            columns["actions"][start : start + EPISODE] = np.tanh(states[1:, :8])
        file["rewards"] = np.ones(STEPS, np.float32)
        file["terminals"] = np.zeros(STEPS, bool)
        file["timeouts"] = np.arange(STEPS) % EPISODE == EPISODE - 1
    return path


def peak(*programs: list[str]) -> float:
    """Resident memory in KiB, at most, of a process that runs programs one after another: none of them needs more."""
    command = [sys.executable, "-c", MEASURED, json.dumps(programs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


def test_inspect_import_and_train(large: Path, tmp_path: Path) -> None:
    inspect = ["scripts/demonstrations.py", "inspect", str(large), "--picture", str(tmp_path / "a.png")]
    imported = ["scripts/demonstrations.py", "import", str(large), str(tmp_path / "a.hdf5")]
    options = ["bc_pretraining.iterations=20", "evaluation.episodes=1", f"output_folder={tmp_path}"]
    train = ["train.py", "algorithm=BC", "env=ant", f"env.demonstrations={large}", *options]
    assert peak(inspect, imported, train) < LIMIT
