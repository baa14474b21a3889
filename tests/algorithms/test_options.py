"""Every general option with every algorithm and every other option: it trains, or is refused in one clear line.

Half of the whole product: each combination of any seven of the eight options is in it. WHOLE_PRODUCT=1 takes all.
"""

import itertools
import os
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms import IMITATION_MODULES, LEARNERS
from algorithms.base import TrainingConfig
from algorithms.behavioural_cloning import BCPretrainingConfig
from conf.errors import UserError
from environments.formats import read_demonstrations
from tests import shapes
from tests.algorithms.support import default_options, make_config, write_demonstrations
from training.build import build

OPTIONS: dict[str, tuple[Any, ...]] = {
    "state_only": (False, True),
    "absorbing": (False, True),
    "mix_expert_data": ("none", "mixed_batch", "prefill_memory"),
    "subsample": (1, 3),
    "bc_aux_loss": (False, True),
}
OUTSIDE: dict[str, tuple[Any, ...]] = {"cloned": (0, 2), "runs": (1, 2), "precision": ("fp32", "bf16")}

PAIRS = [
    (learner, module)
    for learner in LEARNERS
    for module in IMITATION_MODULES
    if IMITATION_MODULES[module].supports_on_policy or not LEARNERS[learner].on_policy
    if not IMITATION_MODULES[module].queries_expert  # hardly any of these options applies
]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demonstrations(tmp_path_factory.mktemp("demonstrations") / "d.hdf5", episodes=2)


def combinations() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Whatever seven of them are, one of the values of the eighth makes the sum of all numbers even."""
    every = {**OPTIONS, **OUTSIDE}
    found = []
    for numbers in itertools.product(*(range(len(values)) for values in every.values())):
        if sum(numbers) % 2 == 0 or "WHOLE_PRODUCT" in os.environ:
            chosen = {name: values[number] for (name, values), number in zip(every.items(), numbers, strict=True)}
            found.append(({name: chosen[name] for name in OPTIONS}, {name: chosen[name] for name in OUTSIDE}))
    return found


def test_any_seven_options_come_in_every_combination() -> None:
    every = {**OPTIONS, **OUTSIDE}
    for left_out in every:
        names = [name for name in every if name != left_out]
        found = {tuple({**options, **outside}[name] for name in names) for options, outside in combinations()}
        assert found == set(itertools.product(*(every[name] for name in names)))


@pytest.mark.parametrize(("learner", "module"), PAIRS)
def test_the_whole_product(learner: str, module: str, demonstrations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.build.read_demonstrations", cache(read_demonstrations))
    trained = 0
    for options, outside in combinations():
        where = f"{options} {outside}"
        # Checked in an eighth of all: no shape depends on precision, on cloning being left out, or on rows that are.
        checked = outside["cloned"] and outside["precision"] == "fp32" and options["subsample"] > 1
        try:
            with nullcontext() if checked else shapes.unchecked():
                losses = train(learner, module, demonstrations, options, outside)
        except UserError as error:
            assert "\n" not in str(error) and refused_for(options, str(error)), f"{where}: {error}"
            continue
        trained += 1
        assert losses and all(torch.isfinite(loss).all() for loss in losses), where
    assert trained >= len(combinations()) / 24, "nearly everything is refused"


def train(
    learner: str, module: str, demonstrations: Path, options: dict[str, Any], outside: dict[str, Any]
) -> list[torch.Tensor]:
    """A few steps, with every loss on the way."""
    imitation = default_options(module, learner, **options)
    fields: dict[str, Any] = {"runs": outside["runs"], "precision": outside["precision"]}
    calls = 8  # an update of a learner that is on-policy
    if not LEARNERS[learner].on_policy:
        fields["training"] = TrainingConfig(start=4, interval=2, batch_size=8)
        calls = 3  # of two environments: two updates
    if outside["cloned"]:
        fields["bc_pretraining"] = BCPretrainingConfig(iterations=outside["cloned"])
    losses = []
    for phase in build(make_config(module, demonstrations, learner, imitation, **fields)).phases:
        metrics = [phase.advance() for _ in range(min(phase.length, calls))]
        phase.finish()
        losses += [value for m in metrics for name, value in m.items() if "loss" in name]
    return losses


def refused_for(options: dict[str, Any], message: str) -> bool:
    """A refusal names one of the options that were set, and its value."""
    changed = [key for key, value in options.items() if value != OPTIONS[key][0]]
    return any(key in message for key in [*changed, "mix_expert_data"])
