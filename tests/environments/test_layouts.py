"""What one layout of a robot's observations shows of another, by columns that are numbered."""

import numpy as np
import pytest

from conf.errors import UserError
from environments.layouts import narrowing


@pytest.mark.parametrize(
    ("environment_id", "size", "known", "wanted", "columns"),
    [
        ("seals/Hopper-v1", 12, "Hopper-v4", 11, range(1, 12)),
        ("seals/Ant-v1", 29, "Ant-v4", 27, range(2, 29)),
        ("Ant-v2", 111, "Ant-v4", 27, range(27)),
        ("Hopper-v5", 11, "Hopper-v4", 11, range(11)),
        ("mine/Slippery-v0", 3, "Pendulum-v1", 3, range(3)),
    ],
)
def test_columns(environment_id: str, size: int, known: str, wanted: int, columns: range) -> None:
    numbered = np.arange(size, dtype=np.float32)[None]
    assert narrowing(environment_id, size, known, wanted)(numbered)[0].tolist() == list(columns)


@pytest.mark.parametrize(
    ("environment_id", "size", "known", "wanted", "message"),
    [
        ("Walker2d-v4", 17, "HalfCheetah-v4", 17, "HalfCheetah-v4 is another robot than Walker2d-v4"),
        ("seals/Walker2d-v1", 18, "HalfCheetah-v4", 17, "is another robot"),
        ("Hopper-v4", 11, "seals/Hopper-v1", 12, "observations of 11 numbers do not hold what those of 12 do"),
        ("mine/Slippery-v0", 4, "Pendulum-v1", 3, "there is no rule for the observations of mine/Slippery-v0"),
    ],
)
def test_what_is_refused(environment_id: str, size: int, known: str, wanted: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        narrowing(environment_id, size, known, wanted)
