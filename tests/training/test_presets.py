"""Every preset composes on its algorithm, with the published values; every search space is one."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep
from omegaconf import OmegaConf

from algorithms.learners.ppo import PPOConfig
from tests.training.helpers import configured
from training.cli import CONF
from training.config import Config
from training.sweeps.plan import planned

NAMES = sorted(path.stem for path in (CONF / "optimised_hyperparameters").glob("*.yaml"))
PRESETS = [name for name in NAMES if "_seals_" not in name]
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
    algorithm, rest = preset.split("_")[:2]
    overrides = (f"algorithm={algorithm}", f"optimised_hyperparameters={preset}")
    planned("0", overrides)  # which refuses presets of other algorithms
    config = configured(*overrides)
    own = {"GAIL_fast": 5, "SAC_expert": 0, "BC_fast": 0}.get(f"{algorithm}_{rest}")
    assert config.imitation.trajectories == (int(rest) if own is None else own)


@pytest.mark.parametrize(("algorithm", "trajectories"), PUBLISHED)
def test_published_values(algorithm: str, trajectories: int) -> None:
    learning_rate, key, value = PUBLISHED[algorithm, trajectories]
    preset = f"{algorithm}_{trajectories}_trajectories"
    config = configured(f"algorithm={algorithm}", f"optimised_hyperparameters={preset}")
    section = config.bc_pretraining if algorithm == "BC" else config.training
    assert section.learning_rate == learning_rate
    assert OmegaConf.select(OmegaConf.structured(config), key) == value


# Published by Gleave et al. (2022). Of each environment what GAIL and AIRL share: minibatch, epochs, clip range,
# lambda, discount, gradient norm, value coefficient, hidden units, activation; then of each algorithm: learning rate,
# entropy coefficient, rollout, rows and buffer of the discriminator, its updates.
SHARED = {
    "ant": (16, 10, 0.3, 0.8, 0.995, 0.9, 0.4351450387648799, 32, "tanh"),
    "half_cheetah": (64, 5, 0.1, 0.95, 0.95, 0.8, 0.11483689492120866, 32, "tanh"),
    "hopper": (512, 20, 0.1, 0.98, 0.995, 0.9, 0.20315938606555833, 64, "relu"),
    "swimmer": (64, 5, 0.1, 0.95, 0.999, 2.0, 0.6162112311062333, 64, "relu"),
    "walker": (128, 20, 0.4, 0.92, 0.98, 0.6, 0.6167177795726859, 64, "relu"),
}
OWN = {
    "GAIL_seals_ant": (2.428297806883194e-5, 0.008871887607426377, 16384, 32, 16384, 8),
    "GAIL_seals_half_cheetah": (0.00026250519057717037, 3.992371122209408e-6, 4096, 8192, 512, 8),
    "GAIL_seals_hopper": (4.3984856156897565e-5, 0.001255299425412744, 4096, 128, 4096, 8),
    "GAIL_seals_swimmer": (2.0190030388504567e-5, 2.257758693006348e-6, 4096, 32, 4096, 16),
    "GAIL_seals_walker": (1.943992487657563e-5, 0.0007566389899529574, 16384, 512, 16384, 16),
    "AIRL_seals_ant": (3.249429831179079e-5, 3.27750078482474e-6, 8192, 8192, 8192, 16),
    "AIRL_seals_half_cheetah": (0.00047248619386801587, 0.0005544771755195421, 8192, 2048, 512, 16),
    "AIRL_seals_hopper": (0.0005807211840258373, 0.009709494745755033, 8192, 2048, 8192, 16),
    "AIRL_seals_swimmer": (0.0013390060486393868, 0.006137718463434523, 16384, 128, 16384, 16),
    "AIRL_seals_walker": (3.052170958603811e-5, 0.002003867232707145, 16384, 512, 16384, 16),
}


# Of the same publication: batch, L2 term, learning rate and epochs.
CLONED = {
    "ant": (16, 2.350251568550711e-5, 0.0017601048183920826, 5),
    "half_cheetah": (64, 0.005728455628518169, 0.008056922426724927, 20),
    "hopper": (64, 1.3610189916104634e-6, 0.0007172435323620212, 20),
    "swimmer": (16, 4.37857842825771e-5, 0.0016370547173923296, 10),
    "walker": (32, 0.0014680228143404998, 0.0003034620018780926, 20),
}
# Epochs behind a round, the expert's share in rounds 0, 1 and 2, episodes of a round, and steps.
AGGREGATED = {
    "ant": (10, (1.0, 14 / 15, 13 / 15), 5, 100_000),
    "half_cheetah": (5, (1.0, 0.7, 0.49), 5, 60_000),
    "hopper": (1, (1.0, 0.7, 0.49), 10, 100_000),
    "swimmer": (1, (1.0, 14 / 15, 13 / 15), 3, 100_000),
    "walker": (5, (1.0, 0.7, 0.49), 5, 100_000),
}


def test_every_preset_is_checked() -> None:
    others = {f"BC_seals_{name}" for name in CLONED} | {f"DAgger_seals_{name}" for name in AGGREGATED}
    assert {name for name in NAMES if name not in PRESETS} == set(OWN) | others


@pytest.mark.parametrize("environment", CLONED)
def test_published_values_of_cloning(environment: str) -> None:
    config = configured("algorithm=BC", f"optimised_hyperparameters=BC_seals_{environment}")
    cloning = config.bc_pretraining
    assert (config.training.batch_size, cloning.l2_weight, cloning.learning_rate, cloning.epochs) == CLONED[environment]
    assert (cloning.iterations, cloning.entropy_weight, cloning.weight_decay, config.steps) == (0, 1e-3, 0, 0)
    check_small_tower(config, environment)


@pytest.mark.parametrize("environment", AGGREGATED)
def test_published_values_of_dagger(environment: str) -> None:
    config = configured("algorithm=DAgger", f"optimised_hyperparameters=DAgger_seals_{environment}")
    imitation, cloning = config.imitation, config.imitation.cloning
    epochs, betas, episodes, steps = AGGREGATED[environment]
    assert (cloning.epochs, imitation.round_min_episodes, config.steps) == (epochs, episodes, steps)
    assert [imitation.schedule()(index) for index in range(3)] == pytest.approx(betas)
    assert (cloning.l2_weight, cloning.learning_rate, cloning.entropy_weight) == (1e-4, 1e-3, 1e-3)
    assert (config.training.batch_size, cloning.iterations, config.env.num_envs) == (16, 0, 8)
    check_small_tower(config, environment)


def check_small_tower(config: Config, environment: str) -> None:
    """Gaussian policies of two layers of 32 units and tanh, without normalisation."""
    learner = config.reinforcement
    assert isinstance(learner, PPOConfig) and not learner.normalise_observations
    assert (learner.actor.hidden_size, learner.actor.depth, learner.actor.activation) == (32, 2, "tanh")
    assert config.env.name == f"seals_{environment}"


@pytest.mark.parametrize("preset", OWN)
def test_published_values_on_ppo(preset: str) -> None:
    """The preset alone chooses learner and environment."""
    algorithm, _, environment = preset.partition("_seals_")
    config = configured(f"algorithm={algorithm}", f"optimised_hyperparameters={preset}")
    learner, training, imitation = config.reinforcement, config.training, config.imitation
    assert (config.env.name, config.steps, config.env.num_envs) == (f"seals_{environment}", 10_000_000, 8)
    assert (
        training.batch_size,
        learner.epochs,
        learner.clip_range,
        learner.gae_lambda,
        learner.discount,
        learner.max_grad_norm,
        learner.value_coefficient,
        learner.actor.hidden_size,
        learner.actor.activation,
    ) == SHARED[environment]
    assert (
        training.learning_rate,
        learner.entropy_coefficient,
        training.interval,
        imitation.batch_size,
        imitation.buffer_size,
        imitation.updates,
    ) == OWN[preset]
    assert learner.actor == learner.critic and learner.actor.depth == 2
    assert learner.normalise_observations and imitation.normalise_rewards and imitation.model.normalise_inputs
    assert (imitation.learning_rate, imitation.model.hidden_size, imitation.model.depth) == (1e-3, 32, 2)
    assert imitation.model.reward_shaping == imitation.model.subtract_log_policy == (algorithm == "AIRL")
    assert imitation.model.reward_function == {"GAIL": "GAIL", "AIRL": "f"}[algorithm]


@pytest.mark.parametrize("space", SPACES)
def test_both_ends_of_every_searched_range_are_allowed(space: str) -> None:
    searched = dict(OmegaConf.load(CONF / "hyperparameter_search_space" / f"{space}.yaml"))
    searched.pop("defaults", None)
    parsed = {key: OverridesParser.create().parse_override(f"{key}={text}").value() for key, text in searched.items()}
    assert all(isinstance(value, (str, ChoiceSweep, IntervalSweep)) for value in parsed.values())
    ends = {
        key: [value.start, value.end] if isinstance(value, IntervalSweep) else getattr(value, "list", [value])
        for key, value in parsed.items()
    }
    algorithm, _, learner = space.partition("_")
    chosen = [f"learner={learner}", "env=seals_hopper"] if learner else []
    first = {key: values[0] for key, values in ends.items()}
    for key, values in ends.items():
        for value in values:
            overrides = [f"{name}={end}" for name, end in (first | {key: value}).items()]
            configured(f"algorithm={algorithm}", *chosen, *overrides)
