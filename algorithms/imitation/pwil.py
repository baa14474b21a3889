"""Primal Wasserstein imitation learning (Dadashi et al. 2020, arXiv:2006.04678).

An episode's steps are coupled greedily, in the order in which they are taken, with the demonstrated rows; the further
a step's mass has to be moved, the smaller its reward. There is no network to train.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from algorithms.base import Context, ImitationConfig, ImitationModule, Metrics
from conf.errors import UserError
from conf.fields import ranged
from memory.batch import Batch
from memory.demonstrations import Demonstrations
from models.actors import Policy

ROUNDING = 1e-9  # of a step's mass: what is left of an atom below it counts as nothing
MARGIN = 8  # atoms looked at beyond those that a step uses up when every one is whole


@dataclass
class PWILConfig(ImitationConfig):
    reward_scale: float = ranged(5.0, 0, open_low=True)  # alpha of eq. 5: the reward of a step that costs nothing
    reward_bandwidth_scale: float = ranged(5.0, 0, open_low=True)  # beta: how fast it falls with the cost


class Atoms:
    """Demonstrated rows, standardised, with the mass of each. It lies on the CPU, where episodes are collected.

    Mass is in units of what one step moves, 1 / horizon of all there is: the atoms' masses [atoms] add up to `horizon`
    and are in proportion to `weights`, so that rows which subsampling always keeps weigh no more than others.
    """

    def __init__(
        self, features: Float[Tensor, "atoms feature"], weights: Float[Tensor, " atoms"], horizon: int
    ) -> None:
        shares = weights.double() / weights.double().sum()
        mean = shares @ features.double()
        std = (shares @ (features.double() - mean).square()).sqrt()
        std[(features == features[0]).all(0)] = 1.0  # exactly: what rounding leaves of zero would blow up
        self.mean, self.std = mean.float(), std.float()
        self.points = self.standardised(features)
        self.columns = self.points.T.contiguous()
        self.squared_lengths = self.points.square().sum(-1)
        self.masses = horizon * shares
        self.nearest = min(ceil(len(weights) / horizon) + MARGIN, len(weights))

    def standardised(self, features: Float[Tensor, "rows feature"]) -> Float[Tensor, "rows feature"]:
        return (features - self.mean) / self.std

    def couple(
        self, features: Float[Tensor, "episodes feature"], masses: Float64[Tensor, "episodes atoms"]
    ) -> Float[Tensor, " episodes"]:
        """Move the mass of one step of each episode out of `masses`, in place, from the nearest atoms on (algorithm 1).

        Returns the mean distance over the mass that was moved: the cost c of the paper times the horizon.
        """
        points = self.standardised(features)
        # The squared distance less what all atoms have in common.
        order = torch.addmm(self.squared_lengths, points, self.columns, alpha=-2)
        # NumPy's operations on a few rows take a fraction of the time of PyTorch's. It shares the tensors' memory.
        remaining, episodes = masses.numpy(), np.arange(len(order))[:, None]
        np.copyto(order.numpy(), np.inf, where=remaining == 0)
        nearest, held = self._enough(order, remaining)
        differences = self.points.numpy()[nearest] - points.numpy()[:, None]
        distances = np.sqrt(np.square(differences).sum(-1))
        ranks = distances.argsort(-1)
        nearest, held, distances = nearest[episodes, ranks], held[episodes, ranks], distances[episodes, ranks]
        moved_before = held.cumsum(-1) - held
        moved = np.minimum(held, np.maximum(1 - moved_before, 0))
        left = held - moved
        remaining[episodes, nearest] = np.where(left > ROUNDING, left, 0.0)
        return torch.from_numpy((moved * distances).sum(-1)).float()

    def _enough(
        self, order: Float[Tensor, "episodes atoms"], masses: Float64[np.ndarray, "episodes atoms"]
    ) -> tuple[Int64[np.ndarray, "episodes some"], Float64[np.ndarray, "episodes some"]]:
        """The atoms that come first in `order`, at least so many that they hold a step's mass, and what they hold."""
        count, episodes = self.nearest, np.arange(len(order))[:, None]
        while True:
            nearest = order.topk(count, largest=False, sorted=False).indices.numpy()
            held = masses[episodes, nearest]
            if count == masses.shape[-1] or (held.sum(-1) >= 1 - ROUNDING).all():
                return nearest, held
            count = min(4 * count, masses.shape[-1])


class PWIL(ImitationModule):
    """Rewards a step by how near it is to demonstrated rows that earlier steps of its episode have left over."""

    config_class = PWILConfig
    config: PWILConfig
    rewards_any_row = False
    atoms: Atoms  # from `prepare`

    def __init__(self, config: PWILConfig, context: Context) -> None:
        super().__init__()
        if context.horizon is None:
            raise UserError(
                "algorithm=PWIL needs a time limit, of which each step is a share; this env.id has none: expected an "
                "environment that is registered with max_episode_steps"
            )
        self.config, self.context, self.horizon = config, context, context.horizon
        # Of the present episodes: the mass that is left of every atom, and the observation from which each goes on,
        # infinite where a new one begins.
        self.masses = torch.zeros(len(context.seeds), 0, 0, dtype=torch.float64)  # [runs, envs, atoms]
        self.next_observations = torch.zeros(len(context.seeds), 0, context.observation_size)
        self.steps = 0
        self.cost = torch.zeros(len(context.seeds))  # moving average over as many steps as an episode may have

    def prepare(self, demonstrations: Demonstrations) -> Demonstrations:
        """Atoms from all rows but the absorbing state's; rewards for the rows where they will be trained on."""
        rows = demonstrations.rows().map(Tensor.cpu)
        features, real = self._features(rows)[0], rows.absorbing[0] == 0
        self.atoms = Atoms(features[real], rows.weights[0][real], self.horizon)
        if self.config.mix_expert_data == "none":
            return demonstrations
        rewards = self._demonstrated(features, real, demonstrations.trajectory_lengths)
        return demonstrations.with_rewards(rewards.to(self.context.device))

    @torch.no_grad()
    def annotate(self, transition: Batch) -> Batch:
        observations = transition.observations
        if self.next_observations.shape != observations.shape:  # the very first step tells how many environments
            self.next_observations = torch.full_like(observations, torch.inf)
            self.masses = self.atoms.masses.repeat(*transition.shape, 1)
        # Besides ends of episodes this finds simulators that could not be restored and began anew.
        begins = (observations != self.next_observations).any(-1)
        if begins.any():
            self.masses[begins] = self.atoms.masses
        ends = torch.maximum(transition.terminated, transition.truncated).bool().unsqueeze(-1)
        self.next_observations = transition.next_observations.masked_fill(ends, torch.inf)
        features = self._features(transition).flatten(0, 1)
        costs = self.atoms.couple(features, self.masses.view(len(features), -1)).view(transition.shape)
        self.steps += 1
        self.cost = self.cost.lerp(costs.mean(-1), 1 / min(self.steps, self.horizon))
        return transition.with_rewards(self._reward(costs))

    def update(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Metrics:
        return {"pwil/coupling_cost": self.cost}

    def relabel(self, batch: Batch, expert_batch: Batch, policy: Policy) -> Batch:
        """Rows have had their rewards since they were collected, or prepared."""
        return batch

    def _features(self, batch: Batch) -> Float[Tensor, "*batch feature"]:
        """Without the absorbing bit, which is zero wherever anything is coupled."""
        observations = batch.observations[..., :-1] if self.context.absorbing else batch.observations
        return observations if self.config.state_only else torch.cat([observations, batch.carried_out], -1)

    def _reward(self, costs: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Eq. 5: alpha exp(-beta T / sqrt(|S| + |A|) c), where `costs` are T c."""
        bandwidth = self.config.reward_bandwidth_scale / self.atoms.points.shape[-1] ** 0.5
        return self.config.reward_scale * torch.exp(-bandwidth * costs)

    def _demonstrated(
        self, features: Float[Tensor, "rows feature"], real: Bool[Tensor, " rows"], lengths: list[int]
    ) -> Float[Tensor, " rows"]:
        """What each demonstrated row would have been given while it was collected; 0 in the absorbing state.

        A trajectory longer than the time limit starts again there, as the environment would have.
        """
        rewards = torch.zeros(len(features))
        for trajectory in torch.arange(len(features)).split(lengths):
            for episode in trajectory[real[trajectory]].split(self.horizon):
                masses = self.atoms.masses.clone().unsqueeze(0)
                costs = [self.atoms.couple(features[[row]], masses) for row in episode.tolist()]
                rewards[episode] = self._reward(torch.cat(costs))
        return rewards

    def get_extra_state(self) -> dict[str, Any]:
        return {
            "masses": self.masses,
            "next_observations": self.next_observations,
            "steps": self.steps,
            "cost": self.cost,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        # A copy, since masses are changed in place.
        self.masses, self.next_observations = state["masses"].clone(), state["next_observations"]
        self.steps, self.cost = state["steps"], state["cost"]
