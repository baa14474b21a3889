"""Answering SIGTERM and Ctrl-C for a while."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def answered_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Both signals go to `handler`, and afterwards where they went before."""
    previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
