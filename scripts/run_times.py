"""How long a run will take on this machine: a second of each of its phases, and one evaluation, times their number."""

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from conf.errors import UserError
from training.aggregation import Aggregation
from training.build import Parts, build
from training.config import Config, check_presence, parse
from training.evaluation import Evaluator
from training.phases import Interaction, Phase
from training.sweeps.plan import composed

BUDGET = 1.0  # seconds of each phase
WARM_UP = 10  # advances before them: optimisers and memory pools are then in place


def estimated_seconds(overrides: Sequence[str], elsewhere: bool = False) -> float:
    """Wall seconds of `train.py <overrides>`, with episodes of evaluations as long as they can be.

    NaN for DAgger, whose rounds grow, for runs of other machines (`elsewhere`) on a device that is not here, and for
    one that soon fails, as its numbers are not finite. Starting, checkpoints and pictures are not
    counted.

    Raises:
        UserError, HydraException, OmegaConfBaseException: the run could not begin.
    """
    if elsewhere:
        device = parse(composed(overrides), elsewhere).device
        try:
            check_presence(device)
        except UserError:
            return math.nan
    config = parse(composed(overrides))
    torch.set_num_threads(config.threads)
    config.training.start = 1  # steps that update are what takes time
    parts = build(config)
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for phase in parts.phases:
            if isinstance(phase, Aggregation):
                return math.nan
            phase.open(Path(folder))
            length = phase.length
            if length:
                try:
                    seconds += length * _seconds_of_a_step(phase, config)
                except FloatingPointError:
                    return math.nan
            started = time.perf_counter()
            phase.finish()
            seconds += time.perf_counter() - started
            if phase.evaluates and length:
                seconds += math.ceil(length / config.evaluation.interval) * _seconds_of_an_evaluation(config, parts)
    return seconds


def _seconds_of_a_step(phase: Phase, config: Config) -> float:
    """Mean over whole rounds of collecting and updating, for as long as `BUDGET` and the phase last."""
    interval = config.training.interval if isinstance(phase, Interaction) else 1
    steps = 0
    for _ in range(min(WARM_UP, phase.length // (2 * phase.stride))):
        phase.advance()
        steps += phase.stride
    _synchronise(config)
    started, first = time.perf_counter(), steps
    while steps < phase.length and ((steps - first) % interval or time.perf_counter() - started < BUDGET):
        phase.advance()
        steps += phase.stride
    _synchronise(config)
    # No steps are left where the warm-up itself was enough: behavioural cloning may stop early.
    return (time.perf_counter() - started) / (steps - first) if steps > first else 0.0


def _seconds_of_an_evaluation(config: Config, parts: Parts) -> float:
    """From the episodes of a policy that has hardly begun to learn, which may be short."""
    evaluator = Evaluator(config.env.id, parts.spaces, config.seeds, config.evaluation.episodes, config.device)
    started = time.perf_counter()
    played = evaluator.play(lambda observations: parts.learner.act(observations, greedy=True), "estimate")
    elapsed = time.perf_counter() - started
    lengths = [len(trajectory.observations) for own in played for trajectory in own]
    horizon = parts.spaces.horizon
    return elapsed * (horizon * len(lengths) / sum(lengths) if horizon else 1.0)


def _synchronise(config: Config) -> None:
    if torch.device(config.device).type == "cuda":
        torch.cuda.synchronize()
