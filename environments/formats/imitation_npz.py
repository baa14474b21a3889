"""The older archives of the `imitation` library: obs, acts, rews, terminal, indices and infos, of all episodes joined.

`indices` are the first steps of all episodes but the first; of observations there is one more than steps in each.
"""

from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import UserError
from environments.formats.base import (
    DemonstrationSet,
    Format,
    actions_of,
    episode_lengths,
    flags,
    numbers,
    refuse,
    split,
)
from environments.formats.npz import archive

EXPECTED = "an npz file of the imitation library, with obs, acts, terminal and indices"
KEYS = ("obs", "acts", "terminal", "indices")
ENDS = "`terminal` also marks episodes that a time limit ended: see --time-limit"


def read(path: Path) -> DemonstrationSet:
    """All episodes of a file; its infos, which are pickled, are left out.

    Raises:
        UserError: it is not such a file, or its other arrays are pickled, too.
    """
    with archive(path, EXPECTED) as arrays:
        missing = [name for name in KEYS if name not in arrays]
        if missing:
            raise refuse(path, f" have no array '{missing[0]}'", EXPECTED)
        acts: Any = arrays["acts"]
        actions = actions_of(acts, path, "acts")
        starts = np.asarray(arrays["indices"])
        if starts.ndim != 1 or (starts.size and starts.dtype.kind not in "iu"):
            raise refuse(path, f", 'indices': type {starts.dtype}, shape {starts.shape}", "integers")
        bounds = np.concatenate([[0], starts.astype(np.int64), [len(actions)]])
        lengths = episode_lengths(np.diff(bounds), path, "indices")
        rows = sum(lengths) + len(lengths)
        types = {"observations": str(arrays["obs"].dtype), "actions": str(acts.dtype)}
        columns = {"observations": numbers(arrays["obs"], 2, path, "obs", rows), "actions": actions}
        terminated = flags(arrays["terminal"], path, "terminal", len(lengths))
        if "rews" in arrays:
            columns["rewards"] = numbers(arrays["rews"], 1, path, "rews", sum(lengths))
        notes = ["infos are pickled and were left out"] if "infos" in arrays.files else []
    if terminated.any():
        notes.append(ENDS)
    trajectories = split(lengths, columns, terminated.tolist(), None)
    return DemonstrationSet(trajectories, notes=tuple(notes), types=types)


def write(path: Path, content: DemonstrationSet) -> None:
    raise UserError(f"cannot write {path}: the older npz of the imitation library is read only; write imitation or npz")


FORMAT = Format("imitation-npz", "the imitation library's older npz (read only)", read, write)
