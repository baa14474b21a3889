"""Returns of episodes as statistics with intervals, and as a table."""

from typing import Any

import numpy as np
from jaxtyping import Float

from environments.reference_scores import ReferenceScores

RESAMPLES = 10_000
AT_ONCE = 1_000_000  # returns that are drawn together: 8 MB for each array of them
METHOD = f"percentile bootstrap, {RESAMPLES} resamples"


def statistics(
    returns: Float[np.ndarray, "runs episodes"], confidence: float, references: ReferenceScores
) -> dict[str, float | None]:
    """Mean return and score with their intervals, and how far episodes spread."""
    mean = float(returns.mean())
    low, high = bootstrap(returns, confidence)
    found = {"return": mean, "return_low": low, "return_high": high}
    scores = {
        name.replace("return", "score"): None if value is None else references.normalise(value)
        for name, value in found.items()
    }
    known = {name: None if value is None or np.isnan(value) else value for name, value in (found | scores).items()}
    spread = {"std": returns.std(), "minimum": returns.min(), "maximum": returns.max(), "median": np.median(returns)}
    return known | {f"return_{name}": float(value) for name, value in spread.items()}


def bootstrap(returns: Float[np.ndarray, "runs episodes"], confidence: float) -> tuple[float | None, float | None]:
    """Percentile bootstrap of the mean: runs are drawn with replacement and, within each, episodes.

    A single number says nothing about its spread, so it has no interval.
    """
    runs, episodes = returns.shape
    if returns.size == 1:
        return None, None
    generator = np.random.default_rng(0)
    block = max(1, AT_ONCE // returns.size)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, block):
        count = min(block, RESAMPLES - start)
        chosen = generator.integers(runs, size=(count, runs, 1))
        drawn = returns[chosen, generator.integers(episodes, size=(count, runs, episodes))]
        means[start : start + count] = drawn.mean(axis=(1, 2))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def table(result: dict[str, Any]) -> str:
    """A line for each seed, and one for their mean."""
    manner = "sampled" if result["sampled"] else "greedy"
    lines = [
        f"{result['algorithm']} in {result['environment']}, {result['episodes']} {manner} episodes",
        f"{'seed':>6}{'return':>11}{'interval':>24}{'std':>10}{'length':>9}{'score':>9}{'interval':>18}",
    ]
    for run in result["runs"]:
        lines.append(_row(str(run["training_seed"] if run["training_seed"] is not None else "-"), run))
    if len(result["runs"]) > 1:
        lines.append(_row("mean", result["mean"]))
    return "\n".join([*lines, f"intervals: {100 * result['confidence']:.10g}%, {result['interval']}"])


def _row(name: str, values: dict[str, Any]) -> str:
    interval = _interval(values, "return", 2)
    row = f"{name:>6}{values['return']:>11.2f}{interval:>24}{values['return_std']:>10.2f}"
    length = f"{values['length_mean']:.1f}" if "length_mean" in values else ""
    score = "-" if values["score"] is None else f"{values['score']:.3f}"
    return f"{row}{length:>9}{score:>9}{_interval(values, 'score', 3):>18}"


def _interval(values: dict[str, Any], name: str, digits: int) -> str:
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    return "-" if low is None else f"[{low:.{digits}f}, {high:.{digits}f}]"
