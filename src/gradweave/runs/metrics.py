"""metrics.jsonl: one line for each logged meta-step, whole after a crash, neither repeated nor lost across a resume.

Names of the numbers that a row may hold; reports and progress tables know these, any other name is kept as it is:

| name | meaning |
|---|---|
| `step` | environment steps done (required, grows from line to line) |
| `meta_step` | meta-steps done |
| `return`, `episode_length`, `num_episodes` | of the episodes that ended since the last line; null if none did |
| `evaluation/return`, `evaluation/greedy_return` | of an evaluation, where one was made |
| `eta/NAME`, `raw/NAME`, `meta_gradient/NAME` | a meta-parameter, its unconstrained value and its meta-gradient |
| `policy_loss`, `value_loss`, `outer_loss`, `entropy` | means over the window: its updates, its outer losses |
| `steps_per_second` | environment steps per second; shown, but not in the file, so that two runs can be compared |

JSON knows no NaN: a non-finite value is written as null, and `nonfinite` says under its name what it was.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradweave.runs.files import write_atomically

__all__ = ["MetricsTail", "MetricsWriter", "format_row", "read_metrics"]


class MetricsWriter:
    """Appends rows to a metrics file, one flushed line each."""

    def __init__(self, path: Path) -> None:
        """Open `path` to append; what a crash left of an unfinished last line is removed."""
        self._path = path
        rows = _lines(path)
        self._last_step = _step(rows[-1]) if rows else -1
        _rewrite(path, rows)
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row.

        Raises:
            ValueError: `step` is missing, or not above that of the row before.
        """
        step = row.get("step")
        if step is None or int(step) <= self._last_step:
            raise ValueError(
                f"row has step {step!r}, the row before has {self._last_step}; steps must grow from row to row: "
                "call truncate_after with the step of the checkpoint before going on from it"
            )
        self._file.write(format_row(row) + "\n")
        self._file.flush()
        self._last_step = int(step)

    def truncate_after(self, step: int) -> None:
        """Remove the rows of later steps, as going on from a checkpoint of `step` will write them again."""
        self._file.close()
        rows = [line for line in _lines(self._path) if _step(line) <= step]
        _rewrite(self._path, rows)
        self._last_step = _step(rows[-1]) if rows else -1
        self._file = self._path.open("a", encoding="utf-8")

    def sync(self) -> None:
        """Return when all rows are on the disk, not only in the system's memory."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file, in order; an unfinished last line is left out."""
    for line in _lines(path):
        yield json.loads(line)


class MetricsTail:
    """The rows of a metrics file that another process writes, as they come."""

    def __init__(self, path: Path) -> None:
        """Begin at the first row of `path`; the file need not be there yet."""
        self._path = path
        self._inode = -1
        self._read_bytes = 0
        self._last_step = -1

    def read(self) -> list[dict[str, Any]]:
        """The whole rows since the last call.

        A run that goes on from a checkpoint has removed the rows after it, in a new file, and writes them again to the
        bit: rows of steps that have been returned do not come a second time.
        """
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read_bytes:
                    self._inode, self._read_bytes = status.st_ino, 0
                file.seek(self._read_bytes)
                whole = b"".join(line for line in file if line.endswith(b"\n"))
        except FileNotFoundError:
            return []
        self._read_bytes += len(whole)
        rows = [json.loads(line) for line in whole.decode().split("\n")[:-1]]
        new = [row for row in rows if row["step"] > self._last_step]
        if new:
            self._last_step = new[-1]["step"]
        return new


def format_row(row: Mapping[str, Any]) -> str:
    """One row as JSON in the order given; float32 numbers with as few digits as they need."""
    nonfinite: dict[str, str] = {}
    plain = {name: _plain(value, name, nonfinite) for name, value in row.items()}
    if nonfinite:
        plain["nonfinite"] = nonfinite
    return json.dumps(plain, allow_nan=False, ensure_ascii=False)


def _plain(value: Any, name: str, nonfinite: dict[str, str]) -> Any:
    """`value` as what JSON can hold; what is not finite is noted in `nonfinite` under its name."""
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


def _lines(path: Path) -> list[str]:
    """The whole lines of a file: all but what follows the last line feed."""
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _step(line: str) -> int:
    return int(json.loads(line)["step"])


def _rewrite(path: Path, rows: list[str]) -> None:
    write_atomically(path, "".join(row + "\n" for row in rows))
