"""Comparisons of runs with each other and with published tables, with numbers worked out by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from scripts import compare, published
from scripts.report_tables import Group
from tests.training.sweeps.helpers import written_run
from training.folder import write_json
from training.sweeps.results import Evaluation, SeedResult

FOUR = ("ant", "halfcheetah", "hopper", "walker2d")


def group(environment: str, *seeds: dict[int, float], algorithm: str = "GAIL", **settings: Any) -> Group:
    """Seeds with these scores at these steps; returns are a hundred times as large."""
    config = {
        "algorithm": algorithm,
        "env": {"name": environment, "id": environment},
        "imitation": {"trajectories": 5, "subsample": 1, "state_only": False},
        "evaluation": {"episodes": 30},
        "steps": 1_000_000,
        **settings,
    }
    results = [
        SeedResult(
            folder=Path("nowhere"),
            seed=seed,
            state="finished",
            error="",
            config=config,
            evaluations=tuple(
                Evaluation("interaction", step, 100 * score, score, float(step)) for step, score in scores.items()
            ),
        )
        for seed, scores in enumerate(seeds)
    ]
    return Group(f"{algorithm} {environment}", results)


def rows(text: str) -> list[list[str]]:
    """Cells of the table below its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.5 beats two of three, 0.7 and 0.9 all: 8 of 9 pairs; on Hopper 1 of 1, hence 17 / 18 over both."""
    stats = pytest.importorskip("scipy.stats")
    written_run(tmp_path / "a" / "0", {0: [0.5], 1: [0.7], 2: [0.9]})
    written_run(tmp_path / "b" / "0", {0: [0.1], 1: [0.6], 2: [0.2]}, "steps=5")
    written_run(tmp_path / "b" / "1", {3: [0.2]}, "steps=5", state="failed", error="no disk")
    written_run(tmp_path / "b" / "2", {3: [0.2]}, "env=ant", "steps=5")
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "probability of improvement 0.889 (95% " in said
    # means 0.7 and 0.3, variances 0.04 and 0.07: t = 0.4 / sqrt(0.11 / 3) on (0.11 / 3)^2 / ((0.04^2 + 0.07^2) / 18)
    welch = 2 * stats.t.sf(0.4 / math.sqrt(0.11 / 3), (0.11 / 3) ** 2 / ((0.04**2 + 0.07**2) / 18))
    # 2 of the 20 orders of six values are as far apart on this side, 4 on both
    assert f"Pendulum-v1: 0.700 (3 seeds) against 0.300 (3); Welch's test p = {welch:.3g}, " in said
    assert "Mann-Whitney p = 0.2\n" in said
    assert f"only in {tmp_path / 'b'}: Ant-v4" in said
    assert "seed 3: incomplete (failed: no disk)" in said
    assert "fewer than 5 seeds" in said

    written_run(tmp_path / "a" / "1", {0: [0.9]}, "env=hopper")
    written_run(tmp_path / "c" / "0", {0: [0.1], 1: [0.6], 2: [0.2]}, "steps=5")
    written_run(tmp_path / "c" / "1", {0: [0.8]}, "env=hopper", "steps=5")
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "c")]) == 0
    said = capsys.readouterr().out
    assert "probability of improvement 0.944 " in said
    assert "Hopper-v4: 0.900 (1 seeds) against 0.800 (1)\n" in said  # one seed each says nothing of a spread


def test_scores_are_not_compared_with_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores of 0.1 and 0.2 are returns of 10 and 20, of which one is above 15: half of the pairs, in both orders."""
    scored, unscored = written_run(tmp_path / "a", {0: [0.1], 1: [0.2]}), written_run(tmp_path / "b", {0: [math.nan]})
    table = unscored / "evaluations.csv"
    table.write_text(table.read_text().replace("1,nan,0", "1,15,0"))
    for folders, means in (((scored, unscored), "2 15 1"), ((unscored, scored), "1 15 2")):
        assert compare.main([str(folder) for folder in folders]) == 0
        said = capsys.readouterr().out
        assert said.startswith("final returns of ")
        assert "probability of improvement 0.500" in said
        seeds, _, others = means.split()
        assert f"Pendulum-v1: 15.000 ({seeds} seeds, returns) against 15.000 ({others})\n" in said


def test_versions_of_an_environment_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written_run(tmp_path / "a", {0: [0.5]}, "env=hopper")
    written_run(tmp_path / "b", {0: [0.5]}, "env=hopper", "env.version=v5")
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "share no environment of the same version" in capsys.readouterr().err


def test_tables_are_as_published() -> None:
    """Aggregates that the publication computed from the same numbers."""
    table = published.load("imitation-v1.0")
    for algorithm, scores in table["scores"].items():
        mean = sum(mean for mean, _ in scores.values()) / 5
        assert mean == pytest.approx(table["mean_scores"][algorithm][0], abs=0.001)
        assert set(scores) == set(table["returns"][algorithm]) == set(table["environments"])
    table = published.load("kaixhin")
    assert set(table["iqm"]) == {"AdRIL", "BC", "DRIL", "GAIL", "GMMIL", "PWIL", "RED"}
    for numbers in table["iqm"].values():
        assert set(numbers) == {5, 10, 25}
        for points in numbers.values():
            assert max(points.values()) == points.get("peak", points["final"])


def test_interquartile_means_beside_published_ones() -> None:
    """GAIL with 5 trajectories: 0.83 after 200,000 steps, 1.03 after 500,000, 1.07 at the end, 1.08 at its peak."""
    seed = {200_000: 0.5, 300_000: 1.2, 1_000_000: 1.06}
    text = published.beside_published("kaixhin", Path("ours"), [group(name, seed, seed) for name in FOUR])
    assert rows(text) == [
        ["GAIL, 5 trajectories, 200,000 steps", "all", "8", "0.83", "0.500", "0.500 to 0.500", "no"],
        ["GAIL, 5 trajectories, 500,000 steps", "all", "8", "1.03", "-", "-", "-"],
        ["GAIL, 5 trajectories, final", "all", "8", "1.07", "1.060", "1.060 to 1.060", "yes"],  # to +-0.02
        ["GAIL, 5 trajectories, peak", "all", "8", "1.08", "1.200", "-", "-"],
    ]
    assert "read off the figure, to +-0.02" in text
    assert "fewer than 5 seeds" in text


def test_the_interquartile_mean_is_over_all_environments() -> None:
    """Of 0.1 0.2 | 0.3 0.4 | 0.5 0.6 | 0.7 0.8 the middle four: 0.45."""
    groups = [group(name, {9: i / 5 + 0.1}, {9: i / 5 + 0.2}) for i, name in enumerate(FOUR)]
    final = rows(published.beside_published("kaixhin", Path("ours"), groups))[2]
    assert final[4] == "0.450"
    final = rows(published.beside_published("kaixhin", Path("ours"), groups[2:]))[2]
    assert (final[1], final[2], final[4], final[-1]) == ("hopper, walker2d", "4", "0.650", "-")  # half of the table


def test_settings_and_demonstrations_that_differ_are_named(tmp_path: Path) -> None:
    typed = ("algorithm=GAIL", "env=hopper", "imitation.trajectories=5", "steps=100000", "imitation.subsample=20")
    run = written_run(tmp_path / "0", {0: [0.5]}, *typed, "optimised_hyperparameters=GAIL_5_trajectories")
    write_json(run / "result.json", {"demonstration_return": 3222.46})
    text = published.beside_published("kaixhin", tmp_path, compare.groups_in(tmp_path, "final"))
    assert "hopper: demonstrations of mean return 3222.5; published: 3510.5" in text
    # and nothing else: what the preset sets is as published
    assert "not with the published settings (in brackets): steps=100000 (1000000), imitation.subsample=20 (1)\n" in text


def test_returns_beside_published_ones() -> None:
    """GAIL on seals_hopper: 187.105, and 14.298 as a population's deviation of ten, which is 15.071 as a sample's."""
    stats = pytest.importorskip("scipy.stats")
    seeds = [{9: 2.0}, {9: 1.9}, {9: 1.8}]
    text = published.beside_published("imitation-v1.0", Path("ours"), [group("seals_hopper", *seeds)])
    ours, theirs = 10**2 / 3, 14.298**2 / 9
    t, freedom = (190 - 187.105) / math.sqrt(ours + theirs), (ours + theirs) ** 2 / (ours**2 / 2 + theirs**2 / 9)
    p = 2 * stats.t.sf(t, freedom)
    assert p == pytest.approx(0.715, abs=0.01)
    assert rows(text) == [["GAIL seals_hopper", "187.1 +- 15.1 (10)", "190.0 +- 10.0 (3)", f"{p:.3g}"]]
    single = published.beside_published("imitation-v1.0", Path("ours"), [group("seals_hopper", seeds[0])])
    assert rows(single) == [["GAIL seals_hopper", "187.1 +- 15.1 (10)", "200.0 (1)", "-"]]


def test_returns_need_no_scores() -> None:
    seeds = [{9: math.nan}, {9: math.nan}]
    unscored = group("seals_hopper", *seeds)
    assert len(unscored.counted) == 2 and np.isnan(unscored.measured("final")).all()
    with pytest.raises(UserError, match="no finished run of what kaixhin has"):
        published.beside_published("kaixhin", Path("ours"), [group("hopper", *seeds)])


def test_two_configurations_cannot_share_a_row() -> None:
    with pytest.raises(UserError, match="several configurations for a row of the table"):
        published.beside_published("kaixhin", Path("ours"), [group("hopper", {9: 1.0}), group("hopper", {9: 1.0})])


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("a", "1 folders: expected two, or --published"),
        ("a b --published kaixhin", "2 folders: expected one"),
        ("a --published nobody", "invalid choice: 'nobody' (choose from imitation-v1.0, kaixhin)"),
        ("a --published kaixhin --measure best", "--measure best: published are last evaluations"),
        ("a b --measure worst", "invalid choice: 'worst'"),
        ("nowhere b", "nowhere is not a folder"),
        ("a b", "there is no run in b"),
        ("a --published kaixhin", "a has no finished run of what kaixhin has"),
    ],
)
def test_bad_input(
    typed: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    written_run(tmp_path / "a", {0: [0.5]})
    (tmp_path / "b").mkdir()
    assert compare.main(typed.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert words in error.replace("'imitation-v1.0', 'kaixhin'", "imitation-v1.0, kaixhin")
