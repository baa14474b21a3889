"""Policies that Stable-Baselines3 has saved, from their weights alone: nothing in the file is unpickled.

The zip holds `policy.pth`, tensors that PyTorch reads without running anything, and `data`, JSON in which what is not
plain is a pickle in base64. Those are never decoded: the network is read off the tensors' names and shapes, and the
activation off its name. Multi-layer perceptrons of SAC, TQC, TD3, DDPG, PPO, A2C, TRPO and DQN, also behind the running
normalisation of the `imitation` library (NormalizeFeaturesExtractor), whose statistics are tensors among the others.
VecNormalize's lie in a pickle of their own: a policy that was trained with it needs them and plays badly here.
"""

import dataclasses
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float32
from torch import Tensor

from conf.errors import UserError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": torch.relu,
    "Tanh": torch.tanh,
    "ELU": torch.nn.functional.elu,
    "LeakyReLU": torch.nn.functional.leaky_relu,
    "SiLU": torch.nn.functional.silu,
}
LOG_STD_RANGE = (-20.0, 2.0)  # of SAC
MEAN_LIMIT = 2.0  # of SAC with state-dependent exploration
EXTRACTORS = ("actor.features_extractor.", "pi_features_extractor.", "features_extractor.")
NORMALISER = ("normalize.running_mean", "normalize.running_var", "normalize.count")  # of `imitation`, and all it has
NORMALISER_EPSILON = 1e-5
BODIES = {  # where the layers of an actor are, and what its outputs mean
    "actor.latent_pi": "squashed",
    "actor.mu": "deterministic",
    "mlp_extractor.policy_net": "on-policy",
    "q_net.q_net": "values",
}


@dataclasses.dataclass(frozen=True)
class StableBaselinesPolicy:
    """One multi-layer perceptron and what becomes of its outputs."""

    kind: str  # of BODIES
    layers: list[tuple[Tensor, Tensor]]  # weight [out, in], bias
    activation: Callable[[Tensor], Tensor]
    head: list[tuple[Tensor, Tensor]]  # behind the last activation
    log_std: list[tuple[Tensor, Tensor]] | Tensor | None
    limited: bool  # is the mean clamped?
    actions: Box | Discrete
    normaliser: tuple[Tensor, Tensor] | None = None  # mean and standard deviation of observations

    def act(
        self, observations: Float32[np.ndarray, "envs observation"], generator: torch.Generator | None = None
    ) -> np.ndarray:
        """Actions in the environment's units; drawn where there is a generator, and otherwise the most likely."""
        with torch.no_grad():
            features = torch.from_numpy(observations)
            if self.normaliser is not None:
                mean, deviation = self.normaliser
                features = (features - mean) / deviation
            for weight, bias in self.layers:
                features = self.activation(features @ weight.T + bias)
            outputs = features
            for weight, bias in self.head:
                outputs = outputs @ weight.T + bias
            if self.limited:
                outputs = outputs.clamp(-MEAN_LIMIT, MEAN_LIMIT)
            if isinstance(self.actions, Discrete):
                return self._choice(outputs, generator) + int(self.actions.start)
            return self._numbers(outputs, features, generator, self.actions)

    def _choice(self, logits: Tensor, generator: torch.Generator | None) -> np.ndarray:
        if generator is None or self.kind == "values":
            return logits.argmax(-1).numpy()
        return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0].numpy()

    def _numbers(self, mean: Tensor, features: Tensor, generator: torch.Generator | None, space: Box) -> np.ndarray:
        if generator is not None and self.log_std is not None:
            if isinstance(self.log_std, Tensor):
                log_std = self.log_std
            else:
                weight, bias = self.log_std[0]
                log_std = (features @ weight.T + bias).clamp(*LOG_STD_RANGE)
            mean = mean + log_std.exp() * torch.randn(mean.shape, generator=generator)
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        if self.kind != "on-policy":
            mean = low + (torch.tanh(mean) + 1) / 2 * (high - low)
        result: np.ndarray = mean.clamp(low, high).numpy().astype(np.float32)
        return result


def is_stable_baselines3(path: Path) -> bool:
    """A zip with the members that every saved policy has?"""
    try:
        with zipfile.ZipFile(path) as file:
            return {"data", "policy.pth"} <= set(file.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def load(path: Path, observation_size: int, actions: Box | Discrete, sampled: bool) -> StableBaselinesPolicy:
    """The policy in a zip, for an environment with these observations and actions.

    Raises:
        UserError: it is damaged, of a kind that is not known here, or made for another environment.
    """
    try:
        with zipfile.ZipFile(path) as file:
            data = json.loads(file.read("data"))
            weights = torch.load(io.BytesIO(file.read("policy.pth")), map_location="cpu", weights_only=True)
        weights = {str(name): tensor.float() for name, tensor in weights.items()}
        policy = _policy(data, weights, actions, sampled)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # torch.load raises many kinds for a damaged or malicious file
        raise UserError(f"{path} is damaged, or no policy of Stable-Baselines3 ({type(error).__name__})") from error
    found = policy.layers[0][0].shape[1] if policy.layers else policy.head[0][0].shape[1]
    count = int(actions.n) if isinstance(actions, Discrete) else actions.shape[0]
    outputs = policy.head[-1][0].shape[0]
    if policy.normaliser is not None and policy.normaliser[0].shape != (found,):
        raise UserError(
            f"{path} is damaged: its statistics are of {len(policy.normaliser[0])} observations, not {found}"
        )
    for what, size, expected in (("observations", found, observation_size), ("actions", outputs, count)):
        if size != expected:
            raise UserError(f"{path} is a policy for {size} {what}, the environment has {expected}")
    return policy


def _policy(
    data: dict[str, Any], weights: dict[str, Tensor], actions: Box | Discrete, sampled: bool
) -> StableBaselinesPolicy:
    normaliser = _normaliser(weights)
    kinds = [body for body in BODIES if any(name.startswith(f"{body}.0.") for name in weights)]
    if not kinds:
        raise UserError("no known policy network; expected SAC, TD3, PPO or DQN with MlpPolicy")
    kind = BODIES[kinds[0]]  # with state-dependent exploration the mean of SAC is called actor.mu.0 as well
    state_dependent = bool(data.get("use_sde"))
    if state_dependent and sampled:
        raise UserError("state-dependent exploration cannot be sampled here: leave out --sampled")
    if (kind == "values" or (kind == "on-policy" and "log_std" not in weights)) != isinstance(actions, Discrete):
        raise UserError("a policy for discrete actions and an environment without, or the other way round")
    layers = _layers(weights, "mlp_extractor.shared_net") + _layers(weights, kinds[0])
    log_std: list[tuple[Tensor, Tensor]] | Tensor | None = None
    if kind == "squashed":
        head = _layers(weights, "actor.mu") or [(weights["actor.mu.weight"], weights["actor.mu.bias"])]
        if not state_dependent:
            log_std = [(weights["actor.log_std.weight"], weights["actor.log_std.bias"])]
    elif kind == "on-policy":
        head = [(weights["action_net.weight"], weights["action_net.bias"])]
        log_std = None if state_dependent else weights.get("log_std")
        if state_dependent and "True" in str((data.get("policy_kwargs") or {}).get("squash_output")):
            raise UserError("an on-policy policy that squashes its actions is not known here")
    else:
        layers, head = layers[:-1], layers[-1:]
    limited = kind == "squashed" and state_dependent
    return StableBaselinesPolicy(kind, layers, _activation(data, kind), head, log_std, limited, actions, normaliser)


def _normaliser(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation, [observation] each, that `imitation` keeps where others have a network."""
    extractor = next((prefix for prefix in EXTRACTORS if any(name.startswith(prefix) for name in weights)), None)
    if extractor is None:
        return None
    own = {name.removeprefix(extractor): value for name, value in weights.items() if name.startswith(extractor)}
    if not set(own) <= set(NORMALISER):
        raise UserError("a policy with a feature extractor; expected a multi-layer perceptron (MlpPolicy)")
    mean, variance = own[NORMALISER[0]], own[NORMALISER[1]]
    return mean, (variance + NORMALISER_EPSILON).sqrt()


def _layers(weights: dict[str, Tensor], prefix: str) -> list[tuple[Tensor, Tensor]]:
    """The linear layers of a sequence, in order."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.weight")
    places = sorted(int(match[1]) for name in weights if (match := pattern.fullmatch(name)))
    return [(weights[f"{prefix}.{place}.weight"], weights[f"{prefix}.{place}.bias"]) for place in places]


def _activation(data: dict[str, Any], kind: str) -> Callable[[Tensor], Tensor]:
    """By the name in the JSON; without one, the default of the algorithm."""
    named = str((data.get("policy_kwargs") or {}).get("activation_fn", ""))
    match = re.search(r"(\w+)'>$", named)
    name = match[1] if match else ("Tanh" if kind == "on-policy" else "ReLU")
    if name not in ACTIVATIONS:
        raise UserError(f"activation {name} is not known here: expected {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
