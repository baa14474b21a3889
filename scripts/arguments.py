"""What the command-line tools share in reading their arguments."""

import argparse
from typing import NoReturn

from conf.errors import UserError


class Parser(argparse.ArgumentParser):
    """What is typed wrong is answered in one line."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")
