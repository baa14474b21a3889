"""The whole system learns: the learners solve small tasks on the true reward."""

from pathlib import Path

import pytest

from tests.training.helpers import configured, make_loop
from training.folder import read_table

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_sac_swings_up_the_pendulum(tmp_path: Path) -> None:
    """A random policy returns about -1250 and a good one about -150 (environments/reference_scores.json)."""
    config = configured(
        "algorithm=SAC",
        "env=pendulum",
        "steps=2500",
        "training.start=400",
        "training.batch_size=128",
        "training.learning_rate=3e-3",
        "reinforcement.discount=0.9",
        "reinforcement.actor.hidden_size=64",
        "reinforcement.critic.hidden_size=64",
        "reinforcement.polyak_factor=0.98",
        "evaluation.interval=2500",
        "evaluation.episodes=10",
        "logging.tensorboard=false",
        "logging.progress=false",
        "checkpoint.interval=0",
    )
    loop = make_loop(config, tmp_path)
    loop.run()
    (row,) = read_table(loop.folder / "evaluations.csv")
    assert float(row["return_mean"]) > -300


@pytest.mark.parametrize(
    ("overrides", "solved"),
    [
        # A random policy returns about 22, a perfect one 500.
        (("env=cartpole", "steps=28672", "training.learning_rate=2e-3", "training.batch_size=256"), 475),
        # About -1250 at random.
        (
            (
                "env=pendulum",
                "steps=81920",
                "env.num_envs=32",
                "reinforcement.discount=0.9",
                "training.learning_rate=2e-3",
                "training.learning_rate_schedule=linear",
                "training.interval=4096",
                "training.batch_size=256",
                "reinforcement.normalise_observations=true",
            ),
            -300,
        ),
    ],
)
def test_ppo_solves(overrides: tuple[str, ...], solved: float, tmp_path: Path) -> None:
    config = configured(
        "algorithm=PPO",
        *overrides,
        "evaluation.interval=1000000",
        "evaluation.episodes=10",
        "logging.tensorboard=false",
        "logging.progress=false",
        "checkpoint.interval=0",
    )
    loop = make_loop(config, tmp_path)
    loop.run()
    (row,) = read_table(loop.folder / "evaluations.csv")
    assert float(row["return_mean"]) > solved
