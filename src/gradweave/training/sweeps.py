"""Sweeps: every combination of some settings, each with several seeds, and the folder in which they are trained.

    runs/<preset>-sweep-<utc time>-<4 random letters>/
      sweep.json  lock  sweep.csv  best.toml
      discount0.9-learning-rate0.001/  ...      each as in `gradweave.training.seeds`

JAX is not imported here.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

from gradweave.training.config import Config
from gradweave.training.errors import ConfigError
from gradweave.training.files import write_atomically
from gradweave.training.run_folder import SWEEP_FILE, lock_folder, make_runs_dir, new_name
from gradweave.training.seeds import SeedsFolder, seed_runs

__all__ = ["SweepFolder", "is_sweep_folder", "parse_grid", "setting_name", "settings_of", "sweep_runs"]

Setting = Mapping[str, str]
"""Fields of a configuration, as flags name them without the dashes, and what they are set to."""

_ENTRY: Final = "FIELD=VALUE,VALUE,..., such as inner.discount=0.9,0.99"


def parse_grid(entries: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The fields of a grid with their values, as text.

    Args:
        entries: "FIELD=VALUE,VALUE,..." each.

    Raises:
        ConfigError: an entry is not of this form, or a field or value stands there twice.

    Example:
        >>> parse_grid(["inner.discount=0.9,0.99"])
        {'inner.discount': ('0.9', '0.99')}
    """
    grid: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        name, values = name.strip().removeprefix("--"), tuple(value.strip() for value in text.split(","))
        if not name or not equals or not all(values):
            raise ConfigError("--grid", entry, _ENTRY, "write the field and its values without spaces between")
        if name in grid or len(set(values)) < len(values):
            raise ConfigError("--grid", entry, "every field once, with different values", "leave out what is repeated")
        grid[name] = values
    if not grid:
        raise ConfigError("--grid", "", f"at least one {_ENTRY}", "leave --grid out for the usual one")
    return grid


def settings_of(grid: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """Every combination of a grid's values, by its name.

    Raises:
        ConfigError: two of them have the same name.
    """
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    settings = {setting_name(setting): setting for setting in combinations}
    if len(settings) < len(combinations):
        raise ConfigError("--grid", dict(grid), "values that differ in letters or digits", "sweep these one by one")
    return settings


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
    """The folder of a sweep, locked. Use as a context manager."""

    def __init__(self, path: Path, settings: Mapping[str, Setting], lock: TextIO) -> None:
        """Use `SweepFolder.create` or `SweepFolder.open`."""
        self.path = path
        self.settings = dict(settings)
        self._lock = lock

    @classmethod
    def create(
        cls, base: Config, settings: Mapping[str, tuple[Setting, Config]], num_seeds: int, argv: Sequence[str] = ()
    ) -> "SweepFolder":
        """Make a new folder in `base.run.runs_dir`, and in it those of every setting's seeds.

        Args:
            base: names the preset and the folder.
            settings: by name, each with its configuration, checked; seeds go on from that of the configuration.
            num_seeds: how many.
            argv: what to note in every provenance.json as the command line.

        Raises:
            ConfigError: the folders cannot be made there.
        """
        named = dataclasses.replace(base, preset=f"{base.preset}-sweep")
        path = make_runs_dir(base) / new_name(named)
        for name, (_, config) in settings.items():
            run = dataclasses.replace(config.run, runs_dir=str(path))
            with SeedsFolder.create(dataclasses.replace(config, run=run), num_seeds, argv, name):
                pass  # locked while it is made only: the sweep is locked itself
        plain = {name: dict(setting) for name, (setting, _) in settings.items()}
        write_atomically(path / SWEEP_FILE, json.dumps({"settings": plain}, indent=1) + "\n")
        return cls(path, plain, lock_folder(path))

    @classmethod
    def open(cls, path: Path) -> "SweepFolder":
        """Open an earlier one, to go on with it.

        Raises:
            RunInUse: another process has it.
        """
        return cls(path, _read_settings(path), lock_folder(path))

    @property
    def runs(self) -> dict[tuple[str, int], Path]:
        """The folder of each run, by setting and seed."""
        return sweep_runs(self.path)

    def change(self, changes: Mapping[str, Any]) -> None:
        """Replace fields of the section `run` in every run's configuration, as `SeedsFolder.change`."""
        for name in self.settings:
            with SeedsFolder.open(self.path / name) as seeds:
                seeds.change(changes)

    def __enter__(self) -> "SweepFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()


def is_sweep_folder(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (path / SWEEP_FILE).is_file()


def sweep_runs(path: Path) -> dict[tuple[str, int], Path]:
    """The folder of each run of a sweep, by setting and seed."""
    return {(name, seed): run for name in _read_settings(path) for seed, run in seed_runs(path / name).items()}


def _read_settings(path: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((path / SWEEP_FILE).read_text(encoding="utf-8"))["settings"]
    return found
