"""The command line as a newcomer meets it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import pytest
from omegaconf import OmegaConf

from conf.errors import did_you_mean
from tests.training.commands import QUICK, run, run_folders, status_of
from tests.warm import run_apart
from training.cli import CONF, help_text, with_home

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "gymnasium", "matplotlib", "pandas", "h5py", "tensorboard")


def names(group: str) -> list[str]:
    return [path.stem for path in (CONF / group).glob("*.yaml")]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['train.py', '--help']; import train; train.command_line(train.train); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):  # the machine may be busy
        started = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
        assert result.stdout.splitlines()[-1] == "[]"
        assert not result.stderr
        if seconds[-1] < 2:
            break
    assert min(seconds) < 2


def test_help_describes_every_choice_in_one_line() -> None:
    text = help_text()
    described = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith("  ")}
    for group in ("algorithm", "env", "optimised_hyperparameters"):
        for name in names(group):
            assert described[name], name
    for key in ("algorithm", "env", "env.id", "seed", "steps", "resume", "device", "imitation.trajectories"):
        assert f"  {key}=" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_home_directory_in_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """zsh leaves every `=~/`, and bash those of keys with a dot."""
    monkeypatch.setenv("HOME", "/home/me")
    arguments = ["env.demonstrations=~/a.hdf5,'~/b.hdf5'", "output_folder=~/out", "~imitation", "x=a~/b"]
    home = ["env.demonstrations=/home/me/a.hdf5,'/home/me/b.hdf5'", "output_folder=/home/me/out"]
    assert with_home(arguments) == [*home, "~imitation", "x=a~/b"]
    assert "/home/me/absent" in run("algorithm=SAC", "resume=~/absent").error


def test_demonstrations_that_nothing_uses(tmp_path: Path) -> None:
    outcome = run("algorithm=SAC", "env.demonstrations=absent.hdf5", "steps=1", *QUICK, f"output_folder={tmp_path}")
    assert "warning: env.demonstrations=absent.hdf5: algorithm=SAC uses no demonstrations\n" in outcome.error


def test_print_configuration_instead_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("algorithm=GAIL", "env=ant", "--cfg", "job")
    assert (outcome.status, outcome.error) == (0, "")
    assert "grad_penalty: 1.0" in outcome.output
    assert list(tmp_path.iterdir()) == []


def test_run_with_an_id_has_its_own_name(tmp_path: Path) -> None:
    quick = [argument for argument in QUICK if argument != "env=pendulum"]
    outcome = run("algorithm=SAC", "env.id=Pendulum-v1", "steps=30", *quick, f"output_folder={tmp_path}")
    assert outcome.status == 0, outcome.error
    [folder] = run_folders(tmp_path)
    assert folder.parent.name == "SAC_Pendulum-v1"
    assert run(f"resume={folder}", "steps=40").status == 0


@pytest.mark.parametrize(
    ("learner", "first", "warned"),
    [
        ("sac", "training.start=40", True),
        ("sac", "training.start=20", False),
        ("ppo", "training.interval=40", True),
        ("ppo", "training.interval=24", False),
    ],
)
def test_a_run_that_ends_before_its_first_update_says_so(
    learner: str, first: str, warned: bool, tmp_path: Path
) -> None:
    options = ["env=pendulum", "steps=30", "training.batch_size=8", "evaluation.episodes=1", "logging.progress=false"]
    outcome = run("algorithm=constant", f"learner={learner}", *options, first, f"output_folder={tmp_path}")
    assert outcome.status == 0, outcome.error
    assert ("warning: steps=30 update nothing: the first update is at step 40" in outcome.error) == warned


def test_sweep_has_a_folder_for_each_run(tmp_path: Path) -> None:
    for _ in range(2):
        outcome = run_apart("-m", "seed=3,4", "algorithm=SAC", "steps=30", *QUICK, f"output_folder={tmp_path}")
        assert outcome.status == 0, outcome.error
    folders = list(tmp_path.glob("SAC_pendulum_sweep/*/[0-9]"))
    assert len(folders) == 4
    assert {status_of(folder)["state"] for folder in folders} == {"finished"}


def test_sweep_says_which_run_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("-m", "runs=-1,0", "algorithm=SAC")
    assert outcome.status == 2
    assert outcome.error.splitlines()[-1].startswith("error: runs=-1 is not allowed")


def test_nearest_word_in_any_case() -> None:
    assert did_you_mean("gail", ["GAIL", "SAC"]) == "; did you mean 'GAIL'?"
    assert did_you_mean("xyz", ["GAIL", "SAC"]) == ""


def test_a_resumed_run_records_what_it_was_last_asked_for(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    first = run(*QUICK, "algorithm=SAC", "steps=40", f"output_folder={outputs}")
    assert first.status == 0, first.error
    (folder,) = run_folders(outputs)
    for steps in (60, 80):  # twice: the second extension builds on the first
        again = run(f"resume={folder}", f"steps={steps}")
        assert again.status == 0, again.error
        assert OmegaConf.load(folder / ".hydra" / "config.yaml").steps == steps
        assert json.loads((folder / "status.json").read_text())["step"] == steps
    assert run_folders(outputs) == [folder]


def test_an_environment_without_a_time_limit(tmp_path: Path) -> None:
    gymnasium.register("Endless-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv")
    try:
        options = ("algorithm=BC", "learner=ppo", "env.id=Endless-v0", "env.demonstrations=absent.hdf5")
        outcome = run(*options, f"output_folder={tmp_path}")
    finally:
        del gymnasium.registry["Endless-v0"]
    first, second = outcome.error.splitlines()
    assert first.startswith("warning: env.id=Endless-v0 has no time limit (max_episode_steps)")
    assert "absent.hdf5" in second
