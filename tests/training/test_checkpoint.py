"""Checkpoints are whole or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import UserError
from training import checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"step": 3, "weights": torch.arange(1000.0)})
    return path


def test_round_trip(saved: Path) -> None:
    content = checkpoint.load(saved)
    assert content["step"] == 3
    assert content["weights"].equal(torch.arange(1000.0))
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_interrupted_write_keeps_the_previous_one(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_written(content: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(saved, {"step": 4})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_every_changed_value_is_noticed(saved: Path) -> None:
    """torch.load itself does not look at checksums."""
    data = saved.read_bytes()
    place = data.index(torch.arange(100.0).numpy().tobytes())
    for offset in (0, 1000, 3999):
        changed = bytearray(data)
        changed[place + offset] ^= 1
        saved.write_bytes(changed)
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(saved)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(saved)


def test_another_format(saved: Path) -> None:
    torch.save({"format": checkpoint.FORMAT + 1}, saved)
    with pytest.raises(
        UserError, match=f"format {checkpoint.FORMAT + 1}: this version reads format {checkpoint.FORMAT}"
    ):
        checkpoint.load(saved)


def test_something_else(saved: Path) -> None:
    for content in ([1, 2], {"step": 1}):
        torch.save(content, saved)
        with pytest.raises(UserError, match="not a checkpoint"):
            checkpoint.load(saved)
    with pytest.raises(UserError, match="there is no"):
        checkpoint.load(saved.with_name("other.pt"))
    with pytest.raises(UserError, match="is a folder: expected a file"):
        checkpoint.load(saved.parent)


class Harmful:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_inside_is_run(saved: Path) -> None:
    torch.save({"format": checkpoint.FORMAT, "trap": Harmful(saved.with_name("sprung"))}, saved)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoint.load(saved)
    assert not saved.with_name("sprung").exists()
