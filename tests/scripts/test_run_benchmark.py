"""A suite of runs: which jobs it has, how long they are said to take, and that failures stay alone."""

import contextlib
import io
import math
import shlex
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch

from algorithms.base import Metrics
from conf.errors import UserError
from scripts import run_benchmark, run_times
from scripts.command_line import duration
from tests.training.commands import QUICK, Outcome, assert_refused, fingerprint, status_of
from tests.training.helpers import configured
from tests.warm import run_apart
from training.explain import parse_overrides
from training.folder import read_table, write_json
from training.phases import Interaction
from training.sweeps.options import BenchmarkConfig, LocalConfig, RayConfig, SlurmConfig
from training.sweeps.plan import planned

PROGRAM = "scripts/run_benchmark.py"


def run(*arguments: str) -> Outcome:
    output, error, status = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["run_benchmark.py", *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
    ):
        try:
            run_benchmark.main()
        except SystemExit as exit:
            status = int(exit.code or 0)
    return Outcome(status, output.getvalue(), error.getvalue())


def suite(config: BenchmarkConfig, *typed: str) -> list[tuple[str, ...]]:
    return run_benchmark.suite(parse_overrides(typed), config)


def test_each_with_each_and_only_what_applies() -> None:
    """BC takes no steps; SAC uses no demonstrations, so that their number makes no difference."""
    typed = ("algorithm=BC,SAC", "imitation.trajectories=5,10", "steps=70", "seed=1,2")
    assert suite(BenchmarkConfig(), *typed) == [
        ("algorithm=BC", "imitation.trajectories=5", "seed=1"),
        ("algorithm=BC", "imitation.trajectories=5", "seed=2"),
        ("algorithm=BC", "imitation.trajectories=10", "seed=1"),
        ("algorithm=BC", "imitation.trajectories=10", "seed=2"),
        ("algorithm=SAC", "steps=70", "seed=1"),
        ("algorithm=SAC", "steps=70", "seed=2"),
    ]


def test_presets_are_those_of_the_environment_or_of_the_number_of_trajectories() -> None:
    found = suite(
        BenchmarkConfig(presets=True), "algorithm=GAIL,SAC", "env=hopper,seals_hopper", "imitation.trajectories=0,25"
    )
    assert [run[-1] for run in found] == [
        "imitation.trajectories=0",  # tuned for 5, 10 and 25 only
        "optimised_hyperparameters=GAIL_25_trajectories",
        "optimised_hyperparameters=GAIL_seals_hopper",
        "optimised_hyperparameters=GAIL_seals_hopper",
        "env=hopper",  # of SAC: there is none
        "env=seals_hopper",
    ]
    for run in found:
        planned("0", run)  # they make configurations


def test_demonstrations_are_those_of_the_environment(tmp_path: Path) -> None:
    for name in ("hopper_expert-v2.hdf5", "walker2d.hdf5"):
        (tmp_path / name).touch()
    config = BenchmarkConfig(demonstrations=str(tmp_path))
    found = suite(config, "algorithm=BC,SAC", "env=hopper,walker2d")
    assert [parse_overrides([run[-1]])[0].value() for run in found] == [
        str(tmp_path / "hopper_expert-v2.hdf5"),
        str(tmp_path / "walker2d.hdf5"),
        "hopper",
        "walker2d",
    ]
    with pytest.raises(UserError, match="expected one file ant"):
        suite(config, "algorithm=BC", "env=ant")


def test_estimates_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """2500 iterations of 0.01 s, and evaluations of 5 s after 1000, 2000 and 2500."""
    monkeypatch.setattr(run_times, "_seconds_of_a_step", lambda *_: 0.01)
    monkeypatch.setattr(run_times, "_seconds_of_an_evaluation", lambda *_: 5.0)
    typed = ("algorithm=BC", "env=pendulum", "bc_pretraining.iterations=2500", "evaluation.interval=1000")
    assert run_times.estimated_seconds(typed) == pytest.approx(40.0, abs=0.1)
    # with 500 pretraining updates, not evaluated, and 300 steps with one evaluation
    typed = ("algorithm=RED", "env=pendulum", "imitation.pretraining.iterations=500", "steps=300")
    assert run_times.estimated_seconds(typed) == pytest.approx(13.0, abs=1.0)  # thresholds are really measured


class Rollouts(Interaction):
    """Steps of 4 environments that take 2 s on a clock of their own; updates come after 8."""

    def __init__(self, length: int = 1000) -> None:
        self.clock, self.length, self.stride = 0.0, length, 4

    def advance(self) -> Metrics:
        self.clock += 2.0
        return {}


def test_steps_are_timed_in_whole_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warm-up ends at 20 s; then 8 steps in 4 s, though the second that there is to spend is over after 4 steps."""
    phase = Rollouts()
    monkeypatch.setattr(time, "perf_counter", lambda: phase.clock)
    config = configured("algorithm=PPO", "env=pendulum", "training.interval=8", "training.batch_size=8")
    assert run_times._seconds_of_a_step(phase, config) == 0.5
    assert phase.clock == 24.0


@pytest.mark.parametrize(("length", "clock"), [(40, 14.0), (12, 6.0), (4, 2.0), (1, 2.0)])
def test_a_short_phase_is_not_over_before_it_is_timed(
    length: int, clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most half of it warms up: of 40 steps 20, in 5 times 2 s, then 8 in 4 s; of 4 none, then 4 in 2 s."""
    phase = Rollouts(length)
    monkeypatch.setattr(time, "perf_counter", lambda: phase.clock)
    config = configured("algorithm=PPO", "env=pendulum", "training.interval=8", "training.batch_size=8")
    assert run_times._seconds_of_a_step(phase, config) == 0.5
    assert phase.clock == clock


def test_a_phase_that_stops_within_the_warm_up_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    phase = Rollouts()
    monkeypatch.setattr(run_times, "_synchronise", lambda _: setattr(phase, "length", 40))  # 10 times 4
    assert run_times._seconds_of_a_step(phase, configured("algorithm=PPO", "env=pendulum")) == 0.0


@pytest.mark.parametrize("algorithm", ["PPO", "GAIL"])
def test_real_runs_are_timed(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_times, "BUDGET", 0.01)
    typed = (f"algorithm={algorithm}", "env=pendulum", "steps=4000", "evaluation.episodes=1")
    assert 0.01 < run_times.estimated_seconds(typed) < 4000


def test_of_dagger_nothing_is_known() -> None:
    expert = "imitation.expert=tests.training.test_aggregation:swing"
    assert math.isnan(run_times.estimated_seconds(("algorithm=DAgger", "env=pendulum", expert)))


def test_jobs_side_by_side() -> None:
    seconds = [10.0, 10.0, 10.0, 60.0]
    assert run_benchmark.at_once(seconds, LocalConfig(workers=2)) == ", 60 s with 2 jobs at once"  # the longest
    assert run_benchmark.at_once(seconds, LocalConfig(workers=1)) == ", 90 s with 1 jobs at once"
    assert run_benchmark.at_once([10.0] * 4, SlurmConfig(array=100)) == ", 10 s with 4 jobs at once"
    assert run_benchmark.at_once(seconds, RayConfig()) == ""


def test_durations() -> None:
    found = [duration(seconds) for seconds in (45.4, 720.0, 12240.0, math.nan, math.inf)]
    assert found == ["45 s", "12 min", "3.4 h", "unknown", "never"]


def test_a_dry_run_prints_commands_and_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_times, "BUDGET", 0.01)
    outcome = run(
        "algorithm=BC,SAC", "env=pendulum", "seed=1,2", "steps=40", "--dry-run",
        "evaluation.episodes=1", "env.demonstrations=a b.hdf5",
    )  # fmt: skip
    assert outcome.status == 1, outcome.error  # there are no such demonstrations
    assert "2  cannot begin  algorithm=BC" in outcome.error
    assert " of computing, " in outcome.error
    commands = [shlex.split(line) for line in outcome.output.splitlines()]
    assert [command[:3] for command in commands] == [["python", "train.py", "algorithm=BC"]] * 2 + [
        ["python", "train.py", "algorithm=SAC"]
    ] * 2
    assert [command[-1] for command in commands] == ["seed=1", "seed=2"] * 2
    assert not list(tmp_path.iterdir())


def test_devices_that_are_not_here_are_refused_unless_jobs_run_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    job = ("algorithm=SAC", "env=pendulum", "steps=40", "device=cuda")
    with pytest.raises(UserError, match="device=cuda is not there"):
        run_times.estimated_seconds(job)
    assert math.isnan(run_times.estimated_seconds(job, elsewhere=True))
    with pytest.raises(UserError, match=r"env\.num_envs=0"):
        run_times.estimated_seconds((*job, "env.num_envs=0"), elsewhere=True)


def test_a_dry_run_counts_no_job_of_the_folder_that_it_is_run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "status.json", {"state": "finished"})
    (tmp_path / "0").mkdir()
    write_json(tmp_path / "0" / "status.json", {"state": "finished"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_benchmark, "estimated_seconds", lambda *_: 1.0)
    outcome = run("algorithm=SAC", "env=pendulum", "seed=1,2", "--dry-run")
    assert outcome.status == 0, outcome.error
    assert [line.split()[-1] for line in outcome.output.splitlines()] == ["seed=1", "seed=2"]


def test_a_failure_stays_alone_and_a_resumed_suite_repeats_nothing(tmp_path: Path) -> None:
    typed = ("algorithm=SQIL,SAC", "imitation.trajectories=5", "steps=40", *QUICK, f"output_folder={tmp_path}")
    first = run_apart(*typed, "seed=1", "training.learning_rate=1e30,1e-3", program=PROGRAM)
    assert first.status == 1, first.error
    (folder,) = tmp_path.glob("benchmark/*")
    assert [status_of(folder / str(number))["state"] for number in range(4)] == [
        *("failed", "finished"),
        *("failed", "finished"),
    ]
    assert "not finished: 0 (" in first.error and "is not finite" in first.error
    for ending in ("csv", "md"):
        assert (folder / f"report.{ending}").stat().st_size > 100
    before = {name: fingerprint(folder / name) for name in ("1", "3")}

    again = run_apart(f"resume_sweep={folder}", "seed=1,2", "training.learning_rate=1e-3", program=PROGRAM)
    assert again.status == 1  # what failed still belongs to the suite, and fails again
    assert {name: fingerprint(folder / name) for name in ("1", "3")} == before
    rows = read_table(folder / "report.csv")
    finished = [(row["algo"], row["seed"]) for row in rows if row["state"] == "finished"]
    assert sorted(finished) == [("SAC", "1"), ("SAC", "2"), ("SQIL", "1"), ("SQIL", "2")]

    left = run(f"resume_sweep={folder}", "--dry-run")
    assert [line.split()[2] for line in left.output.splitlines()] == ["algorithm=SQIL", "algorithm=SAC"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", ["algorithm=<name> is missing"]),
        ("algorithm=BC,GIAL", ["algorithm=GIAL", "did you mean 'GAIL'?"]),
        ("algorithm=BC presets=2", ["presets=2", "true or false"]),
        ("algorithm=BC presets=true optimised_hyperparameters=BC_5_trajectories", ["presets=true", "one of the two"]),
        ("algorithm=BC demonstrations=nowhere", ["demonstrations=nowhere", "expected one file hopper*"]),
        ("algorithm=BC measure=worst", ["measure=worst", "final, best, mean"]),
        ("algorithm=BC objective=min", ["objective", "expected one of"]),
        ("algorithm=BC seed=range(1,1)", ["no values"]),
        ("algorithm=BC --nonsense", ["unrecognized arguments: --nonsense"]),
        ("resume_sweep=nowhere", ["nowhere", "no sweep.json"]),
    ],
)
def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*typed.split()), *words)
    assert not list(tmp_path.iterdir())
