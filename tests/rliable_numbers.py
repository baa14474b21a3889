"""What rliable and SciPy say of scores, kept in rliable_numbers.json for tests: rliable would bring 300 MB of packages.

    pip install rliable==1.2.0 scipy==1.17.1 pandas==2.3.3
    python -m tests.rliable_numbers > tests/rliable_numbers.json

Uses nothing of this repository. rliable takes arrays [seeds, tasks].
"""

import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import numpy as np

TASKS = ("hopper", "pendulum")
LEVELS = {"GAIL": 0.7, "SAC": 0.5}
REPORT_THRESHOLDS = (0.25, 0.5, 0.75, 0.9, 1.0)
THRESHOLDS = np.linspace(-0.5, 2, 11)


def drawn_curves() -> dict[str, Any]:
    """Of each algorithm: scores [tasks, seeds, evaluations] that rise."""
    generator = np.random.default_rng(0)
    steps = np.linspace(-0.4, 0.0, 4)
    return {
        name: [level + more + steps + generator.normal(0, 0.2, size=(7, 4)) for more in (0.0, 0.3)]
        for name, level in LEVELS.items()
    }


def intervals(scores: Any, function: Callable[..., Any], reps: int = 2000) -> Any:
    """Of each number: value, low, high."""
    from rliable import library

    points, found = library.get_interval_estimates({"": scores}, function, reps=reps)
    return np.vstack([points[""], found[""]]).T.tolist()


def iqm(scores: Any) -> Any:
    from rliable import metrics

    return np.array([metrics.aggregate_iqm(scores)])


def of_report(curves: dict[str, Any], measure: str) -> dict[str, Any]:
    """The numbers of a report's tables and of a comparison. `curves`: scores [seeds, tasks, evaluations]."""
    from rliable import library, metrics
    from scipy import stats

    found: dict[str, Any] = {}
    measured = {name: own[..., -1] if measure == "final" else own.mean(-1) for name, own in curves.items()}
    for name, own in measured.items():
        for number, task in enumerate(TASKS):
            scores = own[:, [number]]
            found[f"{name} {task}"] = [scores.mean(), scores.std(ddof=1), *intervals(scores, iqm)[0]]
        profile, bands = library.create_performance_profile({"": own}, np.array(REPORT_THRESHOLDS), reps=1000)
        found[name] = [own.mean(), *intervals(own, iqm)[0], *profile[""]]
        found[f"{name} bands"] = bands[""].tolist()
    pair = tuple(measured.values())
    found["better"] = intervals(pair, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]))[0]
    found["tests"] = [
        [stats.ttest_ind(a, b, equal_var=False).pvalue, stats.mannwhitneyu(a, b).pvalue]
        for a, b in zip(*(own.T for own in pair), strict=True)
    ]
    return found


def efficiency(curves: Any) -> Any:
    """Values, lows and highs of the IQM at each evaluation."""
    return np.array(
        intervals(curves, lambda scores: np.array([iqm(s)[0] for s in np.moveaxis(scores, -1, 0)]))
    ).T.tolist()


def of_scores() -> dict[str, Any]:
    from rliable import library, metrics

    generator = np.random.default_rng(0)
    first, second = (generator.normal(means, 0.3, size=(10, 3)) for means in ([0.2, 0.9, 1.1], [0.1, 0.8, 1.2]))
    return {
        "scores": [first.tolist(), second.tolist()],
        "thresholds": THRESHOLDS.tolist(),
        "iqm": metrics.aggregate_iqm(first),
        "interval": intervals(first, iqm, reps=3000)[0][1:],
        "improvement": metrics.probability_of_improvement(first, second),
        "profile": [library.run_score_deviation(first, threshold) for threshold in THRESHOLDS],
    }


def numbers() -> dict[str, Any]:
    np.random.seed(0)  # rliable draws from here, whatever random_state it is given
    curves = {name: np.stack(own, 1) for name, own in drawn_curves().items()}
    return {
        "versions": {name: importlib.metadata.version(name) for name in ("rliable", "scipy", "numpy")},
        "curves": {name: np.array(own).tolist() for name, own in drawn_curves().items()},
        "thresholds": REPORT_THRESHOLDS,
        **{measure: of_report(curves, measure) for measure in ("final", "mean")},
        "efficiency": {name: efficiency(own) for name, own in curves.items()},
        "scores": of_scores(),
    }


if __name__ == "__main__":
    print(json.dumps(numbers()))
