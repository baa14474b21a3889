"""The configuration: what composes, what is checked, and what a custom environment is called."""

import dataclasses
import math
from functools import cache

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from algorithms import IMITATION_MODULES, LEARNERS
from conf.errors import UserError
from conf.fields import Section, choice, expected, problem, ranged
from tests.training.helpers import composed, configured
from training.build import demonstrations_path
from training.cli import CONF
from training.config import known_keys, parse, unknown_key


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


ALGORITHMS = names("algorithm")
ENVIRONMENTS = [name for name in names("env") if name != "custom"]


@cache
def composed_once(*overrides: str) -> DictConfig:
    """To be read, not changed."""
    return composed(*overrides)


@cache
def changes_of_env(*overrides: str) -> dict[str, object]:
    """What these choose in the section `env` other than SAC does on Hopper."""
    chosen, default = (
        OmegaConf.to_container(composed_once(*own).env) for own in (overrides, ("algorithm=SAC", "env=hopper"))
    )
    assert isinstance(chosen, dict) and isinstance(default, dict) and chosen.keys() == default.keys()
    return {str(key): value for key, value in chosen.items() if value != default[key]}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_algorithm_fits_every_environment(algorithm: str, environment: str) -> None:
    """What each of them chooses is put together here: Hydra would take long, and the next test says that it does so."""
    of_environment = changes_of_env("algorithm=SAC", f"env={environment}")
    assert not of_environment.keys() & changes_of_env(f"algorithm={algorithm}").keys()
    composition = composed(f"algorithm={algorithm}")
    composition.env.update(of_environment)
    config = parse(composition)
    assert config.algorithm == algorithm
    assert config.env.name == environment


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_changes_its_own_section_alone(environment: str) -> None:
    composition = composed("algorithm=SAC", f"env={environment}")
    assert composition.env.name == environment
    composition.env = composed_once("algorithm=SAC", "env=hopper").env
    assert composition == composed_once("algorithm=SAC", "env=hopper")


def test_no_file_belongs_to_an_environment_and_something_else() -> None:
    """As those in conf/algorithm_learner belong to two."""
    defaults = [yaml.safe_load(path.read_text()).get("defaults", []) for path in CONF.rglob("*.yaml")]
    assert "${algorithm}_${learner}" in str(defaults)
    assert "${env" not in str(defaults)


def test_every_key_of_the_configuration_is_known() -> None:
    def leaves(node: object, prefix: str = "") -> list[str]:
        if not isinstance(node, dict):
            return [prefix[:-1]]
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{prefix}{key}.")]

    for algorithm in ALGORITHMS:
        assert set(leaves(OmegaConf.to_container(composed(f"algorithm={algorithm}")))) <= set(known_keys())


def test_every_number_has_a_range() -> None:
    """Without one, NaN and infinity would pass."""
    for key, field in known_keys().items():
        if field.type in (int, float):
            assert "low" in field.metadata, key


def number_keys(kind: type) -> list[str]:
    return [key for key, field in known_keys().items() if field.type is kind]


def algorithm_of(key: str) -> str:
    for name in ("SAC", *ALGORITHMS):
        if OmegaConf.select(composed_once(f"algorithm={name}"), key) is not None:
            return name
    raise AssertionError(f"no algorithm has {key}")


@pytest.mark.parametrize("key", number_keys(float))
def test_no_number_may_be_nan_or_infinite(key: str) -> None:
    algorithm = algorithm_of(key)
    for value in ("nan", "inf", "-inf"):
        with pytest.raises(UserError, match=f"{key}={value} is not allowed: expected a finite number"):
            configured(f"algorithm={algorithm}", f"{key}={value}")


def test_custom_environment_has_the_name_of_its_id() -> None:
    config = configured("algorithm=GAIL", "env=custom", "env.id=Swimmer-v4")
    assert (config.env.name, config.env.version) == ("Swimmer-v4", None)
    with pytest.raises(UserError, match="no bundled set"):
        demonstrations_path(config)


def test_named_environment_keeps_its_id() -> None:
    assert configured("algorithm=SAC", "env=hopper", "env.version=v5").env.id == "Hopper-v5"
    with pytest.raises(UserError, match=r"env\.id=Swimmer-v4 is not env=hopper"):
        configured("algorithm=SAC", "env=hopper", "env.id=Swimmer-v4")
    with pytest.raises(UserError, match=r"env\.version=v4 does not apply to Hopper-v5: write env.version=v5"):
        configured("algorithm=SAC", "env=hopper", "env.id=Hopper-v5")


def test_unknown_keys_name_their_owner_or_the_nearest() -> None:
    assert "option of AIRL, FAIRL, GAIL" in unknown_key("imitation.model.reward_shaping", "SAC")
    assert "'training.batch_size'" in unknown_key("reinforcement.batch_size", "SAC")
    assert unknown_key("zzz", "SAC") == "zzz is not a key. See --cfg job for all keys"


def test_registered_schemas_are_sections() -> None:
    assert all(issubclass(learner.config_class, Section) for learner in LEARNERS.values())
    assert all(issubclass(module.config_class, Section) for module in IMITATION_MODULES.values())


@dataclasses.dataclass
class Example(Section):
    share: float = ranged(0.5, 0, 1)
    rate: float = ranged(0.1, 0, open_low=True)
    part: float = ranged(0.1, 0, 1, open_low=True)
    count: int | None = ranged(3, 1)
    word: str = choice("a", "a", "b")
    on: bool = False


def test_what_is_expected_is_said_in_words() -> None:
    words = {field.name: expected(field) for field in dataclasses.fields(Example)}
    assert words == {
        "share": "a finite number from 0 to 1",
        "rate": "a finite number above 0",
        "part": "a finite number above 0 and at most 1",
        "count": "a whole number of at least 1, or null",
        "word": "one of a, b",
        "on": "true or false",
    }


def test_ranges() -> None:
    fields = {field.name: field for field in dataclasses.fields(Example)}
    good = {"share": (0, 1, 0.5), "rate": (1e-9, 1e9), "part": (1,), "count": (None, 1), "word": ("b",)}
    bad = {"share": (-0.1, 1.1, math.nan), "rate": (0, math.inf), "part": (0, 2), "count": (0,), "word": ("c",)}
    for name, values in good.items():
        assert not any(problem(fields[name], value) for value in values)
    for name, values in bad.items():
        for value in values:
            assert problem(fields[name], value)
            with pytest.raises(UserError, match=f"{name}="):
                Example(**{name: value})  # type: ignore[arg-type]  # any type
