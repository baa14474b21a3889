"""Bayesian optimisation of hyperparameters: search on some seeds, choose on fresh ones, keep the result as a preset.

Ax's own client proposes the trials, and not Hydra's Ax sweeper: the plugin keeps no state, ends at the first run that
fails, and waits for whole batches (docs/sweeps.md).
"""

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError
from environments.reference_scores import reference_scores
from training.sweeps import plan as planning
from training.sweeps.ax_search import AxSearch, require_ax
from training.sweeps.crew import Crew, alone, interruptible
from training.sweeps.grid import opened, replaced, sweep_folder
from training.sweeps.joint import Overrides, chosen_environments, joint_score
from training.sweeps.launchers import cores, make_launcher
from training.sweeps.options import LocalConfig, OptimisationConfig, Options
from training.sweeps.plan import JOINT_OPTIMISATION, OPTIMISATION, Job, Plan, composed, planned, resumed_plan
from training.sweeps.preset import install as install_preset
from training.sweeps.preset import preset_name, preset_text
from training.sweeps.results import read_run
from training.sweeps.space import Space, check_ends, search_space
from training.sweeps.states import LiveTable
from training.sweeps.statistics import standard_error
from training.sweeps.trials import Record, Trial, load_record, score, without_improvement

CHANGEABLE = ("resume_sweep", "trials", "patience", "finalists", "final_seeds", "parallel_trials", "launcher")


def refuse_changes(typed: Sequence[Override]) -> None:
    """Trials are compared with one another, so all of them have to be about the same.

    Raises:
        UserError: an optimisation that is to be gone on with would be about something else.
    """
    saved = resumed_plan(typed)
    if saved is None:
        return
    for override in typed:
        line = str(override.input_line)
        if override.key_or_group.partition(".")[0] not in CHANGEABLE and line not in saved.overrides:
            raise UserError(
                f"{line} is not what the optimisation in {saved.folder} is about; only {', '.join(CHANGEABLE[1:])} "
                "may change"
            )


def run_optimisation(typed: Sequence[Override], joint: bool, install: bool = False) -> int:
    """`joint`: over all environments, as train_all.py does; `install`: copy the preset to conf/.

    Exit status: 0 a configuration was chosen, 1 all failed.

    Raises:
        UserError, HydraException, OmegaConfBaseException: what was typed is wrong; nothing has been started.
        SweepInterruptedError: a signal came.
    """
    require_ax()
    refuse_changes(typed)
    own, options, plan = opened(typed, OptimisationConfig, JOINT_OPTIMISATION if joint else OPTIMISATION)
    settings = options.sweep
    assert isinstance(settings, OptimisationConfig)
    if settings.pack_seeds != 1:
        raise UserError("pack_seeds joins the runs of a grid: an optimisation runs each seed by itself")
    environments, own_lines = _environments(own, settings, joint)
    algorithm = planning.fixed_value(own, "algorithm", "")
    if any(override.key_or_group == "algorithm" and override.is_sweep_override() for override in own) or not algorithm:
        raise UserError("an optimisation needs one algorithm: expected algorithm=<name>")
    space, shared = search_space(settings.hyperparameter_search_space, algorithm, replaced(own_lines, []))
    for extra in environments.values():
        check_ends(space, [*shared, *extra])
    new = plan.folder == Path()
    if new:
        plan.folder = sweep_folder(own, "sweeper", "all" if joint else None)
    with alone(plan.folder):
        if new:
            search = AxSearch.begin(space, seed=0)
            record = Record(plan.folder, algorithm, list(environments), list(space.fixed), [], [], search.state())
            record.save()
            plan.save()
        else:
            record = load_record(plan.folder)
            search = AxSearch.load(record.ax)
        preset = Optimisation(plan, options, settings, environments, space, shared, record, search).run()
        if preset and install:
            print(f"installed as {install_preset(plan.folder)}")
        return 0 if record.completed and any(trial.state == "completed" for trial in record.finals) else 1


def _environments(
    own: Sequence[Override], settings: OptimisationConfig, joint: bool
) -> tuple[dict[str, Overrides], list[str]]:
    """Overrides that choose each environment, and all others."""
    if joint:
        environments, shared = chosen_environments(own, settings.demonstrations)
        for name, extra in environments.items():
            if len(environments) > 1 and not _scored([*shared_fixed(shared), *extra]):
                raise UserError(f"env={name} has no reference returns, so that its scores cannot be compared")
        return environments, shared
    chosen = tuple(str(o.input_line) for o in own if o.key_or_group in ("env", "env.id"))
    for override in own:
        if override.key_or_group in ("env", "env.id") and override.is_sweep_override():
            raise UserError(f"{override.input_line}: train_all.py optimises several environments together")
    name = planning.fixed_value(own, "env.id", "") or planning.fixed_value(own, "env", "hopper")
    return {name: chosen}, [str(o.input_line) for o in own if o.key_or_group not in ("env", "env.id")]


def shared_fixed(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.startswith("algorithm=")]


def _scored(overrides: Sequence[str]) -> bool:
    return math.isfinite(reference_scores(composed(overrides).env.id).expert)


class Optimisation:
    """Goes on from wherever the record is; everything that it decides is in the record before it acts on it."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        settings: OptimisationConfig,
        environments: dict[str, Overrides],
        space: Space,
        shared: list[str],
        record: Record,
        search: AxSearch,
    ) -> None:
        self.plan, self.settings, self.space, self.record, self.search = plan, settings, space, record, search
        self.environments, self.options = environments, options
        self.shared = [line for line in shared if not line.startswith("seed=")]
        self.first_seed = int(next((line[5:] for line in shared if line.startswith("seed=")), "0"))
        self.jobs: dict[str, list[Job]] = {}  # of each trial

    def run(self) -> Path | None:
        """The preset, if anything beats the default."""
        folder, launcher_config = self.plan.folder, self.options.launcher
        at_once = (self.settings.parallel_trials or cores()) * self._jobs_per_trial(self.settings.seeds_per_trial)
        print(f"optimisation of {len(self.space.parameters)} hyperparameters in {folder}", file=sys.stderr)
        with interruptible(folder):
            workers = launcher_config.workers if isinstance(launcher_config, LocalConfig) else None
            launcher = make_launcher(launcher_config, folder, max(at_once, workers or 0))
            try:
                crew = Crew(folder, launcher, LiveTable(folder))
                parallel = self.settings.parallel_trials or math.ceil(
                    launcher.slots / self._jobs_per_trial(self.settings.seeds_per_trial)
                )
                self._search(crew, parallel)
                self._choose(crew)
            finally:
                launcher.close()
        return self._finish()

    def _jobs_per_trial(self, seeds: int) -> int:
        return len(self.environments) * seeds

    def _search(self, crew: Crew, parallel: int) -> None:
        """Phase one."""
        for trial in self.record.trials:
            if trial.state == "running":
                self._start(crew, trial, "")
        while True:
            self._account_for(crew, self.record.trials, "")
            running = sum(trial.state == "running" for trial in self.record.trials)
            if running < parallel and self._wants_more():
                self._propose(crew, min(parallel - running, self.settings.trials - len(self.record.trials)))
                running = sum(trial.state == "running" for trial in self.record.trials)
            if running == 0:
                return
            crew.wait()

    def _wants_more(self) -> bool:
        patience = self.settings.patience
        stalled = patience > 0 and without_improvement(self.record.trials) >= patience
        return not self.exhausted and not stalled and len(self.record.trials) < self.settings.trials

    exhausted = False  # the search space

    def _propose(self, crew: Crew, count: int) -> None:
        proposed = self.search.propose(count)
        self.exhausted = not proposed
        seeds = list(range(self.first_seed, self.first_seed + self.settings.seeds_per_trial))
        trials = [Trial(number, values, seeds) for number, values in proposed]
        self.record.trials += trials
        self._save()  # before anything is started
        for trial in trials:
            self._start(crew, trial, "")

    def _start(self, crew: Crew, trial: Trial, prefix: str) -> None:
        """A configuration that is refused fails its trial."""
        names = {job.name: job for job in self.plan.jobs}
        jobs = []
        try:
            for environment, extra in self.environments.items():
                for seed in trial.seeds:
                    name = f"{prefix}{trial.name}/{environment.replace('/', '-')}_{seed}"
                    overrides = [*self.shared, *self._chosen(trial), *extra, f"seed={seed}"]
                    jobs.append(names[name] if name in names else planned(name, overrides))
        except (UserError, HydraException, OmegaConfBaseException) as error:
            trial.state, trial.error = "failed", " ".join(str(error).split())
            return
        self.plan.jobs += [job for job in jobs if job.name not in names]
        self.plan.save()
        self.jobs[prefix + trial.name] = jobs
        crew.start(jobs)

    def _chosen(self, trial: Trial) -> list[str]:
        return [] if trial.number is None else self.space.overrides(trial.values)

    def _account_for(self, crew: Crew, trials: list[Trial], prefix: str) -> None:
        """Take in the scores of trials whose runs have all ended."""
        for trial in [trial for trial in trials if trial.state == "running"]:
            jobs = self.jobs.get(prefix + trial.name, [])
            if not any(job.name in crew.submitted for job in jobs):
                self._measure(trial, prefix)
                print(f"trial {prefix}{trial.name}: {described(trial)}", file=sys.stderr)
                if prefix == "":
                    self._tell(trial)
                self._save()
        for trial in [t for t in trials if t.state == "failed" and prefix == "" and t.error and not t.scores]:
            if prefix + trial.name not in self.jobs:  # refused when it was to start
                self.jobs[prefix + trial.name] = []
                self._tell(trial)
                self._save()

    def _measure(self, trial: Trial, prefix: str) -> None:
        scores = []
        for seed in trial.seeds:
            found = {}
            for environment in self.environments:
                job = f"{prefix}{trial.name}/{environment.replace('/', '-')}_{seed}"
                found[environment] = self._score(self.plan.folder / job)
            scores.append(joint_score(found, list(self.environments), self.settings.objective))
        if all(map(math.isfinite, scores)):
            trial.state, trial.scores, trial.mean = "completed", scores, statistics.fmean(scores)
            error = standard_error(scores)
            trial.standard_error = None if math.isnan(error) else error
        else:
            missing = [seed for seed, score in zip(trial.seeds, scores, strict=True) if not math.isfinite(score)]
            trial.state, trial.error = "failed", f"no score of seed {', '.join(map(str, missing))}"

    def _score(self, folder: Path) -> float:
        """Of one run: its score, or its return where no references are known and there is nothing to compare."""
        for result in read_run(folder):
            if result.finished:
                measured = result.measured(self.settings.measure)
                return result.final_return if math.isnan(measured) and len(self.environments) == 1 else measured
        return math.nan

    def _tell(self, trial: Trial) -> None:
        assert trial.number is not None
        if trial.state == "completed" and trial.mean is not None:
            unknown = trial.standard_error is None
            self.search.complete(trial.number, trial.mean, math.nan if unknown else float(trial.standard_error or 0.0))
        else:
            self.search.fail(trial.number, trial.error or "")
        self.record.ended(trial)

    def _choose(self, crew: Crew) -> None:
        """Phase two: the best trials and the default once more, on seeds that chose none of them."""
        if not self.record.finals and self.record.completed:
            first = self.first_seed + self.settings.seeds_per_trial
            seeds = list(range(first, first + self.settings.final_seeds))
            best = self.record.best(self.settings.finalists)
            self.record.finals = [Trial(trial.number, trial.values, seeds) for trial in best]
            self.record.finals.append(Trial(None, {}, seeds))
            self._save()
        for trial in self.record.finals:
            if trial.state == "running":
                self._start(crew, trial, "final/")
        while True:
            self._account_for(crew, self.record.finals, "final/")
            if not any(trial.state == "running" for trial in self.record.finals):
                return
            crew.wait()

    def _save(self) -> None:
        self.record.ax = self.search.state()
        self.record.save()

    def _finish(self) -> Path | None:
        """Write the preset and say what came out."""
        completed = [trial for trial in self.record.finals if trial.state == "completed"]
        # In a tie the default wins.
        finals = sorted(completed, key=lambda trial: (score(trial), trial.number is None), reverse=True)
        if not finals:
            print("failed: no configuration finished on fresh seeds; logs/ has what the runs said", file=sys.stderr)
            return None
        searched = {trial.number: trial for trial in self.record.completed}
        for trial in finals:
            before = f"; in the search {described(searched[trial.number])}" if trial.number is not None else ""
            print(f"{trial.name}: on fresh seeds {described(trial)}{before}")
        winner = finals[0]
        if winner.number is None:
            print("no trial beats the default configuration on fresh seeds: there is no preset")
            return None
        path = self.plan.folder / preset_name(self.record.algorithm, self.shared)
        default = next((trial for trial in finals if trial.number is None), None)
        text = preset_text(self.record, searched[winner.number], winner, default, self.plan.command, self.shared)
        path.write_text(text)
        print(f"trial {winner.name} wins: {path}")
        return path


def described(trial: Trial) -> str:
    """`0.812 +- 0.031 (3 seeds)`, or why it failed."""
    if trial.mean is None:
        return f"failed: {trial.error}"
    spread = "" if trial.standard_error is None else f" +- {trial.standard_error:.3f}"
    return f"{trial.mean:.3f}{spread} ({len(trial.seeds)} seeds)"
