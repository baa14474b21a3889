"""Absorbing states (Kostrikov et al. 2018, "Discriminator-Actor-Critic", section 4.2).

An episode that truly ends goes on for ever in an absorbing state whose value the learner must learn, so that
neither survival nor an early end is rewarded by the sign of the reward. The absorbing state is all zeros, in the
environment's units, but for one extra bit; no terminal transition is left. A time limit is not an end: such episodes
stay as they are.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from memory.batch import Batch


def append_bit(observations: Float[Tensor, "*batch observation"]) -> Float[Tensor, "*batch extended"]:
    """Ordinary observations carry a last feature of 0; the absorbing state carries 1."""
    return torch.cat([observations, torch.zeros_like(observations[..., :1])], -1)


def lead_into_absorbing(batch: Batch, state: Float[Tensor, " extended"]) -> Batch:
    """Replace the successor of every terminated row by the absorbing state, and clear the termination."""
    ends = batch.terminated.unsqueeze(-1).bool()
    return dataclasses.replace(
        batch,
        next_observations=torch.where(ends, state.to(batch.rewards.device), batch.next_observations),
        next_absorbing=torch.maximum(batch.next_absorbing, batch.terminated),
        terminated=torch.zeros_like(batch.terminated),
    )


def self_loops(batch: Batch, state: Float[Tensor, " extended"]) -> Batch:
    """For each row, the transition from the absorbing state to itself: zero action, zero reward, weight 1."""
    state = state.to(batch.rewards.device).expand_as(batch.observations)
    zeros = torch.zeros_like(batch.rewards)
    ones = torch.ones_like(batch.rewards)
    return Batch(
        observations=state,
        actions=torch.zeros_like(batch.actions),
        rewards=zeros,
        next_observations=state,
        terminated=zeros,
        truncated=zeros,
        weights=ones,
        collected_at=batch.collected_at,
        absorbing=ones,
        next_absorbing=ones,
    )
