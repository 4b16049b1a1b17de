"""The folder of several seeds: an ordinary run's folder for each of them, and their summary.

runs/<preset>-<environment>-<utc time>-<4 random letters>/
seeds.json  lock  summary.json  report.html
seed-0/  seed-1/  ...      each as in `gradweave.runs.run_folder`, with output.log beside
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError, DamagedFile
from gradweave.files import is_regular, read_json, real_folder, write_atomically
from gradweave.runs.locks import lock_folder
from gradweave.runs.run_folder import (
    EVALUATION_FILE,
    SEEDS_FILE,
    RunFolder,
    find_run,
    has_last_checkpoint,
    new_name,
)

__all__ = [
    "SUMMARY_FILE",
    "SeedsFolder",
    "find_runs",
    "is_finished",
    "is_seeds_folder",
    "seed_runs",
]


SUMMARY_FILE: Final = "summary.json"


class SeedsFolder:
    """The folder of several seeds, locked. Use as a context manager."""

    def __init__(self, path: Path, seeds: Sequence[int], lock: BinaryIO) -> None:
        """Use `SeedsFolder.create` or `SeedsFolder.open`."""
        self.path = path
        self.seeds = tuple(seeds)
        self._lock = lock

    @classmethod
    def create(
        cls,
        config: Config,
        num_seeds: int,
        argv: Sequence[str] = (),
        name: str | None = None,
        lock: BinaryIO | None = None,
    ) -> "SeedsFolder":
        """Make a new folder in `config.run.runs_dir`, and in it those of the runs of `config.run.seed` and those after.

        Args:
            config: of the first seed's run.
            num_seeds: how many.
            argv: the command line for every provenance.json.
            name: the folder's; by default made of preset, time and letters.
            lock: of the folder, where the caller has made it and locked it.

        Raises:
            ConfigError: the folders cannot be made there.
        """
        path = Path(config.run.runs_dir) / (name or new_name(config))
        seeds = range(config.run.seed, config.run.seed + num_seeds)
        for seed in seeds:
            run = dataclasses.replace(config.run, seed=seed, runs_dir=str(path))
            RunFolder.create(dataclasses.replace(config, run=run), argv, name=f"seed-{seed}").close()
        write_atomically(path / SEEDS_FILE, json.dumps({"seeds": list(seeds)}) + "\n")
        return cls(path, seeds, lock or lock_folder(path))

    @classmethod
    def open(cls, path: Path) -> "SeedsFolder":
        """Open an earlier one, to go on with it.

        Raises:
            RunInUse: another process has it.
        """
        return cls(path, _read_seeds(path), lock_folder(path))

    @property
    def runs(self) -> dict[int, Path]:
        """The folder of each seed's run."""
        return _runs_of(self.path, self.seeds)

    def change(self, changes: Mapping[str, Any], *, accept_changes: bool = False) -> None:
        """Replace fields of the section `run` in every seed's configuration.

        Args:
            changes: by the field's name.
            accept_changes: also accept edits of a config.toml since the newest checkpoint.

        Raises:
            ConfigError: the runs cannot go on like this; none has been changed.
            RunInUse: another process has one of the runs.
        """
        from gradweave.runs.identity import check_longer

        configs = {path: read_config(path / "config.toml") for path in self.runs.values()}
        changed = {
            path: dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))
            for path, config in configs.items()
        }
        for path, config in changed.items():
            if "total_steps" in changes:
                check_longer(path, config.run.total_steps)
            validate(config)
        with contextlib.ExitStack() as stack:
            runs = []
            for path, config in changed.items():
                if config != configs[path] or accept_changes:
                    runs.append(stack.enter_context(RunFolder.open(path, accept_changes=accept_changes)))
                    runs[-1].config = config
            for run in runs:
                run.save_config()

    def __enter__(self) -> "SeedsFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()


def is_seeds_folder(path: Path) -> bool:
    """Whether a folder is that of several seeds."""
    return os.path.lexists(path / SEEDS_FILE)


def find_runs(path: Path) -> list[Path]:
    """The runs in a folder: of several seeds those that have logged something, otherwise the folder itself.

    Raises:
        ConfigError: there is no run.
    """
    if not is_seeds_folder(path):
        return [find_run(path)]
    runs = list(seed_runs(path).values())
    logged = [run for run in runs if is_regular(run / "metrics.jsonl") and (run / "metrics.jsonl").stat().st_size]
    return logged or runs[:1]


def seed_runs(path: Path) -> dict[int, Path]:
    """The folder of each seed's run in a folder of several."""
    return _runs_of(path, _read_seeds(path))


def is_finished(path: Path) -> bool:
    """Whether a run has nothing left to do: its last checkpoint and its last file are there."""
    config = read_config(path / "config.toml")
    last = "report.html" if config.run.finish == "all" else EVALUATION_FILE
    return has_last_checkpoint(path, config) and is_regular(path / last)


def _runs_of(path: Path, seeds: Sequence[int]) -> dict[int, Path]:
    return {seed: path / f"seed-{seed}" for seed in seeds}


def _read_seeds(path: Path) -> list[int]:
    """The seeds that seeds.json lists, whose folders are real ones.

    Raises:
        DamagedFile: not a file of `SeedsFolder.create`, or a seed's folder is a link.
        ConfigError: it cannot be read.
    """
    file = path / SEEDS_FILE
    try:
        found = read_json(file).get("seeds")
    except OSError as error:
        raise ConfigError("RUN", str(path), "a folder of several seeds that can be read", str(error)) from None
    whole = isinstance(found, list) and all(isinstance(seed, int) and not isinstance(seed, bool) for seed in found)
    if not whole or not found or len(set(found)) < len(found) or not all(0 <= seed < 2**32 for seed in found):
        raise DamagedFile(file, "has no list of `seeds`, different whole numbers", "list the folders seed-N in it")
    for seed, run in _runs_of(path, found).items():
        if not os.path.lexists(run):
            raise DamagedFile(file, f"lists {run.name}, which is not there", f"put it back, or take {seed} out of it")
        real_folder(run)
    return list(found)
