"""Where numbers and data come from, without anything that names the machine they were made on."""

import hashlib
import importlib.metadata
import platform
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from conf.errors import UserError
from scripts.kept_runs import read_overrides
from training.policy import SavedPolicy, load_policy

PACKAGES = ("gymnasium", "mujoco", "numpy", "torch")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of the packages that decide what an episode is."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def processor(devices: Iterable[str] = ()) -> str:
    """The model, which says how fast a thread may be; and those of GPUs among these devices."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    name = found[1] if found else platform.processor() or platform.machine()
    gpus = {torch.cuda.get_device_name(device) for device in set(devices) if torch.device(device).type == "cuda"}
    return ", ".join([name, *sorted(gpus)])


def without_paths(command: str) -> str:
    """Absolute paths are reduced to their last part: the rest says something about a machine only."""
    return re.sub(r"(?<![\w.])~?/(?:[^\s/'\"=,]+/)*([^\s/'\"=,]*)", r"\1", command)


def training_command(policy: Path) -> str | None:
    """The command that trained a policy, from the run's folder around it; None where it was moved away.

    Raises:
        UserError: it is damaged.
    """
    overrides = policy.parent / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        return None
    # A resumed run has its new values at the end.
    latest = {item.split("=")[0]: item for item in read_overrides(overrides)}
    kept = [item for key, item in latest.items() if key not in ("output_folder", "logging.progress")]
    return without_paths(" ".join(["python train.py", *kept]))


def load_checked(path: Path, run_index: int) -> SavedPolicy:
    """A policy file with a policy of that index.

    Raises:
        UserError: the file is no policy, or holds fewer.
    """
    policy = load_policy(path)
    if not 0 <= run_index < len(policy.seeds):
        raise UserError(f"--run-index {run_index}: expected 0 to {len(policy.seeds) - 1}, the policies in {path.name}")
    return policy
