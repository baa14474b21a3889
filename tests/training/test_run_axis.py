"""Several seeds in one program: each is what it would be alone, and none reads or moves another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms import IMITATION_MODULES
from algorithms.base import TrainingConfig
from algorithms.behavioural_cloning import BCPretrainingConfig, BehaviouralCloning
from algorithms.imitation.gail import GAIL, GAILConfig
from algorithms.learners.ppo import PPOConfig, TowerConfig
from algorithms.learners.sac import SAC, SACConfig
from environments.construction import EnvironmentConfig
from memory.batch import Batch
from models.discriminators import DiscriminatorConfig
from models.mlp import MLP
from tests.algorithms.support import (
    WALK,
    make_batch,
    make_config,
    make_context,
    parameters,
    small_network,
    write_demonstrations,
)
from training.build import Parts, build
from training.phases import Interaction

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

NETWORK = {"layer_norm": True, "dropout": 0.1}
EVERYTHING: dict[str, Any] = {
    "spectral_norm": True,
    "grad_penalty": 1.0,
    "entropy_bonus": 0.01,
    "learning_rate": 1e-3,
    "bc_aux_loss": True,
    "mix_expert_data": "mixed_batch",
}


def discriminator(**options: Any) -> DiscriminatorConfig:
    return DiscriminatorConfig(
        **{"hidden_size": 8, "dropout": 0.5, "input_dropout": 0.2, "reward_shaping": True, **options}
    )


def gail(**options: Any) -> GAILConfig:
    return GAILConfig(model=discriminator(subtract_log_policy=True), **(EVERYTHING | options))


def of_run(module: nn.Module, run: int) -> dict[str, Tensor]:
    """Parameters and buffers of one run. The run axis is the first, but the second in ensembles (and twin critics)."""
    ensembles = [name for name, part in module.named_modules() if isinstance(part, MLP) and len(part.members) > 1]
    values = parameters(module) | {name: value.clone() for name, value in module.named_buffers()}
    return {
        name: value[:, run] if any(name.startswith(f"{ensemble}.") for ensemble in ensembles) else value[run]
        for name, value in values.items()
    }


def train(module: str, demonstrations: Path | None, seed: int, runs: int, updates: int, **fields: Any) -> Parts:
    networks = SACConfig(actor=small_network(**NETWORK), critic=small_network(**NETWORK))
    config = make_config(module, demonstrations, **{"seed": seed, "runs": runs, "reinforcement": networks, **fields})
    parts = build(config)
    for phase in parts.phases:
        done = steps = 0
        while done < updates and steps < phase.length:
            done += bool(phase.advance())
            steps += phase.stride
        assert done == min(updates, phase.length)
        phase.finish()
    return parts


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "sac": lambda path: {"module": "none", "demonstrations": None},
    "sac on Pendulum": lambda path: {
        "module": "none",
        "demonstrations": None,
        "env": EnvironmentConfig(name="pendulum", id="Pendulum-v1"),
    },
    "sac, running statistics": lambda path: {
        "module": "none",
        "demonstrations": None,
        "env": EnvironmentConfig(name="hopper", id="Hopper-v4", normalise_observations=True),
    },
    "bc": lambda path: {
        "module": "cloning",
        "demonstrations": path,
        "bc_pretraining": BCPretrainingConfig(iterations=30),
    },
    "bc, epochs, early stopping": lambda path: {
        "module": "cloning",
        "demonstrations": path,
        "bc_pretraining": BCPretrainingConfig(
            epochs=10, learning_rate=1e-2, entropy_weight=0.01, l2_weight=0.01, validation_share=0.3, patience=1
        ),
    },
    # The seeds stop one after another, which must not be seen in what they draw afterwards.
    "gail behind cloning with early stopping": lambda path: {
        "module": "gail",
        "demonstrations": path,
        "imitation": gail(),
        "reinforcement": SACConfig(actor=small_network(dropout=0.2), critic=small_network(**NETWORK)),
        "bc_pretraining": BCPretrainingConfig(iterations=15, learning_rate=0.1, validation_share=0.5, patience=1),
    },
    "gail": lambda path: {"module": "gail", "demonstrations": path, "imitation": gail()},
    "gail, mixup": lambda path: {
        "module": "gail",
        "demonstrations": path,
        "imitation": gail(loss_function="Mixup", mix_expert_data="prefill_memory"),
    },
}


def on_policy(module: str, path: Path | None, **options: Any) -> dict[str, Any]:
    tower = TowerConfig(hidden_size=8, depth=1)
    return {
        "module": module,
        "demonstrations": path,
        "learner": "ppo",
        "training": TrainingConfig(start=0, interval=12, batch_size=5, learning_rate=1e-3),
        "reinforcement": PPOConfig(actor=tower, critic=tower, normalise_observations=True, target_kl=0.001),
        "steps": 400,
        **options,
    }


def gail_on_ppo(path: Path) -> dict[str, Any]:
    options: dict[str, Any] = {"updates": 2, "batch_size": 6, "buffer_size": 20, "normalise_rewards": True}
    model = discriminator(subtract_log_policy=True, normalise_inputs=True, reward_function="f")
    imitation = GAILConfig(model=model, absorbing=False, allow_variable_horizon=True, bc_aux_loss=True, **options)
    return on_policy("gail", path, imitation=imitation)


CASES |= {
    "gail on ppo": gail_on_ppo,
    "ppo": lambda path: on_policy("none", None),
    "ppo on CartPole": lambda path: on_policy(
        "none", None, env=EnvironmentConfig(name="cartpole", id="CartPole-v1", num_envs=2)
    ),
}


def defaults_of(name: str) -> Callable[[Path], dict[str, Any]]:
    return lambda path: {"module": name, "demonstrations": path}


CASES |= {  # every other module, by itself
    name: defaults_of(name)
    for name, module in IMITATION_MODULES.items()
    if module.provides_rewards and name not in ("none", *CASES)
}


@pytest.mark.parametrize("case", CASES)
def test_a_seed_is_the_same_alone_and_beside_others(case: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"training": TrainingConfig(start=8, interval=2, batch_size=8, learning_rate=1e-3)}
    options |= CASES[case](write_demonstrations(tmp_path / "d.hdf5"))
    updates = 6 if options.get("learner") == "ppo" else 15  # of PPO each is dozens of steps of the optimiser
    together = train(seed=3, runs=3, updates=updates, **options)
    for run, seed in enumerate((3, 4, 5)):
        alone = train(seed=seed, runs=1, updates=updates, **options)
        for part in ("learner", "imitation"):
            expected, found = of_run(getattr(alone, part), 0), of_run(getattr(together, part), run)
            assert expected.keys() == found.keys()
            for name, value in expected.items():
                assert torch.allclose(value, found[name], atol=2e-4, rtol=1e-3), f"{name} of seed {seed}"
    if case in ("gail", "gail, mixup"):  # absorbing rows: episodes ended at different times
        interaction: Any = together.phases[-1]
        assert len(set(interaction.memory.size)) > 1
    learned = [of_run(together.learner, run) for run in range(3)]
    assert not torch.allclose(learned[0]["policy.network.final.weight"], learned[1]["policy.network.final.weight"])


def perturbed(batch: Batch) -> Batch:
    """Another run 1."""
    other = make_batch(2, batch.shape[1], batch.observations.shape[-1], batch.actions.shape[-1], seed=99)
    return Batch(
        *(
            torch.stack([getattr(batch, name)[0], scale * getattr(other, name)[1]])
            for name, scale in {name: 3.0 if name == "rewards" else 1.0 for name in Batch.__dataclass_fields__}.items()
        )
    )


@pytest.mark.parametrize("part", ["sac", "bc", "gail", "gail, mixup", "gail, pugail"])
def test_another_run_s_data_changes_nothing_bit_for_bit(part: str) -> None:
    def trained(change: Callable[[Batch], Batch]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        context = make_context((0, 1))
        sac = SAC(
            SACConfig(actor=small_network(**NETWORK), critic=small_network(**NETWORK)),
            TrainingConfig(learning_rate=1e-2),
            gail(),
            context,
        )
        loss = {"gail, mixup": "Mixup", "gail, pugail": "PUGAIL"}.get(part, "BCE")
        module = GAIL(gail(loss_function=loss), context)
        cloning = BehaviouralCloning(sac.policy, BCPretrainingConfig(learning_rate=1e-2))
        for seed in range(5):
            batch, expert_batch = (change(make_batch(2, 8, seed=seed + offset)) for offset in (0, 50))
            if part == "sac":
                sac.update(batch, expert_batch)
            elif part == "bc":
                cloning.update(expert_batch)
            else:
                module.update(batch, expert_batch, sac.policy)
        joined = nn.ModuleList([sac, module])
        return of_run(joined, 0), of_run(joined, 1)

    (first, moved), (same, other) = trained(lambda batch: batch), trained(perturbed)
    for name, value in first.items():
        assert torch.equal(value, same[name]), name
    assert any(not torch.equal(value, other[name]) for name, value in moved.items())


def test_episodes_of_runs_end_at_different_times_and_reset_alone(tmp_path: Path) -> None:
    config = make_config("gail", write_demonstrations(tmp_path / "d.hdf5"), imitation=gail(), runs=3)
    interaction = build(config).phases[-1]
    assert isinstance(interaction, Interaction) and config.env.id == WALK
    for _ in range(30):
        interaction.advance()
    memory: Any = interaction.memory
    rows = memory.layout.unpack(memory.rows)
    assert len(set(memory.size)) > 1  # different numbers of ends
    for run, size in enumerate(memory.size):
        loops = int(rows.absorbing[run, :size].sum())
        assert size == 60 + loops  # two environments, 30 steps, and one row more for each true end
        assert rows.absorbing[run, size:].sum() == 0
