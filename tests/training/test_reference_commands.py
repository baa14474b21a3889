"""What users of the reference system know: its commands work here as they stand, and its options have their names."""

from pathlib import Path

import pytest

from tests.training.commands import QUICK, assert_refused, run, status_of
from tests.warm import run_apart
from training.config import known_keys
from training.explain import choices, parse_overrides
from training.sweeps.grid import sweep_folder
from training.sweeps.plan import grid, planned

ALGORITHMS = ("AdRIL", "BC", "DRIL", "GAIL", "GMMIL", "PWIL", "RED", "SAC")
ENVIRONMENTS = ("ant", "halfcheetah", "hopper", "walker2d")
OPTIONS = (
    "bc_pretraining.iterations", "imitation.state_only", "imitation.absorbing", "imitation.mix_expert_data",
    "imitation.bc_aux_loss", "imitation.balanced", "imitation.update_freq", "imitation.model.reward_shaping",
    "imitation.model.subtract_log_policy", "imitation.model.reward_function", "imitation.grad_penalty",
    "imitation.spectral_norm", "imitation.entropy_bonus", "imitation.loss_function", "imitation.mixup_alpha",
    "imitation.pos_class_prior", "imitation.nonnegative_margin", "imitation.reward_scale",
    "imitation.reward_bandwidth_scale",
)  # fmt: skip


def test_algorithms_environments_and_tuned_hyperparameters_have_their_names() -> None:
    """test_config.py has every algorithm on every environment, test_presets.py every preset on its algorithm."""
    assert set(ALGORITHMS) <= set(choices("algorithm"))
    assert set(ENVIRONMENTS) <= set(choices("env"))
    tuned = {f"{name}_{number}_trajectories" for name in ALGORITHMS if name != "SAC" for number in (5, 10, 25)}
    assert tuned <= set(choices("optimised_hyperparameters"))


def test_the_mistaken_key_is_answered_with_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run("use_optimised_hyperparameters=AdRIL_5_trajectories", "env=halfcheetah")
    assert_refused(outcome, "use_optimised_hyperparameters is not a key; did you mean 'optimised_hyperparameters'?")


def test_options_have_their_names() -> None:
    assert set(OPTIONS) <= set(known_keys())


def test_a_sweep_over_seeds(tmp_path: Path) -> None:
    typed = ["algorithm=PWIL", "env=walker2d", "seed=1,2,3,4,5"]
    assert [planned(str(number), own).overrides for number, own in enumerate(grid(parse_overrides(typed)))] == [
        ("algorithm=PWIL", "env=walker2d", f"seed={seed}") for seed in range(1, 6)
    ]
    folder = sweep_folder(parse_overrides([*typed, f"output_folder={tmp_path}"]), "sweep")
    assert folder.parent == tmp_path / "PWIL_walker2d_sweep"


def test_a_run_and_all_environments(tmp_path: Path) -> None:
    quick = [override for override in QUICK if not override.startswith("env=")]
    tiny = ("algorithm=BC", "env=hopper", "bc_pretraining.iterations=3", *quick, f"output_folder={tmp_path}")
    assert run_apart(*tiny).status == 0
    assert run_apart(*tiny, program="train_all.py").status == 0
    (single,) = tmp_path.glob("BC_hopper/*")
    (joint,) = tmp_path.glob("BC_all/*/hopper")
    assert status_of(single)["state"] == status_of(joint)["state"] == "finished"
