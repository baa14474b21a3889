"""One environment: what is refused, how actions are scaled, and going back to a saved point."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from conf.errors import UserError
from environments.construction import EnvironmentConfig, Spaces, make_environment, spaces_of
from tests.algorithms.support import WALK


class Fixed(gymnasium.Env[Any, Any]):
    """Any spaces; it is never stepped."""

    def __init__(self, observations: gymnasium.Space[Any], actions: gymnasium.Space[Any], render_mode: object = None):
        self.observation_space, self.action_space = observations, actions


VECTOR, LIMITED = Box(-np.inf, np.inf, (3,)), Box(-1.0, 1.0, (2,))
for name, spaces in {
    "fine": (VECTOR, LIMITED),
    "discrete": (VECTOR, Discrete(3)),
    "shifted": (VECTOR, Discrete(3, start=1)),
    "image": (Box(0, 255, (4, 4, 3), np.uint8), LIMITED),
    "unbounded": (VECTOR, Box(-np.inf, np.inf, (2,))),
    "matrix": (VECTOR, Box(-1.0, 1.0, (2, 2))),
}.items():
    arguments: dict[str, Any] = dict(zip(("observations", "actions"), spaces, strict=True))
    gymnasium.register(f"tests/{name}-v0", entry_point=partial(Fixed, **arguments))


def test_sizes_limits_and_horizon() -> None:
    found = spaces_of("Pendulum-v1")
    assert (found.observation_size, found.action_size, found.horizon) == (3, 1, 200)
    assert (found.action_low.tolist(), found.action_high.tolist()) == ([-2.0], [2.0])
    assert spaces_of("tests/fine-v0").horizon is None


@pytest.mark.parametrize(
    ("environment_id", "message"),
    [
        ("tests/shifted-v0", r"has actions Discrete\(3, start=1\): expected a continuous vector, or Discrete\(n\)"),
        ("tests/matrix-v0", "has actions Box.*: expected a continuous vector"),
        ("tests/image-v0", "has observations Box.*: expected a vector of numbers"),
        ("tests/unbounded-v0", "has unbounded actions: expected finite limits"),
        ("Nothing-v4", "env.id=Nothing-v4: .*Nothing.* doesn't exist"),
        ("Hopper-v77", "env.id=Hopper-v77: "),
        ("not an id!", "env.id=not an id!: "),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(environment_id: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        spaces_of(environment_id)
    assert "\n" not in str(caught.value)


def test_a_version_must_be_that_of_the_id() -> None:
    assert EnvironmentConfig(id="Hopper-v4", version="v4").version == "v4"
    with pytest.raises(UserError, match=r"env\.version=v4 does not apply to Pendulum-v1"):
        EnvironmentConfig(id="Pendulum-v1", version="v4")


def limits() -> Spaces:
    return Spaces(1, 2, np.array([-2.0, 0.0], np.float32), np.array([2.0, 8.0], np.float32), None)


def test_actions_are_scaled_by_hand() -> None:
    # -1 is the lower limit, 0 the middle, 1 the upper limit; anything outside is clipped.
    actions = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 0.5], [3.0, -7.0]], np.float32)
    scaled = limits().to_environment(actions)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [[-2, 0], [0, 4], [2, 6], [2, 0]]


def test_scaling_back_is_the_inverse() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    np.testing.assert_allclose(limits().from_environment(limits().to_environment(actions)), actions, atol=1e-6)
    assert limits().from_environment(np.array([[-9.0, 9.0]], np.float32)).tolist() == [[-1, 1]]


def test_discrete_actions_are_one_hot_for_learners() -> None:
    found = spaces_of("tests/discrete-v0")
    assert (found.observation_size, found.action_size, found.discrete) == (3, 3, True)
    one_hot = np.eye(3, dtype=np.float32)[[2, 0, 1]]
    assert found.to_environment(one_hot).tolist() == [2, 0, 1]
    assert found.to_environment(one_hot[0]).tolist() == 2
    np.testing.assert_array_equal(found.from_environment(np.array([2, 0, 1])), one_hot)
    assert not spaces_of("tests/fine-v0").discrete


def test_observations_are_normalised_by_hand() -> None:
    spaces = Spaces(2, 1, np.zeros(1), np.ones(1), None, absorbing=True)
    assert spaces.observe(np.array([[3.0, -7.0]])).tolist() == [[3, -7, 0]]
    assert spaces.absorbing_state.tolist() == [0, 0, 1]
    spaces = spaces.normalised(np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    assert spaces.observe(np.array([[3.0, -7.0]])).tolist() == [[1, -5, 0]]  # -7 is cut to -5
    assert spaces.absorbing_state.tolist() == [-0.5, 0, 1]
    again = Spaces.from_dict(spaces.to_dict())
    assert again.absorbing_state.tolist() == [-0.5, 0, 1] and again.to_dict() == spaces.to_dict()


@pytest.mark.parametrize("episode", [0, 1, 2])
@pytest.mark.parametrize("steps", [0, 5])
def test_a_fresh_copy_goes_back_to_a_saved_point(episode: int, steps: int) -> None:
    env = make_environment(WALK)  # its steps are random, so the generator must be right as well
    observation, _ = env.reset(seed=3)
    for _ in range(episode):
        env.step(np.array([0.9], np.float32))
        observation, _ = env.reset()
    for _ in range(steps):
        observation = env.step(np.array([1.1], np.float32))[0]
    other = make_environment(WALK)
    other.reset(seed=99)
    state = env.state_dict()
    np.testing.assert_array_equal(other.restore(state), observation)
    again = make_environment(WALK)  # and what was restored can be saved
    again.restore(other.state_dict())
    for _ in range(20):
        expected, *rest = env.step(np.array([1.0], np.float32))
        for copy in (other, again):
            found, *others = copy.step(np.array([1.0], np.float32))
            np.testing.assert_array_equal(found, expected)
            assert others == rest
        if rest[1] or rest[2]:
            np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
            again.reset()


def test_mujocos_warnings_are_said_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import mujoco

    monkeypatch.chdir(tmp_path)
    env: Any = make_environment("HalfCheetah-v4").unwrapped
    assert capfd.readouterr().err == ""
    env.reset(seed=0)
    env.data.qacc[:] = np.nan
    mujoco.mj_checkAcc(env.model, env.data)
    assert capfd.readouterr().err.startswith("MuJoCo: Nan, Inf or huge value in QACC")
    assert not list(tmp_path.iterdir())
