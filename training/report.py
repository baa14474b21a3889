"""The end of a run: policy, result, pictures, and a short table on the terminal."""

import dataclasses
from pathlib import Path
from typing import Any

from training.folder import read_table, write_json
from training.loop import Loop


def finish(loop: Loop) -> float:
    """Write what a finished run leaves and print the table. Returns the mean of the final scores over seeds."""
    result = summary(loop)
    write_json(loop.folder / "result.json", result)
    final: list[float] = [run["final"]["score"] for run in result["runs"]]
    print(table(result, loop.folder))
    loop.records.close()
    return sum(final) / len(final)


def summary(loop: Loop) -> dict[str, Any]:
    """Final and best evaluation of each seed, beside the references, with time and speed."""
    rows = read_table(loop.folder / "evaluations.csv")
    runs = []
    for seed in loop.config.seeds:
        own = [_evaluation(row) for row in rows if int(row["seed"]) == seed]
        runs.append({"seed": seed, "final": own[-1], "best": max(own, key=lambda row: row["return"])})
    steps = sum(phase.length for phase in loop.parts.phases)
    seconds = loop.seconds
    return {
        "algorithm": loop.config.algorithm,
        "environment": loop.config.env.id,
        "runs": runs,
        "references": dataclasses.asdict(loop.references),
        "demonstration_return": loop.parts.demonstration_return,
        "wall_seconds": round(seconds, 1),
        "steps_per_second": round(steps / seconds, 1),
    }


def _evaluation(row: dict[str, str]) -> dict[str, Any]:
    return {
        "phase": row["phase"],
        "step": int(row["step"]),
        "return": float(row["return_mean"]),
        "return_std": float(row["return_std"]),
        "score": float(row["score"]),
    }


def table(result: dict[str, Any], folder: Path) -> str:
    """What a person wants to know first."""
    lines = [f"{'seed':>6} {'final return':>14} {'score':>7} {'best return':>12} {'score':>7} {'at step':>9}"]
    for run in result["runs"]:
        final, best = run["final"], run["best"]
        lines.append(
            f"{run['seed']:>6} {final['return']:>14.1f} {final['score']:>7.3f} "
            f"{best['return']:>12.1f} {best['score']:>7.3f} {best['step']:>9}"
        )
    references = result["references"]
    demonstrations = result["demonstration_return"]
    shown = "" if demonstrations is None else f"demonstrations {demonstrations:.1f}, "
    lines.append(f"{shown}expert {references['expert']:.1f}, random {references['random']:.1f} (score 1 and 0)")
    minutes, seconds = divmod(result["wall_seconds"], 60)
    lines.append(f"{minutes:.0f} min {seconds:.0f} s, {result['steps_per_second']:.0f} steps/s")
    lines.append(f"results in {folder}")
    return "\n".join(lines)
