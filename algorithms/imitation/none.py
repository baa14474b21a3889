"""No imitation: the environment's own reward reaches the learner."""

from dataclasses import dataclass

from algorithms.base import Context, ImitationConfig, ImitationModule
from memory.batch import Batch
from models.actors import Policy


@dataclass
class NoImitationConfig(ImitationConfig):
    absorbing: bool = False  # the true reward needs no absorbing state


class NoImitation(ImitationModule):
    """The only module that lets the true reward through."""

    config_class = NoImitationConfig
    uses_demonstrations = False

    def __init__(self, config: NoImitationConfig, context: Context) -> None:
        super().__init__()
        self.config = config

    def annotate(self, transition: Batch) -> Batch:
        return transition

    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        return batch
