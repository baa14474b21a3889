"""Bayesian optimisation: what is searched, in which direction, with which noise, and what survives a kill."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conf.errors import UserError
from scripts.print_plot_sweep_results import write
from tests.training.commands import QUICK, assert_refused, run
from tests.training.sweeps.test_sweep import wait_for
from tests.warm import Process, run_apart
from training.explain import parse_overrides
from training.sweeps.optimise import described, refuse_changes
from training.sweeps.plan import OPTIMISATION, Plan
from training.sweeps.preset import install, preset_name
from training.sweeps.space import Choice, Interval, check_ends, search_space
from training.sweeps.trials import NAME, Record, Trial, load_record, without_improvement

SEARCH = (
    "-m", "hydra/sweeper=ax", "algorithm=BC", "bc_pretraining.iterations=20", "imitation.trajectories=5", *QUICK,
    "hyperparameter_search_space=none", "bc_pretraining.learning_rate=interval(0.001,0.1)", "training.batch_size=4,8",
    "trials=2", "seeds_per_trial=2", "finalists=1", "final_seeds=1",
)  # fmt: skip


def ended(*means: float | None) -> list[Trial]:
    return [
        Trial(number, {}, [0], "failed" if mean is None else "completed", mean=mean)
        for number, mean in enumerate(means)
    ]


def test_stopping_counts_trials_since_the_highest() -> None:
    assert without_improvement([]) == 0
    assert without_improvement(ended(0.1, 0.2, 0.3)) == 0  # ever better; the reference stopped here
    assert without_improvement(ended(0.5, 0.4, 0.3)) == 2
    assert without_improvement(ended(0.5, None, 0.3, 0.6, 0.6)) == 1  # failed ones say nothing; a tie is no improvement


def test_the_best_is_the_highest(tmp_path: Path) -> None:
    record = Record(tmp_path, "BC", ["hopper"], [], ended(0.1, None, 0.9, 0.5), [], {})
    assert [trial.number for trial in record.best(2)] == [2, 3]
    record.save()
    assert load_record(tmp_path) == record


def test_a_space_from_file_and_command_line() -> None:
    typed = parse_overrides(["algorithm=BC", "training.batch_size=64", "bc_pretraining.weight_decay=interval(0,1)"])
    space, rest = search_space(None, "BC", typed)
    assert space.parameters == (
        Interval("bc_pretraining.iterations", 1000, 100000, True, False),
        Interval("bc_pretraining.learning_rate", 3e-5, 3e-4, False, False),
        Interval("bc_pretraining.weight_decay", 0.0, 1.0, False, False),
    )
    assert rest == ["algorithm=BC", "training.batch_size=64"]  # typed, hence not searched
    check_ends(space, rest)


def test_a_learner_has_a_space_of_its_own() -> None:
    for typed, expected in (
        (["learner=ppo"], "GAIL_ppo"),
        (["learner=sac"], "GAIL"),
        ([], "GAIL"),
    ):
        assert search_space(None, "GAIL", parse_overrides(typed))[0] == search_space(expected, "GAIL", [])[0]
    assert search_space("GAIL", "GAIL", []) != search_space("GAIL_ppo", "GAIL", [])


def test_a_space_may_rest_on_another_and_fix_values() -> None:
    space, _ = search_space(None, "DRIL", parse_overrides(["algorithm=DRIL"]))
    assert Choice("training.start", (1000, 10000)) in space.parameters
    assert space.fixed == ("imitation.uncertainty=dropout",)
    assert space.overrides({"a.b": True, "c": 3e-05}) == ["imitation.uncertainty=dropout", "a.b=true", "c=3e-05"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("training.batchsize=1,2", ["training.batchsize", "not a key"]),
        ("training.learning_rate=interval(1,1)", ["empty"]),
        ("training.learning_rate=interval(-1,1)", ["training.learning_rate", "above 0"]),
        ("training.learning_rate=tag(log,interval(0,1))", ["logarithmic"]),
        ("training.batch_size=range(3,3)", ["empty"]),
        ("training.batch_size=1,many", ["one kind"]),
        ("seed=1,2", ["seed is not searched"]),
        ("env=hopper,ant", ["train_all.py"]),
        ("trials=0", ["trials=0"]),
        ("hyperparameter_search_space=nothing", ["hyperparameter_search_space=nothing", "GAIL"]),
        ("hyperparameter_search_space=none", ["nothing to search"]),
        ("hydra/sweeper=optuna", ["basic", "ax"]),
    ],
)
def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, words: list[str]) -> None:
    pytest.importorskip("ax")
    monkeypatch.chdir(tmp_path)
    assert_refused(run("-m", "hydra/sweeper=ax", "algorithm=BC", typed), *words)
    assert not list(tmp_path.iterdir())


def test_ax_maximises_and_is_told_the_noise() -> None:
    """In a process of its own: the libraries that it imports warn, and change how this one logs."""
    pytest.importorskip("ax")
    program = """
import json
from training.sweeps.ax_search import AxSearch
from training.sweeps.space import Choice, Interval, Space
search = AxSearch.begin(Space((Interval("x", 0.0, 1.0, False, False), Choice("flag", (True, False))), ()), 0)
for number, values in search.propose(3):
    search.complete(number, values["x"], 0.25)
again = AxSearch.load(search.state())
((failed, _),) = again.propose(1)
again.fail(failed, "planted")
best, metrics, trial, _ = again.client.get_best_parameterization(use_model_predictions=False)
told = again.client.summarize()
print(json.dumps([best["x"], max(told["score"].dropna()), metrics["score"][1], list(told["trial_status"])]))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    best, highest, variance, states = json.loads(said.stdout.splitlines()[-1])
    assert best == pytest.approx(highest)
    assert variance == pytest.approx(0.25**2)
    assert states == ["COMPLETED"] * 3 + ["FAILED"]


def test_killed_and_resumed(tmp_path: Path) -> None:
    pytest.importorskip("ax")
    process = Process("train.py", *SEARCH, f"output_folder={tmp_path}")
    try:
        wait_for(lambda: bool(list(tmp_path.glob("BC_pendulum_sweeper/*/1/*/evaluations.csv"))))
    finally:
        process.kill()
        process.wait()
    (folder,) = tmp_path.glob("BC_pendulum_sweeper/*")
    before = load_record(folder)
    assert before.completed
    resumed = run_apart(f"resume_sweep={folder}")
    assert resumed.status == 0, resumed.error
    record = load_record(folder)
    assert [trial.state for trial in record.trials] == ["completed"] * 2
    assert record.trials[: len(before.completed)] == before.completed
    for trial in record.trials:
        assert trial.seeds == [0, 1]
        assert trial.mean == pytest.approx(sum(trial.scores) / 2)
        assert trial.standard_error == pytest.approx(abs(trial.scores[0] - trial.scores[1]) / 2)
    assert [trial.seeds for trial in record.finals] == [[2], [2]]
    assert {trial.name for trial in record.finals} == {record.best()[0].name, "default"}
    assert "on fresh seeds" in resumed.output
    presets = list(folder.glob("BC_5_trajectories.yaml"))
    winner = max(record.finals, key=lambda trial: trial.mean if trial.mean is not None else -math.inf)
    assert len(presets) == (winner.name != "default")


def test_what_it_is_about_may_not_change(tmp_path: Path) -> None:
    """Scores on other environments, or by other settings, cannot be compared with those that were."""
    Plan(tmp_path, OPTIMISATION, "", ["algorithm=BC", "env=pendulum", "trials=3"], []).save()
    resume = f"resume_sweep={tmp_path}"
    refuse_changes(parse_overrides([resume, "trials=5", "launcher.workers=1", "env=pendulum"]))
    for line in ("env=hopper", "bc_pretraining.iterations=20", "objective=mean", "training.batch_size=4"):
        with pytest.raises(UserError, match=re.escape(line) + " is not what the optimisation"):
            refuse_changes(parse_overrides([resume, line]))


def test_presets_are_installed_once(tmp_path: Path) -> None:
    presets, folder = tmp_path / "presets", tmp_path / "sweep"
    presets.mkdir()
    folder.mkdir()
    with pytest.raises(UserError, match="no preset"):
        install(folder, presets)
    (folder / "BC_5_trajectories.yaml").write_text("a: 1\n")
    assert install(folder, presets) == install(folder, presets)
    (folder / "BC_5_trajectories.yaml").write_text("a: 2\n")
    with pytest.raises(UserError, match="exists"):
        install(folder, presets)
    assert preset_name("BC", ["imitation.trajectories=5"]) == "BC_5_trajectories.yaml"
    assert preset_name("BC", []) == "BC_all_trajectories.yaml"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "trials": [{}], "finals": []}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match="optimisation"):
        load_record(tmp_path)


def test_the_kept_optimisation_is_as_its_page_says(tmp_path: Path) -> None:
    folder = Path(__file__).resolve().parents[3] / "docs" / "results" / "optimisation_bc"
    record, page = load_record(folder), (folder / "README.md").read_text()
    assert [trial.state for trial in record.trials] == ["completed"] * 30
    searched = {trial.number: trial for trial in record.trials}
    assert [trial.number for trial in record.best(3)] == [22, 16, 27]
    for trial in record.finals:
        assert trial.mean == pytest.approx(np.mean(trial.scores))
        assert trial.standard_error == pytest.approx(np.std(trial.scores, ddof=1) / math.sqrt(5))
        before = "" if trial.number is None else described(searched[trial.number])
        (row,) = re.findall(rf"^\| (?:trial )?{trial.name}\b.*$", page, re.MULTILINE)
        assert row.endswith(f"| {before} | {described(trial)} |")
    write(tmp_path / "trials.csv", record)
    assert (tmp_path / "trials.csv").read_text() == (folder / "trials.csv").read_text()
