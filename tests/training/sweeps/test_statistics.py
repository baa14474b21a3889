"""Statistics, with numbers worked out by hand, and beside the libraries where those are installed."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.sweeps.statistics import (
    improvement_interval,
    interquartile_mean,
    interval,
    iqm_interval,
    mean,
    median,
    performance_profile,
    probability_of_improvement,
    standard_error,
    trimmed_mean,
)

ROOT = Path(__file__).resolve().parents[3]
RLIABLE = ROOT / "tests" / "rliable_numbers.json"
TWO_TASKS = [np.array([0.0, 1.0, 2.0]), np.array([10.0, 3.0])]


def test_trimmed_means() -> None:
    assert trimmed_mean([8.0, 1.0, 2.0, 100.0]) == 5.0  # 1 and 100 left out
    assert trimmed_mean([1.0, 2.0, 9.0]) == 4.0  # a quarter of three is none
    assert trimmed_mean(np.arange(30.0)) == 14.5  # 7 at each end
    assert trimmed_mean([5.0], 0.25) == 5.0


def test_the_interquartile_mean_is_of_all_tasks_together() -> None:
    assert interquartile_mean(TWO_TASKS) == 2.0  # of 0 1 2 3 10: without 0 and 10
    assert mean(TWO_TASKS) == 3.2
    assert median(TWO_TASKS) == 3.75  # of 1.0 and 6.5


def test_tasks_keep_their_seeds_in_the_bootstrap() -> None:
    """Constant tasks far apart: resampled within tasks nothing can change, across tasks everything would."""
    constant = [np.full(5, 0.0), np.full(5, 10.0)]
    assert interval(mean, constant, resamples=50) == (5.0, 5.0)
    assert iqm_interval(constant, resamples=50) == (5.0, 5.0)


def test_one_seed_has_no_interval() -> None:
    assert all(map(math.isnan, interval(mean, [np.array([1.0])])))
    assert all(map(math.isnan, iqm_interval([np.array([1.0]), np.array([2.0])])))


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    scores = np.random.default_rng(1).normal(size=400)
    low, high = interval(mean, [scores], resamples=2000)
    width = 1.96 * standard_error(list(scores))
    assert low == pytest.approx(scores.mean() - width, abs=0.01)
    assert high == pytest.approx(scores.mean() + width, abs=0.01)


def test_both_ways_to_an_iqm_interval_agree() -> None:
    scores = [np.random.default_rng(2).normal(size=8), np.random.default_rng(3).normal(2, size=5)]
    assert iqm_interval(scores, resamples=20_000) == pytest.approx(interval(interquartile_mean, scores), abs=0.03)


def test_performance_profiles() -> None:
    profile = performance_profile(TWO_TASKS, np.array([-1.0, 1.0, 5.0, 10.0]))
    assert profile.tolist() == pytest.approx([1.0, (1 / 3 + 1) / 2, 0.25, 0.0])


def test_probability_of_improvement() -> None:
    first, second = [np.array([1.0, 3.0])], [np.array([2.0, 1.0])]
    # 1 > 2 no, 1 = 1 half, 3 > 2 yes, 3 > 1 yes
    assert probability_of_improvement(first, second) == 2.5 / 4
    assert probability_of_improvement([*first, np.array([0.0])], [*second, np.array([1.0])]) == 2.5 / 8
    low, high = improvement_interval([np.arange(10.0) + 100], [np.arange(10.0)])
    assert (low, high) == (1.0, 1.0)


def test_standard_error() -> None:
    assert standard_error([1.0, 3.0]) == 1.0  # sqrt(2) / sqrt(2)
    assert math.isnan(standard_error([1.0]))


def test_rliable_agrees() -> None:
    kept = json.loads(RLIABLE.read_text())["scores"]
    ours, theirs = ([np.array(task) for task in zip(*scores, strict=True)] for scores in kept["scores"])
    assert interquartile_mean(ours) == pytest.approx(kept["iqm"])
    assert probability_of_improvement(ours, theirs) == pytest.approx(kept["improvement"])
    assert performance_profile(ours, np.array(kept["thresholds"])) == pytest.approx(kept["profile"])
    assert iqm_interval(ours) == pytest.approx(kept["interval"], abs=0.02)


@pytest.mark.skipif(importlib.util.find_spec("rliable") is None, reason="rliable is not installed")
def test_what_is_kept_is_what_rliable_says() -> None:
    command = [sys.executable, "-m", "tests.rliable_numbers"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert flat(json.loads(said)) == pytest.approx(flat(json.loads(RLIABLE.read_text())))


def flat(kept: Any) -> list[float]:
    """All numbers, in their order."""
    if isinstance(kept, dict | list):
        return [number for part in (kept.values() if isinstance(kept, dict) else kept) for number in flat(part)]
    return [kept] if isinstance(kept, float) else []
