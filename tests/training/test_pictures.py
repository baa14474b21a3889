"""Pictures: what is drawn, from which numbers, and that nothing is drawn without data."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.pictures import References, draw, mean_curve, read_metrics, read_returns, spread
from training.records import EVALUATION_COLUMNS, METRIC_COLUMNS

ROOT = Path(__file__).resolve().parents[2]
ALL = {"returns", "losses", "rewards", "entropy", "values"}
METRICS = (
    "actor/entropy",
    "actor/temperature",
    "actor/loss",
    "batch/reward",
    "critic/value",
    "critic/loss",
    "discriminator/expert_reward",
    "discriminator/learner_reward",
    "diagnosis/expert_reward",
    "diagnosis/learner_reward",
    "diagnosis/reward_rank_correlation",
)


def write_tables(folder: Path, seeds: int, phases: dict[str, tuple[str, ...]]) -> None:
    """Three evaluations and three values of each metric, of each seed: seed + step."""
    evaluations, metrics = [",".join(EVALUATION_COLUMNS)], [",".join(METRIC_COLUMNS)]
    for phase, names in phases.items():
        for step in (10, 20, 30):
            for seed in range(seeds):
                evaluations.append(f"{phase},{step},{seed},2,{seed + step},1.5,nan,5,4,6,0.1")
                metrics += [f"{phase},{step},{seed},{name},{seed + step}" for name in names]
    (folder / "evaluations.csv").write_text("\n".join(evaluations) + "\n")
    (folder / "metrics.csv").write_text("\n".join(metrics) + "\n")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every figure that is saved, by the name of its file."""
    saved: dict[str, Figure] = {}
    original = FigureCanvasAgg.print_png

    def save(self: FigureCanvasAgg, path: Path) -> None:
        saved[path.name.split(".")[0]] = self.figure
        original(self, path)  # type: ignore[no-untyped-call]  # Matplotlib's are not typed

    monkeypatch.setattr(FigureCanvasAgg, "print_png", save)
    return saved


@pytest.mark.parametrize("seeds", [1, 10])
def test_all_pictures_have_labels_and_a_legend(tmp_path: Path, figures: dict[str, Figure], seeds: int) -> None:
    write_tables(tmp_path, seeds, {"interaction": METRICS})
    written = draw(tmp_path, "GAIL on Hopper-v4", References(3234.3, -20.3, 3622.6))
    assert {path.stem for path in written} == ALL
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written} | {
        "evaluations.csv",
        "metrics.csv",
    }
    for figure in figures.values():
        assert all(axes.get_xlabel() == "environment steps" and axes.get_ylabel() for axes in figure.axes)
        labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
        assert any(("seed 0" if seeds == 1 else "mean of 10 seeds") in label for label in labels)


def test_returns_are_beside_their_references(tmp_path: Path, figures: dict[str, Figure]) -> None:
    write_tables(tmp_path, 2, {"interaction": ()})
    assert [path.name for path in draw(tmp_path, "", References(expert=100.0, demonstrations=90.0))] == ["returns.png"]
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figures["returns"].axes[0].lines}
    assert lines["expert 100"].tolist() == [100.0, 100.0]
    assert lines["demonstrations 90"].tolist() == [90.0, 90.0]
    assert lines["mean of 2 seeds"].tolist() == [10.5, 20.5, 30.5]
    assert not any("random" in label for label in lines)


def test_expert_and_learner_share_a_panel(tmp_path: Path, figures: dict[str, Figure]) -> None:
    write_tables(tmp_path, 1, {"interaction": METRICS})
    draw(tmp_path)
    panels = figures["rewards"].axes
    assert [len(axes.lines) for axes in panels] == [2, 2, 1, 1]
    assert [axes.get_title() for axes in panels[:2]] == ["on training batches", "at evaluations"]


def test_every_phase_has_its_own_axes(tmp_path: Path, figures: dict[str, Figure]) -> None:
    write_tables(tmp_path, 1, {"behavioural_cloning": ("cloning/loss",), "interaction": ("critic/loss",)})
    assert {path.stem for path in draw(tmp_path)} == {"returns", "losses"}
    labels = ["behavioural-cloning iterations", "environment steps"]
    assert [axes.get_xlabel() for axes in figures["returns"].axes] == labels
    assert [axes.get_xlabel() for axes in figures["losses"].axes] == labels


def test_nothing_is_drawn_from_empty_tables(tmp_path: Path) -> None:
    write_tables(tmp_path, 1, {})
    assert draw(tmp_path) == []


def test_tables_are_read_by_phase_name_and_seed(tmp_path: Path) -> None:
    write_tables(tmp_path, 2, {"interaction": ("critic/loss",)})
    steps, values = read_metrics(tmp_path / "metrics.csv", "metric", "value")["interaction", "critic/loss"][1]
    assert (steps.tolist(), values.tolist()) == ([10.0, 20.0, 30.0], [11.0, 21.0, 31.0])
    means, deviations = read_returns(tmp_path / "evaluations.csv")["interaction"]
    assert means[0][1].tolist() == [10.0, 20.0, 30.0]
    assert deviations[1][1].tolist() == [1.5, 1.5, 1.5]


def test_mean_over_the_steps_that_all_seeds_have() -> None:
    first = (np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0]))
    second = (np.array([2.0, 3.0, 4.0]), np.array([0.0, 2.0, 4.0]))
    steps, values = mean_curve({0: first, 1: second})
    assert (steps.tolist(), values.tolist()) == ([2.0, 3.0], [10.0, 16.0])


def test_spread_decides_for_logarithmic_axes() -> None:
    steps = np.array([1.0, 2.0, 3.0])
    assert spread({0: (steps, np.array([0.5, 200.0, np.nan]))}) == 400.0
    assert spread({0: (steps, np.array([-1.0, 200.0, 3.0]))}) == 1.0


def test_training_does_not_wait_for_matplotlib() -> None:
    check = "import sys, training.report; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)
