"""Rollout memory for on-policy learners."""

from collections.abc import Iterator
from typing import Any

import torch

from memory.batch import FIELDS, Batch, Layout


class RolloutMemory:
    """The transitions since the last update; `batches` gives them away once, when there are `length` steps of them.

    A rollout is one batch [runs, length * envs], step by step and the environments side by side in each.
    """

    def __init__(self, layout: Layout, length: int, envs: int, device: torch.device | str = "cpu") -> None:
        self.layout, self.length, self.envs, self.device = layout, length, envs, device
        self.transitions: list[Batch] = []  # of the present rollout

    def add(self, transition: Batch) -> None:
        """Store one environment step: [runs, envs]."""
        self.transitions.append(transition)

    def prefill(self, demonstrations: Batch) -> None:
        # Refused before a run begins (training/config.py, check_on_policy); here for whoever builds one by hand.
        raise NotImplementedError("an on-policy learner trains on its own transitions alone")

    def batches(self) -> Iterator[Batch]:
        if len(self.transitions) == self.length:
            rollout = self._joined()
            self.transitions = []
            yield rollout.map(lambda column: column.to(self.device))

    def _joined(self) -> Batch:
        return Batch(*(torch.cat([getattr(t, name) for t in self.transitions], 1) for name in FIELDS))

    def state_dict(self) -> dict[str, Any]:
        """Only what has been collected of the present rollout."""
        return {"rows": self.layout.pack(self._joined()) if self.transitions else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rows = state["rows"]
        self.transitions = [] if rows is None else [self.layout.unpack(part) for part in rows.split(self.envs, 1)]
