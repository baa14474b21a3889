"""What a run measures: tables, TensorBoard, and Weights & Biases where it is asked for."""

import dataclasses
import importlib.util
import math
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.base import Metrics
from conf.errors import UserError
from environments.reference_scores import ReferenceScores
from environments.trajectories import Trajectory
from training.config import Config
from training.folder import Table

EVALUATION_COLUMNS = (
    "phase",
    "step",
    "seed",
    "episodes",
    "return_mean",
    "return_std",
    "score",
    "length_mean",
    "length_min",
    "length_max",
    "seconds",
)
METRIC_COLUMNS = ("phase", "step", "seed", "metric", "value")


class Records:
    """Writes `evaluations.csv` (a row per evaluation and seed), `metrics.csv` (per metric and seed) and TensorBoard."""

    def __init__(self, folder: Path, config: Config, saved: dict[str, Any] | None = None) -> None:
        """`saved`: what `state_dict` returned when the run was checkpointed; everything later is cut off or hidden."""
        self.folder, self.config, self.seeds = folder, config, config.seeds
        self.resumed = saved is not None
        saved = saved or {}
        self.evaluations_table = Table(folder / "evaluations.csv", EVALUATION_COLUMNS, saved.get("evaluations", 0))
        self.metrics_table = Table(folder / "metrics.csv", METRIC_COLUMNS, saved.get("metrics", 0))
        self.last_steps: dict[str, int] = dict(saved.get("last_steps", {}))  # of what was recorded in each phase
        self.tensorboard: dict[str, Any] = {}  # a writer per phase
        self.wandb: Any = None
        self.wandb_id: str | None = saved.get("wandb_id")

    def start(self) -> None:
        """Begin to report to Weights & Biases, if asked for: last, when nothing else can be refused any more.

        WANDB_MODE=offline keeps everything in the run's folder. A resumed run goes on under the same id.

        Raises:
            UserError: Weights & Biases refuses, or cannot be reached.
        """
        if not self.config.logging.wandb:
            return
        import wandb

        self.wandb_id = self.wandb_id or secrets.token_hex(4)
        try:
            self.wandb = wandb.init(
                project="deep-imitation-learning",
                name=f"{self.config.algorithm}_{self.config.env.name}_{self.folder.name}",
                id=self.wandb_id,
                resume="allow" if self.resumed else None,
                dir=str(self.folder),
                config=dataclasses.asdict(self.config),
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f"logging.wandb=true: {reason}; WANDB_MODE=offline keeps the run on this machine"
            ) from error

    def metrics(self, phase: str, step: int, metrics: Metrics) -> None:
        """Record tensors [runs] under their `group/name`."""
        values = {name: value.tolist() for name, value in metrics.items()}
        self.metrics_table.append(
            {"phase": phase, "step": step, "seed": seed, "metric": name, "value": value}
            for name, row in values.items()
            for seed, value in zip(self.seeds, row, strict=True)
        )
        self._scalars(phase, step, values)

    def evaluation(
        self,
        phase: str,
        step: int,
        episodes: list[list[Trajectory]],
        references: ReferenceScores,
        seconds: float,
    ) -> list[dict[str, Any]]:
        """Record the episodes of each run; returns the rows."""
        rows: list[dict[str, Any]] = []
        for seed, own in zip(self.seeds, episodes, strict=True):
            returns = np.array([trajectory.episode_return for trajectory in own])
            lengths = [trajectory.length for trajectory in own]
            mean = float(returns.mean())
            rows.append(
                {
                    "phase": phase,
                    "step": step,
                    "seed": seed,
                    "episodes": len(own),
                    "return_mean": mean,
                    "return_std": float(returns.std()),
                    "score": references.normalise(mean),
                    "length_mean": float(np.mean(lengths)),
                    "length_min": min(lengths),
                    "length_max": max(lengths),
                    "seconds": round(seconds, 3),
                }
            )
        self.evaluations_table.append(rows)
        columns = {name: [float(row[name]) for row in rows] for name in ("return_mean", "score", "length_mean")}
        known = {f"evaluation/{name}": values for name, values in columns.items() if not any(map(math.isnan, values))}
        self._scalars(phase, step, known)
        return rows

    def _scalars(self, phase: str, step: int, values: dict[str, list[float]]) -> None:
        scalars = {
            f"{name}/seed_{seed}" if len(self.seeds) > 1 else name: value
            for name, row in values.items()
            for seed, value in zip(self.seeds, row, strict=True)
        }
        if self.config.logging.tensorboard:
            writer = self._writer(phase)
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
        if self.wandb:
            labelled = {f"{phase}/{name}": value for name, value in scalars.items()}
            self.wandb.log(labelled | {f"{phase}/step": step})
        self.last_steps[phase] = step

    def _writer(self, phase: str) -> Any:
        """TensorBoard of one phase: steps begin anew in each, and what lies behind a checkpoint is hidden by step."""
        if phase not in self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, so only where it is wanted

            hidden_from = self.last_steps.get(phase, -1) + 1 if self.resumed else None
            self.tensorboard[phase] = SummaryWriter(self.folder / "tensorboard" / phase, purge_step=hidden_from)
        return self.tensorboard[phase]

    def state_dict(self) -> dict[str, Any]:
        """Where the tables and TensorBoard end now. The tables are on the disk, TensorBoard is on its way."""
        for writer in self.tensorboard.values():
            writer.flush()
        return {
            "evaluations": self.evaluations_table.sync(),
            "metrics": self.metrics_table.sync(),
            "last_steps": dict(self.last_steps),
            "wandb_id": self.wandb_id,
        }

    def close(self, exit_status: int = 0) -> None:
        for writer in self.tensorboard.values():
            writer.close()
        if self.wandb:
            self.wandb.finish(exit_code=exit_status)


def check_packages(config: Config) -> None:
    """Raises UserError where a package is missing that the chosen way of logging needs."""
    for package, key in (("tensorboard", config.logging.tensorboard), ("wandb", config.logging.wandb)):
        if key and importlib.util.find_spec(package) is None:
            raise UserError(
                f"logging.{package}=true needs the package {package}: pip install {package}, or set it to false"
            )
