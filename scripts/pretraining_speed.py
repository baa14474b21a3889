"""Measure how fast pretraining is beside the usual PyTorch: a data loader, `nn.Sequential` and an unfused AdamW.

    python scripts/pretraining_speed.py

Behavioural cloning, RED, and DRIL in both forms, with their published settings on Hopper; the usual way trains one
policy for DRIL where the ensemble here has several. Batches, losses and sizes of networks are the same. Updates per
second of processor time of one thread, which other programs hardly change: medians of blocks that take turns.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memory.batch import Batch
from memory.demonstrations import Demonstrations
from scripts.command_line import Parser, exit_status, positive
from scripts.timing import Timing, composed, measure, ratio, typical
from training.build import build
from training.config import Config, parse

COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminated", "truncated", "weights")
ROWS = [
    ("BC", []),
    ("RED", []),
    ("DRIL", ["imitation.uncertainty=dropout"]),
    ("DRIL", ["imitation.uncertainty=ensemble"]),
]
WARM_UP = 20
LIMIT = 1 - 1e-6  # of actions: atanh(1) is infinite


class Training:
    """Blocks of updates, ours or the usual ones."""

    kinds: tuple[str, ...] = ("updates",)

    def __init__(self, update: Callable[[], object]) -> None:
        self.update = update
        self.block("updates", WARM_UP)

    def block(self, kind: str, steps: int) -> Timing:
        processor, start = time.process_time(), time.perf_counter()
        for _ in range(steps):
            self.update()
        used = time.process_time() - processor
        return Timing(steps / used, used / (time.perf_counter() - start))


class Rows(Dataset[dict[str, Tensor]]):
    """One row at a time."""

    def __init__(self, rows: Batch) -> None:
        self.columns = {name: getattr(rows, name)[0] for name in COLUMNS}

    def __len__(self) -> int:
        return len(self.columns["rewards"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def endless(demonstrations: Demonstrations, batch_size: int) -> Iterator[dict[str, Tensor]]:
    loader = DataLoader(Rows(demonstrations.rows()), batch_size, shuffle=True, drop_last=True)
    while True:
        yield from loader


def network(inputs: int, outputs: int, model: Any) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(model.input_dropout)]
    for _ in range(model.depth):
        activation = nn.ReLU() if model.activation == "relu" else nn.Tanh()
        layers += [nn.Linear(inputs, model.hidden_size), nn.Dropout(model.dropout), activation]
        inputs = model.hidden_size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def usual_update(config: Config, demonstrations: Demonstrations) -> "partial[None]":
    """One update of a network of the algorithm's size by its loss; the network is the first argument."""
    batches, rows = endless(demonstrations, config.training.batch_size), demonstrations.rows()
    observations, actions = rows.observations.shape[-1], rows.actions.shape[-1]
    if config.algorithm == "RED":
        model, options, inputs = config.imitation.model, config.imitation, observations + actions
        trained, target = network(inputs, inputs, model), network(inputs, inputs, model)
        loss: Any = partial(distillation_loss, target)
    else:
        cloning = config.algorithm == "BC"
        model = config.reinforcement.actor if cloning else config.imitation.model
        options = config.bc_pretraining if cloning else config.imitation
        trained = network(observations, 2 * actions, model)
        loss = cloning_loss
    optimiser = torch.optim.AdamW(trained.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    return partial(update, trained, optimiser, loss, batches)


def update(
    trained: nn.Module,
    optimiser: torch.optim.Optimizer,
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    batches: Iterator[dict[str, Tensor]],
) -> None:
    value = loss(trained, next(batches))
    optimiser.zero_grad()
    value.backward()
    optimiser.step()


def distillation_loss(target: nn.Module, trained: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    inputs = torch.cat([batch["observations"], batch["actions"]], -1)
    with torch.no_grad():
        wanted = target(inputs)
    loss: Tensor = (batch["weights"] * (trained(inputs) - wanted).square().mean(-1)).mean()
    return loss


def cloning_loss(trained: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    mean, log_std = trained(batch["observations"]).chunk(2, -1)
    normal = Independent(Normal(mean, log_std.clamp(-20, 2).exp()), 1)
    policy = TransformedDistribution(normal, [TanhTransform()])
    loss: Tensor = -(batch["weights"] * policy.log_prob(batch["actions"].clamp(-LIMIT, LIMIT))).mean()
    return loss


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("--updates", type=positive, default=1000, help="of a row (default: %(default)s)")
    parser.add_argument("--blocks", type=positive, default=10, help="default: %(default)s")
    parser.add_argument("overrides", nargs="*", help="options of train.py, as env=halfcheetah")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 2 refused with one line that says why."""
    return exit_status(lambda: compare(parser().parse_args(arguments)))


def compare(options: argparse.Namespace) -> None:
    """Raises UserError where the overrides are wrong."""
    torch.set_num_threads(1)
    print("                          updates/s  usual  ratio")
    for algorithm, chosen in ROWS:
        words = [f"algorithm={algorithm}", *chosen, *options.overrides]
        config = parse(composed(words, algorithm))
        parts = build(config)
        assert parts.demonstrations is not None
        pair = [Training(parts.phases[0].advance), Training(usual_update(config, parts.demonstrations))]
        ours, usual = (timing["updates"] for timing in measure(pair, options.updates, options.blocks))
        name = " ".join([algorithm, *(word.partition("=")[2] for word in chosen)])
        print(f"{name:<24} {typical(ours):>10.0f} {typical(usual):>6.0f} {ratio(ours, usual):>6.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
