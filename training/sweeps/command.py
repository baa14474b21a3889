"""From what was typed after `train.py -m` and `train_all.py` to the sweep that it asks for."""

from argparse import Namespace
from collections.abc import Sequence

from hydra.core.override_parser.types import Override

from conf.errors import UserError
from training.cli import options_parser
from training.config import register_schemas
from training.explain import check_overrides, parse_overrides
from training.sweeps.grid import refuse_hydra, run_grid
from training.sweeps.options import split
from training.sweeps.plan import resumed_plan

SWEEPER = "hydra/sweeper"


def train_sweep(arguments: Sequence[str]) -> int:
    """`train.py -m`: exit status of the sweep."""
    options = _options(arguments)
    typed = parse_overrides(options.overrides)
    sweeper = [override.value() for override in typed if override.key_or_group == SWEEPER]
    typed = [override for override in typed if override.key_or_group != SWEEPER]
    if sweeper and sweeper[-1] not in ("ax", "basic"):
        raise UserError(f"{SWEEPER}={sweeper[-1]} is not known: expected basic (a grid) or ax (optimisation)")
    if "ax" in sweeper or _is_optimisation(typed):
        return _optimise(typed, False, options.install)
    if options.install:
        raise UserError("--install keeps the result of an optimisation: a grid has none")
    return run_grid(checked(typed))


def train_everywhere(arguments: Sequence[str]) -> int:
    """`train_all.py`: exit status."""
    options = _options(arguments)
    if options.cfg or options.info:
        raise UserError("train_all.py does not print configurations: python train.py algorithm=<name> --cfg job does")
    register_schemas()
    typed = parse_overrides(options.overrides)
    if options.multirun or _is_optimisation(typed):
        return _optimise([o for o in typed if o.key_or_group != SWEEPER], True, options.install)
    if options.install:
        raise UserError("--install keeps the result of an optimisation: add -m")
    from training.sweeps.joint import run_joint

    return run_joint(checked(typed))


def _optimise(typed: Sequence[Override], joint: bool, install: bool) -> int:
    from training.sweeps.optimise import run_optimisation

    return run_optimisation(checked(typed), joint, install)


def _options(arguments: Sequence[str]) -> Namespace:
    return options_parser().parse_intermixed_args(list(arguments))


def _is_optimisation(typed: Sequence[Override]) -> bool:
    """Whether the sweep to go on with is one."""
    saved = resumed_plan(typed)
    return saved is not None and saved.optimises


def checked(typed: Sequence[Override]) -> list[Override]:
    """Overrides of a sweep, with `env=custom` for an id. Raises UserError for what makes no sense there."""
    _, own = split(typed)
    check_overrides(own, several=True)
    refuse_hydra(own)
    keys = {override.key_or_group for override in typed}
    custom = parse_overrides(["env=custom"]) if "env.id" in keys and "env" not in keys else []
    return [*custom, *typed]
