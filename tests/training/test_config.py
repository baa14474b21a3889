"""The configuration: what composes, what is checked, and what a custom environment is called."""

import dataclasses
import math
from functools import cache

import pytest
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


@pytest.mark.parametrize("algorithm", names("algorithm"))
@pytest.mark.parametrize("environment", [name for name in names("env") if name != "custom"])
def test_every_algorithm_composes_with_every_environment(algorithm: str, environment: str) -> None:
    config = configured(f"algorithm={algorithm}", f"env={environment}")
    assert config.algorithm == algorithm
    assert config.env.name == environment


def test_every_key_of_the_configuration_is_known() -> None:
    def leaves(node: object, prefix: str = "") -> list[str]:
        if not isinstance(node, dict):
            return [prefix[:-1]]
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{prefix}{key}.")]

    for algorithm in names("algorithm"):
        assert set(leaves(OmegaConf.to_container(composed(f"algorithm={algorithm}")))) <= set(known_keys())


def test_every_number_has_a_range() -> None:
    """Without one, NaN and infinity would pass."""
    for key, field in known_keys().items():
        if field.type in (int, float):
            assert "low" in field.metadata, key


def number_keys(kind: type) -> list[str]:
    return [key for key, field in known_keys().items() if field.type is kind]


@cache
def composed_with_defaults(algorithm: str) -> DictConfig:
    return composed(f"algorithm={algorithm}")


def algorithm_of(key: str) -> str:
    for name in ("SAC", *names("algorithm")):
        if OmegaConf.select(composed_with_defaults(name), key) is not None:
            return name
    raise AssertionError(f"no algorithm has {key}")


@pytest.mark.parametrize("key", number_keys(float))
def test_no_number_may_be_nan_or_infinite(key: str) -> None:
    configuration = composed(f"algorithm={algorithm_of(key)}", f"{key}=nan")
    for value in ("nan", "inf", "-inf"):
        OmegaConf.update(configuration, key, float(value))
        with pytest.raises(UserError, match=f"{key}={value} is not allowed: expected a finite number"):
            parse(configuration)


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
