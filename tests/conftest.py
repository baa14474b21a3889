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
