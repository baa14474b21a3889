"""What the command-line tools share: reading arguments, refusing in one line, and showing how long something takes."""

import argparse
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from conf.errors import UserError


class Parser(argparse.ArgumentParser):
    """What is typed wrong is answered in one line."""

    def __init__(self, description: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(description=description, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def positive(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def check_output(option: str, path: Path) -> None:
    """Before minutes are spent. Raises UserError where no file can be written."""
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no such folder")
    if path.exists() and not path.is_file():
        raise UserError(f"{option} {path} is not a file: expected the name of one, which is replaced where it exists")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{option} {path}: {path.parent} is a folder that cannot be written to")


def exit_status(work: Callable[[], None]) -> int:
    """0 done, 2 refused with one line that says why, 130 stopped by Ctrl-C, 143 by SIGTERM.

    Both signals let what is under way clean up behind itself.
    """
    previous = signal.signal(signal.SIGTERM, _terminated)
    try:
        try:
            work()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        return 143 if error.args else 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _terminated(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`; `never` for infinity, `unknown` for NaN."""
    if not math.isfinite(seconds):
        return "unknown" if math.isnan(seconds) else "never"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
