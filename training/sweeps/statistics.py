"""Statistics for few seeds: interquartile means, bootstrap intervals, performance profiles, improvement.

Scores are arrays of `[seeds, tasks]`, in this order: a task's seeds are exchangeable, tasks are not. Agarwal et al.
(2021), "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 10_000
CONFIDENCE = 0.95

Scores = list[Float[np.ndarray, "_"]]  # of each task, those of its seeds; tasks may have different numbers


def trimmed_mean(values: Sequence[float] | Float[np.ndarray, "_"], proportion: float = 0.25) -> float:
    """Mean without the lowest and the highest `proportion` of the values, whose number is rounded down.

    With 0.25 this is the interquartile mean; SciPy's `trim_mean` does the same.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    cut = int(proportion * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def interquartile_mean(scores: Scores) -> float:
    """Over the seeds of all tasks together."""
    return trimmed_mean(np.concatenate(scores))


def mean(scores: Scores) -> float:
    """Over the seeds of all tasks together."""
    return float(np.concatenate(scores).mean())


def median(scores: Scores) -> float:
    """Of the tasks' means."""
    return float(np.median([task.mean() for task in scores]))


def interval(
    statistic: Callable[[Scores], float], scores: Scores, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of a stratified bootstrap: seeds are drawn again within each task, tasks are kept.

    NaN where every task has one seed only, which says nothing of its spread.
    """
    if all(len(task) < 2 for task in scores):
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    found = [
        statistic([task[generator.integers(len(task), size=len(task))] for task in scores]) for _ in range(resamples)
    ]
    return percentiles(found)


def percentiles(values: Sequence[float] | Float[np.ndarray, "_"]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.asarray(values), [tail, 1 - tail])
    return float(low), float(high)


def iqm_interval(scores: Scores, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """As `interval(interquartile_mean, ...)`, all resamples at once."""
    if all(len(task) < 2 for task in scores):
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    drawn = np.sort(
        np.concatenate([task[generator.integers(len(task), size=(resamples, len(task)))] for task in scores], axis=1)
    )
    cut = int(0.25 * drawn.shape[1])
    return percentiles(drawn[:, cut : drawn.shape[1] - cut].mean(axis=1))


def performance_profile(scores: Scores, thresholds: Float[np.ndarray, "_"]) -> Float[np.ndarray, "_"]:
    """For each threshold the fraction of runs that score more, the mean over tasks."""
    above = np.stack([(task[:, None] > thresholds).mean(axis=0) for task in scores])
    return np.asarray(above.mean(axis=0))


def profile_interval(
    scores: Scores, thresholds: Float[np.ndarray, "_"], seed: int = 0, resamples: int = 1000
) -> Float[np.ndarray, "2 _"]:
    """Low and high of `performance_profile` at each threshold, by the same bootstrap; NaN where there is no spread."""
    if all(len(task) < 2 for task in scores):
        return np.full((2, len(thresholds)), math.nan)
    generator = np.random.default_rng(seed)
    drawn = [task[generator.integers(len(task), size=(resamples, len(task)))] for task in scores]
    profiles = np.mean([[(task > t).mean(axis=1) for t in thresholds] for task in drawn], axis=0)
    tail = (1 - CONFIDENCE) / 2
    return np.asarray(np.quantile(profiles, [tail, 1 - tail], axis=1))


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """That a run of `first` scores more than one of `second` on the same task, ties counting half; mean over tasks."""
    return float(
        np.mean([(a[:, None] > b).mean() + 0.5 * (a[:, None] == b).mean() for a, b in zip(first, second, strict=True)])
    )


def improvement_interval(
    first: Scores, second: Scores, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the stratified bootstrap, the seeds of both drawn again."""
    generator = np.random.default_rng(seed)

    def times_drawn(task: Float[np.ndarray, "_"]) -> Int[np.ndarray, "_ _"]:
        return generator.multinomial(len(task), np.full(len(task), 1 / len(task)), size=resamples)

    found = np.zeros(resamples)
    for a, b in zip(first, second, strict=True):
        better = (np.sign(a[:, None] - b) + 1) / 2  # a tie counts half
        found += np.einsum("ri,ij,rj->r", times_drawn(a), better, times_drawn(b)) / better.size
    return percentiles(found / len(first))


def standard_error(values: Sequence[float]) -> float:
    """Of the mean; NaN for a single value."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
