"""One worker of a sweep: claims trials, trains their seeds side by side, and records their results.

Any number of workers share a sweep's folder, on one machine or on many. A trial whose run fails otherwise than by a
non-finite value stays open, for another worker or a later one.
"""

import contextlib
import dataclasses
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from gradweave.cli.seeds import RunsView, training_job
from gradweave.config.grid import Setting
from gradweave.config.schema import Config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError, NonFiniteError
from gradweave.machine.processes import Job
from gradweave.machine.streams import say
from gradweave.reports.sweep_scores import late_return, return_until
from gradweave.runs.metrics import MetricsTail
from gradweave.runs.seeds_folder import SeedsFolder, is_finished
from gradweave.runs.sweep_folder import setting_runs
from gradweave.runs.sweep_study import NUM_REPORTS, Claim, SweepStudy

__all__ = ["Worker"]

_SECONDS_BETWEEN_CLAIMS: Final = 5.0
_SECONDS_BETWEEN_REPORTS: Final = 1.0


class _Curve:
    """The training returns of a run that another process trains, as they come."""

    def __init__(self, run: Path) -> None:
        self._tail = MetricsTail(run / "metrics.jsonl")
        self.rows: list[dict[str, Any]] = []

    def read_on(self) -> None:
        """Read the new rows."""
        names = ("step", "num_episodes", "return")
        self.rows += [{name: row.get(name) for name in names} for row in self._tail.read()]


@dataclass
class _Training:
    """A trial that is being trained here.

    Attributes:
        claim: holds its folder.
        runs: by seed.
        waiting: names of its jobs that have not ended, by seed.
        curves: of its runs, by seed.
        stretch: the last one that was reported.
        done: seeds that are finished.
        failed: whether a run has failed, or was stopped.
        pruned: whether it is given up.
    """

    claim: Claim
    runs: dict[int, Path]
    waiting: dict[int, str]
    curves: dict[int, _Curve]
    stretch: int
    done: set[int]
    failed: bool = False
    pruned: bool = False


@dataclass
class Worker:
    """Trains trials of a study until none is left to claim; gives `run_jobs` jobs and callbacks.

    Attributes:
        study: the study of the trials.
        configure: the configuration of a setting.
        argv: the command line for every provenance.json.
        failed: the exit codes of runs that failed, by name.
        runs: all runs that were trained here, by name.
    """

    study: SweepStudy
    configure: Callable[[Setting], Config]
    argv: Sequence[str]
    failed: dict[str, int] = field(default_factory=dict)
    runs: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._view = RunsView()
        self._pending: deque[Job] = deque()
        self._training: dict[int, _Training] = {}
        self._left: set[int] = set()
        self._ended: list[Claim] = []
        self._of_job: dict[str, tuple[int, int]] = {}
        self._asked_at = self._looked_at = -math.inf

    def jobs(self) -> Iterator[Job | None]:
        """Runs to train next; None: none at present."""
        while True:
            yield self._next()

    def started(self, job: Job) -> None:
        """Note that a run has been started."""
        self._view.started(job)

    def ended(self, job: Job, code: int) -> None:
        """Record how a run has ended, and after the last run of a trial the result of the trial."""
        number, seed = self._of_job[job.name]
        training = self._training[number]
        del training.waiting[seed]
        self._asked_at = -math.inf
        if code == 0:
            training.done.add(seed)
        elif code == NonFiniteError.exit_code:
            training.claim.note_diverged(seed)
        elif not training.pruned:
            training.failed = True
            self.failed[job.name] = code
        if training.pruned and code:
            say(f"{job.name}: given up, its trial is pruned")
        else:
            self._view.ended(job, code)
        self._settle(training)

    def looked(self, running: Sequence[Job]) -> Collection[str]:
        """Say how far the runs are, and report trials; returns the runs of those that are given up."""
        self._view.looked(running)
        if self.study.plan.pruning != "none" and time.monotonic() - self._looked_at >= _SECONDS_BETWEEN_REPORTS:
            self._looked_at = time.monotonic()
            for training in list(self._training.values()):
                self._report(training)
        return {name for training in self._training.values() if training.pruned for name in training.waiting.values()}

    def close(self) -> None:
        """Let go of all trials; those that have not ended stay open for other workers."""
        for claim in [*self._ended, *(training.claim for training in self._training.values())]:
            claim.close()

    def _next(self) -> Job | None:
        while not self._pending:
            busy = any(training.waiting for training in self._training.values())
            if busy and time.monotonic() - self._asked_at < _SECONDS_BETWEEN_CLAIMS:
                return None
            self._asked_at = time.monotonic()
            claim = self.study.claim(self._left | set(self._training))
            if claim is None:
                return None
            self._begin(claim)
        return self._view.expected(self._pending.popleft())

    def _begin(self, claim: Claim) -> None:
        """Make a trial's runs, or find those that another worker has left."""
        for ended in self._ended:  # not earlier, so that as long as a worker goes on it holds a folder of the sweep
            ended.close()
        self._ended = []
        with contextlib.ExitStack() as stack:
            stack.callback(claim.close)  # should it go wrong here
            try:
                config = self.configure(claim.setting)
                validate(config)
            except ConfigError as error:
                say(f"{claim.name}: cannot be trained, and is left out\n  {error}")
                self.study.tell(claim, "refused")
                return
            runs = self._runs_of(claim, config)
            stack.pop_all()
        done = {seed for seed, run in runs.items() if is_finished(run)}
        names = {seed: f"{claim.name}, seed {seed}" for seed in runs}
        waiting = {seed: name for seed, name in names.items() if seed not in done and seed not in claim.diverged}
        curves = {seed: _Curve(run) for seed, run in runs.items()}
        training = _Training(claim, runs, waiting, curves, claim.reports, done)
        self._training[claim.number] = training
        for seed, name in waiting.items():
            self._of_job[name] = (claim.number, seed)
            self.runs[name] = runs[seed]
            self._pending.append(training_job(name, runs[seed]))
        self._settle(training)

    def _runs_of(self, claim: Claim, config: Config) -> dict[int, Path]:
        runs = setting_runs(self.study.path, claim.name)
        if not runs:
            for half_made in claim.folder.glob("seed-*"):
                shutil.rmtree(half_made)
            run = dataclasses.replace(config.run, runs_dir=str(self.study.path))
            config = dataclasses.replace(config, run=run)
            runs = SeedsFolder.create(config, self.study.plan.num_seeds, self.argv, claim.name, claim.lock).runs
        return runs

    def _report(self, training: _Training) -> None:
        """Report the stretches that all seeds which have begun have done, and give up where the pruner says so.

        If seeds train one after another, this is the first of them.
        """
        total = self.study.plan.base.run.total_steps
        for curve in training.curves.values():
            curve.read_on()
        lost = training.claim.diverged
        begun = [curve.rows for seed, curve in training.curves.items() if curve.rows and seed not in lost]
        while begun and not training.pruned and training.stretch < NUM_REPORTS - 1:
            until = (training.stretch + 1) * total // NUM_REPORTS
            if any(rows[-1]["step"] < until for rows in begun):
                return
            training.stretch += 1
            value = float(np.mean([return_until(rows, until) for rows in begun]))
            if math.isfinite(value):
                training.pruned = training.claim.report(training.stretch, value)
        if training.pruned:
            names = set(training.waiting.values())
            dropped = [job for job in self._pending if job.name in names]
            self._pending = deque(job for job in self._pending if job.name not in names)
            for job in dropped:
                del training.waiting[self._of_job[job.name][1]]
            self._settle(training)

    def _settle(self, training: _Training) -> None:
        """Tell the study the outcome of a trial when all its runs have ended."""
        if training.waiting:
            return
        claim = training.claim
        del self._training[claim.number]
        self._ended.append(claim)
        if training.pruned:
            self.study.tell(claim, "pruned")
        elif training.failed:
            self._left.add(claim.number)
        elif claim.diverged:
            self.study.tell(claim, "diverged")
        else:
            total = self.study.plan.base.run.total_steps
            score = float(np.mean([late_return(run, total) for run in training.runs.values()]))
            finite = math.isfinite(score)
            self.study.tell(claim, "finished" if finite else "unscored", score if finite else None)
