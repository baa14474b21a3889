"""From overrides with several values to jobs."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from conf.errors import UserError
from tests.training.sweeps.helpers import written_run
from training.cli import CONF
from training.config import Config, register_schemas
from training.explain import parse_overrides
from training.folder import read_status, write_json
from training.sweeps.grid import opened, planned_jobs, replaced
from training.sweeps.job import quoted
from training.sweeps.options import JointConfig, SweepConfig
from training.sweeps.plan import (
    GRID,
    JOINT,
    Job,
    Plan,
    composed_with_hydra,
    fixed_value,
    grid,
    load_plan,
    own_overrides,
    packed,
    planned,
    stretches,
)
from training.sweeps.states import job_state
from training.sweeps.summary import unfinished


def test_a_grid_has_every_combination_in_order() -> None:
    typed = parse_overrides(["algorithm=SAC", "seed=1,2", "steps=range(10,12)"])
    assert grid(typed) == [
        ("algorithm=SAC", "seed=1", "steps=10"),
        ("algorithm=SAC", "seed=1", "steps=11"),
        ("algorithm=SAC", "seed=2", "steps=10"),
        ("algorithm=SAC", "seed=2", "steps=11"),
    ]


@pytest.mark.parametrize(
    ("text", "words"), [("seed=range(1,1)", "no values"), ("training.learning_rate=interval(0,1)", "no steps")]
)
def test_what_is_no_grid(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        grid(parse_overrides([text]))


def test_stretches_of_neighbours() -> None:
    assert stretches([3, 1, 2, 7], 2) == [(1, 2), (3, 1), (7, 1)]
    assert stretches([1, 2, 3, 4, 5], 5) == [(1, 5)]


def test_packing_joins_neighbouring_seeds_alone() -> None:
    runs = grid(parse_overrides(["seed=1,2,4", "steps=10,20"]))
    assert packed(runs, 5) == [
        ("steps=10", "seed=1", "runs=2"),
        ("steps=10", "seed=4"),
        ("steps=20", "seed=1", "runs=2"),
        ("steps=20", "seed=4"),
    ]
    assert packed(runs, 1) == runs
    with pytest.raises(UserError, match="leave runs out"):
        packed([("seed=1", "runs=2")], 5)


def test_what_changes_no_result_makes_no_new_job() -> None:
    base = planned("0", ["algorithm=SAC", "env=pendulum"])
    for same in ("threads=4", "logging.interval=5", "checkpoint.interval=7", "output_folder=elsewhere", "seed=0"):
        assert planned("1", ["algorithm=SAC", "env=pendulum", same]).key == base.key
    for other in ("seed=1", "steps=5", "training.batch_size=8", "evaluation.interval=5"):
        assert planned("1", ["algorithm=SAC", "env=pendulum", other]).key != base.key


def test_a_changed_grid_only_adds_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(tmp_path, GRID, "", [], [])
    plan.jobs += planned_jobs(grid(parse_overrides(["algorithm=SAC", "seed=1,2"])), plan)
    assert [job.name for job in plan.jobs] == ["0", "1"]
    more = planned_jobs(grid(parse_overrides(["algorithm=SAC", "steps=1000000", "seed=2,3,3"])), plan)
    assert [(job.name, job.overrides[-1]) for job in more] == [("2", "seed=3")]  # written otherwise, but the same
    assert "2 runs are the same" in capsys.readouterr().err


def test_what_is_typed_again_replaces_what_was_typed_before() -> None:
    lines = [override.input_line for override in replaced(["algorithm=SAC", "seed=1,2"], parse_overrides(["seed=1,3"]))]
    assert lines == ["algorithm=SAC", "seed=1,3"]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "sweep", GRID, "train.py -m seed=1", ["seed=1"], [Job("0", ("seed=1",), "k")])
    plan.save()
    assert load_plan(plan.folder) == plan
    assert load_plan(plan.folder).job("0").key == "k"
    with pytest.raises(UserError, match="no job 1"):
        plan.job("1")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "jobs": [3]}', '{"format": 9}'])
def test_a_damaged_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError, match=r"sweep\.json"):
        load_plan(tmp_path)


def test_folders_are_named_after_everything_swept() -> None:
    typed = parse_overrides(["algorithm=BC,GAIL", "seed=1,2"])
    assert fixed_value(typed, "algorithm", "") == "BC-GAIL"
    assert fixed_value(typed, "env", "hopper") == "hopper"
    assert fixed_value(parse_overrides(["env.id=module:One-v0,'a b',3"]), "env.id", "") == "module:One-v0-a b-3"


@pytest.mark.parametrize("text", ["a\\b", "a:b", "it's", "a\\'b", "end\\", "x y,z=1", 'q"x', "[1]"])
def test_a_quoted_path_is_read_back(text: str) -> None:
    (override,) = parse_overrides([f"resume={quoted(Path(text))}"])
    assert override.value() == text


def composed_by_hydra(overrides: list[str]) -> DictConfig:
    register_schemas()
    with initialize_config_dir(str(CONF)):
        return compose("config", overrides, return_hydra_config=True)


@pytest.mark.parametrize(
    "typed",
    [
        "algorithm=GAIL seed=3",
        "seed=4 algorithm=GAIL",
        "training.batch_size=9 env=ant algorithm=GAIL env.version=v5 training.batch_size=12",  # the last one counts
        "algorithm=DAgger optimised_hyperparameters=DAgger_seals_ant imitation.round_min_episodes=0 seed=1",
        "algorithm=AIRL learner=ppo env=seals_ant reinforcement.clip_range=nan imitation.model.reward_shaping=1",
        "output_folder='it,s' algorithm=SAC env.id=${env.name}-${seed} env=custom device=cuda:0",
        "algorithm=SAC ++steps=5 steps=6",
        "algorithm=SAC steps=7 ++steps=5",
        "algorithm=SAC steps=7 hydra.job.name=other hydra/job_logging=none seed=1",
    ],
)
def test_configurations_are_as_hydra_composes_them(typed: str) -> None:
    overrides = typed.split()
    expected = composed_by_hydra(overrides)
    found = composed_with_hydra(overrides)
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)  # NaN included
    assert OmegaConf.get_type(found) is Config and OmegaConf.is_struct(found)
    found.threads = 7  # nobody else's
    assert composed_with_hydra(overrides).threads == 1


@pytest.mark.parametrize(
    "typed",
    [
        "algorithm=GIAL seed=3",
        "algorithm=SAC steps=many",
        "algorithm=SAC steps.x=1",
        "algorithm=SAC training=5",
        "algorithm=SAC imitation.grad_penalty=1",
        "algorithm=SAC sead=5",
        "algorithm=SAC +steps=5",
        "algorithm=SAC steps=1,2",
    ],
)
def test_what_hydra_refuses_is_refused_in_its_words(typed: str) -> None:
    overrides = typed.split()
    with pytest.raises(HydraException) as expected:
        composed_by_hydra(overrides)
    with pytest.raises(HydraException) as found:
        composed_with_hydra(overrides)
    assert (type(found.value), str(found.value)) == (type(expected.value), str(expected.value))


def test_only_what_differs_is_shown() -> None:
    jobs = [Job("0", ("a=1", "seed=1"), ""), Job("1", ("a=1", "seed=2"), "")]
    assert own_overrides(jobs) == {"0": "seed=1", "1": "seed=2"}


def test_what_began_a_sweep_goes_on_with_it(tmp_path: Path) -> None:
    Plan(tmp_path, GRID, "", ["algorithm=SAC"], []).save()
    typed = parse_overrides([f"resume_sweep={tmp_path}"])
    assert opened(typed, SweepConfig, GRID)[2].overrides == ["algorithm=SAC"]
    with pytest.raises(UserError, match=r"was begun by train\.py -m, which goes on with it"):
        opened(typed, JointConfig, JOINT)


def test_a_job_whose_files_are_damaged_has_not_finished(tmp_path: Path) -> None:
    jobs = [planned(name, ["algorithm=SAC", "env=pendulum", f"seed={name}"]) for name in "123"]
    for job in jobs:
        written_run(tmp_path / job.name, {int(job.name): [0.5]})
    assert unfinished(tmp_path, jobs) == []
    (tmp_path / "1" / ".hydra" / "config.yaml").write_text("seed: [")
    (tmp_path / "2" / "evaluations.csv").write_text("phase,st")
    first, second = unfinished(tmp_path, jobs)
    assert first.startswith("1 (seed=1) damaged: its configuration") and str(tmp_path / "1") in first
    assert second.startswith("2 (seed=2) damaged")


@pytest.mark.parametrize("content", [{"state": "weird"}, {"state": "finished", "step": None}, {"step": 3}])
def test_a_status_of_another_kind_is_none(tmp_path: Path, content: dict[str, object]) -> None:
    write_json(tmp_path / "status.json", content)
    assert read_status(tmp_path) == {}
    assert job_state(tmp_path).state == "waiting"
