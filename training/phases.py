"""The parts of a run: behavioural cloning, pretraining of the imitation module, and interaction.

Each advances by one small step, so that the loop can evaluate, log, checkpoint and stop between any two of them.
"""

from typing import Any, Protocol, runtime_checkable

from algorithms.base import ImitationModule, Learner, Memory, Metrics
from algorithms.behavioural_cloning import BehaviouralCloning
from environments.vector import VectorEnvironment
from memory.demonstrations import Demonstrations


@runtime_checkable
class Phase(Protocol):
    name: str
    length: int  # in steps
    stride: int  # steps per call of `advance`
    evaluates: bool  # does the policy change?

    def advance(self) -> Metrics: ...

    def finish(self) -> None:
        """Behind the last step. Comes twice where a run was stopped in between."""
        ...

    def parts(self) -> dict[str, Any]:
        """What has to be checkpointed besides the learner, the imitation module and the demonstrations."""
        ...


class CloningPhase:
    """Behavioural cloning of the learner's policy."""

    name = "behavioural_cloning"
    stride = 1
    evaluates = True

    def __init__(
        self, cloning: BehaviouralCloning, demonstrations: Demonstrations, iterations: int, batch_size: int
    ) -> None:
        self.cloning, self.demonstrations, self.batch_size = cloning, demonstrations, batch_size
        self.length = iterations

    def advance(self) -> Metrics:
        return self.cloning.update(self.demonstrations.sample(self.batch_size))

    def finish(self) -> None:
        return

    def parts(self) -> dict[str, Any]:
        return {"cloning": self.cloning}


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

    def finish(self) -> None:
        return

    def parts(self) -> dict[str, Any]:
        return {"envs": self.envs, "memory": self.memory}
