"""Sweeps: every combination of some settings, each with several seeds, and the folder in which they are trained.

    runs/<preset>-sweep-<utc time>-<4 random letters>/
      sweep.json  lock  sweep.csv  best.toml
      discount0.9-learning-rate0.001/  ...      each as in `gradweave.training.seeds`

JAX is not imported here.
"""

import contextlib
import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from gradweave.training.config import Config
from gradweave.training.errors import ConfigError
from gradweave.training.files import write_atomically
from gradweave.training.run_folder import SWEEP_FILE, lock_folder, make_runs_dir, new_name
from gradweave.training.seeds import SeedsFolder, seed_runs

__all__ = [
    "SweepFolder",
    "diverged_runs",
    "flags_of",
    "is_sweep_folder",
    "parse_grid",
    "setting_name",
    "settings_of",
    "sweep_runs",
]

Setting = Mapping[str, str]
"""Fields of a configuration, as flags name them without the dashes, and what they are set to."""

_SECTIONS: Final = ("environment", "network", "inner", "meta", "outer")
_LONGEST_NAME: Final = 200
_ENTRY: Final = "FIELD=VALUE,VALUE,..., such as inner.discount=0.9,0.99"


def parse_grid(entries: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The fields of a grid with their values, as text.

    Args:
        entries: "FIELD=VALUE,VALUE,..." each.

    Raises:
        ConfigError: an entry is not of this form, its field is none that may differ within a sweep, or a field or value
            stands there twice.

    Example:
        >>> parse_grid(["inner.discount=0.9,0.99"])
        {'inner.discount': ('0.9', '0.99')}
    """
    grid: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        name = name.strip().removeprefix("--").replace("_", "-")
        values = tuple(value.strip() for value in text.split(","))
        if not name or not equals or not all(values) or any(word.startswith("--") for word in text.split()):
            remedy = "write the field and its values without spaces between; a preset stands before --grid"
            raise ConfigError("--grid", entry, _ENTRY, remedy)
        if name.partition(".")[0] not in _SECTIONS or name == "environment.name":
            accepted = f"a field of {', '.join(_SECTIONS)}, all of one environment"
            raise ConfigError("--grid", entry, accepted, "give what is the same in all runs as a flag")
        if name in grid or len(set(values)) < len(values):
            raise ConfigError("--grid", entry, "every field once, with different values", "leave out what is repeated")
        grid[name] = values
    if not grid:
        raise ConfigError("--grid", "", f"at least one {_ENTRY}", "leave --grid out for the usual one")
    return grid


def settings_of(grid: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """Every combination of a grid's values, by its name.

    Raises:
        ConfigError: two of them have the same name, or one that is too long for a folder.
    """
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    settings = {setting_name(setting): setting for setting in combinations}
    if len(settings) < len(combinations):
        raise ConfigError("--grid", dict(grid), "values that differ in letters or digits", "sweep these one by one")
    longest = max(settings, key=len)
    if len(longest) > _LONGEST_NAME:
        raise ConfigError("--grid", longest, f"names of at most {_LONGEST_NAME} letters", "sweep fewer fields at once")
    return settings


def flags_of(setting: Setting) -> list[str]:
    """A setting as flags.

    Example:
        >>> flags_of({"inner.discount": "0.9", "network.shared-torso": "False", "network.channels": "8 8"})
        ['--inner.discount', '0.9', '--network.no-shared-torso', '--network.channels', '8', '8']
    """
    flags = []
    for name, value in setting.items():
        section, _, field = name.partition(".")
        if value in ("True", "False"):
            flags.append(f"--{section}.{'' if value == 'True' else 'no-'}{field}")
        else:
            flags += [f"--{name}", *value.split()]
    return flags


def setting_name(setting: Setting) -> str:
    """What a setting and its folder are called.

    Example:
        >>> setting_name({"inner.discount": "0.9", "inner.learning-rate": "1e-3"})
        'discount0.9-learning-rate1e-3'
    """
    short = {name: name.rpartition(".")[2] for name in setting}
    unambiguous = len(set(short.values())) == len(short)
    parts = ((short[name] if unambiguous else name) + value for name, value in setting.items())
    return re.sub(r"[^\w.+-]", "_", "-".join(parts))


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
    return (path / SWEEP_FILE).is_file()


def sweep_runs(path: Path) -> dict[tuple[str, int], Path]:
    """The folder of each run of a sweep, by setting and seed."""
    names = _read_plan(path)["settings"]
    return {(name, seed): run for name in names for seed, run in seed_runs(path / name).items()}


def diverged_runs(path: Path) -> list[Path]:
    """The folders of the runs of a sweep that met a value that is not finite."""
    return [path / name for name in _read_plan(path)["diverged"]]


def _read_plan(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / SWEEP_FILE).read_text(encoding="utf-8"))
    return found


def _write_plan(path: Path, plan: Mapping[str, Any]) -> None:
    write_atomically(path / SWEEP_FILE, json.dumps(plan, indent=1) + "\n")
