"""Dataset aggregation (Ross, Gordon & Bagnell 2011, "A reduction of imitation learning and structured prediction to
no-regret online learning"): an expert labels what the learner visits, and the learner clones all labels so far.

The rounds themselves are a phase of the run (training/aggregation.py); here are its options and the share of the
expert's actions among those that are taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from algorithms.base import Context, ImitationConfig, ImitationModule
from algorithms.behavioural_cloning import CloningConfig
from conf.callables import imported
from conf.errors import UserError
from conf.fields import ranged
from memory.batch import Batch
from models.actors import Policy

Schedule = Callable[[int], float]  # from the round, counted from 0, to beta in [0, 1]


@dataclass
class RoundCloningConfig(CloningConfig):
    """Training behind each round, on the labels of all rounds so far."""

    epochs: int = ranged(4, 0)
    learning_rate: float = ranged(1e-3, 0, open_low=True)
    entropy_weight: float = ranged(1e-3, 0)


@dataclass
class DAggerConfig(ImitationConfig):
    """Defaults: Gleave et al. (2022)."""

    absorbing: bool = False
    expert: str | None = None  # a policy, a D4RL file with a network, package.module:function, keyboard
    expert_index: int = ranged(0, 0)  # which of several policies in the file
    expert_adapt: bool = False  # show a policy what it knows of observations that hold more
    expert_episodes: int = ranged(10, 0)  # of the expert alone, to know its return; 0: leave it unknown
    beta_schedule: str = "linear"  # or exponential, or package.module:function, from the round to a probability
    beta_rounds: int = ranged(15, 1)  # linear: rounds until the expert's actions are no longer taken
    beta_decay: float = ranged(0.7, 0, 1, open_low=True)  # exponential: factor from one round to the next
    round_min_steps: int = ranged(500, 1)  # a round has at least so many, and at least training.batch_size,
    round_min_episodes: int = ranged(3, 1)  # and at least so many whole episodes
    cloning: RoundCloningConfig = field(default_factory=RoundCloningConfig)

    def check(self) -> None:
        for name in ("absorbing", "state_only", "bc_aux_loss"):
            if getattr(self, name):
                raise UserError(f"imitation.{name}=true does not apply to algorithm=DAgger: expected false")
        if not self.cloning.used:
            raise UserError("imitation.cloning.epochs=0 and imitation.cloning.iterations=0: expected one of them above")
        self.schedule()

    def schedule(self) -> Schedule:
        """From the round to the probability of taking the expert's action.

        Raises:
            UserError: there is no such schedule.
        """
        if self.beta_schedule == "linear":
            return lambda index: linear_beta(index, self.beta_rounds)
        if self.beta_schedule == "exponential":
            return lambda index: self.beta_decay**index
        if ":" not in self.beta_schedule:
            raise UserError(
                f"imitation.beta_schedule={self.beta_schedule} is not allowed: expected linear, exponential, or a "
                "Python function as package.module:function"
            )
        return imported(self.beta_schedule, "imitation.beta_schedule")


def linear_beta(index: int, rounds: int) -> float:
    """1 in round 0, 0 from round `rounds` on."""
    return max(0.0, (rounds - index) / rounds)


class DAgger(ImitationModule):
    """There are no rewards: the learner's policy is trained on the expert's labels."""

    config_class = DAggerConfig
    config: DAggerConfig
    uses_demonstrations = False
    provides_rewards = False
    queries_expert = True

    def __init__(self, config: DAggerConfig, context: Context) -> None:
        super().__init__()
        self.config = config
        self._schedule = config.schedule()

    def beta(self, index: int) -> float:
        """The probability of taking the expert's action in this round.

        Raises:
            UserError: a schedule of one's own says something that is no probability.
        """
        value = self._schedule(index)
        if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
            raise UserError(
                f"imitation.beta_schedule={self.config.beta_schedule} returns {value!r} for round {index}: expected a "
                "number from 0 to 1"
            )
        return float(value)

    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        raise RuntimeError("DAgger provides no rewards")
