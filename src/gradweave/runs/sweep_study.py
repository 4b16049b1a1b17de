"""The trials of a sweep, as an Optuna study whose journal lies in the sweep's folder, where all workers share it.

A trial is one setting with all of its seeds. A worker claims it by locking its folder; a trial that the journal has
as running and that nobody has locked was left by a worker that is gone, and the next to ask goes on with it. The
locks are the system's, which frees them however a process ends, so that nothing has to be kept alive by heartbeats.
"""

import contextlib
import hashlib
import itertools
import math
import os
import random
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, TypeAlias, cast, get_args

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from gradweave.config.grid import Setting, setting_name
from gradweave.config.sweep_space import Span
from gradweave.errors import DamagedFile, GradweaveError, RunInUse
from gradweave.files import open_regular, real_folder
from gradweave.runs.locks import is_in_use, lock_folder, waiting_lock
from gradweave.runs.seeds_folder import is_finished
from gradweave.runs.sweep_folder import JOURNAL_FILE, SweepPlan, setting_runs

__all__ = ["NUM_REPORTS", "Claim", "Outcome", "Record", "SweepStudy", "begin_journal"]

Outcome: TypeAlias = Literal["running", "finished", "pruned", "diverged", "unscored", "refused", "twin"]
NUM_REPORTS: Final = 10
"""Stretches of a run, after each of which but the last a trial may be given up."""
_STUDY: Final = "gradweave"
_OUTCOME: Final = "outcome"
_DIVERGED: Final = "diverged"
_EXHAUSTED: Final = "exhausted"
_MOST_JOURNAL: Final = 2**26
"""Bytes; a trial takes a few thousand."""
_FEW_TWINS: Final = 10
_MOST_TWINS: Final = 100
_MOST_LISTED: Final = 100_000
_STARTUP_TRIALS: Final = 4
_WARMUP_REPORTS: Final = 2
_HALVING_FACTOR: Final = 2


class Record(NamedTuple):
    """The journal's record of a trial.

    Attributes:
        number: of the trial.
        setting: the values that it tries.
        outcome: "running" until it has ended, wherever; "twin": drawn, but known; "refused": it cannot be trained.
        diverged: its seeds that met a value that is not finite.
    """

    number: int
    setting: Setting
    outcome: Outcome
    diverged: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the setting, and of its folder."""
        return setting_name(self.setting)

    def outcome_of(self, seed: int, run: Path) -> str:
        """The outcome of a seed's run: "finished", "diverged", "pruned" or, by now, "unfinished"."""
        if self.outcome == "pruned":
            return "pruned"
        if seed in self.diverged:
            return "diverged"
        return "finished" if self.outcome in ("finished", "unscored", "diverged") or is_finished(run) else "unfinished"


class Claim:
    """A trial that this process has, until `close`."""

    def __init__(self, trial: Trial, record: Record, folder: Path, lock: BinaryIO) -> None:
        """Use `SweepStudy.claim`."""
        self.trial = trial
        self.number, self.name, self.setting = record.number, record.name, record.setting
        self.diverged = list(record.diverged)
        self.folder = folder
        self.lock = lock

    def note_diverged(self, seed: int) -> None:
        """Remember that the run of a seed met a value that is not finite: trained again it would do so again."""
        self.diverged = sorted({*self.diverged, seed})
        self.trial.set_user_attr(_DIVERGED, self.diverged)

    @property
    def reports(self) -> int:
        """The last stretch that was reported; 0: none."""
        reported = self.trial.storage.get_trial(self.trial._trial_id).intermediate_values
        return max(reported, default=0)

    def report(self, stretch: int, value: float) -> bool:
        """Note the training return of a stretch; returns whether the trial is to be given up."""
        self.trial.report(value, stretch)
        return bool(self.trial.should_prune())  # NumPy's

    def close(self) -> None:
        """Let go of the trial."""
        self.lock.close()


def begin_journal(path: Path) -> None:
    """Write the journal of a study without trials into the folder of a new sweep."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(storage=_storage(path / JOURNAL_FILE), study_name=_STUDY, direction="maximize")


class SweepStudy:
    """The trials of the sweep in a folder."""

    def __init__(self, path: Path, plan: SweepPlan) -> None:
        """Open the journal in `path`.

        Raises:
            DamagedFile: it is not there, too large, or not a journal of Optuna.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.path, self.plan = path, plan
        with self._reading():
            open_regular(path / JOURNAL_FILE, most=_MOST_JOURNAL).close()  # Optuna reads whatever is there
            self._storage = _storage(path / JOURNAL_FILE)
            self._study = self._with(RandomSampler())

    def claim(self, leave: Collection[int] = ()) -> Claim | None:
        """A trial to train: one that was left by a worker that is gone, or a new one; None: there is none at present.

        Args:
            leave: numbers of trials to leave to others.

        Raises:
            DamagedFile: the journal, or a setting's folder, is not one of gradweave.
        """
        with waiting_lock(self.path / "claims.lock"), self._reading():
            self._cut_torn_line()
            for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if frozen.number not in leave:
                    found = self._take(Trial(self._with(self._sampler(frozen.number)), frozen._trial_id))
                    if found is not None:
                        return found
            for twins in range(_MOST_TWINS):
                known = self._study.get_trials(deepcopy=False)
                if self._num_distinct(known) >= self.plan.trials:
                    return None
                if twins >= _FEW_TWINS and (setting := self._untried(len(known))):
                    self._study.enqueue_trial(setting)
                found = self._take(self._with(self._sampler(len(known))).ask())
                if found is not None:
                    return found
            self._study.set_user_attr(_EXHAUSTED, True)
        return None

    def tell(self, claim: Claim, outcome: Outcome, value: float | None = None) -> None:
        """Note how a trial has ended.

        Args:
            claim: the trial.
            outcome: in a word.
            value: its score, where it is finished.
        """
        with self._reading():
            self._tell(claim.trial, outcome, value)

    def records(self) -> list[Record]:
        """Every trial whose setting is known, in the order in which they were begun; twins are left out.

        Raises:
            DamagedFile: the journal is not one of this sweep.
        """
        with self._reading():
            whole = set(map(self._key, self.plan.space))
            trials = self._study.get_trials(deepcopy=False)
            records = [self._record(trial) for trial in trials if set(trial.params) == whole]
            return [record for record in records if record.outcome != "twin"]

    @property
    def ended(self) -> bool:
        """Whether no trial is left to be trained."""
        with self._reading():
            trials = self._study.get_trials(deepcopy=False)
            whole = self._num_distinct(trials) >= self.plan.trials or self._study.user_attrs.get(_EXHAUSTED) is True
            return whole and not any(trial.state == TrialState.RUNNING for trial in trials)

    def _take(self, trial: Trial) -> Claim | None:
        """The trial with its folder locked; None where another process has it, or its setting is known already."""
        setting = {field: self._suggest(trial, field) for field in self.plan.space}
        diverged = _diverged(trial.user_attrs)
        record = Record(trial.number, setting, "running", diverged)
        if any(other.name == record.name and other.number < record.number for other in self.records()):
            self._tell(trial, "twin", None)
            return None
        folder = real_folder(self.path / record.name, make=True)
        with contextlib.suppress(RunInUse), contextlib.ExitStack() as stack:
            lock = stack.enter_context(lock_folder(folder))
            # Until here its worker may have told how it ended, and let go of it.
            ended = self._storage.get_trial(trial._trial_id).state.is_finished()
            # The runs of a worker that is gone may still be writing their last checkpoints.
            if not ended and not any(map(is_in_use, setting_runs(self.path, record.name).values())):
                stack.pop_all()
                return Claim(trial, record, folder, lock)
        return None

    def _tell(self, trial: Trial, outcome: Outcome, value: float | None) -> None:
        trial.set_user_attr(_OUTCOME, outcome)
        if value is not None:
            state = TrialState.COMPLETE
        else:  # TPE takes pruned trials for bad ones, and ignores failed ones
            state = TrialState.FAIL if outcome in ("refused", "twin") else TrialState.PRUNED
        self._study.tell(trial.number, value, state=state)

    def _suggest(self, trial: Trial, field: str) -> str:
        """The value of a field: the journal's, or else the sampler's."""
        values, key = self.plan.space[field], self._key(field)
        if isinstance(values, tuple):
            return str(trial.suggest_categorical(key, values))
        low, high = values.ends
        log = values.scale != "even"
        if values.whole:
            return values.text(trial.suggest_int(key, int(low), int(high), log=log))
        return values.text(trial.suggest_float(key, low, high, log=log))

    def _key(self, field: str) -> str:
        """Optuna's name of a field."""
        values = self.plan.space[field]
        return f"1 - {field}" if isinstance(values, Span) and values.scale == "distance-to-1" else field

    def _record(self, trial: FrozenTrial) -> Record:
        setting = {}
        for field, values in self.plan.space.items():
            found = trial.params[self._key(field)]
            if isinstance(values, tuple) and found not in values:
                raise ValueError(f"trial {trial.number} has another {field}")
            setting[field] = found if isinstance(values, tuple) else values.text(float(found))
        outcome = trial.user_attrs.get(_OUTCOME) if trial.state.is_finished() else "running"
        if outcome not in get_args(Outcome):
            raise ValueError(f"trial {trial.number} has no outcome")
        return Record(trial.number, setting, cast(Outcome, outcome), _diverged(trial.user_attrs))

    def _num_distinct(self, trials: Collection[FrozenTrial]) -> int:
        """Those that were begun; one that only waits, of a worker that is gone, is the next to be asked for."""
        begun = [trial for trial in trials if trial.state != TrialState.WAITING]
        return sum(trial.user_attrs.get(_OUTCOME) != "twin" for trial in begun)

    def _sampler(self, number: int) -> BaseSampler:
        """The sampler of one trial, so that its draws depend on the seed, its number and the earlier results."""
        digest = hashlib.sha256(f"{self.plan.base.run.seed} {number}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        if self.plan.sampling == "grid":
            return GridSampler({field: list(values) for field, values in self._choices().items()})
        return RandomSampler(seed) if self.plan.sampling == "random" else TPESampler(seed=seed)

    def _untried(self, number: int) -> dict[str, str] | None:
        """A setting that no trial has, at random, where all fields are choices: samplers may ask for known ones on."""
        choices = self._choices()
        if len(choices) < len(self.plan.space):
            return None
        rng = random.Random(f"{self.plan.base.run.seed} {number}")
        tried = {record.name for record in self.records()}
        if math.prod(map(len, choices.values())) <= _MOST_LISTED:
            every = (dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))
            left = [setting for setting in every if setting_name(setting) not in tried]
            return rng.choice(left) if left else None
        draws = ({field: rng.choice(values) for field, values in choices.items()} for _ in range(_MOST_TWINS))
        return next((setting for setting in draws if setting_name(setting) not in tried), None)

    def _cut_torn_line(self) -> None:
        """Remove the beginning of a line that a killed worker, or a full disk, has left: Optuna would go on in it."""
        file = self.path / JOURNAL_FILE
        if _has_whole_lines(file):
            return
        lock = JournalFileOpenLock(str(file))
        lock.acquire()  # nobody is in the middle of a line
        try:
            if not _has_whole_lines(file):
                with file.open("rb+") as journal:
                    journal.truncate(journal.read().rfind(b"\n") + 1)
        finally:
            lock.release()

    def _choices(self) -> Mapping[str, tuple[str, ...]]:
        return {field: values for field, values in self.plan.space.items() if isinstance(values, tuple)}

    def _with(self, sampler: BaseSampler) -> optuna.Study:
        """The study with a sampler."""
        pruner = _pruner(self.plan.pruning)
        return optuna.load_study(study_name=_STUDY, storage=self._storage, sampler=sampler, pruner=pruner)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Name the journal where Optuna cannot make anything of it."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._damaged(f"cannot be read ({error.strerror})") from None
        except (GradweaveError, OSError):
            raise
        except Exception as error:  # of any kind: the file may hold anything
            raise self._damaged(f"is no journal of this sweep ({type(error).__name__}: {str(error)[:100]})") from error

    def _damaged(self, what: str) -> DamagedFile:
        return DamagedFile(self.path / JOURNAL_FILE, what, "take the file from where it is whole, or sweep anew")


def _diverged(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    found = attributes.get(_DIVERGED, [])
    if not isinstance(found, list) or not all(isinstance(seed, int) for seed in found):
        raise ValueError(f"`{_DIVERGED}` is no list of seeds")
    return tuple(found)


def _has_whole_lines(file: Path) -> bool:
    with open_regular(file, most=_MOST_JOURNAL) as journal:
        size = journal.seek(0, os.SEEK_END)
        journal.seek(max(size - 1, 0))
        return journal.read() in (b"", b"\n")


def _pruner(pruning: str) -> BasePruner:
    if pruning == "median":
        return MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=_WARMUP_REPORTS)
    if pruning == "halving":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=_HALVING_FACTOR)
    return NopPruner()


def _storage(file: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(file), lock_obj=JournalFileOpenLock(str(file))))
