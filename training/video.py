"""Filming episodes without a screen."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
from jaxtyping import Float32, UInt8

from conf.errors import UserError
from environments.construction import make_environment

Observation = Float32[np.ndarray, " observation"]
Action = Float32[np.ndarray, " action"]

FRAMES_PER_SECOND = 30
GL_HINT = (
    "for MuJoCo this needs OpenGL without a screen: install libegl1 (MUJOCO_GL=egl, the default here) or libosmesa6 "
    "(MUJOCO_GL=osmesa); or leave render=true out"
)


def check_rendering(environment_id: str) -> None:
    """Render one frame and look for ffmpeg.

    Raises:
        UserError: something that filming needs is missing.
    """
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UserError(f"render=true needs ffmpeg: pip install imageio-ffmpeg ({error})") from error
    try:
        env = _make(environment_id)
        try:
            env.reset(seed=0)
            _frame(env)
        finally:
            env.close()
    except UserError:
        raise
    except gymnasium.error.DependencyNotInstalled as error:  # such as pygame
        raise UserError(f"render=true: cannot draw {environment_id}: {_one_line(error)}") from error
    except Exception as error:  # OpenGL's wrappers raise many kinds
        raise UserError(f"render=true: cannot draw {environment_id} ({_one_line(error)}); {GL_HINT}") from error


def film(environment_id: str, act: Callable[[Observation], Action], seed: int, path: Path) -> int:
    """Write one episode as an mp4 that appears whole or not at all, at its real speed. Returns the number of frames.

    `act` gives actions in the environment's units. Environments with more steps a second than `FRAMES_PER_SECOND` are
    drawn only every few steps, from the first observation on.
    """
    import imageio_ffmpeg

    env = _make(environment_id)
    partial = path.with_name(f"{path.stem}.part{path.suffix}")
    writer = None
    try:
        observation, over, steps = env.reset(seed=seed)[0], False, 0
        frame = _frame(env)
        rate = float(env.metadata.get("render_fps", FRAMES_PER_SECOND))
        stride = max(1, round(rate / FRAMES_PER_SECOND))
        size = (frame.shape[1], frame.shape[0])
        writer = imageio_ffmpeg.write_frames(str(partial), size, fps=rate / stride, macro_block_size=2)
        writer.send(None)
        writer.send(np.ascontiguousarray(frame))
        while not over:
            observation, _, terminated, truncated, _ = env.step(act(np.asarray(observation, np.float32)))
            over, steps = bool(terminated or truncated), steps + 1
            if steps % stride == 0:
                writer.send(np.ascontiguousarray(_frame(env)))
        writer.close()
        partial.replace(path)
        return steps // stride + 1
    finally:
        env.close()
        if writer:
            writer.close()
        partial.unlink(missing_ok=True)


def _make(environment_id: str) -> gymnasium.Env:
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")  # Gymnasium looks for it when it draws for the first time
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame, with which classic control draws
    return make_environment(environment_id, render_mode="rgb_array")


def _frame(env: gymnasium.Env) -> UInt8[np.ndarray, "height width 3"]:
    frame = env.render()
    if not isinstance(frame, np.ndarray):
        raise RuntimeError(f"it draws {type(frame).__name__} instead of a picture")
    return frame


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
