"""Everything that a user can get wrong is refused in one line, before any training, with exit status 2."""

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.training.commands import Outcome, assert_refused, run, run_folders, status_of
from tests.training.helpers import hopper_demonstrations
from tests.warm import Process
from training.loop import Loop

ROOT = Path(__file__).resolve().parents[2]
ALGORITHMS = ["GAIL", "SAC", "AIRL", "BC"]

# What is typed, and words that the line has to have. {files} is the folder of demonstration files below.
SYNTAX: list[tuple[str, list[str]]] = [
    ("algorithm:GAIL", ["algorithm:GAIL", "expected key=value", "as in algorithm=GAIL"]),
    ("algorithm=SAC steps 5", ["'steps'", "as in steps=<value>"]),
    ("algorithm=SAC =5", ["'=5'", "key is missing"]),
    ("algorithm=SAC steps==5", ["'steps==5'", "expected key=value"]),
    ("algorithm=SAC env.demonstrations=/a(1).h5", ["/a(1).h5", "quotes", "\"env.demonstrations='/a(1).h5'\""]),
    ("algorithm=SAC --steps=5", ["unrecognized arguments: --steps=5", "key=value"]),
    ("algorithm=SAC steps=1,2", ["steps=1,2", "several values", "-m"]),
    ("algorithm=SAC steps=range(1,3)", ["steps=range(1,3)", "-m"]),
    ("algorithm=SAC ~steps", ["~steps", "expected steps=<value>"]),
    ("algorithm=SAC ~env", ["~env", "expected env=<value>"]),
    ("algorithm=SAC +env=ant", ["+env=ant", "write env=ant"]),
    ("algorithm=SAC env=hopper env=ant", ["env is given twice", "env=hopper", "env=ant"]),
    ("algorithm=SAC algorithm=GAIL", ["algorithm is given twice"]),
    ("-m algorithm=SAC resume=somewhere", ["resume", "-m"]),
    ("algorithm=SAC hydra.run.dir=x", ["hydra.run.dir=x has no effect", "output_folder=<folder>"]),
    ("-m algorithm=SAC seed=1,2 --cfg job", ["--cfg", "leave -m out"]),
]

NAMES: list[tuple[str, list[str]]] = [
    ("", ["algorithm=<name> is missing", *ALGORITHMS]),
    ("algorithm=GIAL", ["algorithm=GIAL", *ALGORITHMS, "did you mean 'GAIL'?"]),
    ("algorithm=sac", ["algorithm=sac", "did you mean 'SAC'?"]),
    ("algorithm=null", ["algorithm=null", *ALGORITHMS]),
    ("algorithm=", ["algorithm=", *ALGORITHMS]),
    ("algorithm=SAC env.id=Hopper-v2", ["env.id=Hopper-v2", "mujoco v2 and v3"]),
    ("algorithm=SAC env=hoper", ["env=hoper", "ant", "halfcheetah", "did you mean 'hopper'?", "env.id=<id>"]),
    ("algorithm=SAC env=null", ["env=null", "hopper"]),
    ("algorithm=SAC learner=ppp", ["learner=ppp", "expected one of", "sac"]),
    ("algorithm=SAC imitation=gail", ["imitation=gail", "algorithm=<name>"]),
    ("algorithm=GAIL optimised_hyperparameters=nonsense", ["optimised_hyperparameters=nonsense", "expected one of"]),
    ("algorithm=GAIL optimised_hyperparameters=BC_5_trajectories", ["is for algorithm=BC, not", "GAIL_5_trajectories"]),
    ("algorithm=FAIRL optimised_hyperparameters=GAIL_5_trajectories", ["is for algorithm=GAIL, not", "it has none"]),
    ("algorithm=SQIL optimised_hyperparameters=AdRIL_25_trajectories", ["is for algorithm=AdRIL, not algorithm=SQIL"]),
    ("algorithm=RED optimised_hyperparameters=SAC_expert", ["is for algorithm=SAC, not", "RED_5_trajectories"]),
    ("algorithm=constant optimised_hyperparameters=SAC_expert", ["is for algorithm=SAC, not", "it has none"]),
    ("algorithm=SAC hydra/launcher=nonsense", ["hydra/launcher=nonsense", "expected one of", "basic"]),
    ("algorithm=SAC enviroment=hopper", ["enviroment", "did you mean 'env'?"]),
    ("algo=SAC", ["did you mean 'algorithm'?"]),
    ("algorithm=SAC sed=1", ["sed is not a key", "did you mean 'seed'?"]),
    ("use_optimised_hyperparameters=x env=ant", ["did you mean 'optimised_hyperparameters'?"]),
    ("algorithm=GAIL imitation.state-only=true", ["did you mean 'imitation.state_only'?"]),
    ("algorithm=GAIL imitation.traj=5", ["did you mean 'imitation.trajectories'?"]),
    ("algorithm=GAIL imitation.grad_penality=1", ["did you mean 'imitation.grad_penalty'?"]),
    ("algorithm=GAIL imitation.model.hiden_size=1", ["did you mean 'imitation.model.hidden_size'?"]),
    ("algorithm=GAIL reinforcement.actor.width=1", ["reinforcement.actor.width is not a key"]),
    ("algorithm=SAC batch_size=8", ["did you mean", "'training.batch_size'"]),
    ("algorithm=SAC reinforcement.batch_size=8", ["did you mean", "'training.batch_size'"]),
    ("algorithm=SAC imitation.grad_penalty=1", ["does not apply to algorithm=SAC", "GAIL", "AIRL"]),
    ("algorithm=SAC steps.x=1", ["steps.x is not a key"]),
    ("algorithm=SAC hydra.nonsense=1", ["hydra.nonsense", "--cfg hydra"]),
    ("algorithm=SAC +new=1", ["new is not a key", "--cfg job"]),
    ("algorithm=SAC +training.lr=1", ["training.lr is not a key"]),
    ("algorithm=SAC ++training.learningrate=1", ["did you mean 'training.learning_rate'?"]),
    ("algorithm=BC imitation.bc_aux_loss=true", ["imitation.bc_aux_loss=true", "algorithm=BC", "false"]),
    ("algorithm=BC imitation.mix_expert_data=prefill_memory", ["prefill_memory", "algorithm=BC", "none"]),
    ("algorithm=SAC +imitation.grad_penalty=1", ["does not apply to algorithm=SAC"]),
]

TYPES: list[tuple[str, list[str]]] = [
    ("algorithm=SAC steps=many", ["steps=many", "expected a whole number"]),
    ("algorithm=SAC steps=1e5", ["steps=1e5", "whole number", "write 100000"]),
    ("algorithm=SAC steps=2.5", ["steps=2.5", "whole number"]),
    ("algorithm=SAC steps=", ["steps=", "whole number"]),
    ("algorithm=SAC steps=null", ["steps=null", "whole number"]),
    ("algorithm=SAC steps=???", ["steps has no value", "whole number"]),
    ("algorithm=SAC steps=[1,2]", ["steps=[1,2]", "whole number"]),
    ("algorithm=SAC training.learning_rate=high", ["training.learning_rate=high", "a finite number above 0"]),
    ("algorithm=SAC training.learning_rate=true", ["training.learning_rate=true", "a finite number above 0"]),
    ("algorithm=SAC training=5", ["training is a section", "batch_size"]),
    ("algorithm=GAIL imitation.model=5", ["imitation.model is a section", "hidden_size"]),
    ("algorithm=GAIL imitation.state_only=maybe", ["imitation.state_only=maybe", "true or false"]),
    ("algorithm=SAC render=2", ["render=2", "true or false"]),
    ("algorithm=GAIL imitation.mix_expert_data=true", ["none, mixed_batch, prefill_memory"]),
    ("algorithm=SAC env.name=${nowhere}", ["env.name", "nowhere"]),
]

RANGES: list[tuple[str, list[str]]] = [
    ("algorithm=SAC seed=-1", ["seed=-1", "from 0 to 2147483647"]),
    ("algorithm=SAC seed=2147483648", ["seed=2147483648", "from 0 to 2147483647"]),
    ("algorithm=SAC seed=2147483647 runs=2", ["seed=2147483647", "runs=2", "largest seed"]),
    ("algorithm=SAC runs=0", ["runs=0", "from 1"]),
    ("algorithm=SAC steps=-5", ["steps=-5", "at least 0"]),
    ("algorithm=SAC threads=0", ["threads=0", "from 1"]),
    ("algorithm=SAC memory.size=0", ["memory.size=0", "at least 1"]),
    ("algorithm=SAC training.interval=0", ["training.interval=0", "at least 1"]),
    ("algorithm=SAC training.batch_size=0", ["training.batch_size=0"]),
    ("algorithm=SAC evaluation.episodes=0", ["evaluation.episodes=0", "from 1"]),
    ("algorithm=SAC env.num_envs=0", ["env.num_envs=0", "at least 1"]),
    ("algorithm=SAC env.threads=0", ["env.threads=0", "from 1 to 1024"]),
    ("algorithm=SAC env.threads=2 env=pendulum", ["env.threads=2", "Pendulum-v1", "expected 1"]),
    ("algorithm=SAC env.threads=2 env.version=v5", ["env.threads=2", "Hopper-v5", "expected 1"]),
    ("algorithm=SAC env.threads=2 env.backend=envpool", ["env.threads=2", "env.backend=envpool", "expected 1"]),
    ("algorithm=SAC reinforcement.discount=1.5", ["reinforcement.discount=1.5", "from 0 to 1"]),
    ("algorithm=SAC reinforcement.discount=nan", ["reinforcement.discount=nan", "finite number from 0 to 1"]),
    ("algorithm=SAC reinforcement.polyak_factor=-0.1", ["reinforcement.polyak_factor=-0.1", "from 0 to 1"]),
    ("algorithm=SAC reinforcement.target_temperature=-inf", ["reinforcement.target_temperature=-inf", "finite"]),
    ("algorithm=SAC reinforcement.actor.hidden_size=0", ["reinforcement.actor.hidden_size=0", "at least 1"]),
    ("algorithm=SAC reinforcement.actor.activation=gelu", ["reinforcement.actor.activation=gelu", "relu, tanh"]),
    ("algorithm=SAC training.learning_rate=0", ["training.learning_rate=0.0", "above 0"]),
    ("algorithm=SAC training.learning_rate=inf", ["training.learning_rate=inf", "finite"]),
    ("algorithm=SAC training.weight_decay=nan", ["training.weight_decay=nan", "finite"]),
    ("algorithm=GAIL bc_pretraining.learning_rate=nan", ["bc_pretraining.learning_rate=nan", "above 0"]),
    ("algorithm=GAIL imitation.subsample=0", ["imitation.subsample=0", "at least 1"]),
    ("algorithm=GAIL imitation.trajectories=-1", ["imitation.trajectories=-1", "at least 0"]),
    ("algorithm=GAIL imitation.grad_penalty=inf", ["imitation.grad_penalty=inf", "finite"]),
    ("algorithm=GAIL imitation.mixup_alpha=nan", ["imitation.mixup_alpha=nan", "above 0"]),
    ("algorithm=GAIL imitation.pos_class_prior=2", ["imitation.pos_class_prior=2", "from 0 to 1"]),
    ("algorithm=GAIL imitation.model.dropout=nan", ["imitation.model.dropout=nan", "finite"]),
    ("algorithm=GAIL imitation.model.reward_function=GAN", ["AIRL, FAIRL, GAIL"]),
    ("algorithm=GAIL imitation.loss_function=bce", ["BCE, Mixup, PUGAIL", "did you mean 'BCE'?"]),
    ("algorithm=SAC precision=fp16", ["precision=fp16", "fp32, bf16"]),
    ("algorithm=SAC device=tpu", ["device=tpu", "cpu, cuda"]),
    ("algorithm=SAC device=xla", ["device=xla", "cpu, cuda"]),
    ("algorithm=SAC device=cuda:7", ["device=cuda:7", "is not there"]),
]

COMBINATIONS: list[tuple[str, list[str]]] = [
    ("algorithm=SAC steps=0", ["steps=0", "bc_pretraining.iterations=0"]),
    ("algorithm=BC steps=100", ["steps=100", "algorithm=BC", "bc_pretraining.iterations"]),
    ("algorithm=SAC imitation.mix_expert_data=mixed_batch", ["imitation.mix_expert_data=mixed_batch", "algorithm=SAC"]),
    ("algorithm=GAIL imitation.state_only=true imitation.bc_aux_loss=true", ["imitation.bc_aux_loss", "state_only"]),
    (
        "algorithm=GAIL imitation.state_only=true bc_pretraining.iterations=5",
        ["bc_pretraining.iterations", "state_only"],
    ),
    ("algorithm=SAC env.version=v3", ["env.version=v3", "v4 or v5"]),
    ("algorithm=SAC env=pendulum env.version=v5", ["env.version=v5", "Pendulum-v1"]),
    ("algorithm=SAC env=hopper env.id=Swimmer-v4", ["env.id=Swimmer-v4", "env=hopper"]),
    ("algorithm=SAC env=custom", ["env.id has no value"]),
    ("algorithm=SAC env.id=hopper", ["env.id=hopper", "write env=hopper"]),
    ("algorithm=SAC env.id=Hoper-v4", ["env.id=Hoper-v4", "Hopper"]),
    ("algorithm=SAC env.id=CartPole-v1", ["env.id=CartPole-v1", "continuous"]),
    ("algorithm=SAC env.id=FrozenLake-v1", ["env.id=FrozenLake-v1", "vector"]),
    ("algorithm=SAC env.id=CarRacing-v3", ["env.id=CarRacing-v3"]),
    ("algorithm=GAIL env.id=Swimmer-v4", ["env.demonstrations", "no bundled set", "Swimmer-v4"]),
]

FILES: list[tuple[str, list[str]]] = [
    ("env.demonstrations={files}/absent.hdf5", ["absent.hdf5", "No such file"]),
    ("env.demonstrations={files}", ["a folder without data of Minari"]),
    ("env.demonstrations={files}/empty.hdf5", ["empty.hdf5", "0 bytes"]),
    ("env.demonstrations={files}/junk.hdf5", ["junk.hdf5", "not HDF5"]),
    ("env.demonstrations={files}/truncated.hdf5", ["truncated.hdf5", "truncated"]),
    ("env.demonstrations={files}/no_observations.hdf5", ["no_observations.hdf5", "'observations'"]),
    ("env.demonstrations={files}/flat.hdf5", ["flat.hdf5", "'observations'", "shape"]),
    ("env.demonstrations={files}/lengths.hdf5", ["lengths.hdf5", "'actions'", "rows"]),
    ("env.demonstrations={files}/nan.hdf5", ["nan.hdf5", "'observations'", "row 7", "finite"]),
    ("env.demonstrations={files}/text.hdf5", ["text.hdf5", "'actions'", "numbers"]),
    ("env.demonstrations={files}/endless.hdf5", ["endless.hdf5", "no complete episode"]),
    ("env.demonstrations={files}/actionless.hdf5", ["actionless.hdf5", "imitation.state_only=true"]),
    ("env=pendulum env.demonstrations={files}/good.hdf5", ["11 numbers", "expects 3", "another environment"]),
    ("env.demonstrations={files}/good.hdf5 imitation.trajectories=4", ["imitation.trajectories=4", "3 trajectories"]),
]
FILES = [(f"algorithm=GAIL {arguments}", words) for arguments, words in FILES]

OUTPUTS: list[tuple[str, list[str]]] = [
    ("algorithm=SAC env=pendulum output_folder={files}/good.hdf5", ["cannot write results", "good.hdf5"]),
    ("algorithm=SAC env=pendulum output_folder=/proc/nowhere", ["cannot write results", "/proc/nowhere"]),
    ("resume=nowhere", ["resume=nowhere", "not the folder of a run"]),
    ("resume={files}/good.hdf5", ["good.hdf5", "not the folder of a run"]),
    ("resume={files}", ["not the folder of a run"]),
]

TABLE = SYNTAX + NAMES + TYPES + RANGES + COMBINATIONS + FILES + OUTPUTS


def _never(*_: object) -> None:
    raise AssertionError("training has begun")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstration files for Hopper, one good and the others each damaged in one way."""
    folder = tmp_path_factory.mktemp("demonstrations")
    good = hopper_demonstrations(folder / "good.hdf5")
    (folder / "empty.hdf5").touch()
    (folder / "junk.hdf5").write_bytes(b"not what it says" * 100)
    (folder / "truncated.hdf5").write_bytes(good.read_bytes()[:3000])
    for name in ("no_observations", "flat", "lengths", "nan", "text", "endless", "actionless"):
        shutil.copy(good, folder / f"{name}.hdf5")
        with h5py.File(folder / f"{name}.hdf5", "r+") as file:
            _damage(file, name)
    return folder


def _damage(file: h5py.File, name: str) -> None:
    rows = len(file["observations"])
    if name == "nan":
        values = file["observations"][:]
        values[7, 2] = np.nan
        file["observations"][:] = values
    elif name == "endless":
        file["terminals"][:] = np.zeros(rows, bool)
    else:
        damaged = {"no_observations": "observations", "flat": "observations"}.get(name, "actions")
        del file[damaged]
        replacement = {
            "flat": np.zeros(rows),
            "lengths": np.zeros((rows - 1, 3)),
            "text": np.full((rows, 3), b"right"),
        }
        if name in replacement:
            file[damaged] = replacement[name]


def test_table_is_large_enough() -> None:
    assert len({arguments for arguments, _ in TABLE}) == len(TABLE) >= 60


@pytest.mark.parametrize(("typed", "words"), TABLE, ids=[typed or "nothing" for typed, _ in TABLE])
def test_refused(typed: str, words: list[str], files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Loop, "run", _never)
    outcome = run(*typed.replace("{files}", str(files)).split())
    assert_refused(outcome, *words)
    assert len(outcome.error) < 600
    assert all(status_of(folder)["state"] == "failed" for folder in run_folders(tmp_path / "outputs"))


def test_misspelt_key_in_a_preset_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    preset = tmp_path / "presets" / "optimised_hyperparameters" / "mine.yaml"
    preset.parent.mkdir(parents=True)
    arguments = ("--config-dir", str(tmp_path / "presets"), "algorithm=SAC", "optimised_hyperparameters=mine")
    for content, words in {
        "training: {bach_size: 5}": ["mine.yaml", "training.bach_size", "did you mean 'training.batch_size'?"],
        "training: {batch_size: big}": ["mine.yaml", "training.batch_size", "big"],
        "training: {batch_size: -5}": ["training.batch_size=-5", "at least 2"],
        "training: {batch_size": ["mine.yaml"],
    }.items():
        preset.write_text(f"# @package _global_\n{content}\n")
        assert_refused(run(*arguments), *words)


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("algorithm=SAC", "seed=-1", "debug=true")
    assert outcome.status == 2
    assert "Traceback" in outcome.error
    assert outcome.error.splitlines()[-1].startswith("error: seed=-1")


def test_refused_by_the_real_command(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "algorithm=GAIL", "env.demonstrations=absent.hdf5"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert_refused(Outcome(result.returncode, result.stdout, result.stderr), "absent.hdf5", "No such file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("algorithm=GIAL", ["algorithm=GIAL", "did you mean 'GAIL'?"]),
        ("algorithm=SAC +new=1", ["new is not a key"]),
    ],
)
def test_refused_in_a_process_of_its_own(tmp_path: Path, typed: str, words: list[str]) -> None:
    process = Process("train.py", *typed.split(), cwd=tmp_path)
    assert_refused(Outcome(process.wait(), process.output, process.error), *words)
    assert list(tmp_path.iterdir()) == []
