"""Replay memory for off-policy learners."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from memory.absorbing import lead_into_absorbing, self_loops
from memory.batch import Batch, Layout
from models.streams import Streams


class ReplayMemory:
    """A ring of transitions per run, allocated once; samples with replacement, the newest row included.

    `batches` yields one batch for every `interval` environment steps from step `start` on.
    """

    def __init__(
        self,
        layout: Layout,
        capacity: int,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        purpose: str = "memory",
        *,
        absorbing_state: Tensor | None = None,
        batch_size: int = 256,
        start: int = 0,
        interval: int = 1,
    ) -> None:
        self.layout, self.capacity, self.absorbing_state = layout, capacity, absorbing_state
        self.batch_size, self.start, self.interval = batch_size, max(start, 1), interval
        self.streams = Streams(seeds, purpose, device)  # two memories may not draw alike
        runs = len(seeds)
        self.rows = torch.zeros(runs, capacity, layout.width, device=device)  # [runs, capacity, width]
        self.offsets = torch.arange(runs, device=device).unsqueeze(1) * capacity
        self.position = [0] * runs
        self.size = [0] * runs
        self.steps = 0  # environment steps taken, of each run
        self.batches_drawn = 0

    def add(self, transition: Batch) -> None:
        """Store one environment step: [runs, environments]. True terminations lead into the absorbing state."""
        self.steps += transition.shape[1]
        ends = transition.terminated.bool()
        state = self.absorbing_state
        if state is not None and ends.any():
            self._write(self.layout.pack(lead_into_absorbing(transition, state)), None)
            self._write(self.layout.pack(self_loops(transition, state)), ends)
        else:
            self._write(self.layout.pack(transition), None)

    def prefill(self, demonstrations: Batch) -> None:
        """Store the rows of demonstrations, [1, rows], in every run's memory. They keep their weights."""
        rows = self.layout.pack(demonstrations).expand(len(self.size), -1, -1)
        self._write(rows, None)

    def batches(self) -> Iterator[Batch]:
        due = (self.steps - self.start) // self.interval + 1
        while self.batches_drawn < due:
            self.batches_drawn += 1
            yield self.sample(self.batch_size)

    def sample(self, batch_size: int) -> Batch:
        """[runs, batch_size], uniform over everything stored."""
        indices = self.streams.integers(self.size, batch_size) + self.offsets
        rows = self.rows.view(-1, self.layout.width).index_select(0, indices.view(-1))
        return self.layout.unpack(rows.view(*indices.shape, -1))

    def _write(self, rows: Tensor, where: Tensor | None) -> None:
        """Append rows [runs, n, width], or those of them for which `where` [runs, n] holds, to each run's ring."""
        device = self.rows.device
        if where is None:
            rows = rows.to(device)  # one transfer for all runs
        for run in range(len(self.size)):
            new = (rows[run] if where is None else rows[run][where[run]].to(device))[-self.capacity :]
            count = len(new)
            start = self.position[run]
            head = min(count, self.capacity - start)
            self.rows[run, start : start + head] = new[:head]
            self.rows[run, : count - head] = new[head:]
            self.position[run] = (start + count) % self.capacity
            self.size[run] = min(self.size[run] + count, self.capacity)

    def state_dict(self) -> dict[str, Any]:
        """Only the filled part of the ring."""
        return {
            "rows": self.rows[:, : max(self.size)].to("cpu", copy=True),
            "position": list(self.position),
            "size": list(self.size),
            "steps": self.steps,
            "batches_drawn": self.batches_drawn,
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        filled = state["rows"].shape[1]
        self.rows[:, :filled] = state["rows"]
        self.size, self.position = list(state["size"]), list(state["position"])
        for run, size in enumerate(self.size):
            if size < self.capacity:  # what was full has grown: the oldest row goes first, the next behind the last
                self.rows[run, :size] = self.rows[run, :size].roll(-self.position[run], 0)
                self.position[run] = size
        self.steps, self.batches_drawn = state["steps"], state["batches_drawn"]
        self.streams.load_state_dict(state["streams"])
