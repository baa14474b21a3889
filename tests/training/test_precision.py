"""`precision=auto` becomes what the device is fastest in, and a run keeps that name."""

import platform
from pathlib import Path

import pytest
import torch

from tests.training.helpers import SMALL, composed, configured
from training import precision
from training.build import build
from training.config import parse
from training.sweeps.plan import planned


@pytest.mark.parametrize(("instructions", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_is_fastest_in(
    instructions: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16", lambda device: instructions)
    configuration = composed("algorithm=SAC", "precision=auto")
    assert parse(configuration).precision == chosen
    assert configuration.precision == chosen  # this is written to the run's folder
    assert configured("algorithm=SAC").precision == "fp32"
    assert configured("algorithm=SAC", "precision=bf16").precision == "bf16"


@pytest.mark.parametrize(
    ("avx512", "amx", "fastest"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_processors_with_instructions_for_bfloat16(
    avx512: bool, amx: bool, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert precision.fastest_precision(torch.device("cpu")) == fastest


def test_this_processor_has_an_answer() -> None:
    assert precision.fastest_precision(torch.device("cpu")) in precision.DTYPES


def test_a_run_goes_on_in_the_precision_that_it_was_begun_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is faster in the other one."""
    saved = tmp_path / ".hydra" / "config.yaml"
    saved.parent.mkdir()
    monkeypatch.setattr(precision, "_has_bfloat16", lambda device: False)
    for text, chosen in (
        ("precision: bf16", "bf16"),
        ("precision: [", "fp32"),
        ("seed: 0", "fp32"),
        ("precision: 7", "fp32"),
    ):
        saved.write_text(text)
        assert parse(composed("algorithm=SAC", "precision=auto", f"resume={tmp_path}")).precision == chosen


def test_jobs_planned_on_another_machine_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for instructions in (True, False):
        monkeypatch.setattr(precision, "_has_bfloat16", lambda device, known=instructions: known)
        keys.append(planned("0", ["algorithm=SAC", "env=pendulum", "precision=auto"]).key)
    assert keys[0] == keys[1]


def test_presets_leave_it_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16", lambda device: False)
    for preset in ("GAIL_fast", "GAIL_fast_without_cloning"):
        assert configured("algorithm=GAIL", f"optimised_hyperparameters={preset}").precision == "fp32"


@pytest.mark.parametrize(("instructions", "warnings"), [(True, 0), (False, 1)])
def test_emulation_that_was_asked_for_is_said(
    instructions: bool, warnings: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "_has_bfloat16", lambda device: instructions)
    build(configured(*SMALL, "algorithm=SAC", "precision=bf16"))
    assert capsys.readouterr().err.count("precision=bf16 is emulated on this cpu") == warnings
