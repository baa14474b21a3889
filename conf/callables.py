"""Python functions that a configuration names by their import path."""

import importlib
from collections.abc import Callable
from typing import Any

from conf.errors import UserError


def imported(path: str, key: str) -> Callable[..., Any]:
    """The function at `package.module:function`; `key` is the option that names it.

    Raises:
        UserError: there is none, or its module cannot be imported.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise UserError(f"{key}={path}: expected the import path of a Python function, as in package.module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever someone's module raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{key}={path} cannot be imported ({reason}); is its folder in PYTHONPATH?") from error
    if not callable(found):
        raise UserError(f"{key}={path} is {type(found).__name__}: expected a function")
    function: Callable[..., Any] = found
    return function
