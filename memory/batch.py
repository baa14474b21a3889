"""The unit of data that moves between environments, memory, imitation modules and learners."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

FIELDS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminated",
    "truncated",
    "weights",
    "collected_at",
    "absorbing",
    "next_absorbing",
)


@dataclass(frozen=True)
class Batch:
    """Transitions with a leading run axis. Never mutated: `with_rewards`, `map` and `half_and_half` return copies.

    `terminated` and `truncated` have Gymnasium's meaning and are never merged: bootstrap with `1 - terminated`.
    `next_observations` is the true successor, never the first observation of the next episode.
    Actions are in the learner's units: [-1, 1] is the environment's range, and discrete ones are one-hot. An unbounded
    policy's are kept as they were drawn, since its log-probabilities are theirs; the environment clips them.
    Flags are 0.0 or 1.0.
    """

    observations: Float[Tensor, "runs batch observation"]
    actions: Float[Tensor, "runs batch action"]
    rewards: Float[Tensor, "runs batch"]  # NaN until an imitation module provides them
    next_observations: Float[Tensor, "runs batch observation"]
    terminated: Float[Tensor, "runs batch"]
    truncated: Float[Tensor, "runs batch"]
    weights: Float[Tensor, "runs batch"]  # 1, or 1 / subsample of the absorbing rows that thinning keeps by force
    collected_at: Float[Tensor, "runs batch"]  # environment step of collection; negative for demonstrations
    absorbing: Float[Tensor, "runs batch"]  # is the observation the absorbing state?
    next_absorbing: Float[Tensor, "runs batch"]  # is the successor the absorbing state?

    @property
    def shape(self) -> torch.Size:
        """(runs, batch)."""
        return self.rewards.shape

    @property
    def carried_out(self) -> Float[Tensor, "runs batch action"]:
        """Actions as the environment carries them out. What a policy drew beyond would tell them from the expert's."""
        return self.actions.clamp(-1.0, 1.0)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(*(function(getattr(self, name)) for name in FIELDS))

    def with_rewards(self, rewards: Float[Tensor, "runs batch"]) -> "Batch":
        return dataclasses.replace(self, rewards=rewards)

    def half_and_half(self, expert_batch: "Batch") -> "Batch":
        """The first half of the rows from the demonstrations, the rest from this batch."""
        half = self.shape[1] // 2
        return Batch(
            *(torch.cat([getattr(expert_batch, name)[:, :half], getattr(self, name)[:, half:]], 1) for name in FIELDS)
        )


@dataclass(frozen=True)
class Layout:
    """How a transition lies in one row of numbers: one tensor holds a whole memory, one gather samples it."""

    observation_size: int
    action_size: int

    @property
    def sizes(self) -> tuple[int, ...]:
        wide = {
            "observations": self.observation_size,
            "next_observations": self.observation_size,
            "actions": self.action_size,
        }
        return tuple(wide.get(name, 1) for name in FIELDS)

    @property
    def width(self) -> int:
        return sum(self.sizes)

    def pack(self, batch: Batch) -> Float[Tensor, "runs batch width"]:
        columns = [getattr(batch, name) for name in FIELDS]
        return torch.cat([c if c.dim() == batch.rewards.dim() + 1 else c.unsqueeze(-1) for c in columns], -1)

    def unpack(self, rows: Float[Tensor, "runs batch width"]) -> Batch:
        """Views into `rows`, no copies."""
        columns = rows.split(self.sizes, -1)
        wide = ("observations", "actions", "next_observations")
        return Batch(*(c if name in wide else c.squeeze(-1) for name, c in zip(FIELDS, columns, strict=True)))
