"""Rollout memory for on-policy learners."""

from collections.abc import Iterator
from typing import Any

import torch

from memory.batch import Batch, Layout


class RolloutMemory:
    """The transitions since the last update; `batches` gives them away once, when there are `length` steps of them.

    A rollout is one batch [runs, length * envs], step by step and the environments side by side in each.
    """

    def __init__(self, layout: Layout, length: int, envs: int, runs: int, device: torch.device | str = "cpu") -> None:
        self.layout, self.length = layout, length
        self.rows = torch.zeros(runs, length, envs, layout.width, device=device)
        self.steps = 0  # of the present rollout, in each environment

    def add(self, transition: Batch) -> None:
        """Store one environment step: [runs, envs]."""
        self.rows[:, self.steps] = self.layout.pack(transition).to(self.rows.device)
        self.steps += 1

    def prefill(self, demonstrations: Batch) -> None:
        # Refused before a run begins (training/config.py, check_on_policy); here for whoever builds one by hand.
        raise NotImplementedError("an on-policy learner trains on its own transitions alone")

    def batches(self) -> Iterator[Batch]:
        if self.steps == self.length:
            self.steps = 0
            yield self.layout.unpack(self.rows.flatten(1, 2).clone())

    def state_dict(self) -> dict[str, Any]:
        """Only what has been collected of the present rollout."""
        return {"rows": self.rows[:, : self.steps].clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["rows"].shape[1]
        self.rows[:, : self.steps] = state["rows"]
