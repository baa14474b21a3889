"""The end of a run: result, pictures, episodes, video, and a short table on the terminal."""

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from environments.formats.d4rl import write_d4rl
from environments.vector import reset_seeds
from training import video
from training.config import Config
from training.folder import read_table, write_json
from training.loop import Loop, RunInterruptedError
from training.records import check_packages


def check_extras(config: Config) -> None:
    """Raises UserError, before anything is trained, where something is missing that only the end needs."""
    check_packages(config)
    if config.render:
        video.check_rendering(config.env.id)


def run_and_report(loop: Loop) -> float:
    """Train to the end and write what a finished run leaves.

    Returns the mean of the final scores over seeds, or of the final returns where no references are known.

    Raises:
        RunInterruptedError, TrainingError: from the loop; pictures show how far it came.
    """
    exit_status = 1
    try:
        loop.records.start()
        loop.run()
        result = finish(loop)
        exit_status = 0
    except RunInterruptedError:
        loop.status.update(state="interrupted")  # already now: whoever stopped the run may not wait for pictures
        _attempt("pictures", lambda: _draw(loop))
        raise
    except Exception:
        _attempt("pictures", lambda: _draw(loop))
        raise
    finally:
        loop.records.close(exit_status)
    return objective(result)


def finish(loop: Loop) -> dict[str, Any]:
    """Write the result first, then whatever else was asked for, and print the table. Returns the result."""
    result = summary(loop)
    write_json(loop.folder / "result.json", result)
    _attempt("pictures", lambda: _draw(loop))
    if loop.config.save_trajectories:
        _attempt("trajectories", lambda: save_trajectories(loop))
    if loop.config.render:
        _attempt("video", lambda: _film(loop))
    print(table(result, loop.folder))
    return result


def objective(result: dict[str, Any]) -> float:
    """What a sweep maximises: the mean final score over seeds, or the mean final return without references."""
    final = result["mean"]["final"]
    value: float = final["return"] if final["score"] is None else final["score"]
    return value


def _attempt(what: str, action: Callable[[], object]) -> None:
    """What fails here is only missing: the result has been written."""
    try:
        action()
    except (Exception, KeyboardInterrupt) as error:
        print(f"warning: no {what}: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)


def _draw(loop: Loop) -> None:
    from training.pictures import References, draw  # Matplotlib is slow to import, and training does not need it

    known = References(
        expert=_known(loop.references.expert),
        random=_known(loop.references.random),
        demonstrations=loop.parts.demonstration_return,
    )
    draw(loop.folder, f"{loop.config.algorithm} on {loop.config.env.id}", known)


def save_trajectories(loop: Loop) -> list[Path]:
    """The episodes of the last evaluation, a D4RL file for each seed."""
    config, learner = loop.config, loop.parts.learner
    phase = loop.parts.phases[-1].name
    # A finished run that is resumed evaluates nothing; the same name makes the same episodes begin again.
    episodes = loop.episodes or loop.evaluator.play(
        lambda observations: learner.act(observations, greedy=True), f"evaluation/{phase}/{loop.step}"
    )
    written = []
    for seed, own in zip(config.seeds, episodes, strict=True):
        name = "trajectories.hdf5" if config.runs == 1 else f"trajectories_seed_{seed}.hdf5"
        attributes: dict[str, str | float | int] = {
            "environment_id": config.env.id,
            "algorithm": config.algorithm,
            "seed": seed,
            "phase": phase,
            "step": loop.step,
        }
        write_d4rl(loop.folder / name, own, attributes)
        written.append(loop.folder / name)
    return written


def _film(loop: Loop) -> None:
    """One greedy episode of the first seed."""
    config, parts = loop.config, loop.parts

    def act(observation: np.ndarray) -> np.ndarray:
        batch = parts.spaces.observe(observation).expand(config.runs, 1, -1).to(config.device)
        actions = parts.learner.act(batch, greedy=True)
        return parts.spaces.to_environment(actions[0, 0].cpu().numpy())

    seed = reset_seeds(config.seeds[:1], 1, "video")[0]
    video.film(config.env.id, act, seed, loop.folder / "episode.mp4")


def summary(loop: Loop) -> dict[str, Any]:
    """Final and best evaluation of each seed and their means, beside the references, with time and speed.

    `final` is the last evaluation; `best` the one with the highest mean return, hence optimistic. What is unknown is
    None: JSON has no NaN.
    """
    rows = read_table(loop.folder / "evaluations.csv")
    runs = []
    for seed in loop.config.seeds:
        own = [_evaluation(row) for row in rows if int(row["seed"]) == seed]
        runs.append({"seed": seed, "final": own[-1], "best": max(own, key=lambda row: row["return"])})
    seconds = loop.seconds
    return {
        "algorithm": loop.config.algorithm,
        "environment": loop.config.env.id,
        "runs": runs,
        "mean": {kind: {name: _mean(runs, kind, name) for name in ("return", "score")} for kind in ("final", "best")},
        "evaluations": len(rows) // len(runs),
        "references": {
            name: _known(value) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(loop.references).items()
        },
        "demonstration_return": loop.parts.demonstration_return,
        "wall_seconds": round(seconds, 1),
        "steps_per_second": round(loop.parts.phases[-1].length / seconds, 1),  # as in the table of evaluations
    }


def _evaluation(row: dict[str, str]) -> dict[str, Any]:
    return {
        "phase": row["phase"],
        "step": int(row["step"]),
        "episodes": int(row["episodes"]),
        "return": float(row["return_mean"]),
        "return_std": float(row["return_std"]),
        "score": _known(float(row["score"])),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(runs: list[dict[str, Any]], kind: str, name: str) -> float | None:
    values = [run[kind][name] for run in runs]
    return None if None in values else sum(values) / len(values)


def table(result: dict[str, Any], folder: Path) -> str:
    """What a person wants to know first."""
    lines = [f"{'':>6} {'final evaluation':>22}   {'best evaluation':>34}"]
    lines.append(f"{'seed':>6} {'return':>14} {'score':>7}   {'return':>14} {'score':>7} {'at step':>11}")
    last_phase = result["runs"][0]["final"]["phase"]
    for run in result["runs"]:
        best = run["best"]
        where = "" if best["phase"] == last_phase else f" of {best['phase'].replace('_', ' ')}"
        lines.append(f"{run['seed']:>6} {_pair(run['final'])}   {_pair(best)} {best['step']:>11}{where}")
    if len(result["runs"]) > 1:
        lines.append(f"{'mean':>6} {_pair(result['mean']['final'])}   {_pair(result['mean']['best'])}")
    episodes = result["runs"][0]["final"]["episodes"]
    lines.append(
        f"best: the highest of {result['evaluations']} evaluations ({episodes} episodes each), hence optimistic"
    )
    references, demonstrations = result["references"], result["demonstration_return"]
    shown = [] if demonstrations is None else [f"demonstrations {demonstrations:.1f}"]
    if references["expert"] is not None:
        shown.append(f"expert {references['expert']:.1f} (score 1), random {references['random']:.1f} (score 0)")
    lines += [", ".join(shown)] if shown else []
    minutes, seconds = divmod(result["wall_seconds"], 60)
    lines.append(f"{minutes:.0f} min {seconds:.0f} s, {result['steps_per_second']:.0f} steps/s")
    lines.append(f"results in {folder}")
    return "\n".join(lines)


def _pair(values: dict[str, Any]) -> str:
    score = "-" if values["score"] is None else f"{values['score']:.3f}"
    return f"{values['return']:>14.1f} {score:>7}"
