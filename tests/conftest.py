"""Every test, and every program that a test starts, uses one thread: small networks run far slower on several."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Iterator

import pytest
import torch

from tests import shapes

torch.set_num_threads(1)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """For runs of thousands of steps, half of whose time is the check of what other tests have had checked."""
    with shapes.unchecked():
        yield


@pytest.fixture(autouse=True, scope="session")
def only_wanted_pictures() -> None:
    from tests.pictures import leave_out  # now, when the check of shapes has been installed

    leave_out()


@pytest.fixture
def drawn_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw their pictures."""
    from tests.pictures import WANTED

    monkeypatch.setenv(WANTED, "yes")
