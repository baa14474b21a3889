"""All environments together."""

import json
import math
from pathlib import Path

import pytest

from conf.errors import UserError
from tests.training.commands import QUICK, assert_refused
from tests.training.sweeps.helpers import run_all, written_run
from tests.warm import run_apart
from training.explain import parse_overrides
from training.sweeps.joint import BENCHMARK, chosen_environments, joint_score, joint_scores, new_jobs, score_of
from training.sweeps.plan import JOINT, Plan, planned
from training.sweeps.results import read_run


def test_the_joint_score_is_the_minimum_or_the_mean() -> None:
    scores = {"hopper": 0.5, "ant": 0.9}
    assert joint_score(scores, ["hopper", "ant"], "min") == 0.5
    assert joint_score(scores, ["hopper", "ant"], "mean") == pytest.approx(0.7)
    assert math.isnan(joint_score(scores, ["hopper", "ant", "walker2d"], "min"))
    assert math.isnan(joint_score({"hopper": math.nan}, ["hopper"], "mean"))


def test_each_seed_has_a_joint_score_of_its_own(tmp_path: Path) -> None:
    """The minimum of each seed, and not the minimum of means: (0.1 + 0.2) / 2, not min(0.45, 0.6)."""
    first = read_run(written_run(tmp_path / "a", {0: [0.1], 1: [0.8]}))
    second = read_run(written_run(tmp_path / "b", {0: [1.0], 1: [0.2]}, "env=hopper"))
    assert joint_scores([*first, *second], ["pendulum", "hopper"], "min", "final") == {0: 0.1, 1: 0.2}


def test_measures(tmp_path: Path) -> None:
    folder = written_run(tmp_path / "a", {0: [0.0, 0.6, 0.3]})
    assert score_of(folder, "final") == 0.3
    assert score_of(folder, "mean") == pytest.approx(0.3)
    assert read_run(folder)[0].measured("best") == 0.6
    assert math.isnan(score_of(written_run(tmp_path / "b", {0: [1.0]}, state="failed"), "final"))
    assert math.isnan(score_of(tmp_path / "nothing", "final"))


def test_which_environments(tmp_path: Path) -> None:
    assert list(chosen_environments(parse_overrides(["algorithm=BC"]), None)[0]) == list(BENCHMARK)
    chosen, shared = chosen_environments(parse_overrides(["algorithm=BC", "env=hopper,ant", "steps=5"]), None)
    assert (chosen, shared) == ({"hopper": ("env=hopper",), "ant": ("env=ant",)}, ["algorithm=BC", "steps=5"])
    (tmp_path / "ant_expert-v2.hdf5").touch()
    ((_, override),) = chosen_environments(parse_overrides(["env=ant"]), str(tmp_path))[0].values()
    assert parse_overrides([override])[0].value() == str(tmp_path / "ant_expert-v2.hdf5")
    with pytest.raises(UserError, match="expected one file hopper"):
        chosen_environments(parse_overrides(["env=hopper"]), str(tmp_path))


def test_one_environment_fails_and_the_others_finish(tmp_path: Path) -> None:
    """Discrete actions need another learner."""
    quick = [argument for argument in QUICK if argument != "env=pendulum"]
    typed = (
        "algorithm=BC",
        "env=cartpole,pendulum",
        "bc_pretraining.iterations=3",
        *quick,
        f"output_folder={tmp_path}",
    )
    outcome = run_apart(*typed, program="train_all.py")
    assert outcome.status == 1
    assert "not finished: cartpole" in outcome.error
    assert "joint score (min over environments, final): unknown" in outcome.error
    (folder,) = tmp_path.glob("BC_all/*")
    content = json.loads((folder / "result.json").read_text())
    assert content["score"] is None
    assert content["environments"]["cartpole"] is None
    assert math.isfinite(content["environments"]["pendulum"])
    assert (folder / "pendulum" / "result.json").exists()


def test_environments_are_added_with_the_settings_of_the_others(tmp_path: Path) -> None:
    shared, hopper, pendulum = ["algorithm=BC"], ("env=hopper",), ("env=pendulum",)
    plan = Plan(tmp_path, JOINT, "", [], [planned("hopper", [*shared, *hopper])])
    both = {"hopper": hopper, "pendulum": pendulum}
    for environments in (both, {"pendulum": pendulum}):
        assert [job.name for job in new_jobs(environments, shared, plan, None)] == ["pendulum"]
        with pytest.raises(UserError, match=r"env=hopper was planned .* with other settings"):
            new_jobs(environments, [*shared, "seed=7"], plan, None)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("algorithm=BC objective=max", ["objective=max", "min, mean"]),
        ("algorithm=BC seed=1,2", ["seed=1,2", "runs=<n>"]),
        ("algorithm=BC env=hopper,moon", ["env=moon", "expected one of"]),
        ("algorithm=BC env.id=Hopper-v4", ["env.id", "env=<name>"]),
        ("algorithm=BC trials=3", ["trials", "expected one of"]),
        ("algorithm=BC --install", ["--install", "add -m"]),
        ("algorithm=BC --cfg job", ["does not print configurations", "train.py algorithm=<name> --cfg job"]),
        ("resume=somewhere", ["resume goes on with one run", "train.py"]),
    ],
)
def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run_all(*typed.split()), *words)
    assert not list(tmp_path.iterdir())
