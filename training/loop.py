"""The loop around a run's phases: evaluate, log, checkpoint, stop, and continue exactly where it stopped."""

import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from algorithms.base import Metrics
from conf.errors import UserError
from environments.reference_scores import reference_scores
from environments.trajectories import Trajectory
from training import checkpoint
from training.build import Parts
from training.config import Config
from training.diagnosis import diagnose
from training.evaluation import Evaluator
from training.folder import Status
from training.phases import Phase
from training.records import Records
from training.signals import answered_by


class RunInterruptedError(KeyboardInterrupt):
    """SIGTERM or Ctrl-C came; in the loop a checkpoint has been written, unless a second Ctrl-C did not wait for it."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        begun = (folder / "checkpoint.pt").exists()
        advice = f"go on with resume={folder}" if begun else f"before a checkpoint was written in {folder}"
        super().__init__(f"{signal.Signals(signal_number).name}; {advice}")
        self.exit_status = 128 + signal_number


class TrainingError(Exception):
    """Training went wrong by itself, and the last good state is kept."""


class Loop:
    """Runs the phases of a run one after another, inside its folder."""

    def __init__(self, config: Config, parts: Parts, folder: Path, resumed: dict[str, Any] | None = None) -> None:
        self.config, self.parts, self.folder = config, parts, folder
        self.phase_index, self.step = 0, 0
        self.seconds_before, self.started = 0.0, time.perf_counter()
        self.status = Status(folder, config.device)
        self.references = reference_scores(config.env.id)
        self.evaluator = Evaluator(
            config.env.id,
            parts.spaces,
            config.seeds,
            config.evaluation.episodes,
            config.device,
        )
        self.episodes: list[list[Trajectory]] = []
        self.best_returns = [-math.inf] * config.runs
        self.best_policy: dict[str, Tensor] = {}
        self.warned = False
        self.log_due = False
        self.signal_number = 0
        for phase in parts.phases:
            phase.open(folder)
        if resumed:
            self._load(resumed)
        self.records = Records(folder, config, resumed["records"] if resumed else None)

    def run(self) -> None:
        """Run to the end.

        Raises:
            RunInterruptedError: a signal came, and a checkpoint was written.
            TrainingError: a loss or parameter is no longer finite; the last checkpoint is kept.
        """
        self.status.update(state="running", error=None, step=self.step)
        with self._signals():
            for index in range(self.phase_index, len(self.parts.phases)):
                if index > self.phase_index:
                    self.phase_index, self.step = index, 0
                self._run_phase(self.parts.phases[index])
            self.save_checkpoint()

    def _run_phase(self, phase: Phase) -> None:
        with self._progress(phase) as bar:
            while self.step < phase.length:
                metrics = phase.advance()
                self.step += phase.stride
                bar.update(phase.stride)
                self._after_step(phase, metrics, bar)
        phase.finish()

    def _after_step(self, phase: Phase, metrics: Metrics, bar: Any) -> None:
        config, last = self.config, self.step >= phase.length
        self.log_due |= self._due(config.logging.interval, phase)
        if metrics and (self.log_due or last):  # the learner need not update in every step
            self._check_finite(metrics)
            self.records.metrics(phase.name, self.step, metrics)
            self.log_due = False
        if phase.evaluates and (self._due(config.evaluation.interval, phase) or last):
            self._check_finite(metrics)
            bar.set_postfix_str(self._evaluate(phase))
        if self.signal_number:
            self._check_finite(metrics)
            self.save_checkpoint()
            raise RunInterruptedError(self.signal_number, self.folder)
        if config.checkpoint.interval and self._due(config.checkpoint.interval, phase):
            self._check_finite(metrics)
            self.save_checkpoint()

    def _due(self, interval: int, phase: Phase) -> bool:
        return self.step // interval > (self.step - phase.stride) // interval

    def _evaluate(self, phase: Phase) -> str:
        learner = self.parts.learner
        purpose = f"evaluation/{phase.name}/{self.step}"
        self.episodes = self.evaluator.play(lambda observations: learner.act(observations, greedy=True), purpose)
        rows = self.records.evaluation(phase.name, self.step, self.episodes, self.references, self.seconds)
        metrics = diagnose(self.parts, self.episodes)
        self.records.metrics(phase.name, self.step, metrics)
        warning = None if self.warned or not metrics else self.parts.imitation.warning(metrics)
        if warning:
            self.warned = True
            tqdm.write(f"warning: step {self.step}: {warning}", file=sys.stderr)
        self._keep_best([row["return_mean"] for row in rows])
        self.status.update(phase=phase.name, step=self.step)
        return f"return {np.mean([row['return_mean'] for row in rows]):.0f}"

    def _keep_best(self, returns: list[float]) -> None:
        """Save the latest policy of every seed, and the best one so far of each."""
        state = {
            name: value.to("cpu", copy=True)
            for name, value in self.parts.learner.evaluation_policy.state_dict().items()
        }
        self.save_policy("policy.pt", state)
        for run, (new, old) in enumerate(zip(returns, self.best_returns, strict=True)):
            if new > old:
                self.best_returns[run] = new
                for name, value in state.items():
                    self.best_policy.setdefault(name, value.clone())[run] = value[run]
        self.save_policy("best_policy.pt", self.best_policy)

    def save_policy(self, name: str, state: dict[str, Tensor]) -> None:
        policy = self.parts.learner.evaluation_policy
        checkpoint.save(
            self.folder / name,
            {
                "environment_id": self.config.env.id,
                "algorithm": self.config.algorithm,
                "seeds": list(self.config.seeds),
                "spaces": self.parts.spaces.to_dict(),
                "actor": type(policy).__name__,
                "settings": policy.settings,
                "network": dataclasses.asdict(self.config.reinforcement.actor),
                "state": state,
            },
        )

    def _check_finite(self, metrics: Metrics) -> None:
        """Stop before a damaged state replaces a good one."""
        for name, value in metrics.items():
            if not torch.isfinite(value).all():
                raise TrainingError(f"{name} is not finite at step {self.step} (is a reward not finite?)")
        for module in (self.parts.learner, self.parts.imitation):
            for name, parameter in module.named_parameters():
                if not torch.isfinite(parameter).all():
                    raise TrainingError(f"parameter {name} is not finite at step {self.step}")

    @property
    def seconds(self) -> float:
        """Wall time spent on this run, over all its resumptions."""
        return self.seconds_before + time.perf_counter() - self.started

    def save_checkpoint(self) -> None:
        phase = self.parts.phases[self.phase_index]
        checkpoint.save(
            self.folder / "checkpoint.pt",
            {
                "phase": phase.name,
                "step": self.step,
                "seconds": self.seconds,
                "warned": self.warned,
                "log_due": self.log_due,
                "best_returns": self.best_returns,
                "best_policy": self.best_policy,
                "records": self.records.state_dict(),
                "parts": {name: part.state_dict() for name, part in self._stateful(phase).items()},
            },
        )
        self.status.update(phase=phase.name, step=self.step)

    def _load(self, saved: dict[str, Any]) -> None:
        names = [phase.name for phase in self.parts.phases]
        self.seconds_before, self.warned, self.log_due = saved["seconds"], saved["warned"], saved["log_due"]
        self.best_returns, self.best_policy = saved["best_returns"], saved["best_policy"]
        try:
            self.phase_index, self.step = names.index(saved["phase"]), saved["step"]
            for name, part in self._stateful(self.parts.phases[self.phase_index]).items():
                part.load_state_dict(saved["parts"].pop(name))  # a memory is large: nothing of it is held twice
        except torch.OutOfMemoryError:  # which is a RuntimeError, and no fault of the file
            raise
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            path = self.folder / "checkpoint.pt"
            raise UserError(f"{path} does not fit this configuration or version: {error}") from error

    def _stateful(self, phase: Phase) -> dict[str, Any]:
        parts: dict[str, Any] = {"learner": self.parts.learner, "imitation": self.parts.imitation}
        if self.parts.demonstrations:
            parts["demonstrations"] = self.parts.demonstrations
        return parts | phase.parts()

    def _progress(self, phase: Phase) -> Any:
        return tqdm(
            total=phase.length,
            initial=self.step,
            desc=phase.name.replace("_", " "),
            unit="step",
            disable=not self.config.logging.progress or phase.length == 0,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the run after the step in progress, and a Ctrl-C behind them at once: a step that
        evaluates may take long, and in an environment without a time limit for ever. Not so SIGTERM, of which the jobs
        of a sweep may get two: from the process that starts them, and when that ends.
        """

        def note(number: int, frame: object) -> None:
            if self.signal_number and number == signal.SIGINT:
                raise RunInterruptedError(number, self.folder)
            if number == signal.SIGINT:  # not by print: it may be in the middle of one
                os.write(2, b"\nstopping behind this step or evaluation; Ctrl-C again does not wait\n")
            self.signal_number = number

        with answered_by(note):
            yield
