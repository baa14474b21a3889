"""Looking at every row of a set of demonstrations: what is wrong with it, and what to do about it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import Float32, Float64
from tqdm import tqdm

from environments.formats.alignment import DESCRIPTIONS, alignment
from environments.formats.base import DemonstrationSet
from environments.reference_scores import reference_scores
from environments.trajectories import Trajectory, lengths_of
from scripts.demonstration_checks import (
    EnvironmentFacts,
    chosen_environment,
    late_ends,
    other_name,
    outside,
    rows_not_finite,
)
from scripts.demonstration_report import Report, Statistics, draw

AT_LIMIT = 1e-6
WEAK = 0.5  # of the median return, and as a normalised score


def _table(trajectory: Trajectory) -> Float32[np.ndarray, "rows column"]:
    columns = [trajectory.observations]
    if trajectory.actions is not None:
        columns.append(trajectory.actions.reshape(trajectory.length, -1).astype(np.float32))
    if trajectory.rewards is not None:
        columns.append(trajectory.rewards[:, None])
    return np.concatenate(columns, 1)


def _names(trajectory: Trajectory) -> list[str]:
    names = [f"observation {index}" for index in range(trajectory.observations.shape[1])]
    if trajectory.discrete:
        names.append("action")
    elif trajectory.actions is not None:
        names += [f"action {index}" for index in range(trajectory.actions.shape[1])]
    return names + ["reward"] * (trajectory.rewards is not None)


def _hashes(rows: Float32[np.ndarray, "rows column"]) -> np.ndarray:
    """A number for each row that differs for different rows, all but certainly."""
    generator = np.random.default_rng(0)
    factors = generator.integers(1, 2**63, rows.shape[1], np.uint64) | np.uint64(1)
    words = np.ascontiguousarray(rows + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 becomes 0
    mixed = (words ^ (words << np.uint64(29))) * factors
    result: np.ndarray = ((mixed ^ (mixed >> np.uint64(32))) * factors).sum(1, np.uint64)
    return result


def inspected(
    content: DemonstrationSet, source: str, environment: str | None = None, picture: Path | None = None
) -> Report:
    """Look at every row a few times, without keeping all of them in memory.

    Raises:
        UserError: the file names another environment than the one that was asked for.
    """
    trajectories = content.trajectories
    facts = chosen_environment(content, environment, source)
    comparable = facts is not None and _comparable(trajectories[0], facts)
    statistics = Statistics(_names(trajectories[0]), content.steps)
    episode_hashes: Counter[int] = Counter()
    row_hashes, at_limit = [], []
    bad_infos: Counter[str] = Counter()
    returns: list[float] = []
    for trajectory in tqdm(trajectories, "inspecting", leave=False, disable=None):
        table = _table(trajectory)
        statistics.add(table)
        hashes = _hashes(table)
        row_hashes.append(hashes)
        episode_hashes[hash(hashes.tobytes())] += 1
        bad_infos.update({name: rows_not_finite(trajectory, name) for name in trajectory.infos})
        if trajectory.episode_return is not None:
            returns.append(trajectory.episode_return)
        if facts and comparable and isinstance(facts.actions, Box) and trajectory.actions is not None:
            low, high = facts.actions.low + AT_LIMIT, facts.actions.high - AT_LIMIT
            at_limit.append(((trajectory.actions <= low) | (trajectory.actions >= high)).mean(1))
    every_hash = np.concatenate(row_hashes)
    lengths = np.array(lengths_of(trajectories), np.float64)
    ended = sum(trajectory.terminated for trajectory in trajectories)
    report = Report(
        source=source,
        environment=facts.id if facts else content.environment_id,
        episodes=len(trajectories),
        steps=int(lengths.sum()),
        lengths=_summary(lengths),
        returns=_summary(np.array(returns)) if returns else None,
        ends={"terminated": ended, "cut": len(trajectories) - ended},
        types=dict(content.types),
        infos=sorted(trajectories[0].infos),
        columns=statistics.columns(),
        alignment=alignment(trajectories),
        actions_outside=outside(trajectories, facts) if facts and comparable else None,
        actions_at_limit=float(np.concatenate(at_limit).mean()) if at_limit else None,
        duplicate_episodes=sum(count - 1 for count in episode_hashes.values()),
        duplicate_rows=1 - len(np.unique(every_hash)) / len(every_hash),
        notes=list(content.notes),
    )
    report.problems = [
        *_misaligned(report),
        *_single_steps(report),
        *_bad_infos(bad_infos),
        *(_unfit(report, content, facts) if facts else ()),
    ]
    report.warnings = [
        *([*other_name(content, facts), *_beside(report, facts)] if facts else _unknown(report)),
        *_repetitions(report),
        *_weak(report, returns),
        *(["no actions: for training with imitation.state_only=true alone"] if not _has_actions(content) else []),
        *report.notes,
    ]
    if picture:
        draw(report, statistics, returns, picture)
    return report


def _has_actions(content: DemonstrationSet) -> bool:
    return content.trajectories[0].actions is not None


def _comparable(trajectory: Trajectory, facts: EnvironmentFacts) -> bool:
    if trajectory.actions is None or trajectory.discrete == isinstance(facts.actions, Box):
        return False
    return trajectory.discrete or trajectory.actions.shape[1:] == facts.actions.shape


def _summary(values: Float64[np.ndarray, "episode"]) -> dict[str, float]:
    numbers = {"mean": values.mean(), "std": values.std(), "minimum": values.min(), "median": np.median(values)}
    return {name: float(value) for name, value in {**numbers, "maximum": values.max()}.items()}


def _misaligned(report: Report) -> Iterator[str]:
    if report.alignment.kind in ("same", "ahead"):
        yield f"{DESCRIPTIONS[report.alignment.kind]}; `import` puts it right"
    elif report.alignment.kind == "unconnected":
        yield (
            f"{DESCRIPTIONS['unconnected']} ({report.alignment.share:.1%} connect); behavioural cloning does not mind, "
            "but what learns from (s, s') or from whole episodes does"
        )


def _bad_infos(rows: Counter[str]) -> Iterator[str]:
    for name, count in rows.items():
        if count:
            yield (
                f"NaN or infinite values in {count} rows of infos/{name}: record it again, or leave infos/{name} out; "
                "training does not look at it"
            )


def _single_steps(report: Report) -> Iterator[str]:
    if report.episodes > 1 and report.lengths["maximum"] == 1:
        yield "every episode has one step: probably every row is marked as an end, where an episode's last should be"


def _unfit(report: Report, content: DemonstrationSet, facts: EnvironmentFacts) -> Iterator[str]:
    """What does not fit the environment."""
    first = content.trajectories[0]
    if first.observations.shape[1] != facts.observation_size:
        yield (
            f"observations have {first.observations.shape[1]} numbers, {facts.id} has {facts.observation_size}: try "
            f"`convert --to {facts.id}`, or it is another environment"
        )
    if first.actions is not None and not _comparable(first, facts):
        kind = "integers" if first.discrete else f"{first.actions.shape[1]} numbers"
        yield f"actions are {kind}, {facts.id} has {facts.action_words}: another environment"
    if isinstance(facts.actions, Discrete) and report.actions_outside:
        yield f"{report.actions_outside:.2%} of the actions are none of the {facts.action_words}: another environment"
    yield from late_ends(content.trajectories, facts)


def _beside(report: Report, facts: EnvironmentFacts) -> Iterator[str]:
    """What is odd for the environment."""
    if report.actions_outside and isinstance(facts.actions, Box):
        yield f"{report.actions_outside:.2%} of the action values lie outside the action space; `import` clips them"
    if facts.horizon and report.lengths["maximum"] > facts.horizon:
        yield f"episodes are longer than the {facts.horizon} steps of {facts.id}: ends may be missing"


def _unknown(report: Report) -> Iterator[str]:
    named = f"{report.environment} cannot be made here" if report.environment else "the file names none"
    yield f"no environment to compare with ({named}): give --env"
    length = report.lengths["maximum"]
    if report.ends["terminated"] > 1 and report.ends["cut"] == 0 and report.lengths["minimum"] == length:
        yield (
            f"all episodes end truly after {length:.0f} steps: probably a time limit; "
            f"`import --time-limit {length:.0f}` marks them as cuts"
        )


def _repetitions(report: Report) -> Iterator[str]:
    constant = [column.name for column in report.columns if column.constant and column.name != "reward"]
    if constant and report.steps > 1:
        yield f"constant: {', '.join(constant[:12])}{' ...' if len(constant) > 12 else ''}"
    if report.duplicate_episodes:
        yield f"{report.duplicate_episodes} episodes are copies of others"
    elif report.duplicate_rows > 0.01:
        yield f"{report.duplicate_rows:.1%} of the rows are copies of others"


def _weak(report: Report, returns: list[float]) -> Iterator[str]:
    if report.returns is None:
        yield "no rewards: returns cannot be judged, and results are not compared with the demonstrations"
        return
    score = reference_scores(report.environment or "").normalise(report.returns["mean"])
    if score < WEAK:  # never where references are unknown
        yield f"the mean return is a score of {score:.2f} only (0: random, 1: expert)"
    if report.returns["median"] > 0:
        weak = sum(value < WEAK * report.returns["median"] for value in returns)
        if weak:
            yield f"{weak} of {report.episodes} episodes have less than half of the median return"
