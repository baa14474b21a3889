"""Measure how fast training on-policy is on this machine: PPO and GAIL on PPO, 8 environments, one thread of PyTorch.

    python scripts/on_policy_speed.py --vs stable-baselines3 imitation

Each library trains on the same environment, with the same networks and as many steps of environments, policy and
discriminator in a rollout: their warm-ups are counted. GAIL is that of its preset, with 10 of the bundled
demonstrations, and once more with its robots simulated in two threads. There are no evaluations and no logs. The
environments are also stepped alone, by random actions: about what a learner that takes no time would come to. Figures
are medians of blocks of whole rollouts; the blocks of all rows take turns. Where other programs share the machine,
steps per second of processor time say more than those per second.
"""

import argparse
import contextlib
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from algorithms.base import Metrics
from algorithms.imitation.gail import GAIL, GAILConfig
from algorithms.learners.ppo import PPOConfig
from conf.errors import UserError
from environments.formats import read_demonstrations
from environments.seals import origin
from models.discriminators import DiscriminatorConfig
from models.mlp import MLPConfig
from scripts.command_line import Parser, check_output, exit_status, positive
from scripts.peers import REQUIREMENTS, Peer, install
from scripts.provenance import processor, versions, without_paths
from scripts.timing import Timed, Timing, composed, in_own_process, measure, peak, ratio, typical
from training.build import build, demonstrations_path
from training.config import Config, parse
from training.folder import write_json
from training.phases import Interaction

ROWS = [
    ["algorithm=PPO", "env=cartpole"],
    ["algorithm=PPO", "env=pendulum"],
    ["algorithm=PPO", "env=seals_hopper"],
    ["algorithm=GAIL", "optimised_hyperparameters=GAIL_seals_hopper", "imitation.trajectories=10"],
    ["algorithm=GAIL", "optimised_hyperparameters=GAIL_seals_hopper", "imitation.trajectories=10", "env.threads=2"],
]
PEERS = {"PPO": "stable-baselines3", "GAIL": "imitation"}
HEADER = (
    "algorithm environment     threads  steps/s  per processor s  busy  peak GiB  environments alone, per processor s"
)
ROW = (
    "{algorithm:<9} {environment:<14} {env_threads:>8}  {rate:>7.0f}  {processor_rate:>15.0f}  {busy:>4.2f}  "
    "{peak_gib:>8.2f}  {environments_rate:>35.0f}"
)
PEER_ROW = (
    "  {name}: {rate:.0f} steps/s, {processor_rate:.0f} per processor s; ours {ratio:.2f} and {processor_ratio:.2f} "
    "times that"
)


class Training:
    """A run of ours, warmed up by one rollout; `work` is what that took."""

    kinds: tuple[str, ...] = ("rollouts", "environments")

    def __init__(self, config: Config) -> None:
        self.config = config
        torch.set_num_threads(config.threads)
        parts = build(config)
        interaction = parts.phases[-1]
        assert isinstance(interaction, Interaction)
        self.interaction = interaction
        metrics = self._rollouts(1)
        self.work = {"steps": interaction.envs.steps, "updates": int(metrics["actor/minibatches"])}
        if isinstance(parts.imitation, GAIL):
            # Adam counts its steps for each parameter.
            self.work["discriminator_updates"] = int(next(iter(parts.imitation.optimiser.state.values()))["step"])

    def block(self, kind: str, steps: int) -> Timing:
        processor, start = time.process_time(), time.perf_counter()
        (self._rollouts if kind == "rollouts" else self._environments)(steps)
        seconds = time.perf_counter() - start
        return Timing(steps / seconds, (time.process_time() - processor) / seconds)

    def _rollouts(self, count: int) -> Metrics:
        """Collected and learned from; of the last update."""
        for _ in range(count * self.config.training.interval // self.interaction.stride):
            metrics = self.interaction.advance()
        return metrics

    def _environments(self, count: int) -> None:
        """The steps of so many rollouts, and nothing else."""
        envs = self.interaction.envs
        actions = torch.rand(*envs.shape, envs.spaces.action_size) * 2 - 1
        for _ in range(count * self.config.training.interval // self.interaction.stride):
            envs.step(actions)


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    add = parser.add_argument
    libraries = sorted(PEERS.values())
    add("--vs", nargs="+", default=[], choices=libraries, help="also time these, each in an environment of its own")
    add("--rollouts", type=positive, default=2, help="in a block (default: %(default)s)")
    add("--blocks", type=positive, default=5, help="of each row (default: %(default)s)")
    add("--json", type=Path, help="file to write all figures to")
    return parser


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    options = parser().parse_args(arguments)
    options.command = without_paths(shlex.join(["python", "scripts/on_policy_speed.py", *arguments]))
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 2 refused with one line that says why."""
    return exit_status(lambda: speed(parse_arguments(sys.argv[1:] if arguments is None else arguments)))


def speed(options: argparse.Namespace) -> None:
    """Build, measure, print.

    Raises:
        UserError: a library cannot be installed, or does other work than this one.
    """
    if options.json:
        check_output("--json", options.json)
    runs = [Training(parse(composed(row, row[0].split("=")[1]))) for row in ROWS]
    with peers(runs, options.vs) as others:
        timed: list[Timed] = list(dict.fromkeys([*runs, *others.values()]))
        results = dict(zip(timed, measure(timed, options.rollouts * options.blocks, options.blocks), strict=True))
    timings = {cell: result["rollouts"] for cell, result in results.items()}
    report: dict[str, Any] = {"command": options.command, "processor": processor(), "versions": versions()}
    report |= {"rollouts": options.rollouts, "blocks": options.blocks, "rows": []}
    print(HEADER)
    for run in runs:
        row = described(run) | figures(timings[run], run.config.training.interval)
        alone = figures(results[run]["environments"], run.config.training.interval)
        row["environments_rate"] = alone["processor_rate"]
        row["peak_gib"] = in_own_process(rollout_peak, run.config)
        print(ROW.format(**row))
        if run in others:
            row["peer"] = compared(run, others[run], timings)
            print(PEER_ROW.format(**row["peer"]))
        report["rows"].append(row)
    if options.json:
        write_json(options.json, report)


@contextlib.contextmanager
def peers(runs: Sequence[Training], libraries: Sequence[str]) -> Iterator[dict[Training, Peer]]:
    """For each run of ours the same in another library, if that was asked for; one process where it is the same."""
    pythons = {name: install(name) for name in libraries}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started: dict[Training, Peer] = {}
        known: list[tuple[dict[str, Any], Peer]] = []
        for run in runs:
            name = PEERS[run.config.algorithm]
            if name in pythons:
                told = settings(run.config, folder)
                peer = next((peer for same, peer in known if same == told), None)
                if peer is None:
                    peer = Peer(name, pythons[name], told, ("rollouts",))
                    known.append((told, peer))
                    stack.callback(peer.close)
                if peer.setup["work"] != run.work:
                    raise UserError(f"--vs {name}: a rollout takes {peer.setup['work']} there, and {run.work} here")
                started[run] = peer
        yield started


def settings(config: Config, folder: Path) -> dict[str, Any]:
    """What another library needs to know, PPO's options by Stable-Baselines3's names; demonstrations go to `folder`."""
    ppo, training, imitation = config.reinforcement, config.training, config.imitation
    assert isinstance(ppo, PPOConfig)
    common = {
        "algorithm": config.algorithm,
        "num_envs": config.env.num_envs,
        "threads": config.threads,
        "hidden_sizes": hidden_sizes(ppo.actor),
        "activation": ppo.actor.activation,
        "ppo": {
            "n_steps": training.interval // config.env.num_envs,
            "batch_size": training.batch_size,
            "n_epochs": ppo.epochs,
            "learning_rate": training.learning_rate,
            "gamma": ppo.discount,
            "gae_lambda": ppo.gae_lambda,
            "clip_range": ppo.clip_range,
            "ent_coef": ppo.entropy_coefficient,
            "vf_coef": ppo.value_coefficient,
            "max_grad_norm": ppo.max_grad_norm,
        },
    }
    if not isinstance(imitation, GAILConfig):
        environment_id, environment_options = origin(config.env.id)
        return common | {"environment_id": environment_id, "environment_options": environment_options}
    return common | {
        "environment_id": config.env.id,
        "imitation": {
            "demonstrations": str(write_demonstrations(config, folder / "demonstrations.npz")),
            "hidden_sizes": hidden_sizes(imitation.model),
            "learning_rate": imitation.learning_rate,
            "batch_size": imitation.batch_size,
            "buffer_size": imitation.buffer_size,
            "updates": imitation.updates,
        },
    }


def hidden_sizes(network: MLPConfig | DiscriminatorConfig) -> list[int]:
    return [network.hidden_size] * network.depth


def write_demonstrations(config: Config, path: Path) -> Path:
    """Those that the run uses, as plain arrays."""
    trajectories = read_demonstrations(demonstrations_path(config), config.env.id)[: config.imitation.trajectories]
    columns: dict[str, Any] = {}
    for index, trajectory in enumerate(trajectories):
        columns[f"observations_{index}"] = trajectory.all_observations
        columns[f"actions_{index}"] = trajectory.actions
    np.savez(path, **columns)
    return path


def described(run: Training) -> dict[str, Any]:
    config = run.config
    sizes = {"envs": config.env.num_envs, "env_threads": config.env.threads, "rollout": config.training.interval}
    sizes |= {"minibatch": config.training.batch_size, "epochs": config.reinforcement.epochs}
    return {"algorithm": config.algorithm, "environment": config.env.name, **sizes, "work": run.work}


def figures(timings: list[Timing], rollout: int) -> dict[str, float]:
    """Environment steps per second and per second of processor time; the share of the processor that was had."""
    rates = {"rate": rollout * typical(timings), "processor_rate": rollout * typical(of_processor(timings))}
    return rates | {"busy": median(timing.busy for timing in timings)}


def of_processor(timings: list[Timing]) -> list[Timing]:
    """As if other programs had taken no time."""
    return [Timing(timing.rate / timing.busy, 1.0) for timing in timings]


def compared(run: Training, peer: Peer, timings: dict[Any, list[Timing]]) -> dict[str, Any]:
    """Another library's figures, and ours over them."""
    ours, theirs = timings[run], timings[peer]
    ratios = {"ratio": ratio(ours, theirs), "processor_ratio": ratio(of_processor(ours), of_processor(theirs))}
    rates = figures(theirs, run.config.training.interval)
    return {"name": REQUIREMENTS[peer.name], **rates, **ratios, "versions": peer.setup["versions"]}


def rollout_peak(config: Config) -> float:
    """GiB of a process that builds the run, and collects and learns from a rollout."""
    Training(config)
    return peak()


if __name__ == "__main__":
    sys.exit(main())
