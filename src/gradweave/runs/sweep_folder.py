"""Sweeps: the plan, and the folder that any number of workers share, on one machine or on many.

runs/<preset>-sweep-<environment>-<utc time>-<4 random letters>/
sweep.json  sweep.toml  journal.jsonl  claims.lock  sweep.csv  best.toml
discount0.9-learning-rate0.001/  ...      each as in `gradweave.runs.seeds_folder`, locked by the worker that trains it

The journal is Optuna's: see `gradweave.runs.sweep_study`, which nothing here imports.
"""

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from gradweave.config.schema import Config
from gradweave.config.sweep_space import Space, space_from_json, space_to_json
from gradweave.config.toml_file import read_config, write_config
from gradweave.errors import ConfigError, DamagedFile
from gradweave.files import read_json, real_folder, write_atomically
from gradweave.runs.locks import not_writable
from gradweave.runs.run_folder import SWEEP_FILE, make_runs_dir, new_name
from gradweave.runs.seeds_folder import is_seeds_folder, seed_runs

__all__ = [
    "BASE_FILE",
    "JOURNAL_FILE",
    "Pruning",
    "Sampling",
    "SweepPlan",
    "is_sweep_folder",
    "join_sweep",
    "read_plan",
    "setting_runs",
]

Sampling: TypeAlias = Literal["grid", "random", "tpe"]
Pruning: TypeAlias = Literal["none", "median", "halving"]
BASE_FILE: Final = "sweep.toml"
"""The configuration that all settings change."""
JOURNAL_FILE: Final = "journal.jsonl"
"""Optuna's record of the trials."""
_REMEDY: Final = "take the file from where it is whole, or sweep anew"


@dataclass(frozen=True)
class SweepPlan:
    """Plan of a sweep.

    Attributes:
        base: the configuration that all settings share; `run.seed` is the first seed, and that of sampling.
        space: the space to search.
        sampling: how settings are chosen.
        trials: how many.
        num_seeds: runs of each setting.
        pruning: how trials are given up early.
    """

    base: Config
    space: Space
    sampling: Sampling
    trials: int
    num_seeds: int
    pruning: Pruning

    @property
    def seeds(self) -> range:
        """The seeds of each setting."""
        return range(self.base.run.seed, self.base.run.seed + self.num_seeds)

    def differences(self, other: "SweepPlan") -> list[str]:
        """Names of fields that differ, wherever the runs lie."""
        mine, theirs = (
            dataclasses.replace(plan.base, run=dataclasses.replace(plan.base.run, runs_dir=""))
            for plan in (self, other)
        )
        own = [name for name, value in self._plain().items() if other._plain()[name] != value]
        sections = (field.name for field in dataclasses.fields(Config))
        return own + [name for name in sections if getattr(mine, name) != getattr(theirs, name)]

    def _plain(self) -> dict[str, Any]:
        return {
            "space": space_to_json(self.space),
            "sampling": self.sampling,
            "trials": self.trials,
            "num_seeds": self.num_seeds,
            "pruning": self.pruning,
        }


def join_sweep(plan: SweepPlan, name: str | None, begin: Callable[[Path], object]) -> Path:
    """The folder of a sweep in `plan.base.run.runs_dir`: a new one, or the one that other workers have made.

    Args:
        plan: of the sweep.
        name: the folder's; None: a new name.
        begin: puts the journal into a new folder, before any other worker sees that.

    Raises:
        ConfigError: the folder cannot be made there, or has another plan.
    """
    runs_dir = make_runs_dir(plan.base)
    path = runs_dir / (name or new_name(dataclasses.replace(plan.base, preset=f"{plan.base.preset}-sweep")))
    if not os.path.lexists(path):
        _make(plan, path, begin)
    if not is_sweep_folder(path):
        raise ConfigError("--name", path.name, "the name of a sweep, or of nothing that is there", "choose another")
    differences = read_plan(path).differences(plan)
    if differences:
        accepted = f"the sweep that is there, which differs in {', '.join(differences)}"
        raise ConfigError("--name", path.name, accepted, "give the flags it was begun with, or another name")
    return path


def _make(plan: SweepPlan, path: Path, begin: Callable[[Path], object]) -> None:
    """Make a folder in one step: of several workers that do so at once, the first one's stays."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        new.mkdir()
    except OSError as error:
        raise not_writable(plan.base.run.runs_dir, error) from None
    try:
        write_config(plan.base, new / BASE_FILE)
        write_atomically(new / SWEEP_FILE, json.dumps(plan._plain(), indent=1) + "\n")
        begin(new)
        try:
            new.rename(path)
        except OSError:
            if not os.path.lexists(path):  # ENOTEMPTY, EEXIST or another, by file system: somebody was faster
                raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def is_sweep_folder(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return os.path.lexists(path / SWEEP_FILE)


def setting_runs(path: Path, name: str) -> dict[int, Path]:
    """The folder of each seed's run of a setting; none until they have been made.

    Args:
        path: of the sweep.
        name: of the setting.

    Raises:
        DamagedFile: the setting's folder is a link.
    """
    folder = path / name
    if not os.path.lexists(folder):
        return {}
    return seed_runs(folder) if is_seeds_folder(real_folder(folder)) else {}


def read_plan(path: Path) -> SweepPlan:
    """Read the plan of a sweep from its folder.

    Raises:
        DamagedFile: sweep.json is not a file of `join_sweep`.
        ConfigError: a file cannot be read.
    """
    file = path / SWEEP_FILE
    try:
        found = read_json(file)
    except OSError as error:
        raise ConfigError("RUN", str(path), "the folder of a sweep that can be read", str(error)) from None
    try:
        space = space_from_json(found.get("space"))
    except (ValueError, TypeError) as error:
        raise DamagedFile(file, f"has no `space`, fields with values or ranges ({error})", _REMEDY) from None
    for name, accepted in (("sampling", Sampling), ("pruning", Pruning)):
        if found.get(name) not in get_args(accepted):
            raise DamagedFile(file, f"has no `{name}`, one of {', '.join(get_args(accepted))}", _REMEDY)
    for name in ("trials", "num_seeds"):
        if not isinstance(found.get(name), int) or isinstance(found[name], bool) or not 0 < found[name] < 2**32:
            raise DamagedFile(file, f"has no `{name}`, a whole number above 0", _REMEDY)
    return SweepPlan(
        base=read_config(path / BASE_FILE),
        space=space,
        sampling=found["sampling"],
        trials=found["trials"],
        num_seeds=found["num_seeds"],
        pruning=found["pruning"],
    )
