"""Untrained policies in files, as a run leaves them."""

from pathlib import Path

import torch

from tests.training.helpers import SMALL, configured, make_loop
from training.folder import write_atomically


def save_policy(parent: Path, *overrides: str) -> Path:
    """`policy.pt` in the folder of a run, with the command that made it."""
    torch.set_num_threads(1)
    loop = make_loop(configured(*SMALL, "algorithm=SAC", *overrides), parent)
    loop.save_policy("policy.pt", loop.parts.learner.policy.state_dict())
    (loop.folder / ".hydra").mkdir()
    saved = "- algorithm=SAC\n- env.demonstrations=/home/me/data/mine.hdf5\n- output_folder=/home/me/out\n"
    write_atomically(loop.folder / ".hydra" / "overrides.yaml", saved)
    return loop.folder / "policy.pt"
