"""Replays: recordings of this simulator agree with it, changed ones do not, and what cannot be known is not judged."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Discrete

from environments.formats.base import DemonstrationSet
from environments.trajectories import Trajectory
from scripts.demonstration_checks import environment_facts
from scripts.demonstration_replay import Verification, described, verified
from scripts.demonstrations import main
from scripts.rollouts import play
from tests.scripts.test_demonstrations import saved


def played(environment_id: str, seed: int = 1, limit: int = 60) -> Trajectory:
    """Random actions in the real simulator, with its states."""
    generator = np.random.default_rng(seed)
    space = environment_facts(environment_id).actions

    def act(observations: np.ndarray) -> np.ndarray:
        if isinstance(space, Discrete):
            return generator.integers(0, space.n, len(observations))
        return generator.uniform(space.low, space.high, (len(observations), *space.low.shape)).astype(np.float32)

    whole = play(environment_id, act, seed)
    return cut(whole, limit) if whole.length > limit else whole


def cut(trajectory: Trajectory, length: int) -> Trajectory:
    return dataclasses.replace(
        trajectory,
        observations=trajectory.observations[:length],
        next_observations=trajectory.next_observations[:length],
        actions=None if trajectory.actions is None else trajectory.actions[:length],
        rewards=None if trajectory.rewards is None else trajectory.rewards[:length],
        infos={name: values[:length] for name, values in trajectory.infos.items()},
        terminated=False,
    )


def replay(trajectory: Trajectory, environment_id: str, **changes: object) -> Verification:
    changed = dataclasses.replace(trajectory, **changes)  # type: ignore[arg-type]  # of several types
    return verified(DemonstrationSet([changed], {"environment_id": environment_id}), "mine")


@pytest.mark.parametrize(
    "environment_id",
    ["Hopper-v4", "HalfCheetah-v4", "Walker2d-v4", "Swimmer-v4", "Ant-v4", "Hopper-v5", "seals/Hopper-v1", "Ant-v5"],
)
def test_recordings_of_this_simulator_agree(environment_id: str) -> None:
    trajectory = played(environment_id)
    result = replay(trajectory, environment_id)
    assert result.drift.agrees and result.drift.steps == trajectory.length
    assert result.drift.observation["largest"] < 1e-3 and result.drift.reward["largest"] < 1e-3
    assert result.verdict == f"fits {environment_id} as it is installed here"
    seeded = replay(trajectory, environment_id, infos={}, seed=None)
    if environment_id != "Ant-v5":  # which observes forces that depend on the step before
        assert seeded.drift.method.startswith("from observations")
        assert seeded.drift.steps + seeded.drift.unknown == trajectory.length and seeded.drift.agrees


@pytest.mark.parametrize("environment_id", ["Pendulum-v1", "CartPole-v1", "MountainCar-v0"])
def test_classic_control_agrees(environment_id: str) -> None:
    trajectory = played(environment_id)
    result = replay(trajectory, environment_id)
    assert result.drift.agrees and result.drift.steps == trajectory.length


def test_clipped_velocities_are_not_taken_for_states() -> None:
    trajectory = played("Hopper-v4", limit=30)
    states = trajectory.all_observations
    states[10, 8] = 10.0
    clipped = Trajectory.from_observations(states, trajectory.actions, trajectory.rewards, trajectory.terminated)
    result = replay(clipped, "Hopper-v4")
    assert result.drift.unknown == 1
    assert "1 steps could not be: their states are not in the file" in described(result)


def test_another_environment_by_its_seed() -> None:
    trajectory = played("MountainCarContinuous-v0", limit=40)
    assert replay(trajectory, "MountainCarContinuous-v0").drift.agrees
    acrobot = played("Acrobot-v1", limit=40)
    result = replay(acrobot, "Acrobot-v1")
    assert result.drift.agrees and result.drift.method == "from the seeds of the resets"
    result = replay(acrobot, "Acrobot-v1", seed=None)
    assert result.drift.steps == 0 and result.drift.unknown == acrobot.length
    assert "nothing could be judged" in result.verdict
    wrong = replay(acrobot, "Acrobot-v1", seed=99)
    assert not wrong.drift.agrees


def rewards(trajectory: Trajectory) -> dict[str, object]:
    assert trajectory.rewards is not None
    return {"rewards": trajectory.rewards * 1.5}


def dynamics(trajectory: Trajectory) -> dict[str, object]:
    return {"next_observations": trajectory.next_observations + np.float32(0.2)}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (rewards, "made for another version of this environment: same dynamics as Hopper-v4, other rewards"),
        (dynamics, "made for another version of this environment, or for another one: does not fit Hopper-v4"),
    ],
)
def test_changed_recordings_do_not_agree(change: Callable[[Trajectory], dict[str, object]], verdict: str) -> None:
    trajectory = played("Hopper-v4")
    result = replay(trajectory, "Hopper-v4", **change(trajectory))
    assert result.verdict == verdict
    assert "Hopper-v5" in [other.environment for other in result.others]


def test_the_version_that_fits_is_found() -> None:
    result = replay(played("Walker2d-v5"), "Walker2d-v4")  # whose feet have other friction
    assert result.verdict == "made for another version of this environment: fits Walker2d-v5, not Walker2d-v4"
    assert "Walker2d-v5:" in described(result)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.hdf5", played("Hopper-v4"), played("Hopper-v4", 2), environment_id="Hopper-v4")
    assert main(["verify", str(path), "--json", "--episodes", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["agrees"] and content["drift"]["observation"].keys() == {"median", "95%", "largest"}
    assert main(["verify", str(path)]) == 0
    assert "verdict: fits Hopper-v4 as it is installed here" in capsys.readouterr().out
    assert main(["verify", str(path), "--episodes", "0"]) == 2
    assert main(["verify", str(path), "--env", "ant"]) == 2
    nameless = saved(tmp_path / "b.hdf5", played("Hopper-v4"))
    assert main(["verify", str(nameless)]) == 2
    assert "names no environment that can be made here: give --env" in capsys.readouterr().err
    state_only = saved(tmp_path / "c.hdf5", dataclasses.replace(played("Hopper-v4"), actions=None))
    assert main(["verify", str(state_only), "--env", "hopper"]) == 2
    assert "holds no actions to replay" in capsys.readouterr().err
