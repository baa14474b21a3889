"""Runs without training, as folders that jobs leave; and `python train_all.py <arguments>` inside this process."""

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from omegaconf import OmegaConf

import train_all
from tests.training.commands import Outcome
from training.folder import write_json
from training.sweeps.plan import composed

HEADER = "phase,step,seed,episodes,return_mean,return_std,score,length_mean,length_min,length_max,seconds\n"


def written_run(
    folder: Path,
    scores: dict[int, Sequence[float]],
    *overrides: str,
    state: str = "finished",
    error: str | None = None,
) -> Path:
    """A run whose seeds had these scores at steps 10, 20, ...; returns are a hundred times as large."""
    first = min(scores)
    settings = composed(["algorithm=SAC", "env=pendulum", *overrides, f"seed={first}", f"runs={len(scores)}"])
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(settings, folder / ".hydra" / "config.yaml", resolve=True)
    rows = [
        f"interaction,{10 * number},{seed},1,{100 * score},0,{score},200,200,200,{number}"
        for seed, own in scores.items()
        for number, score in enumerate(own, 1)
    ]
    (folder / "evaluations.csv").write_text(HEADER + "".join(f"{row}\n" for row in rows))
    write_json(folder / "status.json", {"state": state, "step": 10, "error": error})
    return folder


def run_all(*arguments: str) -> Outcome:
    output, error, status = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["train_all.py", *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
    ):
        try:
            train_all.main()
        except SystemExit as exit:
            status = int(exit.code or 0)
    return Outcome(status, output.getvalue(), error.getvalue())
