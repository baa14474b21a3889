"""Returns of a random and of an expert policy, by which returns become scores: 0 is random, 1 is expert."""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("reference_scores.json")


@dataclass(frozen=True)
class ReferenceScores:
    random: float
    expert: float
    source: str

    def normalise(self, episode_return: float) -> float:
        """(return - random) / (expert - random)."""
        return (episode_return - self.random) / (self.expert - self.random)


UNKNOWN = ReferenceScores(math.nan, math.nan, "not measured")


def reference_scores(environment_id: str) -> ReferenceScores:
    """The references of an environment; NaN where none are known."""
    entry = _entries().get(environment_id)
    return ReferenceScores(**entry) if entry else UNKNOWN


@cache
def _entries() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = json.loads(PATH.read_text())
    return entries
