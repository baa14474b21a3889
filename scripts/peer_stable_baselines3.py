"""SAC and PPO of Stable-Baselines3, timed block by block; runs in an environment that scripts/peers.py makes.

One line of JSON comes in for each line that goes out: first the settings, then {"kind": ..., "steps": ...}.
"""

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env

WARM_UP = 10  # updates before the first block
ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
PACKAGES = ("gymnasium", "mujoco", "numpy", "stable-baselines3", "torch")


def make(settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The agent, warmed up, and what that took."""
    if settings["algorithm"] == "SAC":
        return make_sac(settings), {}
    envs = make_vec_env(
        settings["environment_id"], n_envs=settings["num_envs"], env_kwargs=settings["environment_options"]
    )
    model = make_ppo(settings, envs)
    run(model, "rollouts", 1)
    return model, {"steps": model.num_timesteps, "updates": steps_taken(model.policy.optimizer)}


def make_sac(settings: dict[str, Any]) -> Any:
    model = SAC(
        "MlpPolicy",
        settings["environment_id"],
        batch_size=settings["batch_size"],
        buffer_size=settings["memory_size"],
        learning_rate=settings["learning_rate"],
        learning_starts=1,
        train_freq=settings["interval"],
        gradient_steps=1,
        policy_kwargs={"net_arch": settings["hidden_sizes"]},
        device="cpu",
    )
    model.learn(WARM_UP * settings["interval"] + 2)
    return model


def make_ppo(settings: dict[str, Any], envs: Any, **policy_options: Any) -> Any:
    network = {"net_arch": settings["hidden_sizes"], "activation_fn": ACTIVATIONS[settings["activation"]]}
    return PPO("MlpPolicy", envs, policy_kwargs=network | policy_options, device="cpu", **settings["ppo"])


def steps_taken(adam: torch.optim.Optimizer) -> int:
    """Gradient steps so far, which it counts for each parameter."""
    return int(next(iter(adam.state.values()))["step"])


def run(model: Any, kind: str, steps: int) -> None:
    if kind == "updates":
        model.train(gradient_steps=steps, batch_size=model.batch_size)
    else:
        size = model.n_steps * model.n_envs if kind == "rollouts" else 1
        model.learn(steps * size, reset_num_timesteps=False)


def serve(make: Callable[[dict[str, Any]], tuple[Any, dict[str, Any]]], run: Callable[[Any, str, int], None]) -> None:
    if "--check" in sys.argv:
        return
    settings = json.loads(sys.stdin.readline())
    torch.set_num_threads(settings["threads"])
    model, work = make(settings)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    print(json.dumps({"work": work, "versions": versions}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        processor, start = time.process_time(), time.perf_counter()
        run(model, request["kind"], request["steps"])
        seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor
        print(json.dumps({"seconds": seconds, "processor_seconds": processor_seconds}), flush=True)


if __name__ == "__main__":
    serve(make, run)
