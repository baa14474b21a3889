"""A report's numbers beside those that rliable and SciPy find, by themselves, in the same files of the runs."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import compare, summarise
from scripts.report_pictures import curve
from scripts.report_tables import PROFILE, make_report
from tests.training.sweeps.helpers import written_run
from training.sweeps.results import find_runs, read_run
from training.sweeps.statistics import profile_interval

ENVIRONMENTS = ("hopper", "pendulum")
# Reads evaluations.csv and nothing of ours. rliable takes arrays [runs, tasks].
INDEPENDENT = """
import csv, json, sys
from pathlib import Path
import numpy as np
from rliable import library, metrics
from scipy import stats

folder, thresholds = Path(sys.argv[1]), np.array(json.loads(sys.argv[2]))

def evaluations(path):
    seeds = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            seeds.setdefault(row["seed"], []).append(float(row["score"]))
    return np.array(list(seeds.values()))  # runs, frames

np.random.seed(0)  # rliable draws from here, whatever random_state it is given

def intervals(scores, function, reps=2000):
    points, found = library.get_interval_estimates({"": scores}, function, reps=reps)
    return np.vstack([points[""], found[""]]).T.tolist()  # of each: value, low, high

def iqm(scores):
    return np.array([metrics.aggregate_iqm(scores)])

def iqm_of_frames(scores):
    return np.array([metrics.aggregate_iqm(scores[..., frame]) for frame in range(scores.shape[-1])])

def numbers(curves, measure):
    found, measured = {}, {}
    for name, own in curves.items():
        measured[name] = {"final": own[..., -1], "mean": own.mean(-1)}[measure]
        for task, scores in (("hopper", measured[name][:, :1]), ("pendulum", measured[name][:, 1:])):
            found[f"{name} {task}"] = [scores.mean(), scores.std(ddof=1), *intervals(scores, iqm)[0]]
        profile, bands = library.create_performance_profile({"": measured[name]}, thresholds, reps=1000)
        found[name] = [measured[name].mean(), *intervals(measured[name], iqm)[0], *profile[""]]
        found[f"{name} bands"] = bands[""].tolist()
    pair = (measured["GAIL"], measured["SAC"])
    better = intervals(pair, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]))[0]
    tests = [
        [test(*own).pvalue for test in (lambda a, b: stats.ttest_ind(a, b, equal_var=False), stats.mannwhitneyu)]
        for own in zip(*(scores.T for scores in pair))
    ]
    return {**found, "better": better, "tests": tests}

curves = {
    name: np.stack([evaluations(folder / name / task / "evaluations.csv") for task in ("hopper", "pendulum")], 1)
    for name in ("GAIL", "SAC")
}
found = {measure: numbers(curves, measure) for measure in ("final", "mean")}
found["efficiency"] = {name: np.array(intervals(own, iqm_of_frames)).T.tolist() for name, own in curves.items()}
print(json.dumps(found))
"""
installed = all(importlib.util.find_spec(name) for name in ("rliable", "scipy"))
numbers = re.compile(r"-?\d+\.?\d*(?:e-\d+)?")


@pytest.mark.skipif(not installed, reason="rliable and SciPy are not installed")
def test_numbers_agree(tmp_path: Path) -> None:
    """One process finds the others' numbers for both measures, as importing rliable takes long."""
    generator = np.random.default_rng(0)
    for algorithm, level in (("GAIL", 0.7), ("SAC", 0.5)):
        for environment, more in (("hopper", 0.0), ("pendulum", 0.3)):
            curves = level + more + np.linspace(-0.4, 0.0, 4) + generator.normal(0, 0.2, size=(7, 4))
            folder = tmp_path / algorithm / environment
            written_run(folder, dict(enumerate(curves.tolist())), f"algorithm={algorithm}", f"env={environment}")
    command = [sys.executable, "-c", INDEPENDENT, str(tmp_path), json.dumps(PROFILE)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(said.stdout)
    for measure in ("final", "mean"):
        assert_agree(tmp_path, measure, found[measure], found["efficiency"])


def assert_agree(folder: Path, measure: str, found: dict[str, Any], efficiency: dict[str, Any]) -> None:
    """Of `measure`, what summarise.py and compare.py say, and what the others found."""
    text = summarise.summarise([folder], folder / "report", measure)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in reversed(text.splitlines())}
    for name in ("GAIL hopper", "SAC hopper", "GAIL pendulum", "SAC pendulum"):
        seeds, *own = map(float, numbers.findall(rows[name]))
        assert seeds == 7
        assert own[:3] == pytest.approx(found[name][:3], abs=6e-4)  # mean, std, IQM
        assert own[3:5] == pytest.approx(found[name][3:], abs=0.02)  # bootstrap
    for name in ("GAIL", "SAC"):
        runs, mean, iqm, low, high, *profile = map(float, numbers.findall(rows[name].split(" | ", 1)[1]))
        assert runs == 14
        assert (mean, iqm) == pytest.approx(found[name][:2], abs=6e-4)
        assert (low, high) == pytest.approx(found[name][2:4], abs=0.02)
        assert profile == pytest.approx(found[name][4:], abs=6e-3)

    results = [result for run in find_runs([folder]) for result in read_run(run)]
    for configuration in make_report(results, measure, [], [], folder).configurations:
        bands = profile_interval(configuration.scores(measure), np.array(PROFILE))
        assert bands == pytest.approx(np.array(found[f"{configuration.name} bands"]), abs=0.1)  # steps are 1 / 14
        steps, points = curve(configuration.groups)
        assert steps.tolist() == [10, 20, 30, 40]
        assert points[0] == pytest.approx(np.array(efficiency[configuration.name][0]))
        assert points[1:] == pytest.approx(np.array(efficiency[configuration.name][1:]), abs=0.03)

    first, second = folder / "GAIL", folder / "SAC"
    text = compare.compare(first, second, measure)
    (said_better,) = re.findall(r"probability of improvement (\S+) \(95% (\S+) to (\S+)\)", text)
    assert float(said_better[0]) == pytest.approx(found["better"][0], abs=6e-4)
    assert [float(value) for value in said_better[1:]] == pytest.approx(found["better"][1:], abs=0.02)
    tests = re.findall(r"Welch's test p = ([\d.e-]+), Mann-Whitney p = ([\d.e-]+)", text)
    assert [[float(p) for p in row] for row in tests] == [pytest.approx(row, rel=6e-3) for row in found["tests"]]
