"""Episodes to write and read back, and what it means that they are the same."""

from collections.abc import Sequence

import numpy as np

from environments.trajectories import Trajectory


def episode(
    length: int,
    terminated: bool,
    offset: float = 0.0,
    actions: str | None = "continuous",
    rewards: bool = True,
    infos: bool = True,
    seed: int | None = None,
) -> Trajectory:
    """Connected rows of numbers without a short decimal form, so that formats that print them have to do it well."""
    observations = (np.arange(offset, offset + 2 * (length + 1), dtype=np.float32).reshape(-1, 2) / 7).astype(
        np.float32
    )
    steps = np.arange(length)
    kinds: dict[str | None, np.ndarray | None] = {
        None: None,
        "discrete": steps % 2,
        "continuous": np.stack([np.sin(steps), np.cos(steps + offset), -steps / 9], 1).astype(np.float32),
    }
    own: dict[str, np.ndarray] = {"qpos": observations[:-1] * 3, "qvel": observations[:-1] / 11} if infos else {}
    returns = (np.sqrt(steps + 1) - offset / 3).astype(np.float32) if rewards else None
    return Trajectory.from_observations(observations, kinds[actions], returns, terminated, own, seed)


def assert_same(expected: Sequence[Trajectory], found: Sequence[Trajectory]) -> None:
    """Bit for bit."""
    assert len(expected) == len(found)
    for before, after in zip(expected, found, strict=True):
        for name in ("observations", "actions", "rewards", "next_observations"):
            first, second = getattr(before, name), getattr(after, name)
            assert (first is None) == (second is None), name
            if first is not None:
                assert first.dtype == second.dtype, name
                np.testing.assert_array_equal(first, second, name)
        assert before.infos.keys() == after.infos.keys()
        for name, values in before.infos.items():
            np.testing.assert_array_equal(values, after.infos[name], name)
        assert (before.terminated, before.seed) == (after.terminated, after.seed)
