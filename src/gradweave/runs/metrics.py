"""metrics.jsonl: one line for each logged meta-step, whole after a crash, neither repeated nor lost across a resume.

Names of the numbers that a row may hold; reports and progress tables know these, any other name is kept as it is:

| name | meaning |
|---|---|
| `step` | environment steps done (required, grows from line to line) |
| `meta_step` | meta-steps done |
| `return`, `episode_length`, `num_episodes` | of the episodes that ended since the last line; null if none did |
| `evaluation/return`, `evaluation/greedy_return` | of an evaluation, where one was made |
| `eta/NAME`, `raw/NAME`, `meta_gradient/NAME` | a meta-parameter, its unconstrained value and its meta-gradient |
| `policy_loss`, `value_loss`, `outer_loss`, `entropy`, `gradient_norm` | means over the window's updates, or losses |
| `restored` | true where the guard went back to an earlier state since the last line (`--meta.guard`) |
| `kept_move` | the share of the move of the meta-parameters that the trust region left (`--meta.trust-region`) |
| `skipped` | number of windows since the last line that were thrown away: a value was not finite |
| `steps_per_second` | environment steps per second; shown, but not in the file, so that two runs can be compared |

JSON knows no NaN: a non-finite value is written as null, and `nonfinite` keeps it, under its name, as text.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from gradweave.errors import DamagedFile
from gradweave.files import open_regular, parse_json

__all__ = ["MetricsTail", "Readable", "format_row", "parse_row", "read_metrics", "readable_part"]

_MOST_LINE: Final = 2**20
_MOST_STEP: Final = 2**63
_COUNTS: Final = ("step", "meta_step", "num_episodes")
_NUMBERS: Final = ("return", "episode_length", "policy_loss", "value_loss", "outer_loss", "entropy", "gradient_norm")
_FAMILIES: Final = ("eta/", "raw/", "meta_gradient/", "evaluation/")
_REMEDY: Final = "correct or remove the line, or take the file from where it is whole"


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file, in order; an unfinished last line is left out. Without a file there are none.

    Raises:
        DamagedFile: a line is no row, or its step is not above that of the row before.
    """
    for row, _ in _rows(path):
        yield row


class MetricsTail:
    """The rows of a metrics file that another process writes, as they come."""

    def __init__(self, path: Path) -> None:
        """Begin at the first row of `path`; the file need not be there yet."""
        self._path = path
        self._inode = -1
        self._read_bytes = self._read_lines = 0
        self._last_step = -1

    def read(self) -> list[dict[str, Any]]:
        """The whole rows since the last call.

        A run that goes on from a checkpoint has removed the rows after it, in a new file, and writes them again to the
        bit: rows of steps that have been returned do not come a second time.

        Raises:
            DamagedFile: a line is no row.
        """
        new: list[dict[str, Any]] = []
        with contextlib.suppress(FileNotFoundError), open_regular(self._path) as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._read_bytes:
                self._inode, self._read_bytes, self._read_lines = status.st_ino, 0, 0
            file.seek(self._read_bytes)
            for line in _whole_lines(self._path, file, self._read_lines):
                self._read_lines += 1
                self._read_bytes += len(line)
                row = parse_row(self._path, line, self._read_lines)
                if row["step"] > self._last_step:
                    new.append(row)
                    self._last_step = row["step"]
        return new


def parse_row(path: Path, line: str | bytes, number: int | None = None) -> dict[str, Any]:
    """One line of a metrics file as a row.

    Raises:
        DamagedFile: it is no JSON object with a step, or a number of a known name is none.
    """
    try:
        text = line if isinstance(line, str) else line.decode()
    except UnicodeDecodeError:
        raise DamagedFile(path, "is no text in UTF-8", _REMEDY, number) from None
    row = parse_json(path, text, number)
    step = row.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < _MOST_STEP:
        raise DamagedFile(path, "has no `step`, a whole number of environment steps", _REMEDY, number)
    for name, value in row.items():
        if value is not None and not _fits(name, value):
            raise DamagedFile(path, f"has {json.dumps(value)[:40]} as `{name[:80]}`, a number or null", _REMEDY, number)
    return row


def _fits(name: str, value: Any) -> bool:
    """Whether a value has the type and range of its name."""
    if name in _COUNTS:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST_STEP
    if name in _NUMBERS or name.startswith(_FAMILIES):
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return True


class Readable(NamedTuple):
    """The rows at the beginning of a file that can be read, in bytes, and the rest."""

    size: int
    num_rows: int
    last_step: int
    damage: DamagedFile | None


def readable_part(path: Path, until: int = _MOST_STEP) -> Readable:
    """The rows of at most `until` steps up to the first that cannot be read."""
    size, count, last = 0, 0, -1
    try:
        for row, length in _rows(path):
            if row["step"] > until:
                break
            size, count, last = size + length, count + 1, row["step"]
    except DamagedFile as damage:
        return Readable(size, count, last, damage)
    return Readable(size, count, last, None)


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Every row with the bytes of its line."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    last = -1
    with file:
        for number, line in enumerate(_whole_lines(path, file), 1):
            row = parse_row(path, line, number)
            if row["step"] <= last:
                raise DamagedFile(path, f"has step {row['step']} after step {last}", _REMEDY, number)
            last = row["step"]
            yield row, len(line)


def _whole_lines(path: Path, file: BinaryIO, start: int = 0) -> Iterator[bytes]:
    """The lines from where the file stands: all but the rest after the last line feed."""
    number = start
    while line := file.readline(_MOST_LINE + 1):
        number += 1
        if len(line) > _MOST_LINE:
            raise DamagedFile(path, f"is longer than {_MOST_LINE:,} bytes", _REMEDY, number)
        if not line.endswith(b"\n"):
            return
        yield line


def format_row(row: Mapping[str, Any]) -> str:
    """One row as JSON in the order given; float32 numbers with as few digits as they need."""
    nonfinite: dict[str, str] = {}
    plain = {name: _plain(value, name, nonfinite) for name, value in row.items()}
    if nonfinite:
        plain["nonfinite"] = nonfinite
    return json.dumps(plain, allow_nan=False, ensure_ascii=False)


def _plain(value: Any, name: str, nonfinite: dict[str, str]) -> Any:
    """`value` in JSON's types; a non-finite number is noted in `nonfinite` under its name."""
    if isinstance(value, Mapping):
        return {key: _plain(entry, f"{name}/{key}", nonfinite) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{name}/{index}", nonfinite) for index, entry in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and type(value) is float:
        number = value
    else:
        import numpy as np  # only rows of arrays need it

        array = np.asarray(value)
        if array.ndim:
            return [_plain(entry, f"{name}/{index}", nonfinite) for index, entry in enumerate(array)]
        if array.dtype.kind in "biu":
            return array.item()
        number = float(str(array[()]))  # the shortest digits of its own precision, not of float64
    if math.isfinite(number):
        return number
    nonfinite[name] = str(number)
    return None
