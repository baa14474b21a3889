"""A report's numbers beside those that rliable and SciPy find in the same scores: tests/rliable_numbers.py."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from scripts import compare, summarise
from scripts.report_pictures import curve
from scripts.report_tables import PROFILE, make_report
from tests.training.sweeps.helpers import written_run
from training.sweeps.results import find_runs, read_run
from training.sweeps.statistics import profile_interval

ENVIRONMENTS = ("hopper", "pendulum")
RLIABLE = json.loads((Path(__file__).resolve().parents[1] / "rliable_numbers.json").read_text())
numbers = re.compile(r"-?\d+\.?\d*(?:e-\d+)?")


@pytest.mark.parametrize("measure", ["final", "mean"])
def test_numbers_agree(measure: str, tmp_path: Path) -> None:
    """What summarise.py and compare.py say."""
    for algorithm, own in RLIABLE["curves"].items():
        for environment, curves in zip(ENVIRONMENTS, own, strict=True):
            folder = tmp_path / algorithm / environment
            written_run(folder, dict(enumerate(curves)), f"algorithm={algorithm}", f"env={environment}")
    found = RLIABLE[measure]
    text = summarise.summarise([tmp_path], tmp_path / "report", measure)
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

    assert tuple(RLIABLE["thresholds"]) == PROFILE
    results = [result for run in find_runs([tmp_path]) for result in read_run(run)]
    for configuration in make_report(results, measure, [], [], tmp_path).configurations:
        bands = profile_interval(configuration.scores(measure), np.array(PROFILE))
        assert bands == pytest.approx(np.array(found[f"{configuration.name} bands"]), abs=0.1)  # steps are 1 / 14
        steps, points = curve(configuration.groups)
        assert steps.tolist() == [10, 20, 30, 40]
        assert points[0] == pytest.approx(np.array(RLIABLE["efficiency"][configuration.name][0]))
        assert points[1:] == pytest.approx(np.array(RLIABLE["efficiency"][configuration.name][1:]), abs=0.03)

    text = compare.compare(tmp_path / "GAIL", tmp_path / "SAC", measure)
    (said_better,) = re.findall(r"probability of improvement (\S+) \(95% (\S+) to (\S+)\)", text)
    assert float(said_better[0]) == pytest.approx(found["better"][0], abs=6e-4)
    assert [float(value) for value in said_better[1:]] == pytest.approx(found["better"][1:], abs=0.02)
    tests = re.findall(r"Welch's test p = ([\d.e-]+), Mann-Whitney p = ([\d.e-]+)", text)
    assert [[float(p) for p in row] for row in tests] == [pytest.approx(row, rel=6e-3) for row in found["tests"]]
