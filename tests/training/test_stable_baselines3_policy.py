"""Policies of Stable-Baselines3: files of its layout, made by hand, with pickles that must not run."""

import base64
import io
import json
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from conf.errors import UserError
from environments.formats import read
from scripts.demonstrations import main
from tests.environments.formats.test_bad_files import Malicious
from training.stable_baselines3_policy import load

OBSERVATIONS = np.array([[1.0, 2.0, -1.0], [0.0, 0.5, 0.0]], np.float32)
ACTIONS = Box(np.array([-2.0], np.float32), np.array([2.0], np.float32))


def layer(weight: list[list[float]], bias: list[float], name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.tensor(weight), f"{name}.bias": torch.tensor(bias)}


BODY = ([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], [0.0, 0.5])  # gives x0 and 0.5 - x1 before the activation
SAC = (
    layer(*BODY, "actor.latent_pi.0")
    | layer([[0.5, 1.0]], [0.1], "actor.mu")
    | layer([[0.0, 0.0]], [-1.0], "actor.log_std")
    | layer([[9.0] * 4], [9.0], "critic.qf0.0")
)
TD3 = layer(*BODY, "actor.mu.0") | layer([[0.5, 1.0]], [0.1], "actor.mu.2") | layer(*BODY, "actor_target.mu.0")
PPO = (
    layer(*BODY, "mlp_extractor.policy_net.0")
    | layer([[0.5, 1.0]], [0.1], "action_net")
    | {"log_std": torch.tensor([-1.0])}
)
CATEGORICAL = layer(*BODY, "mlp_extractor.policy_net.0") | layer([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], "action_net")
DQN = layer(*BODY, "q_net.q_net.0") | layer([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], "q_net.q_net.2")
RELU = [0.6, 0.1]  # 0.5 * max(x0, 0) + max(0.5 - x1, 0) + 0.1
TANH = [0.5 * math.tanh(1.0) + math.tanh(-1.5) + 0.1, 0.1]


def statistics(size: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """Means of 3 and variances of 4, as `imitation` keeps them."""
    values = {"running_mean": torch.full((size,), 3.0), "running_var": torch.full((size,), 4.0)}
    values["count"] = torch.tensor(9)
    return {f"{prefix}features_extractor.normalize.{name}": value for name, value in values.items()}


def zipped(path: Path, weights: Any, bad: bytes = b"", **data: Any) -> Path:
    """As `model.save` writes it; what is not plain JSON is a pickle, here one that must not run."""
    content = {"policy_class": {":type:": "<class 'abc.ABCMeta'>", ":serialized:": base64.b64encode(bad).decode()}}
    state = io.BytesIO()
    torch.save(weights, state)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", json.dumps(content | data))
        file.writestr("policy.pth", state.getvalue())
        file.writestr("pytorch_variables.pth", bad)
        file.writestr("_stable_baselines3_version", "2.9.2")
    return path


@pytest.mark.parametrize(
    ("weights", "data", "expected"),
    [
        (SAC, {}, [2 * math.tanh(x) for x in RELU]),
        (SAC, {"policy_kwargs": {"activation_fn": "<class 'torch.nn.modules.activation.Tanh'>"}}, None),
        (TD3, {}, [2 * math.tanh(x) for x in RELU]),
        (PPO, {}, TANH),
        (PPO, {"policy_kwargs": {"activation_fn": "<class 'torch.nn.modules.activation.ReLU'>"}}, RELU),
    ],
)
def test_greedy_numbers(tmp_path: Path, weights: Any, data: dict[str, Any], expected: list[float] | None) -> None:
    policy = load(zipped(tmp_path / "p.zip", weights, **data), 3, ACTIONS, False)
    found = policy.act(OBSERVATIONS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], expected or [2 * math.tanh(x) for x in TANH], rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "prefix", "expected"),
    [(PPO, "", TANH), (PPO, "pi_", TANH), (SAC, "actor.", [2 * math.tanh(x) for x in RELU])],
)
def test_the_running_normalisation_of_the_imitation_library(
    tmp_path: Path, weights: Any, prefix: str, expected: list[float]
) -> None:
    """Observations that are x after (y - 3) / sqrt(4 + 1e-5) do what x does without."""
    own = statistics(3, prefix)
    others = {f"vf_{name.removeprefix(prefix)}": value + 1 for name, value in own.items()}
    policy = load(zipped(tmp_path / "p.zip", weights | own | others), 3, ACTIONS, False)
    found = policy.act((OBSERVATIONS * math.sqrt(4 + 1e-5) + 3).astype(np.float32))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("weights", [CATEGORICAL, DQN])
def test_greedy_choices(tmp_path: Path, weights: Any) -> None:
    policy = load(zipped(tmp_path / "p.zip", weights), 3, Discrete(2), False)
    assert policy.act(np.array([[1, 2, 0], [0, -3, 0]], np.float32)).tolist() == [0, 1]


def test_sampled_actions_follow_the_distribution(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = np.repeat(OBSERVATIONS[1:], 20_000, 0)
    policy = load(
        zipped(tmp_path / "p.zip", PPO), 3, Box(np.array([-9.0], np.float32), np.array([9.0], np.float32)), True
    )
    drawn = policy.act(rows, generator)
    assert drawn.mean() == pytest.approx(0.1, abs=0.01) and drawn.std() == pytest.approx(math.exp(-1), rel=0.02)
    drawn = load(zipped(tmp_path / "p.zip", SAC), 3, ACTIONS, True).act(rows, generator)
    before = np.arctanh(drawn / 2)
    assert before.mean() == pytest.approx(0.1, abs=0.01) and before.std() == pytest.approx(math.exp(-1), rel=0.02)
    policy = load(zipped(tmp_path / "p.zip", CATEGORICAL, policy_kwargs={}), 3, Discrete(2), True)
    share = policy.act(np.repeat(np.array([[2, 9, 0]], np.float32), 20_000, 0), generator).mean()
    odds = math.exp(math.tanh(-8.5) - math.tanh(2))
    assert share == pytest.approx(odds / (1 + odds), abs=0.01)


def test_state_dependent_exploration(tmp_path: Path) -> None:
    weights = {k: v for k, v in SAC.items() if not k.startswith(("actor.mu", "actor.log_std"))}
    weights |= layer([[50.0, 1.0]], [0.1], "actor.mu.0") | {"actor.log_std": torch.zeros(2, 1)}
    path = zipped(tmp_path / "p.zip", weights, use_sde=True)
    np.testing.assert_allclose(load(path, 3, ACTIONS, False).act(OBSERVATIONS[:1]), [[2 * math.tanh(2)]], rtol=1e-6)
    with pytest.raises(UserError, match="state-dependent exploration cannot be sampled"):
        load(path, 3, ACTIONS, True)


@pytest.mark.parametrize(
    ("weights", "data", "size", "actions", "message"),
    [
        (SAC, {}, 4, ACTIONS, "a policy for 3 observations, the environment has 4"),
        (CATEGORICAL, {}, 3, Discrete(3), "a policy for 2 actions, the environment has 3"),
        (SAC, {}, 3, Discrete(2), "a policy for discrete actions and an environment without, or the other"),
        (DQN, {}, 3, ACTIONS, "the other way round"),
        ({"a": torch.zeros(1)}, {}, 3, ACTIONS, "no known policy network"),
        (SAC | {"actor.features_extractor.cnn.0.weight": torch.zeros(1)}, {}, 3, ACTIONS, "a feature extractor"),
        (SAC, {"policy_kwargs": {"activation_fn": "<class 'mine.Sine'>"}}, 3, ACTIONS, "activation Sine is not known"),
        ([1, 2], {}, 3, ACTIONS, "is damaged, or no policy"),
        (PPO | statistics(4), {}, 3, ACTIONS, "its statistics are of 4 observations, not 3"),
    ],
)
def test_what_cannot_be_used(
    tmp_path: Path, weights: Any, data: dict[str, Any], size: int, actions: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(zipped(tmp_path / "p.zip", weights, **data), size, actions, False)
    assert str(caught.value).startswith(str(tmp_path / "p.zip"))


def test_nothing_in_the_file_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "ran"
    bad = pickle.dumps(Malicious(trace))
    arguments = ["--env", "pendulum", "--episodes", "1", "--output", str(tmp_path / "d.hdf5")]
    path = zipped(tmp_path / "p.zip", SAC, bad)
    assert main(["record", str(path), *arguments]) == 0
    (trajectory,) = read(tmp_path / "d.hdf5").trajectories
    assert trajectory.length == 200 and "greedy" in (tmp_path / "d.md").read_text()
    (tmp_path / "d.hdf5").unlink()
    (tmp_path / "d.md").unlink()
    zipped(path, SAC | {"actor.mu.weight": Malicious(trace)}, bad)
    assert main(["record", str(path), *arguments]) == 2
    assert "is damaged, or no policy of Stable-Baselines3 (UnpicklingError)" in capsys.readouterr().err
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", bad)
        file.writestr("policy.pth", bad)
    assert main(["record", str(path), *arguments]) == 2
    assert not trace.exists() and not (tmp_path / "d.hdf5").exists()


def test_the_environment_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = zipped(tmp_path / "p.zip", SAC)
    assert main(["record", str(path), "--output", str(tmp_path / "d.hdf5")]) == 2
    assert "does not say for which environment it is: give --env" in capsys.readouterr().err
