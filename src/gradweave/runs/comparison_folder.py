"""Comparisons: the plan, and the folder of one.

runs/<preset>-compare-<environment>-<utc time>-<4 random letters>/
compare.json  compare.toml  provenance.json  lock  RIVAL.safetensors  ...
comparison.csv  outcomes.csv  summary.csv  comparison.md  comparison.png
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradweave.config.schema import Config
from gradweave.config.search import SearchRange
from gradweave.config.toml_file import format_config, read_config, write_config
from gradweave.errors import ConfigError, DamagedFile
from gradweave.files import read_json, real_folder, write_atomically
from gradweave.runs.provenance import collect_provenance
from gradweave.runs.run_folder import COMPARISON_FILE, make_runs_dir, new_name

__all__ = ["ComparisonPlan", "create_comparison", "is_comparison_folder", "read_comparison"]


@dataclass(frozen=True)
class ComparisonPlan:
    """Plan of a comparison.

    Attributes:
        config: of every rival before its own changes; `run.total_steps` is the budget of each.
        rivals: by name, in order.
        ranges: of the draws of searches.
        trials: of a search, and members of a population.
        seeds: that are reported.
        at_once: members computed side by side.
    """

    config: Config
    rivals: tuple[str, ...]
    ranges: dict[str, SearchRange]
    trials: int
    seeds: tuple[int, ...]
    at_once: int

    @property
    def identity(self) -> str:
        """A hash of all that decides the numbers."""
        kept = {**self._plain(), "at_once": None, "rivals": None, "config": format_config(self.config)}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        plain = dataclasses.asdict(dataclasses.replace(self, config=Config()))
        return {name: value for name, value in plain.items() if name != "config"}


def create_comparison(plan: ComparisonPlan, argv: Sequence[str] = ()) -> Path:
    """Make the folder of a new comparison in `plan.config.run.runs_dir`.

    Args:
        plan: of the comparison.
        argv: the command line for provenance.json.

    Raises:
        ConfigError: the folder cannot be made there.
    """
    config = plan.config
    path = make_runs_dir(config) / new_name(dataclasses.replace(config, preset=f"{config.preset}-compare"))
    real_folder(path, make=True)
    write_config(config, path / "compare.toml")
    write_atomically(path / "provenance.json", json.dumps(collect_provenance(config, argv), indent=1) + "\n")
    write_atomically(path / COMPARISON_FILE, json.dumps(plan._plain(), indent=1) + "\n")
    return path


def is_comparison_folder(path: Path) -> bool:
    """Whether a folder is that of a comparison."""
    return os.path.lexists(path / COMPARISON_FILE)


def read_comparison(path: Path) -> ComparisonPlan:
    """Read the plan of a comparison from its folder.

    Raises:
        DamagedFile: compare.json is not a file of `create_comparison`.
        ConfigError: a file cannot be read.
    """
    file = path / COMPARISON_FILE
    try:
        found = read_json(file)
    except OSError as error:
        raise ConfigError("RUN", str(path), "the folder of a comparison that can be read", str(error)) from None
    try:
        return ComparisonPlan(
            config=read_config(path / "compare.toml"),
            rivals=tuple(str(name) for name in found["rivals"]),
            ranges={str(name): _range(fields) for name, fields in found["ranges"].items()},
            trials=_whole(found["trials"]),
            seeds=tuple(_whole(seed) for seed in found["seeds"]),
            at_once=_whole(found["at_once"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"has no complete plan ({type(error).__name__}: {error})"
        raise DamagedFile(file, what, "take the file from where it is whole, or compare anew") from None


def _range(fields: Any) -> SearchRange:
    return SearchRange(float(fields["low"]), float(fields["high"]), bool(fields["below_one"]))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value
