"""Other libraries, in an environment of their own, timed from here."""

import contextlib
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import torch

from conf.errors import UserError
from scripts.timing import Timing

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv-peers"
REQUIREMENTS = {"stable-baselines3": "stable-baselines3==2.9.2", "imitation": "imitation==1.0.1"}


def install(name: str, folder: Path = FOLDER) -> Path:
    """The Python of a virtual environment in `folder` that has the library, made when it is first needed.

    It shares this environment's PyTorch, so that both sides compute with the same build. Each library has its own:
    imitation asks for an older Stable-Baselines3 and an older Gymnasium.

    Raises:
        UserError: something cannot be installed.
    """
    folder = folder / name
    python = folder / "bin" / "python"
    pins = [REQUIREMENTS[name], f"torch=={torch.__version__.split('+')[0]}"]
    stamp = folder / "installed"
    packages = str(Path(torch.__file__).parents[1])
    wanted = "\n".join([packages, *pins])
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"installing {pins[0]} in {folder.parent.name}/{name}", file=sys.stderr)
    try:
        venv.create(folder, with_pip=True)
        site = next((folder / "lib").glob("python*/site-packages"))
        (site / "shared.pth").write_text(packages + "\n")
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins]
        subprocess.run(command, check=True, capture_output=True, text=True)
        subprocess.run([str(python), str(script(name)), "--check"], check=True, capture_output=True, text=True)
    except (subprocess.CalledProcessError, OSError, StopIteration) as error:
        said = [line for line in str(getattr(error, "stderr", "") or error).splitlines() if line.strip()]
        raise UserError(f"--vs {name}: {pins[0]} cannot be installed: {said[-1].strip()}") from error
    stamp.write_text(wanted)
    return python


def script(name: str) -> Path:
    return ROOT / "scripts" / f"peer_{name.replace('-', '_')}.py"


class Peer:
    """A process with the same agent made by another library; it answers one line for each line.

    `setup` is its answer to the settings.
    """

    def __init__(self, name: str, python: Path, settings: dict[str, Any], kinds: tuple[str, ...]) -> None:
        self.name, self.kinds = name, kinds
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(python), str(script(name))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        try:
            self.setup = self._ask(settings)
        except BaseException:
            self.close()
            raise

    def block(self, kind: str, steps: int) -> Timing:
        answer = self._ask({"kind": kind, "steps": steps})
        return Timing(steps / answer["seconds"], answer["processor_seconds"] / answer["seconds"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        line = ""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            self.process.kill()  # it may wait for the next line, for ever
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines() or ["it ended"]
            what = f"it answered {line.strip()!r}, expected JSON" if line else said[-1]
            raise UserError(f"--vs {self.name}: {what}") from error
        return answer

    def close(self) -> None:
        """Nothing of it is kept, so it need not end by itself: on a busy machine that takes long."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        if self.process.stdout:
            self.process.stdout.close()
        self.errors.close()
