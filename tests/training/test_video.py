"""Films of an episode, and one clear line where they cannot be made."""

import os
import sys
from pathlib import Path

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest

from conf.errors import UserError
from training import video


@pytest.fixture
def opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips where, and only where, nothing can be drawn without a screen."""
    monkeypatch.setenv("MUJOCO_GL", os.environ.get("MUJOCO_GL", "egl"))
    try:
        video.check_rendering("Hopper-v4")
    except UserError as error:
        if "OpenGL" in str(error):
            pytest.skip(f"NOT TESTED, there is no OpenGL here: {error}")
        raise


@pytest.mark.usefixtures("opengl")
def test_film_of_an_episode(tmp_path: Path) -> None:
    seen = []

    def act(observation: np.ndarray) -> np.ndarray:
        seen.append(observation)
        return np.ones(3, np.float32)

    frames = video.film("Hopper-v4", act, 3, tmp_path / "episode.mp4")
    assert frames == len(seen) // 4 + 1  # 125 steps a second, drawn 31 times
    assert frames > 3
    counted, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "episode.mp4"))
    assert counted == frames
    assert seconds == pytest.approx(frames / 31.25, abs=0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["episode.mp4"]


def test_film_of_classic_control_shows_every_step(tmp_path: Path) -> None:
    pytest.importorskip("pygame", reason="NOT TESTED: pygame is not installed", exc_type=ImportError)
    frames = video.film("Pendulum-v1", lambda observation: np.zeros(1, np.float32), 0, tmp_path / "episode.mp4")
    assert frames == 201
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "episode.mp4"))[0] == 201


def test_a_film_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_frame", lambda env: np.zeros((16, 16, 3), np.uint8))

    def act(observation: np.ndarray) -> np.ndarray:
        raise RuntimeError("no action")

    with pytest.raises(RuntimeError, match="no action"):
        video.film("Hopper-v4", act, 0, tmp_path / "episode.mp4")
    assert list(tmp_path.iterdir()) == []


def test_no_opengl_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(env: gymnasium.Env) -> None:
        raise AttributeError("'NoneType' object has no attribute\n'eglQueryString'")

    monkeypatch.setattr(video, "_frame", fail)
    with pytest.raises(UserError) as raised:
        video.check_rendering("Hopper-v4")
    message = str(raised.value)
    assert "\n" not in message
    assert all(word in message for word in ("Hopper-v4", "libegl1", "libosmesa6", "MUJOCO_GL", "render=true"))


def test_no_pygame_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UserError, match=r"Pendulum-v1.*pygame is not installed") as raised:
        video.check_rendering("Pendulum-v1")
    assert "\n" not in str(raised.value)


def test_no_ffmpeg_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="render=true needs ffmpeg: pip install imageio-ffmpeg"):
        video.check_rendering("Hopper-v4")


def test_other_environments_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_make", lambda name: gymnasium.make("Pendulum-v1"))  # without a render mode
    monkeypatch.setattr(gymnasium.Env, "render", lambda env: None)
    with pytest.raises(UserError, match="cannot draw Pendulum-v1"):
        video.check_rendering("Pendulum-v1")
