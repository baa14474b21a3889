"""Speed on-policy: that whole rollouts are timed, that both sides do the same work, and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import on_policy_speed, peers
from scripts.on_policy_speed import ROWS, Training, compared, figures, main, settings
from scripts.timing import Timing, composed
from tests.scripts.helpers import assert_refused, full_disk
from training.build import load_demonstrations
from training.config import Config, parse

# 16 steps of 4 environments, 4 minibatches of 16, 3 epochs: 12 updates.
SMALL = ["env.num_envs=4", "training.interval=64", "training.batch_size=16", "reinforcement.epochs=3"]
PPO_ROW = [*ROWS[0], *SMALL]
GAIL_ROW = [*ROWS[3], *SMALL, "imitation.updates=5"]
WORK = {"steps": 64, "updates": 12}


def configuration(row: list[str]) -> Config:
    return parse(composed(row, row[0].split("=")[1]))


def test_a_block_is_whole_rollouts() -> None:
    run = Training(configuration(PPO_ROW))
    assert run.work == WORK
    assert run.block("rollouts", 2).rate > 0
    assert run.interaction.envs.steps == 3 * 64  # with the one of the warm-up
    assert run.interaction.memory.state_dict()["rows"] is None
    assert run.block("environments", 2).rate > 0
    assert run.interaction.envs.steps == 5 * 64
    assert run.interaction.memory.state_dict()["rows"] is None  # nothing learns from these


def test_updates_of_the_discriminator_are_counted() -> None:
    assert Training(configuration(GAIL_ROW)).work == {**WORK, "discriminator_updates": 5}


def test_figures_by_hand() -> None:
    """Rollouts of 100 steps: 10, 30 and 20 a second, with the whole, a half and a quarter of the processor."""
    timings = [Timing(10.0, 1.0), Timing(30.0, 0.5), Timing(20.0, 0.25)]
    assert figures(timings, 100) == {"rate": 2000.0, "processor_rate": 6000.0, "busy": 0.5}


def test_ratios_are_of_blocks_at_the_same_time() -> None:
    """10/5, 30/10 and 20/20; by processor time 10/10, 60/10 and 80/20."""
    run: Any = type("Run", (), {"config": configuration(PPO_ROW)})()
    peer: Any = type("Other", (), {"name": "imitation", "setup": {"versions": {"torch": "2"}}})()
    ours = [Timing(10.0, 1.0), Timing(30.0, 0.5), Timing(20.0, 0.25)]
    theirs = [Timing(5.0, 0.5), Timing(10.0, 1.0), Timing(20.0, 1.0)]
    found = compared(run, peer, {run: ours, peer: theirs})
    assert (found["ratio"], found["processor_ratio"]) == (2.0, 4.0)
    assert (found["rate"], found["processor_rate"]) == (640.0, 640.0)
    assert (found["name"], found["versions"]) == ("imitation==1.0.1", {"torch": "2"})


def test_another_library_gets_the_same_hyperparameters(tmp_path: Path) -> None:
    """Those of the tuned preset, as imitation names them; and the first 10 demonstrations, without objects."""
    config = configuration(ROWS[3])
    told = settings(config, tmp_path)
    assert told["ppo"] == {
        "n_steps": 512,
        "batch_size": 512,
        "n_epochs": 20,
        "learning_rate": 4.3984856156897565e-5,
        "gamma": 0.995,
        "gae_lambda": 0.98,
        "clip_range": 0.1,
        "ent_coef": 0.001255299425412744,
        "vf_coef": 0.20315938606555833,
        "max_grad_norm": 0.9,
    }
    assert (told["num_envs"], told["hidden_sizes"], told["activation"]) == (8, [64, 64], "relu")
    assert told["environment_id"] == "seals/Hopper-v1"
    path = told["imitation"].pop("demonstrations")
    sizes = {"batch_size": 128, "buffer_size": 4096, "updates": 8, "hidden_sizes": [32, 32]}
    assert told["imitation"] == {**sizes, "learning_rate": 1e-3}
    with np.load(path, allow_pickle=False) as file:
        assert len(file.files) == 20
        observations, actions = file["observations_0"], file["actions_0"]
    assert (len(observations), len(actions)) == (1000, 999)
    spaces = Training(configuration(GAIL_ROW)).interaction.envs.spaces
    rows = load_demonstrations(config, spaces)[1].rows()
    np.testing.assert_array_equal(rows.observations[0, :999], observations[:-1])
    np.testing.assert_array_equal(rows.actions[0, :999], actions)


def test_the_variant_is_named_where_it_is_not_known(tmp_path: Path) -> None:
    told = settings(configuration(ROWS[2]), tmp_path)
    assert told["environment_id"] == "Hopper-v4"
    still = {"exclude_current_positions_from_observation": False, "terminate_when_unhealthy": False}
    assert told["environment_options"] == still


def with_peer(monkeypatch: pytest.MonkeyPatch, folder: Path, work: dict[str, int]) -> None:
    """The PPO row alone, beside a library that takes 2 s for each block, half of them on the processor."""
    script = folder / "peer.py"
    script.write_text(
        "import sys, json\nassert json.loads(sys.stdin.readline())['ppo']['n_steps'] == 16\n"
        f"print(json.dumps({{'work': {work}, 'versions': {{'torch': '2'}}}}), flush=True)\n"
        "for line in sys.stdin: print(json.dumps({'seconds': 2.0, 'processor_seconds': 1.0}), flush=True)\n"
    )
    monkeypatch.setattr(peers, "script", lambda name: script)
    monkeypatch.setattr(on_policy_speed, "install", lambda name: Path(sys.executable))
    monkeypatch.setattr(on_policy_speed, "ROWS", [PPO_ROW])


def test_a_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_peer(monkeypatch, tmp_path, WORK)
    options = ["--vs", "stable-baselines3", "--rollouts", "1", "--blocks", "2"]
    assert main([*options, "--json", str(tmp_path / "figures.json")]) == 0
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["command"] == f"python scripts/on_policy_speed.py {' '.join(options)} --json figures.json"
    (row,) = report["rows"]
    assert (row["algorithm"], row["environment"], row["envs"], row["work"]) == ("PPO", "cartpole", 4, WORK)
    assert (row["rollout"], row["minibatch"], row["epochs"]) == (64, 16, 3)
    assert row["environments_rate"] > row["processor_rate"] > 0 and row["rate"] > 0
    assert 0.05 < row["peak_gib"] < 1
    peer = row["peer"]
    assert (peer["rate"], peer["processor_rate"], peer["busy"]) == (32.0, 64.0, 0.5)
    assert (peer["name"], peer["versions"]) == ("stable-baselines3==2.9.2", {"torch": "2"})


def test_one_process_answers_for_the_same_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_peer(monkeypatch, tmp_path, WORK)
    robot = [*ROWS[2], *SMALL]
    monkeypatch.setattr(on_policy_speed, "ROWS", [robot, [*robot, "env.threads=2"], [*robot, "seed=1"]])
    runs = [Training(configuration(row)) for row in on_policy_speed.ROWS]
    with on_policy_speed.peers(runs, ["stable-baselines3"]) as others:
        assert len(others) == 3 and len(set(others.values())) == 1


def test_other_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_peer(monkeypatch, tmp_path, {"steps": 64, "updates": 16})
    assert main(["--vs", "stable-baselines3", "--json", str(tmp_path / "figures.json")]) == 2
    error = capsys.readouterr().err
    assert "a rollout takes {'steps': 64, 'updates': 16} there, and {'steps': 64, 'updates': 12} here" in error
    assert not (tmp_path / "figures.json").exists()


def test_figures_replace_others_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_policy_speed, "ROWS", [])  # nothing to measure
    path = tmp_path / "figures.json"
    path.write_text("mine")
    with full_disk():
        assert_refused(main, ["--json", str(path)], "File too large", capsys)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("figures.json", "mine")]
    assert main(["--json", str(path)]) == 0
    assert json.loads(path.read_text())["rows"] == []


REFUSED = [
    (["--vs", "nothing"], "invalid choice: 'nothing'"),
    (["--rollouts", "0"], "0 is not a whole number of at least 1"),
    (["--json", "nowhere/figures.json"], "there is no such folder"),
    (["--json", "."], "--json . is not a file"),
    (["env=hopper"], "unrecognized arguments: env=hopper"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(main, arguments, words, capsys)
