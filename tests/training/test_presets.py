"""Every preset composes on its algorithm, with the published values; every search space is one."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep
from omegaconf import OmegaConf

from tests.training.helpers import configured
from training.cli import CONF

PRESETS = sorted(path.stem for path in (CONF / "optimised_hyperparameters").glob("*.yaml"))
SPACES = sorted(path.stem for path in (CONF / "hyperparameter_search_space").glob("*.yaml"))

# Table of the publication: learning rate (of cloning for BC), and one value of the algorithm's own.
PUBLISHED = {
    ("BC", 5): (0.000147441143532693, "bc_pretraining.iterations", 29212),
    ("BC", 10): (0.0002902064042072743, "bc_pretraining.iterations", 36931),
    ("BC", 25): (0.0002687317801822095, "bc_pretraining.iterations", 78326),
    ("AdRIL", 5): (0.00020860739624127742, "imitation.update_freq", 0),
    ("AdRIL", 10): (0.00017316286685876544, "imitation.balanced", False),
    ("AdRIL", 25): (0.00015730742379091678, "imitation.update_freq", 25000),
    ("DRIL", 5): (3.5387511011213066e-05, "imitation.model.input_dropout", 0.21217001089826226),
    ("DRIL", 10): (0.0001284688053186983, "imitation.pretraining.iterations", 47314),
    ("DRIL", 25): (0.00020103296035900708, "imitation.quantile_cutoff", 0.965162338912487),
    ("GAIL", 5): (0.00025322167522273957, "imitation.entropy_bonus", 0.24145587952807546),
    ("GAIL", 10): (0.00025869653815403576, "imitation.spectral_norm", False),
    ("GAIL", 25): (0.00029839155494235456, "imitation.model.reward_function", "GAIL"),
    ("GMMIL", 5): (0.00025876440919004375, "reinforcement.discount", 0.966992348767817),
    ("GMMIL", 10): (0.00016340577041298572, "reinforcement.polyak_factor", 0.995),
    ("GMMIL", 25): (0.00013455600504714904, "reinforcement.target_temperature", -0.5655945312038188),
    ("PWIL", 5): (0.00024770155428908763, "imitation.reward_bandwidth_scale", 1.0),
    ("PWIL", 10): (0.0002636554116290062, "imitation.reward_scale", 10.0),
    ("PWIL", 25): (0.00020213335672393437, "training.batch_size", 1024),
    ("RED", 5): (0.000255937368851155, "imitation.model.dropout", 0.37710048034787175),
    ("RED", 10): (0.0002876944901514798, "imitation.weight_decay", 2.46429905295372),
    ("RED", 25): (5.728660365566611e-05, "imitation.model.activation", "tanh"),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_compose(preset: str) -> None:
    algorithm, trajectories = preset.split("_")[:2]
    config = configured(f"algorithm={algorithm}", f"optimised_hyperparameters={preset}")
    assert config.imitation.trajectories == (5 if trajectories == "fast" else int(trajectories))


@pytest.mark.parametrize(("algorithm", "trajectories"), PUBLISHED)
def test_published_values(algorithm: str, trajectories: int) -> None:
    learning_rate, key, value = PUBLISHED[algorithm, trajectories]
    preset = f"{algorithm}_{trajectories}_trajectories"
    config = configured(f"algorithm={algorithm}", f"optimised_hyperparameters={preset}")
    section = config.bc_pretraining if algorithm == "BC" else config.training
    assert section.learning_rate == learning_rate
    assert OmegaConf.select(OmegaConf.structured(config), key) == value


@pytest.mark.parametrize("space", SPACES)
def test_both_ends_of_every_searched_range_are_allowed(space: str) -> None:
    searched = dict(OmegaConf.load(CONF / "hyperparameter_search_space" / f"{space}.yaml"))
    searched.pop("defaults", None)
    for key, text in searched.items():
        value = OverridesParser.create().parse_override(f"{key}={text}").value()
        assert isinstance(value, (str, ChoiceSweep, IntervalSweep))
        ends = [value.start, value.end] if isinstance(value, IntervalSweep) else getattr(value, "list", [value])
        for end in ends:
            configured(f"algorithm={space}", f"{key}={end}")
