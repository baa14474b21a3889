"""Measure the returns by which scores are normalised: 0 is a random policy, 1 is the expert.

    python scripts/measure_reference_scores.py Pendulum-v1 --expert-policy outputs/SAC_pendulum/<run>/best_policy.pt

The random policy draws actions uniformly from the action space. The expert is a policy file that is rolled out, or a
demonstration file whose mean return is taken. The entry in environments/reference_scores.json says how it was measured.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from environments.construction import spaces_of
from environments.formats import d4rl, of_another_environment
from environments.reference_scores import PATH
from scripts.command_line import Parser, exit_status
from scripts.provenance import load_checked, sha256, training_command, versions
from scripts.rollouts import greedy, roll_out, uniform
from training.folder import write_json


def parser() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    parser.add_argument("environment", help="Gymnasium id, such as Pendulum-v1")
    expert = parser.add_mutually_exclusive_group(required=True)
    expert.add_argument("--expert-policy", type=Path, help="policy.pt or best_policy.pt of a run")
    expert.add_argument("--expert-demonstrations", type=Path, help="D4RL HDF5 file with rewards")
    parser.add_argument("--run-index", type=int, default=0, help="which of several seeds in the policy file")
    parser.add_argument("--random-episodes", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--expert-episodes", type=int, default=100, help="of a policy (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="where the episodes begin (default: %(default)s)")
    parser.add_argument(
        "--file",
        type=Path,
        default=PATH,
        help="table to write to, made where it is missing (default: the repository's)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an entry, such as a published reference")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 stored, 2 refused with one line that says why."""
    return exit_status(lambda: measure(parser().parse_args(arguments)))


def measure(options: argparse.Namespace) -> None:
    """Measure both returns and store them.

    Raises:
        UserError: an entry exists already, input cannot be used, or the expert is no better than the random policy.
    """
    entries = read_entries(options.file)
    if options.environment in entries and not options.overwrite:
        raise UserError(f"{options.environment} has references already: give --overwrite to replace them")
    if min(options.random_episodes, options.expert_episodes) < 1 or options.seed < 0:
        raise UserError("expected at least 1 for --random-episodes and --expert-episodes, and 0 for --seed")
    expert, source = demonstrated(options) if options.expert_demonstrations else rolled_out(options)
    act = uniform(spaces_of(options.environment), options.seed)
    random = roll_out(options.environment, act, options.random_episodes, options.seed).returns
    if not expert > random.mean():
        raise UserError(f"the expert's return {expert:.2f} is not above the random policy's, {random.mean():.2f}")
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    entries[options.environment] = {
        "random": round(float(random.mean()), 6),
        "expert": round(expert, 6),
        "source": f"measured by scripts/measure_reference_scores.py, seed {options.seed}: random, "
        f"{options.random_episodes} episodes of uniform actions (std {random.std():.2f}); expert, {source}; {used}",
    }
    write_json(options.file, dict(sorted(entries.items())))
    print(f"{options.environment}: random {random.mean():.2f}, expert {expert:.2f}")


def read_entries(path: Path) -> dict[str, Any]:
    """The table to write to, empty where there is none yet. Raises UserError where it is something else."""
    if not path.parent.is_dir():
        raise UserError(f"--file {path}: there is no such folder")
    try:
        entries = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise UserError(f"--file {path} is damaged: expected JSON with an entry for each environment") from error
    if not isinstance(entries, dict):
        raise UserError(f"--file {path}: expected JSON with an entry for each environment")
    return entries


def rolled_out(options: argparse.Namespace) -> tuple[float, str]:
    """Mean return of a policy file, and where it comes from."""
    path = options.expert_policy
    policy = load_checked(path, options.run_index)
    if policy.environment_id != options.environment:
        raise UserError(f"{path} is a policy for {policy.environment_id}, not for {options.environment}")
    trained = f" of `{command}`" if (command := training_command(path)) else ""
    returns = roll_out(options.environment, greedy(policy, options.run_index), options.expert_episodes, options.seed)
    mean, deviation = returns.returns.mean(), returns.returns.std()
    source = f"{options.expert_episodes} greedy episodes (std {deviation:.2f}) of {path.name}{trained}"
    return float(mean), f"{source}, sha256 {sha256(path)}"


def demonstrated(options: argparse.Namespace) -> tuple[float, str]:
    """Mean return of a demonstration file, and where it comes from."""
    path = options.expert_demonstrations
    content = d4rl.read(path)
    if of_another_environment(content, options.environment):
        raise UserError(f"{path} says that it was recorded in {content.environment_id}, not in {options.environment}")
    returns = [trajectory.episode_return for trajectory in content.trajectories]
    known = [value for value in returns if value is not None and math.isfinite(value)]
    if len(known) < len(returns):
        raise UserError(f"{path} has no rewards, hence no returns: give --expert-policy instead")
    return sum(known) / len(known), f"the {len(known)} episodes of {path.name}, sha256 {sha256(path)}"


if __name__ == "__main__":
    sys.exit(main())
