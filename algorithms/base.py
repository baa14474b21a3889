"""The two contracts that everything is built on: learners, and imitation modules.

A learner sees rewards and knows nothing of imitation. An imitation module turns demonstrations into rewards and
knows nothing of the learner beyond its policy. The loop (training/loop.py) joins them and names neither.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conf.fields import Section, choice, ranged
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from models.actors import Policy

Metrics = dict[str, Tensor]  # `group/name` to a detached tensor [runs]


def descend(optimiser: torch.optim.Optimizer, loss: Float[Tensor, " runs"]) -> None:
    """One step on the sum over runs, with gradients for the optimiser's own parameters alone."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = None
    loss.sum().backward(inputs=parameters)
    optimiser.step()


def scheduled(rate: float, schedule: str, share: float) -> float:
    """The learning rate when this share of the training, in [0, 1], is over."""
    return rate * max(0.0, 1 - share) if schedule == "linear" else rate


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


@dataclass(frozen=True)
class Context:
    """What the parts of a run have in common."""

    seeds: tuple[int, ...]
    observation_size: int  # with the absorbing bit, where there is one
    action_size: int
    horizon: int | None  # steps after which an episode is cut, if it ever is
    discount: float  # of the learner: potential-based shaping must use the same
    absorbing_state: Float[Tensor, " observation"] | None  # with the bit; None: episodes end where they end
    device: torch.device
    dtype: torch.dtype  # of matrix products; parameters are always float32
    num_envs: int = 1  # of each run
    discrete: bool = False  # are actions one-hot choices?

    @property
    def absorbing(self) -> bool:
        """Do true terminations lead into an absorbing state?"""
        return self.absorbing_state is not None


@dataclass
class TrainingConfig(Section):
    """When and how the learner updates."""

    start: int = ranged(1000, 0)  # environment steps before the first update
    interval: int = ranged(1, 1)  # environment steps per update; on-policy: the length of a rollout
    batch_size: int = ranged(256, 2)
    learning_rate: float = ranged(3e-4, 0, open_low=True)
    learning_rate_schedule: str = choice("constant", "constant", "linear")  # linear: to zero at the last step
    weight_decay: float = ranged(0.0, 0)

    def learning_rate_at(self, share: float) -> float:
        """The learning rate when this share of the run, in [0, 1], is over."""
        return scheduled(self.learning_rate, self.learning_rate_schedule, share)


@dataclass
class MemoryConfig(Section):
    size: int = ranged(1_000_000, 1)  # transitions kept per run


@dataclass
class ImitationConfig(Section):
    """Options of every imitation algorithm."""

    trajectories: int = ranged(0, 0)  # demonstrations to use, from the first on; 0: all
    subsample: int = ranged(1, 1)  # keep every n-th row of a trajectory
    state_only: bool = False  # learn from observations alone
    absorbing: bool = True  # go on in an absorbing state after a true termination
    mix_expert_data: str = choice("none", "none", "mixed_batch", "prefill_memory")
    allow_variable_horizon: bool = False  # on-policy imitation where the length of an episode may tell the reward
    bc_aux_loss: bool = False  # add a behavioural-cloning term to the policy's loss
    bc_aux_weight: float = ranged(1.0, 0)
    bc_aux_loss_function: str = choice("log_likelihood", "log_likelihood", "squared_error")

    def check(self) -> None:
        """What ranges of single options cannot express.

        Raises:
            UserError: options do not fit together.
        """


@runtime_checkable
class Memory(Protocol):
    """Where a learner keeps its experience."""

    def add(self, transition: Batch) -> None: ...

    def prefill(self, demonstrations: Batch) -> None: ...

    def batches(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Learner(nn.Module, ABC):
    """A reinforcement learner: acts, stores, updates from batches that already carry rewards."""

    on_policy: ClassVar[bool]
    supports_discrete_actions: ClassVar[bool] = False
    config_class: ClassVar[type[Section]]
    policy: Policy

    @classmethod
    def check(cls, config: Section, training: TrainingConfig, num_envs: int) -> None:
        """What ranges of single options cannot express.

        Raises:
            UserError: options do not fit together.
        """

    @property
    def evaluation_policy(self) -> Policy:
        """The policy that is evaluated and saved."""
        return self.policy

    @abstractmethod
    def make_memory(self, memory: MemoryConfig, steps: int, prefilled: int) -> Memory:
        """Memory for a run of so many environment steps that starts with `prefilled` rows."""

    @abstractmethod
    def act(
        self, observations: Float[Tensor, "runs envs observation"], greedy: bool = False
    ) -> Float[Tensor, "runs envs action"]:
        """Actions in the learner's units: what lies outside [-1, 1] is clipped on the way to the environment."""

    @abstractmethod
    def update(self, batch: Batch, expert_batch: Batch | None, progress: float = 0.0) -> Metrics:
        """One update. `expert_batch` is given when the auxiliary behavioural-cloning loss is on.

        An on-policy learner's batch is a rollout, [runs, time * envs], step by step and the environments side by side.
        `progress` is the share of the run's environment steps that has been taken, for schedules.
        """


class ImitationModule(nn.Module, ABC):
    """Turns demonstrations into rewards."""

    config_class: ClassVar[type[ImitationConfig]]
    supports_on_policy: ClassVar[bool] = True
    uses_demonstrations: ClassVar[bool] = True
    provides_rewards: ClassVar[bool] = True  # False: there is nothing for a learner to train on
    queries_expert: ClassVar[bool] = False  # True: instead, an expert says what to do wherever the learner comes
    rewards_any_row: ClassVar[bool] = True  # False: a reward hangs on when, or by whom, a row was collected
    pretraining_iterations: int = 0
    config: ImitationConfig

    def prepare(self, demonstrations: Demonstrations) -> Demonstrations:
        """Look at all demonstrations once, before anything is trained; returns those to use (perhaps with rewards)."""
        return demonstrations

    def pretrain(self, expert_batch: Batch) -> Metrics:
        """One of the `pretraining_iterations` updates before the learner starts."""
        raise NotImplementedError(f"{type(self).__name__} sets pretraining_iterations but has no pretrain")

    def finish_pretraining(self, demonstrations: Demonstrations) -> None:
        """Behind the last of the `pretraining_iterations`, also if there are none: measure thresholds, scales.

        Repeated after a resumption from that very point, so it must not build on what it did before.
        """
        return

    def annotate(self, transition: Batch) -> Batch:
        """See each transition as it is collected, [runs, envs], on the CPU. The true reward becomes NaN here."""
        return transition.with_rewards(torch.full_like(transition.rewards, torch.nan))

    def update(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        """Train the module's own networks, if it has any."""
        return {}

    def mix(self, batch: Batch, expert_batch: Batch) -> Batch:
        """What the learner will train on: its own rows, or half of them from the demonstrations."""
        if self.config.mix_expert_data == "mixed_batch":
            return batch.half_and_half(expert_batch)
        return batch

    @abstractmethod
    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        """The same batch with rewards. Pure: inputs and state stay as they are."""

    def diagnose(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        """How the module sees fresh evaluation episodes, and demonstrations (held-out ones where there are any)."""
        return {}

    def warning(self, metrics: Metrics) -> str | None:
        """What is going wrong, judging by `diagnose`, and what would help."""
        return None
