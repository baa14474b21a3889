"""What a run measures: tables, TensorBoard, and Weights & Biases where it is asked for."""

import math
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
        self.seeds = config.seeds
        saved = saved or {"evaluations": 0, "metrics": 0, "tensorboard_step": None}
        self.evaluations_table = Table(folder / "evaluations.csv", EVALUATION_COLUMNS, saved["evaluations"])
        self.metrics_table = Table(folder / "metrics.csv", METRIC_COLUMNS, saved["metrics"])
        self.tensorboard = self._tensorboard(folder, saved["tensorboard_step"]) if config.logging.tensorboard else None
        self.wandb = _wandb(folder, config) if config.logging.wandb else None
        self.step = 0

    @staticmethod
    def _tensorboard(folder: Path, saved_step: int | None) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, so only where it is wanted

        # Events behind the checkpoint are hidden from display.
        return SummaryWriter(folder / "tensorboard", purge_step=None if saved_step is None else saved_step + 1)

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
        for name in ("return_mean", "score", "length_mean"):
            values = [float(row[name]) for row in rows]
            if not any(math.isnan(value) for value in values):
                self._scalars(phase, step, {f"evaluation/{name}": values})
        return rows

    def _scalars(self, phase: str, step: int, values: dict[str, list[float]]) -> None:
        self.step = step
        for name, row in values.items():
            for seed, value in zip(self.seeds, row, strict=True):
                label = f"{name}/seed_{seed}" if len(self.seeds) > 1 else name
                if self.tensorboard:
                    self.tensorboard.add_scalar(f"{phase}/{label}", value, step)
                if self.wandb:
                    self.wandb.log({f"{phase}/{label}": value, f"{phase}/step": step})

    def state_dict(self) -> dict[str, Any]:
        return {
            "evaluations": self.evaluations_table.length,
            "metrics": self.metrics_table.length,
            "tensorboard_step": self.step,
        }

    def close(self) -> None:
        self.evaluations_table.close()
        self.metrics_table.close()
        if self.tensorboard:
            self.tensorboard.close()
        if self.wandb:
            self.wandb.finish()


def _wandb(folder: Path, config: Config) -> Any:
    """Start a Weights & Biases run; WANDB_MODE=offline keeps it on this machine."""
    import dataclasses

    try:
        import wandb
    except ModuleNotFoundError:
        raise UserError("logging.wandb=true needs the package wandb: pip install wandb, or leave it out") from None
    return wandb.init(
        project="deep-imitation-learning",
        name=f"{config.algorithm}_{config.env.name}_{folder.name}",
        dir=str(folder),
        config=dataclasses.asdict(config),
    )
