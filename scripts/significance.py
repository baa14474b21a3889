"""Tests of whether two sets of scores differ, by SciPy."""

import math
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from conf.errors import UserError
from training.sweeps.launchers import INSTALL


def welch(a: Float[np.ndarray, "_"], b: Float[np.ndarray, "_"]) -> float:
    """p of Welch's test: do the means differ? NaN where one has a single value, or all values are alike."""
    return math.nan if min(len(a), len(b)) < 2 else _p("ttest_ind", a, b, equal_var=False)


def welch_of_moments(a: Float[np.ndarray, "_"], mean: float, deviation: float, count: int) -> float:
    """The same where of the others mean, sample deviation and number are known."""
    if min(len(a), count) < 2:
        return math.nan
    return _p("ttest_ind_from_stats", a.mean(), a.std(ddof=1), len(a), mean, deviation, count, equal_var=False)


def mann_whitney(a: Float[np.ndarray, "_"], b: Float[np.ndarray, "_"]) -> float:
    """p of Mann and Whitney's rank test, two-sided: does one tend to be larger? NaN where one has a single value."""
    return math.nan if min(len(a), len(b)) < 2 else _p("mannwhitneyu", a, b)


def _p(test: str, *values: Any, **options: Any) -> float:
    """By a test of SciPy's, without its warnings of values that are all alike.

    Raises:
        UserError: it is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise UserError(f"tests need SciPy: {INSTALL}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(getattr(stats, test)(*values, **options).pvalue)
