"""Measure what a step costs PWIL's coupling, in processor time of one thread, which other programs hardly change.

    python scripts/pwil_cost.py
    python scripts/pwil_cost.py env=halfcheetah env.num_envs=10

The transitions are an untrained policy's; the demonstrations all of those of the environment, unless overrides say
otherwise.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.command_line import Parser, exit_status, positive


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--steps", type=positive, default=200, help="of a block (default: %(default)s)")
    parser.add_argument("--blocks", type=positive, default=10, help="default: %(default)s")
    parser.add_argument("overrides", nargs="*", help="options of train.py, as env=halfcheetah")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 2 refused with one line that says why."""
    return exit_status(lambda: measure(parser().parse_args(arguments)))


def measure(options: argparse.Namespace) -> None:
    """Raises UserError where the overrides are wrong."""
    import torch

    from algorithms.imitation.pwil import PWIL
    from scripts.timing import Setting, configuration
    from training.build import build
    from training.phases import Interaction

    torch.set_num_threads(1)
    config = configuration(Setting("PWIL", "fp32", 1, 1, 256), options.overrides, None)
    phase = build(config).phases[-1]
    assert isinstance(phase, Interaction) and isinstance(phase.imitation, PWIL)
    costs = []
    for _ in range(options.blocks):
        seconds = 0.0
        for _ in range(options.steps):
            transition = phase.envs.step(phase.learner.act(phase.envs.observations))
            started = time.process_time()
            phase.imitation.annotate(transition)
            seconds += time.process_time() - started
        costs.append(1000 * seconds / options.steps)
    print(
        f"{len(phase.imitation.atoms.masses)} atoms, num_envs={config.env.num_envs}: "
        f"{statistics.median(costs):.3f} ms a step (median of {len(costs)} blocks, fastest {min(costs):.3f} ms)"
    )


if __name__ == "__main__":
    sys.exit(main())
