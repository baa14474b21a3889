"""Experts that can be asked for an action: saved policies, D4RL's networks, Python functions, a person."""

import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float32

from conf.callables import imported
from conf.errors import UserError
from environments.construction import Spaces
from environments.layouts import narrowing
from training import stable_baselines3_policy
from training.policy import SavedPolicy, load_policy

Observations = Float32[np.ndarray, "rows observation"]
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}
KEYBOARD = "keyboard"


class ExpertStoppedError(Exception):
    """The person at the keyboard wants to go on another time."""


class Expert(ABC):
    """Says what to do. `automatic`: can it be asked any number of times?"""

    automatic = True

    def open(self, folder: Path) -> None:
        """The run's folder, before anything is asked."""
        return

    @abstractmethod
    def label(self, observations: Observations, index: int) -> np.ndarray:
        """Actions [rows, ...] in the environment's units. `index`: rows that were labelled before, in the whole run."""


class FunctionExpert(Expert):
    """Any function from observations [rows, observation] to actions [rows, action], or [rows] for discrete ones."""

    def __init__(self, function: Callable[[Observations], Any], name: str, spaces: Spaces) -> None:
        self.function, self.name, self.spaces = function, name, spaces

    def label(self, observations: Observations, index: int) -> np.ndarray:
        actions = np.asarray(self.function(observations))
        expected = (len(observations),) if self.spaces.discrete else (len(observations), self.spaces.action_size)
        if actions.shape != expected:
            raise UserError(
                f"imitation.expert={self.name} returns actions of shape {actions.shape}: expected {expected}"
            )
        if self.spaces.discrete:
            if actions.dtype.kind not in "iu" or not ((actions >= 0) & (actions < self.spaces.action_size)).all():
                last = self.spaces.action_size - 1
                raise UserError(
                    f"imitation.expert={self.name} returns other actions than whole numbers from 0 to {last}"
                )
            return actions
        if actions.dtype.kind not in "iuf" or not np.isfinite(actions).all():
            raise UserError(f"imitation.expert={self.name} returns actions that are not finite numbers")
        return actions.astype(np.float32)


def make_expert(name: str | None, index: int, spaces: Spaces, adapted: str | None = None) -> Expert:
    """The expert of `imitation.expert`, for an environment of these spaces.

    `adapted`: the environment's id, where a policy of ours is to be shown what it knows of the observations.

    Raises:
        UserError: there is none, it cannot be used, or it is one for another environment.
    """
    if name is None:
        raise UserError(
            "imitation.expert has no value: expected policy.pt or the folder of a run, a zip of Stable-Baselines3, a "
            "D4RL file that holds the expert's network, a Python function as package.module:function, or keyboard"
        )
    path = Path(name)
    if path.is_dir():
        names = ("best_policy.pt", "policy.pt")
        path = next((path / name for name in names if (path / name).is_file()), path / names[-1])
    theirs = path.is_file() and stable_baselines3_policy.is_stable_baselines3(path)
    if adapted and (
        name == KEYBOARD or (":" in name and not path.exists()) or theirs or (path.is_file() and h5py.is_hdf5(path))
    ):
        raise UserError(f"imitation.expert_adapt=true is for policies of ours, and {name} is none: expected false")
    if name == KEYBOARD:
        return KeyboardExpert(spaces)
    if not path.exists() and ":" in name:
        return FunctionExpert(imported(name, "imitation.expert"), name, spaces)
    if not path.is_file():
        raise UserError(
            f"imitation.expert={name}: there is no {path}; expected policy.pt or the folder of a run, a zip of "
            "Stable-Baselines3, a D4RL file, package.module:function, or keyboard"
        )
    if h5py.is_hdf5(path):
        return FunctionExpert(d4rl_network(path, spaces), name, spaces)
    if theirs:
        if index:
            raise UserError(f"imitation.expert_index={index}: expected 0, the policy in {path}")
        return FunctionExpert(stable_baselines3_policy.load(path, *_facts(spaces), sampled=False).act, name, spaces)
    return FunctionExpert(_saved(load_policy(path), path, index, spaces, adapted), name, spaces)


def _facts(spaces: Spaces) -> tuple[int, Box | Discrete]:
    """Size of an observation, and the space of actions, as the environment has them."""
    if spaces.discrete:
        return spaces.observation_size, Discrete(spaces.action_size)
    return spaces.observation_size, Box(spaces.action_low, spaces.action_high, dtype=np.float32)


def _saved(
    policy: SavedPolicy, path: Path, index: int, spaces: Spaces, adapted: str | None
) -> Callable[[Observations], np.ndarray]:
    """The most likely actions of one of the policies in a file."""
    if index >= len(policy.seeds):
        raise UserError(
            f"imitation.expert_index={index}: expected 0 to {len(policy.seeds) - 1}, the policies in {path}"
        )
    own = policy.spaces
    narrow: Callable[[Observations], Observations] | None = None
    if adapted is not None:
        narrow = narrowing(adapted, spaces.observation_size, policy.environment_id, own.observation_size)
        spaces = replace(spaces, observation_size=own.observation_size)
    sizes = (own.observation_size, own.action_size, own.discrete)
    bounds = ((own.action_low, spaces.action_low), (own.action_high, spaces.action_high))
    alike = sizes == (spaces.observation_size, spaces.action_size, spaces.discrete)
    if not alike or not all(np.array_equal(one, other) for one, other in bounds):
        hint = "" if adapted else "; imitation.expert_adapt=true shows it what it knows, where these hold more"
        raise UserError(
            f"imitation.expert={path} is a policy for {policy.environment_id}, which has other spaces{hint}"
        )

    def act(observations: Observations) -> np.ndarray:
        if narrow is not None:
            observations = narrow(observations)
        batch = torch.from_numpy(observations).expand(len(policy.seeds), *observations.shape)
        return own.to_environment(policy.greedy(batch)[index].numpy())

    return act


def d4rl_network(path: Path, spaces: Spaces) -> Callable[[Observations], np.ndarray]:
    """The greedy policy in `metadata/policy` of a D4RL file: fc0, fc1, ..., last_fc, each with weight and bias.

    Raises:
        UserError: the file holds none, or one for another environment.
    """
    try:
        with h5py.File(path) as file:
            group = file.get("metadata/policy")
            if not isinstance(group, h5py.Group) or "last_fc" not in group:
                raise UserError(
                    f"imitation.expert={path} holds no network of an expert: expected metadata/policy in it"
                )
            hidden = sorted((n for n in group if n[:2] == "fc" and n[2:].isdigit()), key=lambda n: int(n[2:]))
            layers = [
                (np.asarray(group[f"{n}/weight"], np.float32), np.asarray(group[f"{n}/bias"], np.float32))
                for n in [*hidden, "last_fc"]
            ]
            activation, output = (_text(group, name) for name in ("nonlinearity", "output_distribution"))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"imitation.expert={path} is damaged ({' '.join(str(error).split())})") from error
    if spaces.discrete or activation not in ACTIVATIONS:
        raise UserError(
            f"imitation.expert={path}: a network of {activation} for continuous actions cannot be used here"
        )
    if any((weight.ndim, bias.ndim) != (2, 1) for weight, bias in layers):
        raise UserError(f"imitation.expert={path} is damaged: expected matrices of weights and vectors of biases")
    # Files differ in which axis of a weight is the input; a first layer that is square is taken as [out, in].
    if all(len(bias) == len(weight) for weight, bias in layers) and layers[0][0].shape[1] == spaces.observation_size:
        layers = [(weight.T, bias) for weight, bias in layers]
    widths = [spaces.observation_size, *(len(bias) for _, bias in layers)]
    fits = all(w.shape == (i, o) for (w, _), i, o in zip(layers, widths, widths[1:], strict=False))
    if not fits or widths[-1] != spaces.action_size:
        raise UserError(
            f"imitation.expert={path}: its network does not take {spaces.observation_size} observations to "
            f"{spaces.action_size} actions: it comes from another environment"
        )

    def act(observations: Observations) -> np.ndarray:
        values = observations
        for weight, bias in layers[:-1]:
            values = ACTIVATIONS[activation](values @ weight + bias)
        values = values @ layers[-1][0] + layers[-1][1]
        return spaces.to_environment(np.tanh(values) if "tanh" in output else values)

    return act


def _text(group: h5py.Group, name: str) -> str:
    value = group[name][()] if name in group else b""
    return value.decode() if isinstance(value, bytes) else str(value)


class KeyboardExpert(Expert):
    """A person in a terminal. Each label is on the disk before the next question, and is not asked for again.

    A discrete action is its number; a continuous one is all its numbers, in the environment's units, with spaces
    between. An empty line repeats the last label; q, the end of the input, or Ctrl-C stop the run.
    """

    automatic = False

    def __init__(self, spaces: Spaces, read: Callable[[], str] | None = None) -> None:
        self.spaces, self.read = spaces, read or sys.stdin.readline
        self.path: Path | None = None
        self.known: list[dict[str, Any]] = []

    def open(self, folder: Path) -> None:
        """Take up the labels that were given before; half a line at the end, from a crash, is cut off."""
        self.path = folder / "labels.jsonl"
        self.known = []
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if len(whole) < len(lines):
            os.truncate(self.path, sum(map(len, whole)))
        try:
            self.known = [json.loads(line) for line in whole]
        except ValueError as error:
            raise UserError(f"{self.path} is damaged: expected one label in each line") from error

    def label(self, observations: Observations, index: int) -> np.ndarray:
        labels = [self._one(observation, index + row) for row, observation in enumerate(observations)]
        return np.array(labels, np.int64 if self.spaces.discrete else np.float32)

    def _one(self, observation: np.ndarray, index: int) -> Any:
        seen = [float(value) for value in observation]
        if index < len(self.known):
            if self.known[index]["observation"] != seen:
                raise UserError(
                    f"{self.path}, line {index + 1}, was given for another observation: it is another run's"
                )
            return self.known[index]["action"]
        action = self._ask(observation, index)
        self.known.append({"observation": seen, "action": action})
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(self.known[-1]) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return action

    def _ask(self, observation: np.ndarray, index: int) -> Any:
        spaces = self.spaces
        what = f"0 to {spaces.action_size - 1}" if spaces.discrete else f"{spaces.action_size} numbers"
        numbers = np.array2string(observation, precision=3, suppress_small=True, max_line_width=100)
        print(f"\nlabel {index + 1}; observation {numbers}", file=sys.stderr)
        while True:
            print(f"action ({what}; empty: the last one; q: stop): ", end="", file=sys.stderr, flush=True)
            line = self._line()
            if line.strip() == "q" or not line:
                raise ExpertStoppedError
            if not line.strip() and self.known:
                return self.known[-1]["action"]
            action = self._parsed(line)
            if action is not None:
                return action
            low, high = spaces.action_low.tolist(), spaces.action_high.tolist()
            print(f"expected {what}" + ("" if spaces.discrete else f" from {low} to {high}"), file=sys.stderr)

    def _line(self) -> str:
        """Ctrl-C has to get through at once, where the loop around would wait for the end of the step."""
        try:
            previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        except ValueError:  # not in the main thread, where no signal comes
            return self.read()
        try:
            return self.read()
        except (KeyboardInterrupt, EOFError):
            return ""
        finally:
            signal.signal(signal.SIGINT, previous)

    def _parsed(self, line: str) -> Any:
        """The action, or None where it is none."""
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            return None
        if self.spaces.discrete:
            fits = len(values) == 1 and values[0] in range(self.spaces.action_size)
            return int(values[0]) if fits else None
        low, high = self.spaces.action_low, self.spaces.action_high
        return values if len(values) == len(low) and ((low <= values) & (values <= high)).all() else None
