"""Sweeps: every combination of some settings, each with several seeds, and the folder in which they are trained.

runs/<preset>-sweep-<environment>-<utc time>-<4 random letters>/
sweep.json  lock  sweep.csv  best.toml
discount0.9-learning-rate0.001/  ...      each as in `gradweave.runs.seeds_folder`
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from gradweave.config.grid import Setting
from gradweave.config.schema import Config
from gradweave.errors import ConfigError, DamagedFile
from gradweave.files import read_json, real_folder, write_atomically
from gradweave.runs.locks import lock_folder
from gradweave.runs.run_folder import SWEEP_FILE, make_runs_dir, new_name
from gradweave.runs.seeds_folder import SeedsFolder, seed_runs

__all__ = [
    "SweepFolder",
    "diverged_runs",
    "is_sweep_folder",
    "sweep_runs",
]


class SweepFolder:
    """The folder of a sweep, locked with those of its settings. Use as a context manager."""

    def __init__(self, path: Path, locks: contextlib.ExitStack) -> None:
        """Use `SweepFolder.create` or `SweepFolder.open`."""
        self.path = path
        self._locks = locks
        plan = _read_plan(path)
        self.settings: dict[str, Setting] = plan["settings"]
        """Those that are swept, by name."""
        self.total_steps: int = plan["total_steps"]
        """Environment steps of each run that count."""

    @classmethod
    def create(
        cls, base: Config, settings: Mapping[str, tuple[Setting, Config]], num_seeds: int, argv: Sequence[str] = ()
    ) -> "SweepFolder":
        """Make a new folder in `base.run.runs_dir`, and in it those of every setting's seeds.

        Args:
            base: names the preset and the folder, and says how many steps a run takes.
            settings: by name, each with its configuration, checked; seeds go on from that of the configuration.
            num_seeds: how many.
            argv: what to note in every provenance.json as the command line.

        Raises:
            ConfigError: the folders cannot be made there.
        """
        path = make_runs_dir(base) / new_name(dataclasses.replace(base, preset=f"{base.preset}-sweep"))
        locks = contextlib.ExitStack()
        try:
            for name, (_, config) in settings.items():
                run = dataclasses.replace(config.run, runs_dir=str(path))
                seeds = SeedsFolder.create(dataclasses.replace(config, run=run), num_seeds, argv, name)
                locks.enter_context(seeds)
            locks.enter_context(lock_folder(path))
            plain = {name: dict(setting) for name, (setting, _) in settings.items()}
            _write_plan(path, {"settings": plain, "total_steps": base.run.total_steps, "diverged": []})
        except BaseException:
            locks.close()
            shutil.rmtree(path, ignore_errors=True)
            raise
        return cls(path, locks)

    @classmethod
    def open(cls, path: Path) -> "SweepFolder":
        """Open an earlier one, to go on with it.

        Raises:
            RunInUse: another process has it, or one of its settings.
        """
        with contextlib.ExitStack() as locks:
            locks.enter_context(lock_folder(path))
            for name in _read_plan(path)["settings"]:
                locks.enter_context(SeedsFolder.open(path / name))
            return cls(path, locks.pop_all())

    @property
    def runs(self) -> dict[tuple[str, int], Path]:
        """The folder of each run, by setting and seed."""
        return sweep_runs(self.path)

    @property
    def diverged(self) -> list[Path]:
        """The folders of the runs that met a value that is not finite."""
        return diverged_runs(self.path)

    def note_diverged(self, runs: Sequence[Path]) -> None:
        """Remember such runs: trained again they would only do so again."""
        names = sorted(str(run.relative_to(self.path)) for run in {*self.diverged, *runs})
        _write_plan(self.path, {**_read_plan(self.path), "diverged": names})

    def __enter__(self) -> "SweepFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._locks.close()


def is_sweep_folder(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return os.path.lexists(path / SWEEP_FILE)


def sweep_runs(path: Path) -> dict[tuple[str, int], Path]:
    """The folder of each run of a sweep, by setting and seed."""
    names = _read_plan(path)["settings"]
    return {(name, seed): run for name in names for seed, run in seed_runs(path / name).items()}


def diverged_runs(path: Path) -> list[Path]:
    """The folders of the runs of a sweep that met a value that is not finite."""
    return [path / name for name in _read_plan(path)["diverged"]]


def _read_plan(path: Path) -> dict[str, Any]:
    """What sweep.json says of the settings, whose folders are real ones.

    Raises:
        DamagedFile: it is not what `SweepFolder` writes, or a setting's folder is a link.
        ConfigError: it cannot be read.
    """
    file = path / SWEEP_FILE
    try:
        found = read_json(file)
    except OSError as error:
        raise ConfigError("RUN", str(path), "the folder of a sweep that can be read", str(error)) from None
    settings, steps, diverged = (found.get(name) for name in ("settings", "total_steps", "diverged"))
    remedy = "take the file from where it is whole, or sweep anew"
    if not isinstance(settings, dict) or not settings or not all(map(_is_setting, settings.items())):
        raise DamagedFile(file, "has no `settings`, each with the text of its values", remedy)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise DamagedFile(file, "has no `total_steps`, a whole number above 0", remedy)
    if not isinstance(diverged, list) or not all(_is_run(name, settings) for name in diverged):
        raise DamagedFile(file, "has no list `diverged` of runs, such as SETTING/seed-0", remedy)
    for name in settings:
        if os.path.lexists(path / name):
            real_folder(path / name)
    return found


def _is_setting(entry: tuple[str, Any]) -> bool:
    name, values = entry
    plain = name not in ("", ".", "..") and "/" not in name and "\0" not in name
    return plain and isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


def _is_run(name: Any, settings: Mapping[str, Any]) -> bool:
    if not isinstance(name, str):
        return False
    setting, _, run = name.partition("/")
    return setting in settings and re.fullmatch(r"seed-\d{1,10}", run) is not None


def _write_plan(path: Path, plan: Mapping[str, Any]) -> None:
    write_atomically(path / SWEEP_FILE, json.dumps(plan, indent=1) + "\n")
