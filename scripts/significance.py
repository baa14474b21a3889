"""Tests of whether two sets of scores differ, by SciPy."""

import math
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from conf.errors import UserError
from training.sweeps.launchers import INSTALL


def welch(a: Float[np.ndarray, "_"], b: Float[np.ndarray, "_"]) -> float:
    """p of Welch's test: do the means differ? NaN where one has a single value."""
    if min(len(a), len(b)) < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all values are alike: p is NaN, which says it
        return float(_scipy().ttest_ind(a, b, equal_var=False).pvalue)


def welch_of_moments(a: Float[np.ndarray, "_"], mean: float, deviation: float, count: int) -> float:
    """The same where of the others mean, sample deviation and number are known."""
    if min(len(a), count) < 2:
        return math.nan
    moments = (a.mean(), a.std(ddof=1), len(a), mean, deviation, count)
    return float(_scipy().ttest_ind_from_stats(*moments, equal_var=False).pvalue)


def mann_whitney(a: Float[np.ndarray, "_"], b: Float[np.ndarray, "_"]) -> float:
    """p of the rank test of Mann and Whitney, two-sided: does one tend to be larger? NaN as above."""
    return math.nan if min(len(a), len(b)) < 2 else float(_scipy().mannwhitneyu(a, b).pvalue)


def _scipy() -> Any:
    """Raises UserError where it is not installed."""
    try:
        from scipy import stats
    except ImportError as error:
        raise UserError(f"tests need SciPy: {INSTALL}") from error
    return stats
