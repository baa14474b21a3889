"""The phase of DAgger: rounds of acting and labelling, and training on all labels behind each of them."""

import os
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from algorithms.base import Metrics
from algorithms.behavioural_cloning import BehaviouralCloning
from algorithms.imitation.dagger import DAgger
from conf.errors import UserError
from environments.construction import EnvironmentConfig, Spaces
from environments.vector import VectorEnvironment
from memory.batch import Batch
from models.actors import Policy, SquashedGaussianActor
from models.streams import Streams, stream_seed
from training.evaluation import Evaluator
from training.experts import Expert, ExpertStoppedError
from training.phases import Shuffled


class Rounds:
    """Labelled rows on the disk, a file [rows, runs, observation + action] for each round; memory holds none of it."""

    OPEN_FILES = 200  # at once: a process may have a thousand or fewer

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: list[int] = []
        self._files: dict[int, np.ndarray] = {}  # by round, the latest used last

    def __len__(self) -> int:
        return sum(self.sizes)

    def add(self, rows: Float[Tensor, "rows runs width"]) -> None:
        """The next round. Its file appears whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(len(self.sizes))
        partial = path.with_suffix(".part")
        try:
            with partial.open("wb") as file:
                np.save(file, rows.numpy())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self.sizes.append(rows.shape[0])

    def take(self, indices: Int64[Tensor, "runs batch"]) -> Float[Tensor, "runs batch width"]:
        """Rows of each run out of all rounds."""
        starts = np.cumsum([0, *self.sizes])
        wanted = indices.cpu().numpy()
        where = np.searchsorted(starts, wanted, side="right") - 1
        runs = np.broadcast_to(np.arange(len(wanted))[:, None], wanted.shape)
        result = np.empty((*wanted.shape, self._file(0).shape[-1]), np.float32)
        for index in np.unique(where).tolist():
            chosen = where == index
            result[chosen] = self._file(index)[wanted[chosen] - starts[index], runs[chosen]]
        return torch.from_numpy(result)

    def restore(self, sizes: Sequence[int]) -> None:
        """Go back to where there were rounds of so many rows.

        Raises:
            UserError: one of their files is missing or damaged.
        """
        self.sizes, self._files = list(sizes), {}
        for index in range(len(sizes)):
            self._file(index)

    def _file(self, index: int) -> np.ndarray:
        """Raises UserError where it is missing or damaged."""
        rows = self._files.pop(index, None)
        if rows is None:
            path, size = self._path(index), self.sizes[index]
            try:
                rows = np.load(path, mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                raise UserError(f"{path} is missing or damaged: expected {size} labelled rows") from error
            if len(rows) != size:
                raise UserError(f"{path} holds {len(rows)} labelled rows: expected {size}")
        self._files[index] = rows
        if len(self._files) > self.OPEN_FILES:
            del self._files[next(iter(self._files))]
        return rows

    def _path(self, index: int) -> Path:
        return self.folder / f"round_{index:03}.npy"


class Aggregation:
    """Rounds until `steps` environment steps have been taken, and until the last round is over.

    An advance is a step of every environment or an update. Steps count for the loop when the training behind them is
    done, so that what is evaluated or saved at the last step is the result.
    """

    name = "interaction"
    evaluates = True

    def __init__(
        self,
        imitation: DAgger,
        policy: Policy,
        expert: Expert,
        environment: EnvironmentConfig,
        spaces: Spaces,
        seeds: Sequence[int],
        device: torch.device,
        batch_size: int,
        steps: int,
    ) -> None:
        config = imitation.config
        config.cloning.check("imitation.cloning", batch_size)
        if len(seeds) > 1 and not environment.fixed_horizon:
            raise UserError(
                f"runs={len(seeds)}: with algorithm=DAgger several seeds go through their rounds together, which needs "
                "episodes of one length (env=seals_*, or env.fixed_horizon=true): expected runs=1"
            )
        if len(seeds) > 1 and not expert.automatic:
            raise UserError(f"runs={len(seeds)}: a person labels for one seed: expected runs=1")
        if spaces.discrete and config.cloning.loss_function == "squared_error":
            raise UserError("imitation.cloning.loss_function=squared_error needs continuous actions")
        if spaces.observation_mean is not None:
            raise UserError(
                "env.normalise_observations=true: with bc_pretraining its statistics are the demonstrations', and the "
                "expert would see what they normalise; expected reinforcement.normalise_observations=true"
            )
        self.imitation, self.policy, self.expert, self.environment = imitation, policy, expert, environment
        self.spaces, self.seeds, self.device, self.batch_size = spaces, tuple(seeds), device, batch_size
        self.length, self.stride = steps, 0
        self.cloning = BehaviouralCloning(policy, config.cloning)
        self.order = Shuffled(seeds, "dagger/order", device)
        self.expert_return: float | None = None
        self.rounds: Rounds | None = None
        self.round = 0
        self.taken = self.counted = self.labelled = 0  # steps of each run, those that the loop knows of, and labels
        self.update = self.updates = 0  # done and planned behind this round
        self.metrics: Metrics = {}  # of the last round
        self._begin()

    def open(self, folder: Path) -> None:
        self.rounds = Rounds(folder / "rounds")
        self.expert.open(folder)

    def _begin(self) -> None:
        """A round starts with new episodes and random numbers of its own, whatever was done with those before."""
        self.streams = Streams(self.seeds, f"dagger/round/{self.round}", self.device)
        seeds = [stream_seed(seed, f"dagger/environment/{self.round}") % 2**31 for seed in self.seeds]
        self.envs = VectorEnvironment(self.environment, self.spaces, seeds)
        envs = self.envs.shape[1]
        self.active = torch.ones(envs, dtype=torch.bool)  # environments whose rows still belong to the round
        self.lengths = torch.zeros(envs, dtype=torch.int64)  # of the present episodes
        self.returns = torch.zeros(self.envs.shape)
        self.rows: list[Tensor] = []  # [runs, envs, observation + action] of each step
        self.masks: list[Tensor] = []  # [envs]
        self.finished_steps = self.finished_episodes = 0
        self.finished_returns = torch.zeros(len(self.seeds))

    def advance(self) -> Metrics:
        if self.expert_return is None and self.expert.automatic and self.imitation.config.expert_episodes:
            self.expert_return = self._measured_expert()
        metrics = self._train() if self.updates else self._collect()
        settled = self.taken - (self.envs.shape[1] if self.updates else 0)
        over = not self.updates and not self.rows and self.taken >= self.length
        settled = self.length if over else min(settled, self.length - 1)
        self.stride = max(0, settled - self.counted)
        self.counted += self.stride
        return metrics

    def _collect(self) -> Metrics:
        """One step in every environment: the expert labels it, and it is the expert's or the learner's."""
        observations, beta = self.envs.observations, self.imitation.beta(self.round)
        try:
            labels = self._labels(observations)
        except ExpertStoppedError:
            signal.raise_signal(signal.SIGINT)  # the loop saves and stops; nothing has happened yet
            return {}
        draws = self.streams.uniform(self.envs.shape[1]).cpu()
        own = self._sampled(observations)
        transition = self.envs.step(torch.where((draws > beta).unsqueeze(-1), own, labels))
        self.rows.append(torch.cat([observations, labels], -1))
        self.masks.append(self.active.clone())
        self.taken += int(self.active.sum())
        self.labelled += int(self.active.sum())
        self.lengths += 1
        self.returns += transition.rewards
        ends = self.active & (transition.terminated + transition.truncated > 0)[0]
        if ends.any():
            self._note_ends(ends)
        return {}

    def _note_ends(self, ends: Tensor) -> None:
        config = self.imitation.config
        self.finished_steps += int(self.lengths[ends].sum())
        self.finished_episodes += int(ends.sum())
        self.finished_returns += self.returns[:, ends].sum(-1)
        self.lengths[ends] = 0
        self.returns[:, ends] = 0.0
        enough = self.finished_steps >= max(config.round_min_steps, self.batch_size)
        if enough and self.finished_episodes >= config.round_min_episodes:
            # Episodes that are under way are brought to their end: to drop them would favour short ones.
            self.active = self.active & ~ends & (self.lengths > 0)
        if not self.active.any():
            self._finish_round()

    def _finish_round(self) -> None:
        rows, masks = torch.stack(self.rows).transpose(1, 2), torch.stack(self.masks)
        self._rounds().add(rows[masks])
        per_pass = len(self._rounds()) // self.batch_size
        cloning = self.imitation.config.cloning
        self.update, self.updates = 0, cloning.iterations or cloning.epochs * per_pass
        returns = self.finished_returns / self.finished_episodes
        values = {
            "round/beta": self.imitation.beta(self.round),
            "round/episodes": self.finished_episodes,
            "round/rows": len(self._rounds()),  # of all rounds
        }
        if self.expert_return is not None:
            values["expert/return"] = self.expert_return
        self.metrics = {name: torch.full_like(returns, float(value)) for name, value in values.items()}
        self.metrics["round/mixed_return"] = returns  # of the expert's and the learner's actions: neither's score
        self.rows, self.masks = [], []

    def _train(self) -> Metrics:
        """One update on the labels of all rounds; behind the last one a new round begins."""
        cloning, rows = self.imitation.config.cloning, self._rounds()
        if cloning.iterations:
            streams = Streams(self.seeds, f"dagger/rows/{self.round}/{self.update}", self.device)
            indices = streams.integers(len(rows), self.batch_size)
        else:
            epoch, index = divmod(self.update, len(rows) // self.batch_size)
            order = self.order.of(f"{self.round}/{epoch}", len(rows))
            indices = order[:, index * self.batch_size : (index + 1) * self.batch_size]
        batch = labelled_batch(rows.take(indices).to(self.device), self.spaces.learned_size)
        found = self.cloning.update(batch, self._progress())
        self.update += 1
        metrics = found | self.metrics
        if self.update == self.updates:
            self.envs.close()
            self.round, self.updates = self.round + 1, 0
            self._begin()
        return metrics

    def _progress(self) -> float:
        """Of the whole run, from 0 to 1: a round's steps count little by little, as the updates behind it are done."""
        begun = sum(self._rounds().sizes[:-1]) / self.length
        return begun + (min(1.0, self.taken / self.length) - begun) * self.update / self.updates

    def _rounds(self) -> Rounds:
        if self.rounds is None:  # a run without a folder
            self.open(Path(tempfile.mkdtemp(prefix="dagger_")))
        assert self.rounds is not None
        return self.rounds

    def _labels(self, observations: Float[Tensor, "runs envs observation"]) -> Float[Tensor, "runs envs action"]:
        """The expert's actions in the learner's units; zeros where rows no longer belong to the round."""
        result = torch.zeros(*self.envs.shape, self.spaces.action_size)
        asked = observations[:, self.active]
        labels = self.expert.label(asked.flatten(0, 1).numpy(), self.labelled)
        result[:, self.active] = torch.from_numpy(self.spaces.from_environment(labels)).view(*asked.shape[:2], -1)
        return result

    @torch.no_grad()
    def _sampled(self, observations: Tensor) -> Float[Tensor, "runs envs action"]:
        """The learner's actions, drawn as they are in training but without dropout."""
        actor: Any = self.policy  # the classes draw their noise in different ways
        training, observations = actor.training, observations.to(self.device)
        actor.eval()
        if isinstance(actor, SquashedGaussianActor):
            noise = self.streams.normal(observations.shape[1], self.spaces.action_size)
            actions = actor.sample(observations, noise)[0]
        else:
            actions = actor.sample(observations, self.streams)
        actor.train(training)
        return actions.cpu()

    def _measured_expert(self) -> float:
        """The return of the expert alone, never that of rounds in which the learner acts, too."""
        episodes = self.imitation.config.expert_episodes
        evaluator = Evaluator(self.environment.id, self.spaces, (0,), episodes, "cpu")

        def act(observations: Tensor) -> Tensor:
            actions = self.expert.label(observations[0].numpy(), 0)
            return torch.from_numpy(self.spaces.from_environment(actions))[None]

        (played,) = evaluator.play(act, "expert")
        return float(np.mean([trajectory.episode_return for trajectory in played]))

    def finish(self) -> None:
        return

    def parts(self) -> dict[str, Any]:
        return {"aggregation": self}

    PLAIN = (
        "round", "taken", "counted", "labelled", "update", "updates", "expert_return", "metrics", "active", "lengths",
        "returns", "finished_steps", "finished_episodes", "finished_returns", "rows", "masks",
    )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        sizes = self.rounds.sizes if self.rounds else []
        return {name: getattr(self, name) for name in self.PLAIN} | {
            "sizes": list(sizes),
            "envs": self.envs.state_dict(),
            "streams": self.streams.state_dict(),
            "cloning": self.cloning.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rounds().restore(state["sizes"])
        self.round = state["round"]
        self.envs.close()
        self._begin()
        for name in self.PLAIN:
            setattr(self, name, state[name])
        self.envs.load_state_dict(state["envs"])
        self.streams.load_state_dict(state["streams"])
        self.cloning.load_state_dict(state["cloning"])


def labelled_batch(rows: Float[Tensor, "runs batch width"], observation_size: int) -> Batch:
    """Observations and the expert's actions, as cloning takes them."""
    observations, actions = rows[..., :observation_size], rows[..., observation_size:]
    zeros = torch.zeros_like(rows[..., 0])
    return Batch(
        observations=observations,
        actions=actions,
        rewards=zeros,
        next_observations=observations,
        terminated=zeros,
        truncated=zeros,
        weights=torch.ones_like(zeros),
        collected_at=zeros,
        absorbing=zeros,
        next_absorbing=zeros,
    )
