"""What the command-line tools share: reading arguments, and showing how long something takes."""

import argparse
import math
from typing import NoReturn

from conf.errors import UserError


class Parser(argparse.ArgumentParser):
    """What is typed wrong is answered in one line."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.4 h`; `never` for infinity, `unknown` for NaN."""
    if not math.isfinite(seconds):
        return "unknown" if math.isnan(seconds) else "never"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
