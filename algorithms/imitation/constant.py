"""The same reward for every row: what a task gives away without any demonstration.

Where episodes may end early, a reward of one sign favours survival (+1) or dying (-1) by itself, whatever the learner
does otherwise (Kostrikov et al. 2018, section 4.1). These controls show how much of a result is due to that.
"""

from dataclasses import dataclass

import torch

from algorithms.base import Context, ImitationConfig, ImitationModule
from conf.fields import ranged
from memory.batch import Batch
from models.actors import Policy


@dataclass
class ConstantConfig(ImitationConfig):
    reward: float = ranged(1.0)  # per step, and in the absorbing state


class Constant(ImitationModule):
    """Gives every row `config.reward`, self-loops of the absorbing state included."""

    config_class = ConstantConfig
    uses_demonstrations = False
    config: ConstantConfig

    def __init__(self, config: ConstantConfig, context: Context) -> None:
        super().__init__()
        self.config = config

    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        return batch.with_rewards(torch.full_like(batch.rewards, self.config.reward))
