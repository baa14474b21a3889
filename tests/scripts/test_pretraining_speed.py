"""Pretraining beside the usual PyTorch: both are timed, both learn the same, and what is wrong is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.pretraining_speed import ROWS, main, usual_update
from scripts.timing import composed
from tests.scripts.helpers import assert_refused
from tests.training.helpers import hopper_demonstrations
from training.build import build
from training.config import parse


def test_every_row_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hopper_demonstrations(tmp_path / "hopper.hdf5")
    typed = [f"env.demonstrations={path}", "imitation.trajectories=3", "training.batch_size=16"]
    assert main(["--updates", "4", "--blocks", "2", *typed]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    names = ["BC", "RED", "DRIL dropout", "DRIL ensemble"]
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"{name} ")
        ours, usual, ratio = map(float, line.split()[-3:])
        assert min(ours, usual) > 0 and 0.01 < ratio < 100


@pytest.mark.parametrize(("algorithm", "chosen"), ROWS[:3])
def test_both_train_networks_of_the_same_size(algorithm: str, chosen: list[str], tmp_path: Path) -> None:
    path = hopper_demonstrations(tmp_path / "hopper.hdf5")
    words = [f"algorithm={algorithm}", *chosen, f"env.demonstrations={path}", "imitation.trajectories=3"]
    config = parse(composed([*words, "training.batch_size=16"], algorithm))
    parts = build(config)
    assert parts.demonstrations is not None
    update = usual_update(config, parts.demonstrations)
    phase: Any = parts.phases[0]
    own = phase.cloning.optimiser if algorithm == "BC" else phase.imitation.optimiser
    trained = update.args[0]
    assert sorted(map(torch.numel, trained.parameters())) == sorted(map(torch.numel, own.param_groups[0]["params"]))
    before = [parameter.clone() for parameter in trained.parameters()]
    update()
    assert all(not torch.equal(one, two) for one, two in zip(before, trained.parameters(), strict=True))


@pytest.mark.parametrize(
    ("typed", "words"), [(["--blocks", "0"], "at least 1"), (["env=hoper"], "did you mean 'hopper'?")]
)
def test_refused(typed: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(main, typed, words, capsys)
