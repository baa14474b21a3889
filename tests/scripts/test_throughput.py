"""Throughput: that real work is timed, what is computed from it, and what is refused."""

import contextlib
import json
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.learners.sac import SACConfig
from conf.errors import UserError
from memory.batch import Layout
from memory.replay import ReplayMemory
from models.mlp import MLPConfig
from scripts import peers, timing
from scripts.provenance import processor
from scripts.throughput import main, parse_arguments, throughput
from scripts.timing import Cell, Setting, Timing, configuration, measure, ratio, typical, update_flops
from tests.scripts.helpers import assert_refused, full_disk
from tests.training.helpers import hopper_demonstrations

SMALL = ("--steps", "4", "--blocks", "2", "--hidden-sizes", "8", "training.batch_size=8", "memory.size=2000")
SETTING = Setting("SAC", "fp32", 1, 1, 8)


def test_the_products_of_an_update() -> None:
    """By hand, for one hidden layer of 2, 3 observations, 1 action and 5 rows: policy 3 x 2 x 2, critics 4 x 2 x 1."""
    config = SACConfig(actor=MLPConfig(hidden_size=2, depth=1), critic=MLPConfig(hidden_size=2, depth=1))
    policy, policy_first, critic, critic_first = 3 * 2 + 2 * 2, 3 * 2, 4 * 2 + 2 * 1, 4 * 2
    critic_step = policy + 2 * critic + 2 * critic + 2 * critic + 2 * (critic - critic_first)
    actor_step = policy + 2 * critic + 2 * critic + policy + (policy - policy_first)
    assert update_flops(3, 1, config, 5) == 2 * 5 * (critic_step + actor_step)


def test_the_products_of_an_update_at_the_published_sizes() -> None:
    assert update_flops(12, 3, SACConfig(), 256) == pytest.approx(0.566e9, rel=1e-3)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("throughput")
    demonstrations = hopper_demonstrations(folder / "hopper.hdf5")
    options = ["--precision", "fp32", "--runs", "1", "2", "--demonstrations", str(demonstrations)]
    assert main([*options, "--json", str(folder / "figures.json"), *SMALL]) == 0
    content: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return content


def test_every_row_has_every_figure(report: dict[str, Any]) -> None:
    rows = report["rows"]
    assert [(row["algorithm"], row["runs"]) for row in rows] == [("SAC", 1), ("SAC", 2), ("GAIL", 1), ("GAIL", 2)]
    for row in rows:
        assert all(row[name] > 0 for name in ("environment", "updates", "products", "loop", "of_limit", "busy"))
        assert row["hidden_size"] == 8
    assert rows[1]["gflop_per_update"] == pytest.approx(2 * rows[0]["gflop_per_update"])


def test_several_runs_are_compared_with_one(report: dict[str, Any]) -> None:
    gains = report["side_by_side"]
    assert [(gain["algorithm"], gain["runs"]) for gain in gains] == [("SAC", 2), ("GAIL", 2)]
    assert all(0 < gain["gain"] < 10 for gain in gains)


def test_peak_memory_is_that_of_a_filled_memory(report: dict[str, Any]) -> None:
    peaks = report["peak_memory"]
    assert [(peak["algorithm"], peak["rows"]) for peak in peaks] == [("SAC", 2000), ("GAIL", 2000)]
    assert all(0.1 < peak["peak_gib"] < 1 for peak in peaks)


def test_a_million_rows_of_hopper_take_136_megabytes() -> None:
    """In one tensor, allocated once; scripts/throughput.py measures a whole run, which stays below 1 GiB."""
    layout = Layout(12, 3)
    memory = ReplayMemory(layout, 1_000_000, (0,))
    assert layout.width == 2 * 12 + 3 + 7
    assert memory.rows.nbytes == 1_000_000 * layout.width * 4
    rows = memory.rows.data_ptr()
    memory.prefill(layout.unpack(torch.zeros(1, 1000, layout.width)))
    assert memory.rows.data_ptr() == rows and memory.rows.shape == (1, 1_000_000, layout.width)


def test_a_cell_takes_the_steps_that_it_is_timed_for() -> None:
    config = configuration(SETTING, ["training.batch_size=8", "memory.size=500", "env.num_envs=2"], None)
    cell = Cell(SETTING, config)
    before = cell.interaction.envs.steps
    assert cell.block("loop", 3).rate > 0
    assert cell.interaction.envs.steps == before + 3 * 2
    drawn = cell.interaction.memory.state_dict()["batches_drawn"]
    state = {name: value.clone() for name, value in cell.parts.learner.policy.state_dict().items()}
    assert cell.block("updates", 3).rate > 0
    assert any((value != state[name]).any() for name, value in cell.parts.learner.policy.state_dict().items())
    assert cell.interaction.memory.state_dict()["batches_drawn"] == drawn


class Fake:
    kinds: tuple[str, ...] = ("loop",)

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def block(self, kind: str, steps: int) -> Timing:
        self.log.append(f"{self.name}{steps}")
        return Timing(float(len(self.log)), 1.0)


def test_blocks_take_turns() -> None:
    log: list[str] = []
    timings = measure([Fake("a", log), Fake("b", log)], 9, 3)
    assert log == ["a3", "b3", "b3", "a3", "a3", "b3"]
    assert [timing.rate for timing in timings[0]["loop"]] == [1, 4, 5]
    assert typical(timings[0]["loop"]) == 4
    assert ratio(timings[0]["loop"], timings[1]["loop"], 2.0) == pytest.approx(5 / 3)  # of 1, 8/3 and 5/3


REFUSED = [
    (["--steps", "0"], "0 is not a whole number of at least 1"),
    (["--threads", "two"], "two is not a whole number"),
    (["--precision", "fp16"], "invalid choice: 'fp16'"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
    (["nonsense"], "nonsense: expected key=value"),
    (["--algorithms", "NONE"], "algorithm=NONE is not known"),
    (["--algorithms", "SAC", "training.batchsize=8"], "did you mean 'training.batch_size'?"),
    (["--algorithms", "SAC", "training.batch_size=many"], "training.batch_size=many is not allowed"),
    (["--algorithms", "SAC", "threads=2"], "threads=2: use --threads 2"),
    (["--algorithms", "SAC", "algorithm=GAIL"], "algorithm=GAIL: use --algorithms GAIL"),
    (["reinforcement.critic.hidden_size=8"], "use --hidden-sizes 8"),
    (["--algorithms", "BC"], "only runs that learn by SAC can be timed"),
    (["--algorithms", "SAC", "env=nowhere"], "env=nowhere is not known"),
    (["--algorithms", "GAIL", "--demonstrations", "none.hdf5"], "none.hdf5"),
    (["--algorithms", "SAC", "--json", "nowhere/figures.json"], "there is no such folder"),
    (["--algorithms", "SAC", "--json", "."], "--json . is not a file"),
    (["--vs", "nothing"], "invalid choice: 'nothing'"),
    (["--algorithms", "SAC", "--runs", "2", "--vs", "stable-baselines3"], "--vs stable-baselines3 needs a row"),
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


def test_figures_replace_others_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    path.write_text("mine")
    options = parse_arguments(["--json", str(path)])
    options.algorithms = []  # nothing to measure
    with full_disk(), pytest.raises(OSError, match="File too large"):
        throughput(options)
    assert capsys.readouterr().out  # printed before
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("figures.json", "mine")]
    throughput(options)
    assert json.loads(path.read_text())["rows"] == []


def test_overrides_may_stand_behind_lists() -> None:
    options = parse_arguments(["--algorithms", "SAC", "env=pendulum", "--demonstrations", "a=b", "seed=3", "--steps=7"])
    assert (options.algorithms, options.overrides) == (["SAC"], ["env=pendulum", "seed=3"])
    assert (options.demonstrations, options.steps) == (Path("a=b"), 7)


@pytest.mark.parametrize("override", ["env=pendulum", "env.id=Pendulum-v1"])
def test_other_environments(override: str) -> None:
    assert configuration(SETTING, [override], None).env.id == "Pendulum-v1"


def test_a_failed_installation_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(venv, "create", lambda folder, **_: (folder / "lib/python3/site-packages").mkdir(parents=True))

    def fail(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="first\nno matching distribution\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(UserError, match=r"stable-baselines3==.* cannot be installed: no matching distribution"):
        peers.install("stable-baselines3", tmp_path)
    assert not (tmp_path / "stable-baselines3" / "installed").exists()


def peer_script(folder: Path, body: str) -> Path:
    path = folder / "peer.py"
    path.write_text(f"import sys, json\nsettings = json.loads(sys.stdin.readline())\nprint('{{}}', flush=True)\n{body}")
    return path


def test_a_peer_answers_line_by_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    body = "for line in sys.stdin: print(json.dumps({'seconds': 2.0, 'processor_seconds': 1.0}), flush=True)"
    monkeypatch.setattr(peers, "script", lambda name: peer_script(tmp_path, body))
    peer = peers.Peer("stable-baselines3", Path(sys.executable), {}, ("loop",))
    assert peer.block("loop", 10) == Timing(5.0, 0.5)
    peer.close()


def test_a_peer_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "script", lambda name: peer_script(tmp_path, "raise ValueError('no such thing')"))
    peer = peers.Peer("stable-baselines3", Path(sys.executable), {}, ("loop",))
    with pytest.raises(UserError, match="--vs stable-baselines3: ValueError: no such thing"):
        peer.block("loop", 10)
    peer.close()


@pytest.mark.parametrize("settings", [{}, {"lines": 1}])
def test_a_peer_that_does_not_answer_in_json_is_not_waited_for(
    settings: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It goes on for 20 s, where another would wait for the next line for ever."""
    script = tmp_path / "peer.py"
    script.write_text(
        "import json, sys, time\nif json.loads(sys.stdin.readline()): print('{}', flush=True), sys.stdin.readline()\n"
        "print('a warning', file=sys.stderr)\nprint('hello', flush=True)\ntime.sleep(20)"
    )
    monkeypatch.setattr(peers, "script", lambda name: script)
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(popen(*arguments, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    with (
        pytest.raises(UserError, match="--vs stable-baselines3: it answered 'hello', expected JSON"),
        contextlib.closing(peers.Peer("stable-baselines3", Path(sys.executable), settings, ("loop",))) as peer,
    ):
        peer.block("loop", 10)
    (process,) = started
    assert process.returncode == -signal.SIGKILL
    assert process.stdin and process.stdout and process.stdin.closed and process.stdout.closed


def test_a_report_names_gpus_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the one of {device}")
    alone = processor()
    assert alone and processor(["cpu", "cpu:0"]) == alone
    assert processor(["cuda", "cpu", "cuda"]) == f"{alone}, the one of cuda"


def test_peak_is_this_process() -> None:
    assert 0.05 < timing.peak() < 64
