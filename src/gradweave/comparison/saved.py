"""Progress of a comparison's part, read from its checkpoint: every row and setting is as `conduct` writes them.

A right hash says that a file is whole, and not that gradweave wrote it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from gradweave.errors import ConfigError, DamagedFile
from gradweave.runs.checkpoints import describe
from gradweave.runs.comparison_folder import ComparisonPlan

__all__ = ["Progress", "read_progress"]

Row = dict[str, Any]
_REMEDY: Final = "remove it: this rival then begins anew"
_MOST_STEPS: Final = 2**63


class Progress(NamedTuple):
    """A part's rows, its members' settings and the number of stretches that they have trained."""

    rows: list[Row]
    settings: list[Mapping[str, float]]
    stretches: int


def read_progress(
    file: Path,
    plan: ComparisonPlan,
    name: str,
    members: Sequence[tuple[int, int]],
    *,
    stretches: int,
    settings: Sequence[Mapping[str, float]],
) -> Progress | None:
    """The progress in a part's file; None before the first.

    Args:
        file: of the part.
        plan: of the comparison.
        name: of the part.
        members: (seed, place) of each member.
        stretches: of the whole part.
        settings: that the members began with; those of the file have the same names.

    Raises:
        CheckpointError: the file is damaged.
        ConfigError: it is of another plan.
        DamagedFile: its hash is right, but it holds something else.
    """
    if not file.exists():
        return None
    metadata = describe(file).metadata
    if metadata.get("plan") != plan.identity:
        accepted = "files of the comparison that compare.json and compare.toml describe"
        raise ConfigError("RUN", str(file), accepted, "undo the edits, or compare anew in another folder")
    done, rows, found = (metadata.get(key) for key in ("stretches", "rows", "settings"))
    if not isinstance(done, int) or isinstance(done, bool) or not 0 < done <= stretches:
        raise DamagedFile(file, f"has no `stretches`, 1 to {stretches}", _REMEDY)
    if not isinstance(rows, list) or len(rows) != done * len(members):
        raise DamagedFile(file, f"has no `rows`, one for each of {len(members)} members and {done} stretches", _REMEDY)
    for index, row in enumerate(rows):
        stretch, member = divmod(index, len(members))
        seed, place = members[member]
        expected = {"rival": name, "seed": seed, "member": place, "stretch": stretch}
        if not _is_row(row, expected):
            raise DamagedFile(file, f"has something else as row {index}, of {expected}", _REMEDY)
    if not isinstance(found, list) or len(found) != len(members):
        raise DamagedFile(file, f"has no `settings`, one for each of {len(members)} members", _REMEDY)
    for index, (setting, first) in enumerate(zip(found, settings, strict=True)):
        if not isinstance(setting, dict) or set(setting) != set(first) or not all(map(_is_number, setting.values())):
            raise DamagedFile(file, f"has something else as setting {index}, numbers by {sorted(first)}", _REMEDY)
    return Progress(rows, found, done)


def _is_row(row: Any, expected: Mapping[str, Any]) -> bool:
    """Whether a row is that of a member and stretch, with the fields and types that `conduct` gives it."""
    if not isinstance(row, dict) or {key: _typed(row.get(key)) for key in expected} != {
        key: _typed(value) for key, value in expected.items()
    }:
        return False
    rest = {key: value for key, value in row.items() if key not in expected}
    steps, finite = rest.pop("environment_steps", None), rest.pop("finite", None)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 0 <= steps < _MOST_STEPS:
        return False
    returns = {"training_return", "evaluation_return"}
    return (
        isinstance(finite, bool)
        and returns <= set(rest)
        and all(key in returns or key.startswith("eta/") for key in rest)
        and all(value is None or _is_number(value) for value in rest.values())
    )


def _typed(value: Any) -> tuple[type, Any]:
    """A value that equals another one only of its own type: True is not 1."""
    return type(value), value


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)
