"""What the modules share that learn a fixed reward from demonstrations alone, before the first step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.base import Metrics
from conf.fields import Section, ranged
from memory.batch import Batch
from memory.demonstrations import Demonstrations

CHUNK = 8192  # rows that are looked at in one go


@dataclass
class PretrainingConfig(Section):
    iterations: int = ranged(100_000, 0)  # updates on batches of training.batch_size demonstration rows


def over_all_rows(
    function: Callable[[Batch], Float[Tensor, "runs rows"]], demonstrations: Demonstrations, runs: int
) -> Float[Tensor, "runs rows"]:
    """What `function` says of every row of the demonstrations, a chunk at a time."""
    rows = demonstrations.rows()

    def chunk(start: int) -> Batch:
        return rows.map(lambda column: column[:, start : start + CHUNK].expand(runs, *([-1] * (column.dim() - 1))))

    return torch.cat([function(chunk(start)) for start in range(0, len(demonstrations), CHUNK)], 1)


def weighted_quantile(
    values: Float[Tensor, "runs rows"], weights: Float[Tensor, "runs rows"], share: float
) -> Float[Tensor, " runs"]:
    """The smallest value at or below which lies at least this share, in (0, 1], of a run's weight."""
    ordered, order = values.sort(-1)
    below = weights.gather(-1, order).double().cumsum(-1)
    index = (below < share * below[:, -1:]).sum(-1, keepdim=True)
    return ordered.gather(-1, index).squeeze(-1)


def separation_warning(metrics: Metrics, lowest: float, advice: str) -> str | None:
    """What to say where (held-out) demonstrations earn less than `lowest`, or no more than the learner does."""
    if "diagnosis/expert_reward" not in metrics:  # nothing has been learned yet
        return None
    expert, learner = metrics["diagnosis/expert_reward"], metrics["diagnosis/learner_reward"]
    if (expert < lowest).any():
        return (
            f"the reward takes demonstrations for foreign (mean reward {expert.min():.2f}, those held out included): "
            f"it cannot be earned by imitation; {advice}"
        )
    above = learner >= expert
    if above.any():
        return (
            f"the learner earns as much as the demonstrations (mean reward {learner[above][0]:.2f} and "
            f"{expert[above][0]:.2f}): as long as its return is below theirs, the reward does not tell them apart; "
            f"{advice}"
        )
    return None
