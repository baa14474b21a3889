"""What the command-line tools share: reading arguments, refusing in one line, and showing how long something takes."""

import argparse
import math
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from conf.errors import UserError


class Parser(argparse.ArgumentParser):
    """What is typed wrong is answered in one line."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def positive(text: str) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def exit_status(work: Callable[[], None]) -> int:
    """0 done, 2 refused with one line that says why, 130 stopped by Ctrl-C."""
    try:
        work()
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`; `never` for infinity, `unknown` for NaN."""
    if not math.isfinite(seconds):
        return "unknown" if math.isnan(seconds) else "never"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
