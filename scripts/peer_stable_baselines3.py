"""SAC of Stable-Baselines3, timed block by block; runs in the environment that scripts/peers.py makes.

One line of JSON comes in for each line that goes out: first the settings, then {"kind": ..., "steps": ...}.
"""

import json
import sys
import time
from typing import Any

import torch
from stable_baselines3 import SAC

WARM_UP = 10  # updates before the first block


def make(settings: dict[str, Any]) -> Any:
    torch.set_num_threads(settings["threads"])
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


def run(model: Any, kind: str, steps: int) -> None:
    if kind == "updates":
        model.train(gradient_steps=steps, batch_size=model.batch_size)
    else:
        model.learn(steps, reset_num_timesteps=False)


def main() -> None:
    if "--check" in sys.argv:
        return
    model = make(json.loads(sys.stdin.readline()))
    print("{}", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        processor, start = time.process_time(), time.perf_counter()
        run(model, request["kind"], request["steps"])
        seconds, processor_seconds = time.perf_counter() - start, time.process_time() - processor
        print(json.dumps({"seconds": seconds, "processor_seconds": processor_seconds}), flush=True)


if __name__ == "__main__":
    main()
