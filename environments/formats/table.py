"""CSV: a row for each step, under the names of its columns.

| column | |
|---|---|
| episode | a number; where it changes, an episode begins |
| step | counts from 0 in each episode |
| observation_0, observation_1 ... | |
| action_0, action_1 ..., or action | optional: state-only without; `action` holds integers for discrete actions |
| reward | optional |
| next_observation_0 ... | optional: without, the next row's observation is taken, as in D4RL files |
| terminated | optional: 1 in the last row of an episode that truly ended; without, all were cut |
| truncated | optional, and not used: what did not terminate was cut |
| info_<name> or info_<name>_0 ... | optional |
| seed, environment_id | optional |
"""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from environments.formats.base import DemonstrationSet, Format, damaged, first_bytes, flags, numbers, refuse, whole
from environments.trajectories import Trajectory

EXPECTED = "a CSV file with columns episode, observation_0, observation_1 ..."
ROWS = 20_000  # that are read at a time
GROUP = re.compile(r"(observation|next_observation|action|info_.+)_(\d+)")
SINGLE = ("episode", "step", "reward", "terminated", "truncated", "action", "seed")


def read(path: Path) -> DemonstrationSet:
    """All episodes of a file.

    Raises:
        UserError: it is not such a file.
    """
    first_bytes(path, EXPECTED)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte-order mark
            header = next(csv.reader([file.readline()]))
            groups = _groups(header, path)
            place = file.tell()
            row = next(csv.reader([file.readline()]), [])
            file.seek(place)
            table = _table(file, header, groups, path)
    except (UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise refuse(path, " are not text in UTF-8 with a header", EXPECTED) from error
    named = dict(zip(header, row, strict=False))
    attributes = {"environment_id": named["environment_id"]} if named.get("environment_id") else {}
    trajectories, notes = _trajectories(table, path)
    return DemonstrationSet(trajectories, attributes, notes, dict.fromkeys(groups, "text"))


def _groups(header: list[str], path: Path) -> dict[str, list[int]]:
    """The places of the columns that belong together, in order."""
    found: dict[str, dict[int, int]] = {}
    for place, name in enumerate(header):
        match = GROUP.fullmatch(name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = place
        elif name in SINGLE or name.startswith("info_"):
            found[name] = {0: place}
    for name in ("episode", "observation"):
        if name not in found:
            column = name if name == "episode" else "observation_0"
            raise refuse(path, f" have no column '{column}'", f"{EXPECTED}, found {', '.join(header)[:200]}")
    for name, places in found.items():
        if sorted(places) != list(range(len(places))):
            raise refuse(path, f", '{name}': columns {sorted(places)}", "numbers from 0 on without a gap")
    return {name: [places[index] for index in sorted(places)] for name, places in found.items()}


def _table(file: Iterator[str], header: list[str], groups: dict[str, list[int]], path: Path) -> dict[str, np.ndarray]:
    places = [place for group in groups.values() for place in group]
    flat = {name for name in groups if len(groups[name]) == 1 and header[groups[name][0]] == name}
    parts: dict[str, list[np.ndarray]] = {name: [] for name in groups}
    rows = 0
    with tqdm(desc=f"reading {path.name}", unit="rows", leave=False, disable=None) as bar:
        while True:
            lines = list(islice(file, ROWS))
            if not lines:
                break
            try:
                values = np.loadtxt(lines, np.float64, delimiter=",", quotechar='"', usecols=places, ndmin=2)
            except ValueError as error:
                raise damaged(path, ValueError(f"near row {rows}: {error}")) from error
            start = 0
            for name, group in groups.items():
                kind = np.float64 if name in ("episode", "seed", "action") else np.float32
                own = values[:, start : start + len(group)]
                with np.errstate(over="ignore"):
                    parts[name].append(own[:, 0].astype(kind) if name in flat else own.astype(kind))
                start += len(group)
            rows += len(values)
            bar.update(len(values))
    if not rows:
        raise refuse(path, " hold a header and no rows", "at least one step")
    return {name: np.concatenate(parts.pop(name)) for name in groups}


def _trajectories(table: dict[str, np.ndarray], path: Path) -> tuple[list[Trajectory], tuple[str, ...]]:
    observations = numbers(table["observation"], 2, path, "observation")
    successors = table.get("next_observation")
    if successors is not None and numbers(successors, 2, path, "next_observation").shape != observations.shape:
        raise refuse(path, f": {successors.shape[1]} next_observation columns", f"{observations.shape[1]}")
    actions = _actions(table, path)
    rewards = numbers(table["reward"], 1, path, "reward") if "reward" in table else None
    terminated = flags(table.get("terminated", np.zeros(len(observations))), path, "terminated")
    infos = {name.removeprefix("info_"): values for name, values in table.items() if name.startswith("info_")}
    seeds = _seeds(table["seed"], path) if "seed" in table else None
    numbers(table["episode"], 1, path, "episode")  # NaN differs from itself: every row would be an episode
    starts = np.flatnonzero(np.diff(table["episode"], prepend=np.nan) != 0)
    trajectories, dropped = [], 0
    for start, stop in zip(starts, [*starts[1:], len(observations)], strict=True):
        ended = bool(terminated[stop - 1])
        if terminated[start : stop - 1].any():
            row = start + terminated[start:stop].argmax()
            raise refuse(path, f", 'terminated', row {row}: 1 within an episode", "1 in its last row only")
        end = stop if ended or successors is not None else stop - 1
        dropped += stop - end
        if end == start:
            continue
        following = np.concatenate([observations[start + 1 : stop], observations[stop - 1 : stop]])
        trajectories.append(
            Trajectory(
                observations[start:end],
                None if actions is None else actions[start:end],
                None if rewards is None else rewards[start:end],
                following[: end - start] if successors is None else successors[start:end],
                ended,
                {name: values[start:end] for name, values in infos.items()},
                None if seeds is None else int(seeds[start]),
            )
        )
    if not trajectories:
        raise refuse(path, " hold no complete episode", "at least one of two rows")
    notes = [] if "terminated" in table else ["there is no column 'terminated': all episodes count as cut"]
    if dropped:
        short = len(starts) - len(trajectories)
        left_out = f"{dropped} last rows are left out" + (f", {short} episodes of one row with them" if short else "")
        notes.append(f"there are no columns next_observation_0 ...: the next row's are taken, and {left_out}")
    return trajectories, tuple(notes)


def _seeds(values: np.ndarray, path: Path) -> np.ndarray:
    wrong = ~(np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**53))
    if wrong.any():
        row = wrong.argmax()
        raise refuse(path, f", 'seed', row {row}: {values[row]}", "an integer")
    return values.astype(np.int64)


def _actions(table: dict[str, np.ndarray], path: Path) -> np.ndarray | None:
    values = table.get("action")
    if values is None or values.ndim == 2:
        return None if values is None else numbers(values, 2, path, "action")
    integers = values.astype(np.int64) if np.isfinite(values).all() else None
    if integers is not None and (integers == values).all():
        return integers
    return numbers(values[:, None], 2, path, "action")


def write(path: Path, content: DemonstrationSet) -> None:
    """Write a set so that `read` returns it: nine digits tell all 32-bit numbers apart."""
    first = content.trajectories[0]
    infos = {name: values.shape[1:] for name, values in first.infos.items() if values.ndim <= 2}
    seeds = all(trajectory.seed is not None for trajectory in content.trajectories)
    header = ["episode", "step", *_names("observation", first.observations.shape[1:])]
    if first.actions is not None:
        header += _names("action", first.actions.shape[1:])
    header += [] if first.rewards is None else ["reward"]
    header += [*_names("next_observation", first.observations.shape[1:]), "terminated", "truncated"]
    header += [column for name, shape in infos.items() for column in _names(f"info_{name}", shape)]
    constants = [content.environment_id] if content.environment_id else []
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        named = ["seed"] * seeds + ["environment_id"] * len(constants)
        csv.writer(file, lineterminator="\n").writerow([*header, *named])
        for index, trajectory in enumerate(
            tqdm(content.trajectories, f"writing {path.name}", leave=False, disable=None)
        ):
            last = np.zeros((trajectory.length, 2))
            last[-1] = trajectory.terminated, not trajectory.terminated
            actions = trajectory.actions
            columns = [
                np.full(trajectory.length, index),
                np.arange(trajectory.length),
                trajectory.observations,
                actions,
                trajectory.rewards,
                trajectory.next_observations,
                last,
                *(trajectory.infos[name] for name in infos),
            ]
            values = np.column_stack([column for column in columns if column is not None]).astype(np.float64)
            ending = "".join(f",{value}" for value in [trajectory.seed] * seeds + constants)
            np.savetxt(file, values, fmt="%.9g", delimiter=",", newline=f"{ending}\n")


def _names(name: str, shape: tuple[int, ...]) -> list[str]:
    return [f"{name}_{index}" for index in range(shape[0])] if shape else [name]


FORMAT = Format("csv", "a table with a row per step", read, write, attributes=False, rows=True, infos=1)
