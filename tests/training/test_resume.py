"""A run that was stopped and resumed equals one that was not, bit for bit."""

import os
import random
import signal
import time
from pathlib import Path

import h5py
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from algorithms import IMITATION_MODULES
from conf.errors import UserError
from tests.training.commands import fingerprint
from tests.training.helpers import SMALL, composed, configured, hopper_demonstrations
from tests.warm import Process, run_apart
from training import checkpoint
from training.build import build
from training.config import Config, imitation_class, parse
from training.folder import Status, mark_ended, read_status, read_table
from training.loop import Loop
from training.run import check_unchanged, open_run

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

KILLS = int(os.environ.get("KILLS", "2"))

ROLLOUTS = ("training.start=0", "training.interval=40", "training.batch_size=16", "env.num_envs=4")

RUNS = {
    "SAC": ["algorithm=SAC"],
    "SAC, running statistics": [
        *("algorithm=SAC", "runs=2", "env.normalise_observations=true", "reinforcement.actor_averaging=0.9"),
    ],
    "SAC bf16, two environments": ["algorithm=SAC", "precision=bf16", "env.num_envs=2"],
    "BC": ["algorithm=BC", "bc_pretraining.iterations=150"],
    "BC, epochs with early stopping": [
        *("algorithm=BC", "learner=ppo", "env.num_envs=1", "runs=2", "reinforcement.normalise_observations=true"),
        *("bc_pretraining.iterations=0", "bc_pretraining.epochs=60", "bc_pretraining.learning_rate=0.01"),
        *("bc_pretraining.minibatch_size=8", "bc_pretraining.entropy_weight=0.001", "bc_pretraining.l2_weight=0.001"),
        *("bc_pretraining.validation_share=0.3", "bc_pretraining.patience=30"),
    ],
    "GAIL": ["algorithm=GAIL", "bc_pretraining.iterations=60", "imitation.model.dropout=0.5", "runs=2"],
    "AdRIL, normalised": ["algorithm=AdRIL", "runs=2", "env.normalise_observations=true"],
    "PWIL": ["algorithm=PWIL", "env.num_envs=2", "imitation.mix_expert_data=prefill_memory"],
    "RED": ["algorithm=RED", "imitation.pretraining.iterations=60"],
    "DRIL": ["algorithm=DRIL", "imitation.pretraining.iterations=60", "imitation.uncertainty=dropout"],
    "GMMIL": ["algorithm=GMMIL"],
    "constant": ["algorithm=constant", "imitation.absorbing=false"],
    "AIRL, Mixup, auxiliary loss, prefilled": [
        "algorithm=AIRL",
        "imitation.loss_function=Mixup",
        "imitation.bc_aux_loss=true",
        "imitation.mix_expert_data=prefill_memory",
    ],
    "PPO": [
        "algorithm=PPO",
        *ROLLOUTS,
        "runs=2",
        "reinforcement.normalise_observations=true",
        "reinforcement.target_kl=0.01",
        "training.learning_rate_schedule=linear",
    ],
    "GAIL on PPO": [
        *("algorithm=GAIL", "learner=ppo", "imitation.allow_variable_horizon=true"),
        *ROLLOUTS,
        *("runs=2", "imitation.batch_size=12", "imitation.buffer_size=70"),
    ],
    "AIRL on PPO, cloning": [
        *("algorithm=AIRL", "learner=ppo", "imitation.allow_variable_horizon=true"),
        *ROLLOUTS,
        *("bc_pretraining.iterations=10", "imitation.bc_aux_loss=true"),
    ],
    "DAgger on PPO": [
        *("algorithm=DAgger", "learner=ppo", "env=pendulum", "env.num_envs=2", "runs=2", "training.batch_size=16"),
        *("imitation.expert=tests.training.test_aggregation:swing", "reinforcement.normalise_observations=true"),
        *("imitation.round_min_steps=10", "imitation.round_min_episodes=1", "imitation.cloning.epochs=2"),
        *("imitation.beta_schedule=exponential", "imitation.expert_episodes=1"),
    ],
    "PPO, discrete": ["algorithm=PPO", *ROLLOUTS, "env=cartpole"],
}

STOPS = {  # calls; 65 elsewhere
    "BC": 85,
    "BC, epochs with early stopping": 93,
    "SAC bf16, two environments": 33,
    "PWIL": 33,
    **dict.fromkeys(("GAIL", "RED", "DRIL"), 125),  # 60 of them before the first step
} | {name: 38 for name in RUNS if "PPO" in name}
LONG = [name for name in RUNS if "PPO" in name or name.startswith("BC")]  # rollouts have 40 steps, updates are cheap
HALVED = ("training.start=25", "evaluation.interval=50", "logging.interval=25", "checkpoint.interval=25")


def arguments(name: str, folder: Path, steps: int, *options: str) -> list[str]:
    extra = [] if name.startswith("BC") else [f"steps={steps}"]
    small = [option for option in SMALL if "learner=ppo" not in RUNS[name] or "training.start" not in option]
    return [*small, *options, *RUNS[name], f"env.demonstrations={folder / 'demonstrations.hdf5'}", *extra]


def start(name: str, folder: Path, output: str, steps: int, resumed: dict[str, object] | None = None) -> Loop:
    return opened(configured(*arguments(name, folder, steps)), folder, output, resumed)


def opened(config: Config, folder: Path, output: str, resumed: dict[str, object] | None = None) -> Loop:
    (folder / output).mkdir(exist_ok=True)
    return Loop(config, build(config), folder / output, resumed)


def state_of(path: Path) -> dict[str, object]:
    state = checkpoint.load(path / "checkpoint.pt")
    for timing in ("seconds", "records"):
        state.pop(timing)
    return state


def assert_same(first: object, second: object, where: str = "") -> None:
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, (list, tuple)):
        assert isinstance(second, (list, tuple))
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{where}/{index}")
    elif isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert torch.equal(first.nan_to_num(123.0), second.nan_to_num(123.0)), where
    else:
        assert first == second, where


def without_time(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_table(folder / "evaluations.csv")]


def test_every_module_is_stopped() -> None:
    stopped = {imitation_class(configured(*options)) for options in RUNS.values()}
    assert stopped == set(IMITATION_MODULES.values())


@pytest.mark.parametrize("name", RUNS)
def test_steps_equal_steps_with_a_stop_between(name: str, tmp_path: Path) -> None:
    assert_goes_on(name, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", RUNS)
def test_steps_equal_steps_with_a_stop_between_on_a_gpu(name: str, tmp_path: Path) -> None:
    assert_goes_on(name, tmp_path, "device=cuda")


def assert_goes_on(name: str, tmp_path: Path, *options: str) -> None:
    """All steps; and all steps of which the first process did some and lost those behind its checkpoint."""
    torch.set_num_threads(1)
    hopper_demonstrations(tmp_path / "demonstrations.hdf5")
    steps, halved = (200, ()) if name in LONG else (100, HALVED)
    config = configured(*arguments(name, tmp_path, steps, *halved, *options))
    opened(config, tmp_path, "whole").run()

    first = opened(config, tmp_path, "parts")
    first._after_step = stop_after(first, STOPS.get(name, 65))  # type: ignore[method-assign]  # to stop there
    with pytest.raises(KeyboardInterrupt):
        first.run()
    first.records.close()
    saved = checkpoint.load(tmp_path / "parts" / "checkpoint.pt")
    opened(config, tmp_path, "parts", saved).run()

    assert_same(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))
    assert without_time(tmp_path / "whole") == without_time(tmp_path / "parts")
    assert read_table(tmp_path / "whole" / "metrics.csv") == read_table(tmp_path / "parts" / "metrics.csv")


def stop_after(loop: Loop, calls: int):  # type: ignore[no-untyped-def]  # a bound method's
    """Die, without any clean-up, behind so many steps of all phases."""
    original, counter = loop._after_step, iter(range(calls))

    def after_step(*args: object) -> None:
        original(*args)  # type: ignore[arg-type]  # handed on
        if next(counter, None) is None:
            raise KeyboardInterrupt

    return after_step


def test_a_resumed_run_can_be_extended(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    hopper_demonstrations(tmp_path / "demonstrations.hdf5")
    start("GAIL", tmp_path, "whole", 200).run()
    start("GAIL", tmp_path, "parts", 100).run()
    saved = checkpoint.load(tmp_path / "parts" / "checkpoint.pt")
    start("GAIL", tmp_path, "parts", 200, saved).run()
    assert_same(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


def test_demonstrations_may_move_and_not_change(tmp_path: Path) -> None:
    demonstrations, moved = tmp_path / "demonstrations.hdf5", tmp_path / "moved.hdf5"
    hopper_demonstrations(demonstrations)
    options = ("algorithm=GAIL", "steps=30", f"output_folder={tmp_path}", "env.demonstrations=")
    settings = composed(*SMALL, *options[:-1], options[-1] + str(demonstrations))
    with open_run(parse(settings), settings) as (run, _):
        Loop(parse(settings), build(parse(settings)), run).run()
    demonstrations.rename(moved)
    settings.resume, settings.steps, settings.env.demonstrations = str(run), 40, str(moved)
    before = fingerprint(run)
    with h5py.File(moved, "r+") as file:
        file["observations"][3, 2] *= -1
    refused = pytest.raises(UserError, match="the demonstrations are not those that the run was begun with")
    with refused, open_run(parse(settings), settings) as (folder, resumed):
        Loop(parse(settings), build(parse(settings)), folder, resumed)
    assert fingerprint(run) == before
    with h5py.File(moved, "r+") as file:
        file["observations"][3, 2] *= -1
    with open_run(parse(settings), settings) as (folder, resumed):
        Loop(parse(settings), build(parse(settings)), folder, resumed).run()
    assert read_status(run)["step"] == 40


def test_metrics_are_recorded_where_updates_are_rarer_than_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Updates in steps 50, 121, 192, 263; records are due in 50, 100, ..., and the stop is between 150 and 192."""
    torch.set_num_threads(1)
    monkeypatch.setitem(RUNS, "rare", ["algorithm=SAC", "training.interval=71"])
    start("rare", tmp_path, "whole", 280).run()
    start("rare", tmp_path, "parts", 160).run()
    start("rare", tmp_path, "parts", 280, checkpoint.load(tmp_path / "parts" / "checkpoint.pt")).run()
    tables = [read_table(tmp_path / name / "metrics.csv") for name in ("whole", "parts")]
    assert tables[0] == tables[1]
    assert [row["step"] for row in tables[0] if row["metric"] == "critic/loss"] == ["50", "121", "192", "263"]


def test_a_checkpoint_beyond_the_last_step_can_be_gone_on_with(tmp_path: Path) -> None:
    """Three environments: 102 of 100 steps; then the program is killed before it has written its result."""
    torch.set_num_threads(1)
    settings = composed(*SMALL, "algorithm=SAC", "env.num_envs=3", "steps=100", f"output_folder={tmp_path}")
    with open_run(parse(settings), settings) as (folder, _):
        Loop(parse(settings), build(parse(settings)), folder).run()
    mark_ended(folder, "interrupted", None)
    settings.resume = str(folder)
    with open_run(parse(settings), settings) as (_, resumed):
        assert resumed is not None and resumed["step"] == 102
    settings.steps = 99
    with pytest.raises(UserError, match="has taken 102 steps"), open_run(parse(settings), settings):
        pass


def stopped_run(folder: Path) -> DictConfig:
    """Settings that go on with it."""
    settings = composed(*SMALL, "algorithm=SAC", "steps=60", f"output_folder={folder}")
    with open_run(parse(settings), settings) as (run, _):
        Loop(parse(settings), build(parse(settings)), run).run()
    settings.resume, settings.steps = str(run), 100
    return settings


def test_two_do_not_go_on_with_one_run(tmp_path: Path) -> None:
    """Not even while neither has begun to train."""
    settings = stopped_run(tmp_path)
    refused = pytest.raises(UserError, match="another process goes on with this run")
    with open_run(parse(settings), settings), refused, open_run(parse(settings), settings):
        pass


def test_a_run_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    settings = stopped_run(tmp_path)
    path = Path(settings.resume) / ".hydra" / "config.yaml"
    assert len(read_status(path.parents[1])["commit"]) >= len("unknown")
    saved = path.read_text()
    older, newer = (
        saved.replace("  num_envs: 1\n", ""),
        saved.replace("  num_envs: 1\n", "  num_envs: 1\n  gravity: 2\n"),
    )
    for text, words in ((older, "the run has no env.num_envs"), (newer, "this version has no env.gravity")):
        path.write_text(text)
        with pytest.raises(UserError, match=f"{words}, which .* another version"), open_run(parse(settings), settings):
            pass


def test_another_learner_is_no_other_version() -> None:
    sac = OmegaConf.create({"steps": 9, "reinforcement": {"actor_averaging": 0.0, "discount": 0.97}})
    ppo = OmegaConf.create({"steps": 9, "reinforcement": {"clip_range": 0.2, "discount": 0.99}})
    with pytest.raises(UserError, match=r"reinforcement.discount=0.99 does not fit the run"):
        check_unchanged(sac, ppo)


def test_a_mistake_that_shows_in_training_makes_a_resumed_run_a_failed_one(tmp_path: Path) -> None:
    settings = stopped_run(tmp_path)
    for begun, state in ((False, "finished"), (True, "failed")):
        with pytest.raises(UserError, match="round 7"), open_run(parse(settings), settings) as (folder, _):
            if begun:
                Status(folder, "cpu").update()
            raise UserError("imitation.beta_schedule returned 1.5 in round 7")
        assert read_status(folder)["state"] == state


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["GAIL", "GAIL on PPO"])  # 152 steps are three rollouts, and part of a fourth
@pytest.mark.parametrize("devices", [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_runs_go_on_on_any_device(
    name: str, devices: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hopper_demonstrations(tmp_path / "demonstrations.hdf5")
    monkeypatch.setitem(RUNS, "on a GPU", [*RUNS[name], f"device={devices[0]}"])
    start("on a GPU", tmp_path, "run", 152).run()
    monkeypatch.setitem(RUNS, "on a GPU", [*RUNS[name], f"device={devices[1]}"])
    loop = start("on a GPU", tmp_path, "run", 300, checkpoint.load(tmp_path / "run" / "checkpoint.pt"))
    assert loop.step == 152 and loop.parts.phases[loop.phase_index].name == "interaction"
    loop.run()
    assert [row["step"] for row in read_table(tmp_path / "run" / "evaluations.csv")][-2:] == ["300", "300"]
    assert all(value.device.type == "cpu" for value in loop.best_policy.values())


@pytest.mark.parametrize("algorithm", ["SAC", "GAIL"])
def test_kill_9_at_random_moments(algorithm: str, tmp_path: Path) -> None:
    """KILLS=20 in the environment kills twenty times; the default keeps the test short."""
    hopper_demonstrations(tmp_path / "demonstrations.hdf5")
    steps = max(160, 25 * KILLS)  # so that it is not over before the last kill
    common = [*SMALL, f"algorithm={algorithm}", f"env.demonstrations={tmp_path / 'demonstrations.hdf5'}"]
    common += [f"steps={steps}", "checkpoint.interval=20"]
    assert run_apart(*common, f"output_folder={tmp_path / 'whole'}").status == 0

    generator, folder = random.Random(0), None
    process = Process("train.py", *common, "output_folder=parts", cwd=tmp_path)
    for _ in range(KILLS):
        seen = folder_of(tmp_path / "parts", process)
        folder = seen or folder
        time.sleep(generator.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert folder is not None
        process = Process("train.py", f"resume={folder}", cwd=tmp_path)
    process.wait()
    assert folder is not None
    (reference,) = (tmp_path / "whole").glob("*/*")
    assert without_time(reference) == without_time(folder)
    assert_same(state_of(reference), state_of(folder))


def folder_of(parent: Path, process: Process) -> Path | None:
    """The run's folder, once its first checkpoint is there (or the process has ended)."""
    while process.poll() is None:
        for path in parent.glob("*/*/checkpoint.pt"):
            return path.parent
        time.sleep(0.02)
    return next((path.parent for path in parent.glob("*/*/checkpoint.pt")), None)
