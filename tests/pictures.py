"""Most of the time of a run of a few steps goes into its pictures: they are drawn where a test asks for them."""

import os
from unittest import mock

from training import report
from training.loop import Loop

WANTED = "TESTS_DRAW_PICTURES"  # in the environment, so that it holds in other processes, too


def leave_out() -> None:
    """From now on, where the environment does not want them."""
    draw = report._draw

    def draw_wanted(loop: Loop) -> None:
        if WANTED in os.environ:
            draw(loop)

    mock.patch.object(report, "_draw", draw_wanted).start()
