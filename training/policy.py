"""Trained policies on their own: small files that load without running anything that they contain.

They act in float32, whatever precision they were trained with.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conf.errors import UserError
from environments.construction import Spaces
from models.actors import ACTORS, Policy
from models.mlp import MLPConfig
from models.streams import Streams
from training import checkpoint


@dataclasses.dataclass(frozen=True)
class SavedPolicy:
    """Policies of all seeds of a run, with what is needed to use them."""

    actor: Policy
    environment_id: str
    algorithm: str
    seeds: tuple[int, ...]
    spaces: Spaces

    @torch.no_grad()
    def greedy(
        self, observations: Float[Tensor, "runs batch observation"] | Float[np.ndarray, "runs batch observation"]
    ) -> Float[Tensor, "runs batch action"]:
        """Actions in the learner's units for the environment's own observations, the same number for each seed."""
        return self.actor.greedy(self.spaces.observe(torch.as_tensor(observations).cpu().numpy()))


def load_policy(path: str | Path) -> SavedPolicy:
    """Read a policy file.

    Raises:
        UserError: the file is missing, damaged, or not a policy.
    """
    content = checkpoint.load(Path(path))
    try:
        policy = _policy(content)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} is not a policy file of this program ({reason})") from error
    policy.actor.eval()
    return policy


def _policy(content: dict[str, Any]) -> SavedPolicy:
    spaces = Spaces.from_dict(content["spaces"])
    config, streams = MLPConfig(**content["network"]), Streams(content["seeds"], "policy")
    actor = ACTORS[content["actor"]](spaces.learned_size, spaces.action_size, config, streams, **content["settings"])
    actor.load_state_dict(content["state"])
    return SavedPolicy(
        actor,
        content["environment_id"],
        content["algorithm"],
        tuple(content["seeds"]),
        spaces,
    )
