"""Errors that are the user's to mend: reported as one line, without a traceback, with exit status 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something typed or supplied by the user is wrong. The message says what, where and what is allowed."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest allowed word (in any case), or an empty string where none is near."""
    by_lower_case = {name.lower(): name for name in allowed}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=0.6)
    return f"; did you mean '{by_lower_case[near[0]]}'?" if near else ""
