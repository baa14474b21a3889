"""Evaluate a saved policy: returns of whole episodes, with intervals, and what the episodes looked like.

    python scripts/evaluate.py outputs/GAIL_hopper/<run>
    python scripts/evaluate.py outputs/GAIL_hopper/<run> --best --episodes 100 --sampled --json
    python scripts/evaluate.py policy.pt --env-id Hopper-v5 --trajectories episodes.hdf5 --video episode.mp4

All seeds in the file are evaluated, from the same starts, in several processes. Intervals are percentile bootstraps
(10,000 resamples): of a seed over its episodes; of the mean over seeds over seeds and, within each, episodes. A score
is (return - random) / (expert - random), where references of the environment are known. Exit status: 0, or 2 with one
line that says what is wrong; whatever is written appears whole or not at all.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from environments.construction import Spaces
from environments.formats import SUFFIXES
from environments.formats.base import Attribute, DemonstrationSet
from environments.reference_scores import reference_scores
from environments.trajectories import LazyTrajectories, Trajectory
from environments.vector import reset_seeds
from scripts.command_line import Parser, exit_status
from scripts.demonstration_checks import environment_facts
from scripts.demonstration_recording import Player, PolicySource, default_workers, load, recorded, sampling
from scripts.evaluation_report import METHOD, statistics, table
from scripts.provenance import sha256
from scripts.rollouts import Act
from training import video
from training.policy import SavedPolicy
from training.stable_baselines3_policy import StableBaselinesPolicy


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("policy", type=Path, help="a run's folder, policy.pt, or a zip of Stable-Baselines3")
    parser.add_argument("--best", action="store_true", help="of a folder best_policy.pt: an optimistic choice")
    parser.add_argument("--episodes", type=int, default=50, help="of each seed (default: %(default)s)")
    parser.add_argument("--sampled", action="store_true", help="draw actions instead of taking the most likely")
    parser.add_argument("--seed", type=int, default=0, help="where the episodes begin (default: %(default)s)")
    parser.add_argument("--run-index", type=int, help="one of several seeds in the file (default: all)")
    parser.add_argument("--env-id", help="environment, by name or Gymnasium id (default: the one of the policy)")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="processes (default: by the number of cores and episodes)")
    parser.add_argument("--trajectories", type=Path, help="write the episodes; by the ending .hdf5, .npz or .csv")
    parser.add_argument("--video", type=Path, help="write the first episode of the first seed as an mp4")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused with one line that says why, 130 or 143 interrupted."""
    return exit_status(lambda: evaluate(parser().parse_args(arguments)))


def evaluate(options: argparse.Namespace) -> None:
    """Play, write what was asked for, and print.

    Raises:
        UserError: an option, the policy, the environment or a place to write is not what is needed.
    """
    check_options(options)
    path = policy_file(options.policy, options.best)
    sources = [options.run_index or 0]
    player = checked_player(_source(options, path, sources[0]))
    training_seeds = player.policy.seeds if isinstance(player.policy, SavedPolicy) else (None,)
    if options.run_index is None:
        sources = list(range(len(training_seeds)))
    seeds = [training_seeds[index] for index in sources]
    check_outputs(options, player.environment_id, seeds)
    workers = options.workers or default_workers(options.episodes)
    with tempfile.TemporaryDirectory() as folder:
        played = []
        for index in sources:
            own = Path(folder) / str(index)
            played.append(recorded(_source(options, path, index), options.episodes, options.seed, workers, own))
        result = summary(options, path, player, seeds, played)
        if options.trajectories:
            for name, run, episodes in zip(outputs(options.trajectories, seeds), result["runs"], played, strict=True):
                write_trajectories(name, result, run, episodes)
    if options.video:
        start = reset_seeds([options.seed], 1, "rollouts")[0]
        act = action_of(player, sources[0], start)
        video.film(player.environment_id, lambda observation: act(observation[None])[0], start, options.video)
    print(json.dumps(result) if options.json else table(result))


def _source(options: argparse.Namespace, path: Path, index: int) -> PolicySource:
    return PolicySource(path, options.env_id, index, options.sampled, adapt=options.env_id is not None)


def check_options(options: argparse.Namespace) -> None:
    """Raises UserError where a number is out of range."""
    limits = {"episodes": 1, "seed": 0, "workers": 1, "run_index": 0}
    for name, least in limits.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected at least {least}")
    if not 0 < options.confidence < 1:
        raise UserError(f"--confidence {options.confidence:g}: expected a number between 0 and 1")


def policy_file(path: Path, best: bool) -> Path:
    """The file itself, or that in a run's folder.

    Raises:
        UserError: it is not there.
    """
    name = "best_policy.pt" if best else "policy.pt"
    if best and not path.is_dir():
        raise UserError(f"--best chooses between the files of a run's folder, and {path} is none")
    found = path / name if path.is_dir() else path
    if not found.is_file():
        raise UserError(f"there is no {found}: expected a run's folder, a policy file or a zip of Stable-Baselines3")
    return found


def checked_player(source: PolicySource) -> Player:
    """The policy, if its actions are those of the environment; `load` looks at the observations.

    Raises:
        UserError: it does not fit.
    """
    player = load(source)
    if isinstance(player.policy, SavedPolicy):
        actions = environment_facts(player.environment_id).actions
        if not same_actions(player.policy.spaces, actions):
            raise UserError(
                f"{source.file} is a policy for {player.policy.environment_id}, whose actions are not those of "
                f"{player.environment_id}, {actions}"
            )
    return player


def same_actions(spaces: Spaces, actions: Box | Discrete) -> bool:
    if isinstance(actions, Discrete):
        return spaces.discrete and spaces.action_size == actions.n
    bounds = ((spaces.action_low, actions.low), (spaces.action_high, actions.high))
    return not spaces.discrete and all(np.array_equal(own, theirs) for own, theirs in bounds)


def check_outputs(options: argparse.Namespace, environment_id: str, seeds: Sequence[int | None]) -> None:
    """Everything that can be known before minutes are spent.

    Raises:
        UserError: a file is there already, cannot be written, or cannot be of that kind.
    """
    files = outputs(options.trajectories, seeds) if options.trajectories else []
    if files and options.trajectories.suffix not in SUFFIXES:
        raise UserError(f"--trajectories {options.trajectories}: expected an ending of {', '.join(SUFFIXES)}")
    if options.video:
        if options.video.suffix != ".mp4":
            raise UserError(f"--video {options.video}: expected an ending of .mp4")
        try:
            video.check_rendering(environment_id)
        except UserError as error:
            raise UserError(str(error).replace("render=true", "--video")) from error
        files = [*files, options.video]
    for path in files:
        if path.is_dir() or (path.exists() and not options.overwrite):
            raise UserError(f"{path} exists: choose another name, or give --overwrite")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise UserError(f"cannot write {path}: {path.parent} is not a folder that may be written to")


def outputs(path: Path, seeds: Sequence[int | None]) -> list[Path]:
    """A file for each seed."""
    return [path] if len(seeds) == 1 else [path.with_name(f"{path.stem}_seed_{seed}{path.suffix}") for seed in seeds]


def action_of(player: Player, index: int, seed: int) -> Act:
    """What the player does in the episode from that seed."""
    act, policy = player.act, player.policy
    if act is None:
        act = sampling(policy, index, seed) if isinstance(policy, SavedPolicy) else _sampling(policy, seed)
    narrow = player.narrow
    return act if narrow is None else (lambda observations: act(narrow(observations)))


def _sampling(policy: StableBaselinesPolicy, seed: int) -> Act:
    generator = torch.Generator().manual_seed(seed)
    return lambda observations: policy.act(observations, generator)


def write_trajectories(path: Path, result: dict[str, Any], run: dict[str, Any], episodes: LazyTrajectories) -> None:
    names = ("algorithm", "policy_sha256", "seed")
    known: dict[str, Attribute] = {name: result[name] for name in names}
    known |= {"environment_id": result["environment"], "manner": "sampled" if result["sampled"] else "greedy"}
    if run["training_seed"] is not None:
        known["training_seed"] = run["training_seed"]
    SUFFIXES[path.suffix].write(path, DemonstrationSet(episodes, known))


def summary(
    options: argparse.Namespace,
    path: Path,
    player: Player,
    seeds: Sequence[int | None],
    played: Sequence[Sequence[Trajectory]],
) -> dict[str, Any]:
    """Everything that is printed. What is unknown is None: JSON has no NaN."""
    references = reference_scores(player.environment_id)
    returns, lengths = (
        np.array([[getattr(trajectory, name) for trajectory in own] for own in played], np.float64)
        for name in ("episode_return", "length")
    )
    runs = [
        {"training_seed": seed, **statistics(returns[run : run + 1], options.confidence, references)}
        | {"length_mean": float(lengths[run].mean()), "returns": returns[run].tolist()}
        for run, seed in enumerate(seeds)
    ]
    trained_in = player.policy.environment_id if isinstance(player.policy, SavedPolicy) else None
    return {
        "policy": path.name,
        "policy_sha256": sha256(path),
        "algorithm": player.facts["algorithm"],
        "trained_in": trained_in,
        "environment": player.environment_id,
        "sampled": options.sampled,
        "episodes": options.episodes,
        "seed": options.seed,
        "confidence": options.confidence,
        "interval": METHOD,
        "references": None if np.isnan(references.expert) else vars(references),
        "runs": runs,
        "mean": statistics(returns, options.confidence, references),
    }


if __name__ == "__main__":
    sys.exit(main())
