"""Policy files: they act as the policy that was saved, and anything else is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import UserError
from memory.absorbing import append_bit
from tests.training.helpers import SMALL, configured, hopper_demonstrations, make_loop
from training import checkpoint
from training.loop import Loop
from training.policy import load_policy

MESSAGE = "is not a policy file of this program"


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """Two untrained GAIL policies, with absorbing states."""
    demonstrations = hopper_demonstrations(tmp_path / "demonstrations.hdf5")
    config = configured(*SMALL, "algorithm=GAIL", "runs=2", "seed=5", f"env.demonstrations={demonstrations}")
    return make_loop(config, tmp_path / "runs")


def save(loop: Loop) -> Path:
    loop.save_policy("policy.pt", loop.parts.learner.policy.state_dict())
    return loop.folder / "policy.pt"


def test_a_saved_policy_acts_as_before(loop: Loop) -> None:
    policy = load_policy(save(loop))
    observations = torch.randn(2, 7, 11)
    expected = loop.parts.learner.act(append_bit(observations), greedy=True)
    assert torch.equal(policy.greedy(observations), expected)
    assert not torch.equal(expected[0], expected[1])
    assert (policy.environment_id, policy.algorithm, policy.seeds) == ("Hopper-v4", "GAIL", (5, 6))
    assert policy.absorbing
    assert policy.spaces.horizon == 1000
    assert policy.spaces.action_low.tolist() == [-1.0] * 3


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no policy\.pt"):
        load_policy(tmp_path / "policy.pt")


def test_a_truncated_file_is_refused(loop: Loop) -> None:
    path = save(loop)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged or not a checkpoint"):
        load_policy(path)


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"hidden_size": 8}},
        {"network": {"width": 16}},
        {"network": None},
        {"seeds": [1]},
        {"seeds": 1},
        {"action_low": ["a"]},
        {"state": {}},
        {"state": []},
    ],
    ids=str,
)
def test_a_file_that_does_not_fit_is_refused(loop: Loop, change: dict[str, Any]) -> None:
    path = save(loop)
    checkpoint.save(path, {**checkpoint.load(path), **change})
    with pytest.raises(UserError, match=MESSAGE) as raised:
        load_policy(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["environment_id", "algorithm", "absorbing", "state", "horizon"])
def test_a_file_without_a_field_is_refused(loop: Loop, name: str) -> None:
    path = save(loop)
    content = checkpoint.load(path)
    del content[name]
    checkpoint.save(path, content)
    with pytest.raises(UserError, match=f"{MESSAGE}.*{name}"):
        load_policy(path)
