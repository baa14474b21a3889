"""Every preset composes on its algorithm, with the published values."""

import pytest

from tests.training.helpers import configured
from training.cli import CONF

PRESETS = sorted(path.stem for path in (CONF / "optimised_hyperparameters").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_compose(preset: str) -> None:
    algorithm, trajectories = preset.split("_")[:2]
    config = configured(f"algorithm={algorithm}", f"optimised_hyperparameters={preset}")
    assert config.imitation.trajectories == (5 if trajectories == "fast" else int(trajectories))


def test_published_values() -> None:
    config = configured("algorithm=GAIL", "optimised_hyperparameters=GAIL_5_trajectories")
    assert (config.training.start, config.training.batch_size) == (10000, 1024)
    assert config.reinforcement.polyak_factor == 0.9710786190163344
    assert config.imitation.entropy_bonus == 0.24145587952807546
    assert config.imitation.loss_function == "Mixup"
    config = configured("algorithm=BC", "optimised_hyperparameters=BC_25_trajectories")
    assert (config.bc_pretraining.iterations, config.training.batch_size) == (78326, 256)
