"""Record demonstrations: roll out a trained policy greedily into a D4RL HDF5 file, with a datasheet beside it.

    python scripts/record_demonstrations.py outputs/SAC_hopper/<run>/best_policy.pt \\
        --output environments/demonstrations/hopper.hdf5 --episodes 25 --minimum-return 3000
"""

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from environments.d4rl import write_d4rl
from scripts.provenance import git_commit, load_checked, sha256, training_command, versions, without_paths
from scripts.rollouts import Rollouts, greedy, roll_out
from training.policy import SavedPolicy

LICENCE = "MIT"
DATASHEET = """\
# {name}

{count} episodes of {environment_id} by a trained policy, greedy, actions clipped to the action space. One row per step
in D4RL's layout, float32: {columns}.

| | |
|---|---|
| environment | {environment_id} (Gymnasium) |
| algorithm | {algorithm}, training seed {training_seed} |
| trained by | `{command}` |
| policy file | {policy} |
| policy sha256 | {policy_sha256} |
| seed of the episodes | {seed} |
| return, mean +- std | {return_mean:.2f} +- {return_std:.2f} |
| length, mean +- std | {length_mean:.1f} +- {length_std:.1f} steps |
| steps | {steps} |
| versions | {versions} |
| git commit when recorded | {commit} |
| recorded on | {date} |
| HDF5 sha256 | {sha256} |
| licence | {licence} |

| episode | return | length | end |
|---|---|---|---|
{episodes}
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, help="policy.pt or best_policy.pt of a run")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write; its datasheet is <stem>.md")
    parser.add_argument("--episodes", type=int, default=25, help="whole episodes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="where the episodes begin (default: %(default)s)")
    parser.add_argument("--run-index", type=int, default=0, help="which of several seeds in the file (default: first)")
    parser.add_argument("--command", help="command that trained the policy (default: from the run's .hydra folder)")
    parser.add_argument("--minimum-return", type=float, help="write nothing if the mean return is below this")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 refused with one line that says why."""
    options = parser().parse_args(arguments)
    try:
        record(options)
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def record(options: argparse.Namespace) -> None:
    """Roll out, judge, and write.

    Raises:
        UserError: the policy cannot be used, files exist already, or the policy is not good enough.
    """
    output, datasheet = options.output, options.output.with_suffix(".md")
    check_output(options)
    policy = load_checked(options.policy, options.run_index)
    rollouts = roll_out(policy.environment_id, greedy(policy, options.run_index), options.episodes, options.seed)
    mean = rollouts.returns.mean()
    if options.minimum_return is not None and not mean >= options.minimum_return:
        raise UserError(f"mean return {mean:.2f} is below --minimum-return {options.minimum_return:g}: nothing written")
    facts = provenance(options, policy, rollouts)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_d4rl(output, rollouts.trajectories, facts)
    datasheet.write_text(describe(output, facts, rollouts))
    print(f"{output}: {options.episodes} episodes, return {mean:.2f} +- {rollouts.returns.std():.2f}")


def check_output(options: argparse.Namespace) -> None:
    """Before anything is rolled out."""
    if options.output.suffix != ".hdf5":
        raise UserError(f"--output {options.output}: expected a name that ends in .hdf5")
    if options.episodes < 1 or options.seed < 0:
        raise UserError(f"--episodes {options.episodes} --seed {options.seed}: expected at least 1 and 0")
    for path in (options.output, options.output.with_suffix(".md")):
        if path.exists() and not options.overwrite:
            raise UserError(f"{path} exists: choose another --output, or give --overwrite")


def provenance(options: argparse.Namespace, policy: SavedPolicy, rollouts: Rollouts) -> dict[str, str | float | int]:
    """What goes into the file's attributes."""
    command = without_paths(options.command) if options.command else training_command(options.policy)
    return {
        "environment_id": policy.environment_id,
        "algorithm": policy.algorithm,
        "training_seed": policy.seeds[options.run_index],
        "command": command or "not recorded",
        "policy": options.policy.name,
        "policy_sha256": sha256(options.policy),
        "seed": options.seed,
        "return_mean": float(rollouts.returns.mean()),
        "return_std": float(rollouts.returns.std()),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "commit": git_commit(),
        "date": datetime.date.today().isoformat(),
        "licence": LICENCE,
    }


def describe(output: Path, facts: dict[str, str | float | int], rollouts: Rollouts) -> str:
    """The datasheet."""
    columns = ["observations", "actions", "rewards", "next_observations", "terminals", "timeouts"]
    rows = (
        f"| {index} | {trajectory.episode_return:.2f} | {trajectory.length} | "
        f"{'terminated' if trajectory.terminated else 'time limit'} |"
        for index, trajectory in enumerate(rollouts.trajectories)
    )
    return DATASHEET.format(
        **facts,
        name=output.name,
        count=len(rollouts.trajectories),
        columns=", ".join([*columns, *(f"infos/{name}" for name in rollouts.trajectories[0].infos)]),
        length_mean=rollouts.lengths.mean(),
        length_std=rollouts.lengths.std(),
        steps=rollouts.lengths.sum(),
        sha256=sha256(output),
        episodes="\n".join(rows),
    )


if __name__ == "__main__":
    sys.exit(main())
