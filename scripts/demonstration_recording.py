"""Recording: episodes of a saved policy, one file each until all are there, so that a recording can be taken up again.

Every episode depends on its own seed alone: not on how many are recorded side by side, nor on what came before.
"""

import concurrent.futures
import dataclasses
import datetime
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from conf.errors import UserError
from environments.formats import npz
from environments.formats.base import Attribute, DemonstrationSet
from environments.layouts import narrowing
from environments.trajectories import LazyTrajectories, Trajectory
from environments.vector import reset_seeds
from models.actors import SquashedGaussianActor
from models.streams import Streams
from scripts.demonstration_checks import environment_facts
from scripts.provenance import load_checked, sha256, versions, without_paths
from scripts.rollouts import Act, Actions, Observations, greedy, play
from training import checkpoint, stable_baselines3_policy
from training.folder import git_commit, write_json
from training.policy import SavedPolicy
from training.sweeps.launchers import cores


@dataclasses.dataclass(frozen=True)
class PolicySource:
    """Which policy to roll out, where, and how."""

    path: Path
    environment: str | None = None  # where it is not the one that the policy names
    run_index: int = 0
    sampled: bool = False
    adapt: bool = False  # show it the observations of its own environment, from those of another layout

    @property
    def file(self) -> Path:
        """The policy in a run's folder: the best one, or else the last."""
        names = ("best_policy.pt", "policy.pt")
        if not self.path.is_dir():
            return self.path
        return next((self.path / name for name in names if (self.path / name).is_file()), self.path / names[-1])


def halved(source: PolicySource, output: Path) -> Path:
    """A policy that can be loaded, in half the bytes: its weights rounded to 16 bits. Returns `output`.

    Raises:
        UserError: it is Stable-Baselines3's.
    """
    if stable_baselines3_policy.is_stable_baselines3(source.file):
        raise UserError(f"--keep-policy: {source.file} is Stable-Baselines3's; expected a policy of ours")
    content = checkpoint.load(source.file)
    weights = content["state"].items()
    content["state"] = {name: value.half() if value.dtype == torch.float32 else value for name, value in weights}
    output.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(output, content)
    return output


@dataclasses.dataclass(frozen=True)
class Player:
    """A policy that is ready to act."""

    environment_id: str
    facts: dict[str, Attribute]
    act: Act | None  # greedy; None where it is sampled
    policy: SavedPolicy | stable_baselines3_policy.StableBaselinesPolicy
    run_index: int
    narrow: Act | None = None

    def play(self, seed: int) -> Trajectory:
        act = self.act or self._sampling(seed)
        if self.narrow is None:
            return play(self.environment_id, act, seed)
        narrow = self.narrow
        return play(self.environment_id, lambda observations: act(narrow(observations)), seed)

    def _sampling(self, seed: int) -> Act:
        policy = self.policy
        if isinstance(policy, stable_baselines3_policy.StableBaselinesPolicy):
            generator = torch.Generator().manual_seed(seed)
            return lambda observations: policy.act(observations, generator)
        return sampling(policy, self.run_index, seed)


def sampling(policy: SavedPolicy, run_index: int, seed: int) -> Act:
    """Actions drawn from one of the policies in the file."""
    streams = Streams([seed] * len(policy.seeds), "recording")
    actor: Any = policy.actor  # the classes draw their noise in different ways

    @torch.no_grad()
    def act(observations: Observations) -> Actions:
        batch = policy.spaces.observe(observations).expand(len(policy.seeds), len(observations), -1)
        if isinstance(actor, SquashedGaussianActor):
            noise = streams.normal(len(observations), policy.spaces.action_size)
            actions = actor.sample(batch, noise)[0]
        else:
            actions = actor.sample(batch, streams)
        return policy.spaces.to_environment(actions[run_index].numpy())

    return act


def load(source: PolicySource) -> Player:
    """Read a policy of ours or of Stable-Baselines3 without unpickling anything.

    Raises:
        UserError: it is none, is damaged, or does not fit the environment.
    """
    path = source.file
    manner = "sampled" if source.sampled else "greedy"
    if stable_baselines3_policy.is_stable_baselines3(path):
        if source.environment is None:
            raise UserError(f"{path} does not say for which environment it is: give --env")
        if source.run_index:
            raise UserError(f"--run-index {source.run_index}: expected 0, the policy in {path.name}")
        facts = environment_facts(source.environment)
        theirs = stable_baselines3_policy.load(path, facts.observation_size, facts.actions, source.sampled)
        known: dict[str, Attribute] = {"algorithm": f"Stable-Baselines3, {theirs.kind} policy", "manner": manner}
        return Player(facts.id, known, None if source.sampled else theirs.act, theirs, 0)
    policy = load_checked(path, source.run_index)
    environment, narrow = policy.environment_id, None
    if source.environment is not None:
        facts = environment_facts(source.environment)
        if facts.id != environment and not source.adapt:
            raise UserError(
                f"{path} is a policy for {environment}, not for {facts.id}; --adapt shows it the observations that it "
                "knows, where those of the other environment hold them"
            )
        narrow = narrowing(facts.id, facts.observation_size, environment, policy.spaces.observation_size)
        environment = facts.id
    known = {"algorithm": policy.algorithm, "training_seed": policy.seeds[source.run_index], "manner": manner}
    if environment != policy.environment_id:
        known["policy_environment"] = policy.environment_id
    act = None if source.sampled else greedy(policy, source.run_index)
    return Player(environment, known, act, policy, source.run_index, narrow)


_player: Player  # of a worker process


def _start(source: PolicySource) -> None:
    global _player
    torch.set_num_threads(1)
    _player = load(source)


def _play(seed: int) -> Trajectory:
    return _player.play(seed)


def recorded(source: PolicySource, episodes: int, seed: int, workers: int, folder: Path) -> LazyTrajectories:
    """Whole episodes, in `folder` until the caller removes it; those that are there already are not played again.

    Raises:
        UserError: the folder holds part of another recording.
    """
    identity = {"policy_sha256": sha256(source.file), "seed": seed, "environment": source.environment}
    identity |= {"run_index": source.run_index, "sampled": source.sampled, "adapt": source.adapt}
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "recording.json"
    if note.exists() and _identity(note) != identity:
        raise UserError(f"{folder} holds part of a recording of another policy or seed: remove it first")
    write_json(note, identity)
    files = [folder / f"{index}.npz" for index in range(episodes)]
    seeds = reset_seeds([seed], episodes, "rollouts")
    missing = [index for index, file in enumerate(files) if not file.is_file()]
    played = _played(source, [seeds[index] for index in missing], workers)
    for index, trajectory in zip(missing, tqdm(played, "recording", len(missing), disable=None), strict=True):
        npz.write(files[index], DemonstrationSet([trajectory]))

    def read(index: int) -> Trajectory:
        return npz.read(files[index]).trajectories[0]

    return LazyTrajectories([read(index).length for index in range(episodes)], read)


def _identity(note: Path) -> Any:
    """What the recording is of that is to be taken up again."""
    try:
        return json.loads(note.read_text())
    except ValueError as error:
        raise UserError(f"{note} is damaged, so that this recording cannot go on: remove {note.parent}") from error


def _played(source: PolicySource, seeds: list[int], workers: int) -> Iterator[Trajectory]:
    """In order, from one process or several."""
    if workers == 1 or len(seeds) < 2:
        _start(source)
        yield from map(_play, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start, (source,)) as pool:
        try:
            yield from pool.map(_play, seeds)
        finally:
            pool.shutdown(cancel_futures=True)


def default_workers(episodes: int) -> int:
    """A process takes seconds to start, so not more than there is work for."""
    return max(1, min(cores(), episodes // 10))


def provenance(
    source: PolicySource, player: Player, seed: int, returns: np.ndarray, command: str | None, author: str, licence: str
) -> dict[str, Attribute]:
    """What is known about a recording, for the file and its datasheet."""
    return {
        "environment_id": player.environment_id,
        **player.facts,
        "author": author,
        "command": without_paths(command) if command else "not recorded",
        "policy": source.file.name,
        "policy_sha256": sha256(source.file),
        "seed": seed,
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "commit": git_commit(),
        "date": datetime.date.today().isoformat(),
        "licence": licence,
    }


DATASHEET = """\
# {name}

{count} episodes of {environment_id}, {manner}. {form}, 32-bit numbers: {columns}.

| | |
|---|---|
| environment | {environment_id} (Gymnasium) |
| made by | {author} |
{facts}
| return, mean +- std | {return_mean:.2f} +- {return_std:.2f} |
| length, mean +- std | {length_mean:.1f} +- {length_std:.1f} steps |
| steps | {steps} |
| data sha256 | {sha256} |
| licence | {licence} |

| episode | return | length | end |
|---|---|---|---|
{episodes}
"""
FACTS = {
    "algorithm": "algorithm",
    "training_seed": "training seed",
    "policy_environment": "policy trained in",
    "converted_from": "recorded in, and then converted from",
    "command": "trained by",
    "policy": "policy file",
    "policy_sha256": "policy sha256",
    "seed": "seed of the episodes",
    "versions": "versions",
    "commit": "git commit when recorded",
    "date": "recorded on",
}


def datasheet(output: Path, form: str, content: DemonstrationSet) -> str:
    """Who made a recording, how, with what, and what came out."""
    known = {"author": "not stated", "manner": "a policy's", "licence": "not stated", **content.attributes}
    episodes = [(t.episode_return or 0.0, t.length, t.terminated, sorted(t.infos)) for t in content.trajectories]
    returns, lengths = (np.array([episode[column] for episode in episodes]) for column in (0, 1))
    known |= {"return_mean": float(returns.mean()), "return_std": float(returns.std())}
    quoted = {**known, "command": f"`{known['command']}`"}
    columns = ["observations", "actions", "rewards", *(f"infos/{name}" for name in episodes[0][3])]
    rows = (
        f"| {index} | {episode_return:.2f} | {length} | {'terminated' if terminated else 'time limit'} |"
        for index, (episode_return, length, terminated, _) in enumerate(episodes)
    )
    return DATASHEET.format(
        **known | {"name": output.name, "count": len(episodes), "form": form, "columns": ", ".join(columns)},
        facts="\n".join(f"| {words} | {quoted[name]} |" for name, words in FACTS.items() if name in quoted),
        length_mean=lengths.mean(),
        length_std=lengths.std(),
        steps=lengths.sum(),
        sha256=content_sha256(output),
        episodes="\n".join(rows),
    )


def datasheet_path(output: Path) -> Path:
    """Beside the data."""
    return output.with_suffix(".md") if output.suffix else output.with_name(f"{output.name}.md")


def content_sha256(path: Path) -> str:
    """Of a file, or of the names and checksums of all files in a folder."""
    if not path.is_dir():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{sha256(file)}  {file.relative_to(path)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
