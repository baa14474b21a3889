"""From what was typed after `train.py -m` and `train_all.py` to the sweep that it asks for."""

from collections.abc import Sequence

from hydra.core.override_parser.types import Override

from training.cli import options_parser
from training.explain import check_overrides, parse_overrides
from training.sweeps.grid import refuse_hydra, run_grid
from training.sweeps.options import split


def train_sweep(arguments: Sequence[str]) -> int:
    """`train.py -m`: exit status of the sweep."""
    typed = parse_overrides(options_parser().parse_intermixed_args(list(arguments)).overrides)
    return run_grid(checked(typed))


def checked(typed: Sequence[Override]) -> list[Override]:
    """Overrides of a sweep, with `env=custom` for an id. Raises UserError for what makes no sense there."""
    _, own = split(typed)
    check_overrides(own, several=True)
    refuse_hydra(own)
    keys = {override.key_or_group for override in typed}
    custom = parse_overrides(["env=custom"]) if "env.id" in keys and "env" not in keys else []
    return [*custom, *typed]
