"""Rollout memory for on-policy learners."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from memory.batch import FIELDS, Batch, Layout


class RolloutMemory:
    """The transitions since the last update; `batches` gives them away once, when there are `length` steps of them.

    A rollout is one batch [runs, length * envs], step by step and the environments side by side in each.
    """

    def __init__(self, layout: Layout, length: int, device: torch.device | str = "cpu") -> None:
        self.layout, self.length, self.device = layout, length, device
        self.transitions: list[Batch] = []  # of the present rollout
        self.resumed = False  # since the last transition

    def add(self, transition: Batch) -> None:
        """Store one environment step: [runs, envs]."""
        if self.resumed and self.transitions:
            # Where simulators could not be restored, new episodes have begun, and the old ones were cut.
            last = self.transitions[-1]
            cut = (last.next_observations != transition.observations).any(-1) & (last.terminated == 0)
            self.transitions[-1] = dataclasses.replace(last, truncated=last.truncated.maximum(cut.float()))
        self.resumed = False
        self.transitions.append(transition)

    def prefill(self, demonstrations: Batch) -> None:
        # Refused before a run begins (training/config.py, check_on_policy); here for whoever builds one by hand.
        raise NotImplementedError("an on-policy learner trains on its own transitions alone")

    def batches(self) -> Iterator[Batch]:
        if len(self.transitions) == self.length:
            transitions, self.transitions = self.transitions, []
            yield Batch(*(torch.cat([getattr(t, name) for t in transitions], 1).to(self.device) for name in FIELDS))

    def state_dict(self) -> dict[str, Any]:
        """Only what has been collected of the present rollout."""
        rows = [self.layout.pack(transition) for transition in self.transitions]
        return {"rows": torch.stack(rows, 1) if rows else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rows, self.resumed = state["rows"], True
        self.transitions = [] if rows is None else [self.layout.unpack(row) for row in rows.unbind(1)]
