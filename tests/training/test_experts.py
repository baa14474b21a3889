"""Experts that label: saved policies, networks in D4RL files, functions, and a person at the keyboard."""

import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from conf.errors import UserError
from environments.construction import Spaces, spaces_of
from tests.scripts.helpers import save_policy
from tests.training.commands import Outcome, run
from tests.training.test_stable_baselines3_policy import CATEGORICAL, OBSERVATIONS, PPO, TANH, layer, zipped
from training.experts import ExpertStoppedError, KeyboardExpert, d4rl_network, make_expert
from training.policy import load_policy

ROOT = Path(__file__).resolve().parents[2]
HOPPER = spaces_of("Hopper-v4")
CARTPOLE = spaces_of("CartPole-v1")
PENDULUM = spaces_of("Pendulum-v1")
STATES = np.random.default_rng(0).normal(size=(4, 11)).astype(np.float32)


def wrong_shape(observations: np.ndarray) -> np.ndarray:
    return np.zeros(len(observations))


def unfinite(observations: np.ndarray) -> np.ndarray:
    return np.full((len(observations), 3), np.nan)


def balance(observations: np.ndarray) -> np.ndarray:
    choices: np.ndarray = (observations[:, 2] + observations[:, 3] > 0).astype(np.int64)
    return choices


def test_a_saved_policy_or_its_folder(tmp_path: Path) -> None:
    path = save_policy(tmp_path, "runs=2")
    for name in (path, path.parent):
        actions = make_expert(str(name), 1, HOPPER).label(STATES, 0)
        expected = load_policy(path).greedy(torch.from_numpy(STATES).expand(2, -1, -1))[1].numpy()
        assert np.allclose(actions, expected, atol=1e-6)
    with pytest.raises(UserError, match=r"imitation.expert_index=2: expected 0 to 1"):
        make_expert(str(path), 2, HOPPER)
    with pytest.raises(UserError, match="a policy for Hopper-v4, which has other spaces"):
        make_expert(str(path), 0, PENDULUM)


def test_a_policy_is_shown_what_it_knows(tmp_path: Path) -> None:
    """seals' Hopper observes its position first, which Hopper-v4 leaves out."""
    path, seals = save_policy(tmp_path), spaces_of("seals/Hopper-v1")
    longer = np.concatenate([np.full((4, 1), 7, np.float32), STATES], 1)
    expected = make_expert(str(path), 0, HOPPER).label(STATES, 0)
    assert np.array_equal(make_expert(str(path), 0, seals, "seals/Hopper-v1").label(longer, 0), expected)
    with pytest.raises(UserError, match=r"other spaces; imitation.expert_adapt=true shows it what it knows"):
        make_expert(str(path), 0, seals)
    with pytest.raises(UserError, match=r"Hopper-v4 is another robot than Walker2d-v4"):
        make_expert(str(path), 0, spaces_of("Walker2d-v4"), "Walker2d-v4")
    for other in ("keyboard", "package.module:function", str(zipped(tmp_path / "model.zip", PPO))):
        with pytest.raises(UserError, match=r"imitation.expert_adapt=true is for policies of ours"):
            make_expert(other, 0, PENDULUM, "Pendulum-v1")


def test_a_zip_of_stable_baselines3(tmp_path: Path) -> None:
    """0.5 tanh(x0) + tanh(0.5 - x1) + 0.1, in the environment's units; of two choices the one with the larger value."""
    path = zipped(tmp_path / "model.zip", PPO)
    assert make_expert(str(path), 0, PENDULUM).label(OBSERVATIONS, 0)[:, 0] == pytest.approx(TANH, abs=1e-6)
    with pytest.raises(UserError, match=r"imitation.expert_index=1: expected 0, the policy in"):
        make_expert(str(path), 1, PENDULUM)
    with pytest.raises(UserError, match="a policy for 3 observations, the environment has 11"):
        make_expert(str(path), 0, HOPPER)
    body = layer([[1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0]], [0.0, 0.5], "mlp_extractor.policy_net.0")
    path = zipped(tmp_path / "choices.zip", CATEGORICAL | body)
    states = np.array([[1, 2, 0, 0], [0, -3, 0, 0]], np.float32)
    assert make_expert(str(path), 0, CARTPOLE).label(states, 0).tolist() == [0, 1]


def network(path: Path, transposed: bool, observation: int = 11, nonlinearity: str = "relu") -> Path:
    """All weights of the first layer 0.1, of the second 0.2, biases 0.01; of 2 units. The last passes on 3 sums."""
    with h5py.File(path, "w") as file:
        for name, shape, value in (("fc0", (observation, 2), 0.1), ("fc1", (2, 2), 0.2), ("last_fc", (2, 3), 0.3)):
            weight = np.full(shape, value)
            file[f"metadata/policy/{name}/weight"] = weight.T if transposed else weight
            file[f"metadata/policy/{name}/bias"] = np.full(shape[1], 0.01)
        file["metadata/policy/nonlinearity"] = nonlinearity.encode()
        file["metadata/policy/output_distribution"] = b"tanh_gaussian"
    return path


@pytest.mark.parametrize("transposed", [False, True])
def test_the_network_in_a_d4rl_file_by_hand(transposed: bool, tmp_path: Path) -> None:
    """Of ones: 11 x 0.1 + 0.01 = 1.11; 2 x 0.2 x 1.11 + 0.01 = 0.454; 2 x 0.3 x 0.454 + 0.01 = 0.2824; its tanh."""
    path = network(tmp_path / "expert.hdf5", transposed)
    ones = np.ones((2, 11), np.float32)
    assert make_expert(str(path), 0, HOPPER).label(ones, 0) == pytest.approx(np.full((2, 3), 0.275120), abs=1e-5)
    assert d4rl_network(path, HOPPER)(-10 * ones) == pytest.approx(np.full((2, 3), np.tanh(0.016)), abs=1e-5)  # ReLU


def test_files_without_a_usable_network(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it comes from another environment"):
        make_expert(str(network(tmp_path / "ant.hdf5", False, observation=27)), 0, HOPPER)
    with pytest.raises(UserError, match="a network of gelu"):
        make_expert(str(network(tmp_path / "odd.hdf5", False, nonlinearity="gelu")), 0, HOPPER)
    for values in (np.zeros(22), np.float64(3.0)):
        path = network(tmp_path / "flat.hdf5", False)
        with h5py.File(path, "r+") as file:
            del file["metadata/policy/fc0/weight"]
            file["metadata/policy/fc0/weight"] = values
        with pytest.raises(UserError, match=r"flat.hdf5 is damaged: expected matrices of weights"):
            make_expert(str(path), 0, HOPPER)
    bundled = ROOT / "environments" / "demonstrations" / "hopper.hdf5"
    with pytest.raises(UserError, match="holds no network of an expert"):
        make_expert(str(bundled), 0, HOPPER)
    (tmp_path / "policy.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        make_expert(str(tmp_path), 0, HOPPER)


@pytest.mark.parametrize(
    ("name", "spaces", "message"),
    [
        ("wrong_shape", HOPPER, r"actions of shape \(4,\): expected \(4, 3\)"),
        ("unfinite", HOPPER, "not finite"),
        ("unfinite", CARTPOLE, r"actions of shape \(4, 3\): expected \(4,\)"),
        ("wrong_shape", CARTPOLE, "other actions than whole numbers from 0 to 1"),
    ],
)
def test_functions_are_checked(name: str, spaces: Spaces, message: str) -> None:
    expert = make_expert(f"tests.training.test_experts:{name}", 0, spaces)
    with pytest.raises(UserError, match=message):
        expert.label(STATES, 0)


def test_a_function_for_discrete_actions() -> None:
    expert = make_expert("tests.training.test_experts:balance", 0, CARTPOLE)
    assert expert.label(np.array([[0, 0, 1, 0], [0, 0, -1, 0]], np.float32), 0).tolist() == [1, 0]


def typed(*lines: str) -> Callable[[], str]:
    given: Iterator[str] = iter(lines)
    return lambda: next(given, "")


def test_a_person_is_asked_until_the_answer_is_an_action(capsys: pytest.CaptureFixture[str]) -> None:
    discrete = KeyboardExpert(CARTPOLE, typed("left\n", "2\n", "0.5\n", "1\n", "\n"))
    assert discrete.label(STATES[:2, :4], 0).tolist() == [1, 1]
    assert capsys.readouterr().err.count("expected 0 to 1") == 3
    continuous = KeyboardExpert(HOPPER, typed("\n", "0.1 0.2\n", "0 0 1.5\n", "nan 0 0\n", "0.1 -0.2 1\n"))
    assert continuous.label(STATES[:1], 0) == pytest.approx(np.array([[0.1, -0.2, 1.0]]))


@pytest.mark.parametrize("end", ["q\n", ""])
def test_labels_are_stored_at_once_and_not_asked_for_again(end: str, tmp_path: Path) -> None:
    first = KeyboardExpert(CARTPOLE, typed("1\n", "0\n", end))
    first.open(tmp_path)
    with pytest.raises(ExpertStoppedError):
        first.label(STATES[:, :4], 0)
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 2
    with (tmp_path / "labels.jsonl").open("a") as file:
        file.write('{"observation": [0.1')  # killed while it wrote
    second = KeyboardExpert(CARTPOLE, typed("1\n", "1\n"))
    second.open(tmp_path)
    assert second.label(STATES[:, :4], 0).tolist() == [1, 0, 1, 1]
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 4
    with pytest.raises(UserError, match=r"labels.jsonl, line 1, was given for another observation"):
        second.label(STATES[1:, :4], 0)


def test_ctrl_c_stops_the_question() -> None:
    def interrupted() -> str:
        signal.raise_signal(signal.SIGINT)
        return "1\n"

    noted: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        with pytest.raises(ExpertStoppedError):
            KeyboardExpert(CARTPOLE, interrupted).label(STATES[:1, :4], 0)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert not noted


COMMAND = (
    *("algorithm=DAgger", "learner=ppo", "env=cartpole", "imitation.expert=keyboard", "env.num_envs=1", "steps=20"),
    *("imitation.round_min_steps=8", "imitation.round_min_episodes=1", "imitation.cloning.epochs=1"),
    *("training.batch_size=8", "evaluation.episodes=1", "logging.progress=false", "logging.tensorboard=false"),
)


def labelled(monkeypatch: pytest.MonkeyPatch, answers: list[str], *arguments: str) -> Outcome:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(answers)))
    return run(*arguments)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_labelling_that_was_stopped_equals_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers = [f"{index % 2}\n" for index in range(60)]
    whole = labelled(monkeypatch, answers, *COMMAND, "output_folder=whole")
    assert whole.status == 0, whole.error
    stopped = labelled(monkeypatch, [*answers[:11], "q\n"], *COMMAND, "output_folder=parts")
    (folder,) = Path("parts").glob("*/*")
    assert stopped.status == 130 and f"resume={folder}" in stopped.error
    resumed = labelled(monkeypatch, answers[11:], f"resume={folder}")
    assert resumed.status == 0, resumed.error
    (reference,) = Path("whole").glob("*/*")
    tables = [(path / "labels.jsonl").read_text() for path in (reference, folder)]
    assert tables[0] == tables[1]
    assert [json.loads(line)["action"] for line in tables[0].splitlines()][:4] == [0, 1, 0, 1]
    weights: list[Any] = [load_policy(path / "policy.pt").actor.state_dict() for path in (reference, folder)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
