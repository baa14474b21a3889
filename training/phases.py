"""The parts of a run: behavioural cloning, pretraining of the imitation module, and interaction.

Each advances by one small step, so that the loop can evaluate, log, checkpoint and stop between any two of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from algorithms.base import ImitationModule, Learner, Memory, Metrics
from algorithms.behavioural_cloning import BCPretrainingConfig, BehaviouralCloning, EarlyStopping, row_losses
from algorithms.imitation.pretraining import over_all_rows
from conf.errors import UserError
from environments.vector import VectorEnvironment
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from models.actors import Policy
from models.streams import Streams


@runtime_checkable
class Phase(Protocol):
    name: str
    evaluates: bool  # does the policy change?

    @property
    def length(self) -> int:
        """In steps; it may turn out to be another on the way."""
        ...

    @property
    def stride(self) -> int:
        """Steps that the last call of `advance` took."""
        ...

    def open(self, folder: Path) -> None:
        """The run's folder, before anything is trained or loaded, for what does not belong in a checkpoint."""
        ...

    def advance(self) -> Metrics: ...

    def finish(self) -> None:
        """Behind the last step. Comes twice where a run was stopped in between."""
        ...

    def parts(self) -> dict[str, Any]:
        """What has to be checkpointed besides the learner, the imitation module and the demonstrations."""
        ...


class Shuffled:
    """Rows of each run in a random order that depends on its name alone, so that nothing of it has to be saved."""

    def __init__(self, seeds: Sequence[int], purpose: str, device: torch.device) -> None:
        self.seeds, self.purpose, self.device = tuple(seeds), purpose, device
        self._name: tuple[str, int] | None = None
        self._order = torch.empty(0, 0, dtype=torch.int64)

    def of(self, name: str, rows: int) -> Int64[Tensor, "runs rows"]:
        if self._name != (name, rows):
            self._name = (name, rows)
            self._order = Streams(self.seeds, f"{self.purpose}/{name}", self.device).uniform(rows).argsort(-1)
        return self._order


class CloningPhase:
    """Behavioural cloning of the learner's policy, until its last update or until every run has stopped early."""

    name = "behavioural_cloning"
    stride = 1
    evaluates = True

    def __init__(
        self,
        policy: Policy,
        demonstrations: Demonstrations,
        config: BCPretrainingConfig,
        batch_size: int,
        seeds: Sequence[int],
    ) -> None:
        self.config, self.batch_size, self.seeds = config, batch_size, tuple(seeds)
        self.cloning = BehaviouralCloning(policy, config)
        self.rows, self.held_out = demonstrations, demonstrations
        self.stopping: EarlyStopping | None = None
        if config.validation_share:
            self.rows, self.held_out = demonstrations.split(config.validation_share)
            self.stopping = EarlyStopping(policy, len(self.seeds), config.patience)
        self.batches = len(self.rows) // batch_size  # in a pass over the rows
        if config.epochs and not self.batches:
            raise UserError(
                f"training.batch_size={batch_size}: bc_pretraining.epochs={config.epochs} takes each of "
                f"{len(self.rows)} demonstrated rows once in a pass; expected at most that many, or "
                "bc_pretraining.iterations"
            )
        self.planned = config.iterations or config.epochs * self.batches
        self.iteration = 0
        self.order = Shuffled(self.seeds, "cloning", demonstrations.device)

    @property
    def length(self) -> int:
        over = self.stopping is not None and bool(self.stopping.stopped.all())
        return self.iteration if over else self.planned

    def advance(self) -> Metrics:
        stopped = self.stopping.stopped.nonzero().flatten().tolist() if self.stopping is not None else []
        # What a run that has stopped would draw must not depend on how long others go on.
        with self.rows.streams.standing_still(stopped), self.cloning.policy.network.streams.standing_still(stopped):
            metrics = self.cloning.update(self._batch(), self.iteration / self.planned)
        self.iteration += 1
        if self.stopping is not None:
            self.stopping.restore(self.stopping.stopped)  # what the update did to those
            if self.iteration % max(1, self.batches) == 0 or self.iteration == self.planned:
                metrics["bc/validation_loss"] = self._validation_loss()
                self.stopping.note(metrics["bc/validation_loss"])
            if self.iteration == self.length:
                self.stopping.restore(torch.ones_like(self.stopping.stopped))
        return metrics

    def _batch(self) -> Batch:
        if not self.config.epochs:
            return self.rows.sample(self.batch_size)
        epoch, index = divmod(self.iteration, self.batches)
        order = self.order.of(str(epoch), len(self.rows))
        return self.rows.take(order[:, index * self.batch_size : (index + 1) * self.batch_size])

    @torch.no_grad()
    def _validation_loss(self) -> Float[Tensor, " runs"]:
        """As the policy is evaluated: without dropout."""
        policy, loss_function = self.cloning.policy, self.config.loss_function
        training = policy.training
        policy.eval()
        rows = over_all_rows(lambda b: row_losses(policy, b, loss_function), self.held_out, len(self.seeds))
        policy.train(training)
        return rows.mean(-1)

    def state_dict(self) -> dict[str, Any]:
        stopping = self.stopping.state_dict() if self.stopping is not None else None
        return {"cloning": self.cloning.state_dict(), "iteration": self.iteration, "stopping": stopping}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cloning.load_state_dict(state["cloning"])
        self.iteration = state["iteration"]
        if self.stopping is not None:
            self.stopping.load_state_dict(state["stopping"])

    def open(self, folder: Path) -> None:
        return

    def finish(self) -> None:
        return

    def parts(self) -> dict[str, Any]:
        return {"cloning": self}


class ImitationPretraining:
    """Updates of the imitation module on demonstrations alone."""

    name = "imitation_pretraining"
    stride = 1
    evaluates = False

    def __init__(self, imitation: ImitationModule, demonstrations: Demonstrations, batch_size: int) -> None:
        self.imitation, self.demonstrations, self.batch_size = imitation, demonstrations, batch_size
        self.length = imitation.pretraining_iterations

    def advance(self) -> Metrics:
        return self.imitation.pretrain(self.demonstrations.sample(self.batch_size))

    def open(self, folder: Path) -> None:
        return

    def finish(self) -> None:
        self.imitation.finish_pretraining(self.demonstrations)

    def parts(self) -> dict[str, Any]:
        return {}


class Interaction:
    """The learner acts, remembers, and learns from rewards that the imitation module provides."""

    name = "interaction"
    evaluates = True

    def __init__(
        self,
        envs: VectorEnvironment,
        learner: Learner,
        imitation: ImitationModule,
        memory: Memory,
        demonstrations: Demonstrations | None,
        steps: int,
    ) -> None:
        self.envs, self.learner, self.imitation, self.memory = envs, learner, imitation, memory
        self.demonstrations = demonstrations
        self.length, self.stride = steps, envs.shape[1]

    def advance(self) -> Metrics:
        metrics: Metrics = {}
        learner, imitation, policy = self.learner, self.imitation, self.learner.policy
        transition = self.envs.step(learner.act(self.envs.observations))
        self.memory.add(imitation.annotate(transition))
        for batch in self.memory.batches():
            # Without demonstrations an expert batch has no rows.
            expert_batch = (
                self.demonstrations.sample_like(batch) if self.demonstrations else batch.map(lambda t: t[:, :0])
            )
            metrics |= imitation.update(batch, expert_batch, policy)
            mixed = imitation.mix(batch, expert_batch)
            relabelled = imitation.relabel(mixed, expert_batch, policy)
            cloned = expert_batch if imitation.config.bc_aux_loss else None
            metrics |= learner.update(relabelled, cloned, self.envs.steps / self.length)
        return metrics

    def open(self, folder: Path) -> None:
        return

    def finish(self) -> None:
        return

    def parts(self) -> dict[str, Any]:
        return {"envs": self.envs, "memory": self.memory}
