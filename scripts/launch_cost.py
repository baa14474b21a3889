"""Measure what comes before and around training, in processor time, which other programs on the machine hardly change.

    python scripts/launch_cost.py --jobs 100

- help: `train.py --help`.
- first step: `train.py algorithm=GAIL env=hopper`, from the start of the process to the end of its first step.
- a sweep: trivial jobs, and of each the part that is no job's own time. That is what `train` takes in a process that
  has done it before, with evaluation, pictures and files; everything else is the cost of launching: starting the
  processes, checking and composing configurations, forking, watching, summing up.
"""

import contextlib
import io
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from scripts.command_line import Parser, exit_status, positive

ROOT = Path(__file__).resolve().parents[1]
JOB = (
    "algorithm=BC", "env=pendulum", "bc_pretraining.iterations=10", "evaluation.episodes=1", "threads=1",
    "logging.progress=false",
)  # fmt: skip
FIRST_STEP = """
import sys, time
from training.phases import Interaction
advance = Interaction.advance
def first(phase):
    advance(phase)
    sys.exit(f"seconds={time.process_time()}")
Interaction.advance = first
from train import command_line, train
command_line(train)
"""


def processor_seconds(*arguments: str) -> float:
    """Of a command, with all processes that it starts and waits for. Raises UserError where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise failed(arguments, done)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_step(folder: Path) -> float:
    """Raises UserError where there is none."""
    words = ("algorithm=GAIL", "env=hopper", f"output_folder={folder}", "logging.progress=false")
    done = subprocess.run((sys.executable, "-c", FIRST_STEP, *words), cwd=ROOT, capture_output=True, text=True)
    if not (found := re.search(r"^seconds=([\d.e-]+)$", done.stderr, re.MULTILINE)):
        raise failed(("train.py", *words), done)
    return float(found[1])


def failed(arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> UserError:
    """With the last line of what it said."""
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    return UserError(f"{shlex.join(arguments)} ended with exit status {done.returncode}: {said[-1]}")


def own_seconds(jobs: int, folder: Path) -> float:
    """Mean processor time of `train` over jobs, one after another in this process; the first is not counted."""
    from train import train
    from training.sweeps.forkserver import preload
    from training.sweeps.plan import composed

    preload()
    seconds = []
    for seed in range(jobs + 1):
        configuration = composed([*JOB, f"seed={seed}", f"output_folder={folder}"])
        started = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            train(configuration)
        seconds.append(time.process_time() - started)
    return sum(seconds[1:]) / jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 2 refused with one line that says why."""
    parser = Parser(__doc__)
    parser.add_argument("--jobs", type=positive, default=100, help="of the sweep (default: %(default)s)")
    return exit_status(lambda: measure(parser.parse_args(arguments).jobs))


def measure(jobs: int) -> None:
    """Print every figure."""
    os.environ["OMP_NUM_THREADS"] = "1"
    train_py = str(ROOT / "train.py")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(f"help: {processor_seconds(sys.executable, train_py, '--help'):.2f} s")
        print(f"first step: {first_step(folder):.2f} s", flush=True)
        # One job at a time, as their own time is measured: two on the threads of one core take longer each.
        sweep = (f"seed=range({jobs})", "launcher.workers=1", f"output_folder={folder / 'sweep'}")
        whole = processor_seconds(sys.executable, train_py, "-m", *JOB, *sweep) / jobs
        own = own_seconds(jobs, folder / "own")
    print(f"each of {jobs} jobs: {whole:.3f} s, its own {own:.3f} s, launching it {whole - own:.3f} s")


if __name__ == "__main__":
    sys.exit(main())
