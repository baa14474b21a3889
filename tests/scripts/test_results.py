"""Kept raw files: what is copied and what is refused; the numbers in the tables, worked out by hand."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from scripts import keep_results, make_results
from scripts.kept_runs import SeedRun, load_experiment
from scripts.result_pictures import digest
from tests.scripts.helpers import assert_refused, full_disk
from training.sweeps.results import Evaluation

ROOT = Path(__file__).resolve().parents[2]
HEADER = "phase,step,seed,episodes,return_mean,return_std,score,length_mean,length_min,length_max,seconds"
ROW = "interaction,10,0,5,1,1,1,9,9,9,1\n"
RETURNS = {0: (100, 500, 950, 700, 800, 900, 1000), 1: (0, 100, 200, 300, 400, 880, 600)}  # of demonstrations with 1000


def make_run(folder: Path, seed: int = 0, runs: int = 1, **changed: Any) -> Path:
    """A run as train.py leaves it: an evaluation every 1000 steps and 10 s; scores are thousandths of returns."""
    settings = {"state": "finished", "demonstrations": 1000.0, "weight": 1.0, **changed}
    (folder / ".hydra").mkdir(parents=True)
    config = {
        "algorithm": "GAIL",
        "seed": seed,
        "runs": runs,
        "output_folder": "/home/me/out",
        "resume": None,
        "env": {"name": "hopper", "id": "Hopper-v4", "demonstrations": "/home/me/data/mine.hdf5"},
        "imitation": {"weight": settings["weight"]},
        "logging": {"progress": seed == 0},
    }
    overrides = ["algorithm=GAIL", f"seed={seed}", f"runs={runs}", f"imitation.weight={settings['weight']}"]
    overrides += ["env.demonstrations=/home/me/data/mine.hdf5", "output_folder=/home/me/out", "logging.progress=false"]
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
    status = {"state": settings["state"], "error": "no file /home/me/x", "host": "mine", "process": 7, "device": "cpu"}
    (folder / "status.json").write_text(json.dumps(status))
    result = {
        "demonstration_return": settings["demonstrations"],
        "references": {"expert": 1000.0, "random": 0.0, "source": "worked out"},
        "wall_seconds": 72.0,
        "steps_per_second": 97.2,
    }
    if settings["state"] == "finished":
        (folder / "result.json").write_text(json.dumps(result))
    rows = [
        f"interaction,{1000 * (i + 1)},{own},5,{RETURNS[own][i]},1,{RETURNS[own][i] / 1000},9,9,9,{10 * (i + 1) + seed}"
        for i in range(7)
        for own in range(seed, seed + runs)
    ]
    (folder / "evaluations.csv").write_text("\n".join([HEADER, *rows, ""]))
    return folder


def keep(tmp_path: Path, *arguments: str | Path) -> int:
    return keep_results.main([*map(str, arguments), "--results", str(tmp_path / "results")])


def document(tmp_path: Path) -> str:
    assert make_results.main(["--results", str(tmp_path / "results")]) == 0
    return (tmp_path / "results.md").read_text()


def cells(text: str, line: str) -> list[str]:
    """Of the only table row that begins like this."""
    (found,) = (row for row in text.splitlines() if row.startswith(line))
    return [cell.strip() for cell in found.strip("|").split("|")]


def seed_run(returns: tuple[float, ...], demonstrations: float | None, pretrained: int = 0) -> SeedRun:
    """The first `pretrained` evaluations belong to behavioural cloning."""
    phases = ["behavioural_cloning"] * pretrained + ["interaction"] * (len(returns) - pretrained)
    evaluations = tuple(
        Evaluation(phase, 1000 * (i + 1), float(value), value / 1000, 10.0 * (i + 1))
        for i, (phase, value) in enumerate(zip(phases, returns, strict=True))
    )
    return SeedRun("run", 0, evaluations, demonstrations)


def test_numbers_of_a_seed() -> None:
    seed = seed_run(RETURNS[0], 1000.0)
    assert seed.final.episode_return == 1000
    assert seed.last_mean == (950 + 700 + 800 + 900 + 1000) / 5
    assert (seed.seconds_to_reach, seed.steps_to_reach) == (30.0, 3000)  # 950 >= 900, though it falls again
    assert seed_run((100, 900), 1000.0).seconds_to_reach == 20.0  # at 90% counts
    assert seed_run((100, 899.9), 1000.0).seconds_to_reach == math.inf
    assert seed_run((200, 400), 1000.0).last_mean == 300.0
    assert seed.fraction(500.0) == 0.5


@pytest.mark.parametrize("demonstrations", [None, -150.0, 0.0])
def test_nothing_is_said_beside_demonstrations_that_cannot_be_compared_with(demonstrations: float | None) -> None:
    seed = seed_run((-140.0,), demonstrations)
    assert seed.reached is None
    assert math.isnan(seed.fraction(-140.0))


def test_pretraining_costs_time_but_no_steps() -> None:
    seed = seed_run((950, 100, 300), 1000.0, pretrained=1)
    assert (seed.seconds_to_reach, seed.steps_to_reach) == (10.0, 0)
    assert seed.last_mean == 200.0
    assert seed.best.phase == "behavioural_cloning"


def test_seeds_that_never_get_there_count_as_infinitely_late() -> None:
    seeds = [seed_run(returns, 1000.0) for returns in ((900,), (0, 0, 0, 999), (899,))]
    assert make_results.median(seeds, [seed.seconds_to_reach for seed in seeds]) == "40 (2 of 3)"
    assert make_results.median(seeds[1:], [seed.steps_to_reach for seed in seeds[1:]]) == "never (1 of 2)"
    assert make_results.median(seeds[:2], [seed.steps_to_reach for seed in seeds[:2]]) == "2,500 (2 of 2)"


def test_beside_what_was_published(tmp_path: Path) -> None:
    """Finals of 1000 and 600, of 1000; GAIL's published 187.1 of 203.5. Nothing was published of Hopper itself."""
    runs = [make_run(tmp_path / "ours", runs=2), make_run(tmp_path / "other", seed=1)]
    config = runs[0] / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace('"name": "hopper"', '"name": "seals_hopper"'))
    assert keep(tmp_path, "trial", *runs) == 0
    assert "its expert" not in document(tmp_path)
    (tmp_path / "results" / "trial" / "published.txt").write_text("imitation-v1.0\n")
    (row,) = (line for line in document(tmp_path).splitlines() if "seals_hopper |" in line)
    name, *numbers = (cell.strip() for cell in row.strip("|").split("|"))
    assert name.endswith("GAIL seals_hopper")
    assert numbers == ["800.0 +- 282.8", "1000.0", "0.80", "187.1", "203.5", "0.92"]


def test_only_raw_files_are_kept_without_the_machine(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "policy.pt").touch()
    assert keep(tmp_path, "trial", run, "--note", "from elsewhere") == 0
    kept = tmp_path / "results" / "trial" / "GAIL_hopper_0"
    names = ["config.yaml", "evaluations.csv", "note.txt", "overrides.yaml", "result.json", "status.json"]
    assert sorted(path.name for path in kept.iterdir()) == names
    for path in kept.iterdir():
        assert "/home" not in path.read_text()
    assert "demonstrations: mine.hdf5" in (kept / "config.yaml").read_text()
    assert "output_folder: outputs" in (kept / "config.yaml").read_text()
    assert "- env.demonstrations=mine.hdf5\n- output_folder=outputs\n" in (kept / "overrides.yaml").read_text()
    assert json.loads((kept / "status.json").read_text()) == {
        "state": "finished",
        "error": "no file x",
        "device": "cpu",
    }
    for name in ("evaluations.csv", "result.json"):
        assert (kept / name).read_bytes() == (run / name).read_bytes()


def test_taken_names_are_numbered(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "one", runs=2), make_run(tmp_path / "other", runs=2)
    (other / "evaluations.csv").write_text((other / "evaluations.csv").read_text().replace(",10\n", ",11\n"))
    assert keep(tmp_path, "trial", one, other) == 0
    assert {path.name for path in (tmp_path / "results" / "trial").iterdir()} == {
        "GAIL_hopper_0-1",
        "GAIL_hopper_0-1_2",
    }


@pytest.mark.parametrize("missing", ["status.json", "evaluations.csv", "result.json", ".hydra/config.yaml"])
def test_damaged_runs_are_refused_and_nothing_is_written(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = make_run(tmp_path / "good"), make_run(tmp_path / "bad", seed=1)
    (bad / missing).write_text("")
    assert keep(tmp_path, "trial", good, bad) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(bad / missing) in error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (".hydra/config.yaml", "runs: 1, env: hopper", "env is 'hopper', expected settings with a name and an id"),
        (".hydra/config.yaml", "runs: 1, env: {id: Hopper-v4}", "expected settings with a name and an id"),
        (".hydra/config.yaml", "runs: 1, env: {name: 5, id: Hopper-v4}", "expected settings with a name and an id"),
        (".hydra/config.yaml", "runs: 0, env: {name: hopper, id: Hopper-v4}", "runs=0"),
        ("result.json", '{"references": null}', "references is None, expected expert and random"),
        ("result.json", '{"references": {"expert": "good"}}', "expert is 'good', expected a number"),
        ("result.json", '{"demonstration_return": "1000"}', "demonstration_return is '1000', expected a number"),
        ("result.json", '{"wall_seconds": []}', "wall_seconds is [], expected a number"),
        ("evaluations.csv", f"{HEADER}\ninteraction,10,0,5,1,1,1,9,9,9,soon\n", "is damaged in line 2"),
        ("evaluations.csv", f"{HEADER}\n{ROW}{ROW.replace(',0,', ',3,', 1)}", "of seed 3: expected 0 to 0"),
    ],
)
def test_what_files_may_hold(
    name: str, content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same before a run is kept and, where somebody has edited a file since, when it is read."""
    run = make_run(tmp_path / "run")
    assert keep(tmp_path, "trial", run) == 0
    if name.endswith(".yaml"):
        content = f"{{algorithm: GAIL, seed: 0, {content}}}"
    (tmp_path / "results" / "trial" / "GAIL_hopper_0" / Path(name).name).write_text(content)
    assert_refused(make_results.main, ["--results", str(tmp_path / "results")], words, capsys)
    (run / name).write_text(content)
    arguments = ["other", str(run), "--results", str(tmp_path / "results")]
    assert_refused(keep_results.main, arguments, words, capsys)


def test_a_full_disk_leaves_nothing_half(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, results = make_run(tmp_path / "run"), tmp_path / "results"
    with full_disk():
        assert_refused(keep_results.main, ["trial", str(run), "--results", str(results)], "File too large", capsys)
    assert not list(results.iterdir())
    killed = results / ".trial.part"
    killed.mkdir()
    (killed / "evaluations.csv").write_text("half")
    assert keep(tmp_path, "other", run) == 0
    before = document(tmp_path)  # and no section of what was left behind
    assert "## Other" in before and "rial" not in before
    assert keep(tmp_path, "trial", run) == 0
    assert [path.name for path in sorted(results.glob("*/*"))] == ["GAIL_hopper_0"] * 2
    with full_disk():
        assert_refused(make_results.main, ["--results", str(results)], "File too large", capsys)
    assert (tmp_path / "results.md").read_text() == before


def test_other_bad_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, stopped = make_run(tmp_path / "run"), make_run(tmp_path / "stopped", seed=1, state="interrupted")
    assert keep(tmp_path, "../trial", run) == 2
    assert keep(tmp_path, "trial", tmp_path / "nowhere") == 2
    assert keep(tmp_path, "trial", stopped) == 2
    assert "it is interrupted; --unfinished keeps it" in capsys.readouterr().err
    assert keep(tmp_path, "trial", run, run) == 2
    assert keep(tmp_path, "trial", run) == 0
    assert keep(tmp_path, "trial", run) == 2
    assert "has been kept before, as GAIL_hopper_0" in capsys.readouterr().err
    assert keep(tmp_path, "trial", stopped, "--unfinished") == 0
    assert "**(interrupted)**" in document(tmp_path)


def test_tables(tmp_path: Path) -> None:
    """Two seeds of one setting: the second has 880 at best and never reaches 900; and one seed of another."""
    runs = [make_run(tmp_path / "0"), make_run(tmp_path / "1", seed=1), make_run(tmp_path / "2", weight=3.0)]
    assert keep(tmp_path, "some_trial", *runs[:2]) == 0
    (runs[2] / "evaluations.csv").write_text((runs[2] / "evaluations.csv").read_text() + "\n")  # not the same run
    assert keep(tmp_path, "some_trial", runs[2], "--note", "a note") == 0
    (tmp_path / "results" / "some_trial" / "README.md").write_text("An introduction.\n")
    text = document(tmp_path)
    assert "## Some trial\n\nAn introduction.\n" in text
    command = "python train.py algorithm=GAIL runs=1 imitation.weight=1.0 env.demonstrations=mine.hdf5"
    assert f"1. `{command}`\n2. `{command.replace('1.0', '3.0')}`\n" in text
    # Final 1000 and 600: mean 800, deviation 400 / sqrt(2). Last five 870 and (200 + 300 + 400 + 880 + 600) / 5 = 476.
    returns = ["2", "7,000", "1000.0", "800.0 +- 282.8", "0.800 +- 0.283", "673.0 +- 278.6", "940.0 +- 84.9"]
    rest = ["0.80", "0.94", "never (1 of 2)", "never (1 of 2)", "72", "97"]
    assert cells(text, "| **1** | 2 |")[1:] == returns + rest
    single = ["1", "7,000", "1000.0", "1000.0", "1.000", "870.0", "1000.0", "1.00", "1.00", "30 (1 of 1)"]
    assert cells(text, "| **2** | 1 |")[1:11] == single
    seeds = ["1", "7,000", "600.0", "0.600", "476.0", "880.0", "6,000", "never", "never", "72", "97"]
    assert cells(text, "| **1** | [GAIL_hopper_1]")[2:] == seeds
    assert "- Note on GAIL_hopper_0_2: a note\n" in text
    assert "score 1 is a return of 1000.0, score 0 one of 0.0 (worked out)" in text


def test_rows_are_told_apart_by_what_was_given(tmp_path: Path) -> None:
    assert keep(tmp_path, "trial", make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, weight=3.0)) == 0
    rows = load_experiment(tmp_path / "results" / "trial")
    assert make_results.labels(rows) == ["1. imitation.weight=1.0", "2. imitation.weight=3.0"]
    assert make_results.labels(rows[:1]) == ["GAIL on Hopper-v4"]


def test_what_each_algorithm_costs(tmp_path: Path) -> None:
    """A step of 1/100 s beside one of 1/80 s: 1.25 times as long. Nothing stands beside a row without SAC's."""

    def measured(algorithm: str, precision: str, loop: float) -> dict[str, Any]:
        sizes = {"threads": 1, "runs": 1, "hidden_size": 256, "environment": 4000.0, "updates": 120.0, "of_limit": 0.5}
        return {"algorithm": algorithm, "precision": precision, "loop": loop, **sizes}

    rows = [measured("SAC", "fp32", 100.0), measured("RED", "fp32", 80.0), measured("RED", "bf16", 90.0)]
    peaks = [{"algorithm": name, "peak_gib": gib, "rows": 1_000_000} for name, gib in (("SAC", 0.48), ("RED", 0.5))]
    report = {"command": "python scripts/throughput.py", "processor": "Abacus", "rows": rows, "peak_memory": peaks}
    assert keep(tmp_path, "trial", make_run(tmp_path / "0")) == 0
    (tmp_path / "results" / "throughput.json").write_text(json.dumps(report))
    text = document(tmp_path)
    assert "## Speed: SAC, RED\n\n    python scripts/throughput.py\n" in text
    assert "| SAC | fp32 | 1 | 1 | 256 | 4000 | 120 | 100 | 1.00 | 50% | 0.48 |\n" in text
    assert "| RED | fp32 | 1 | 1 | 256 | 4000 | 120 | 80 | 1.25 | 50% | 0.50 |\n" in text
    assert "| RED | bf16 | 1 | 1 | 256 | 4000 | 120 | 90 | - | 50% | 0.50 |\n" in text


def test_speed_on_policy(tmp_path: Path) -> None:
    """Beside another library where there was one; each side says with which packages it ran."""
    sizes = {"envs": 8, "env_threads": 2, "rollout": 2048, "minibatch": 64, "epochs": 10, "peak_gib": 0.284}
    ours = {
        "algorithm": "PPO",
        **sizes,
        "rate": 4000.4,
        "processor_rate": 8000.0,
        "busy": 0.5,
        "environments_rate": 9000.0,
    }
    peer = {"name": "other==1.0", "rate": 1000.0, "processor_rate": 3000.0, "busy": 0.25, "versions": {"torch": "2"}}
    peer |= {"ratio": 4.0, "processor_ratio": 2.667}
    rows = [{**ours, "environment": "cartpole", "peer": peer}, {**ours, "environment": "pendulum"}]
    report = {"command": "python scripts/on_policy_speed.py", "processor": "Abacus", "versions": {"torch": "3"}}
    assert keep(tmp_path, "trial", make_run(tmp_path / "0")) == 0
    (tmp_path / "results" / "on_policy_speed.json").write_text(json.dumps(report | {"rows": rows}))
    text = document(tmp_path)
    assert "## Speed on-policy\n\n    python scripts/on_policy_speed.py\n" in text
    sizes_and_ours = "2 | 2048 | 64 | 10 | 4000 | 8000 | 9000 | 0.28"
    assert f"| PPO | cartpole | {sizes_and_ours} | other==1.0 | 1000 | 3000 | 4.00 | 2.67 |\n" in text
    assert f"| PPO | pendulum | {sizes_and_ours} | - | - | - | - | - |\n" in text
    assert "- Abacus, one thread of PyTorch, 8 environments" in text and "had at least 25% of a processor" in text
    assert text.endswith("\n- Ours ran with torch 3.\n- other==1.0 ran with torch 2.\n")


def test_the_same_input_makes_the_same_files(tmp_path: Path) -> None:
    assert keep(tmp_path, "trial", make_run(tmp_path / "run", runs=2)) == 0
    first = document(tmp_path), (tmp_path / "results" / "trial.png").read_bytes()
    assert (document(tmp_path), (tmp_path / "results" / "trial.png").read_bytes()) == first


def test_nothing_kept_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_results.main(["--results", str(tmp_path)]) == 2
    assert "keep some with scripts/keep_results.py first" in capsys.readouterr().err


def description(picture: Path) -> str:
    with Image.open(picture) as image:
        return str(image.info["Description"])


def test_the_committed_tables_and_pictures_are_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures by the digest of what they show: other fonts make other pixels, so none are rendered here."""
    made: dict[str, str] = {}

    def save(figure: Figure, path: Path, metadata: dict[str, str]) -> None:
        made[path.name] = metadata["Description"]

    monkeypatch.setattr(Figure, "savefig", save)
    results, written = ROOT / "docs" / "results", ROOT / "docs" / "results.md"
    assert make_results.main(["--results", str(results), "--output", str(tmp_path / "results.md")]) == 0
    assert (tmp_path / "results.md").read_text() == written.read_text(), "run make figures"
    assert made == {path.name: description(path) for path in results.glob("*.png")}, "run make figures"


def test_a_picture_says_what_it_shows(tmp_path: Path) -> None:
    assert keep(tmp_path, "trial", make_run(tmp_path / "a")) == 0
    rows = load_experiment(tmp_path / "results" / "trial")
    before = digest(rows, ["one"], "Trial")
    document(tmp_path)
    assert description(tmp_path / "results" / "trial.png") == digest(rows, make_results.labels(rows), "Trial")
    table = tmp_path / "results" / "trial" / "GAIL_hopper_0" / "evaluations.csv"
    table.write_text(table.read_text().replace(",950,", ",951,"))
    assert digest(load_experiment(tmp_path / "results" / "trial"), ["one"], "Trial") != before


def test_every_picture_in_the_documentation_is_one_of_them() -> None:
    made = {path.with_suffix(".png") for path in (ROOT / "docs" / "results").glob("*/") if any(path.glob("*/"))}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {
        (page.parent / name).resolve()
        for page in pages
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())
    }
    assert shown and shown <= made
