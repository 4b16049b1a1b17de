"""Tables of results: learning curves from a run's metrics, written to CSV and read again.

An experiment's `run.py` writes rows, its `plot.py` reads nothing else.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from gradweave.errors import DamagedFile
from gradweave.files import read_text, write_atomically
from gradweave.runs.metrics import read_metrics

__all__ = ["curve_of", "learning_curve", "metrics_until", "read_rows", "write_rows"]

_MOST_TABLE: Final = 2**26
_REMEDY: Final = "write the table anew"


def learning_curve(run: Path, num_rows: int = 250, until: int | None = None) -> list[dict[str, Any]]:
    """A run's metrics over equal stretches of meta-steps.

    Args:
        run: the run's folder.
        num_rows: stretches, at least 1; fewer rows come back when fewer meta-steps were logged.
        until: environment steps to end at, for runs that went on further: with the first row that has reached them
            and was evaluated.

    Returns:
        One row for each stretch, as `curve_of`.
    """
    return curve_of(metrics_until(run, until), num_rows)


def curve_of(lines: Sequence[Mapping[str, Any]], num_rows: int) -> list[dict[str, Any]]:
    """Lines of metrics over equal stretches, at most `num_rows` of them.

    Returns:
        One row for each stretch: `step` is its last environment step, `num_episodes` the episodes that ended in it,
        `return` the mean over these, and every other number its mean over the lines that have it (None: none has).
    """
    names = sorted({name for line in lines for name in line} - {"step", "return", "num_episodes"})
    stretches = [lines[i * len(lines) // num_rows : (i + 1) * len(lines) // num_rows] for i in range(num_rows)]
    return [_mean_row(stretch, names) for stretch in stretches if stretch]


def metrics_until(run: Path, until: int | None = None) -> list[dict[str, Any]]:
    """The rows of a run's metrics, to the first that has reached `until` environment steps and was evaluated.

    Runs are evaluated when they end, so that these are the rows of a run of `until` steps.
    """
    lines = []
    for line in read_metrics(run / "metrics.jsonl"):
        lines.append(line)
        if until is not None and line["step"] >= until and line.get("evaluation/return") is not None:
            break
    return lines


def _mean_row(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    ended = [line for line in lines if line.get("num_episodes") and line.get("return") is not None]
    counts = [line["num_episodes"] for line in ended]
    row: dict[str, Any] = {"step": lines[-1]["step"], "num_episodes": sum(counts), "return": None}
    if ended:
        row["return"] = float(np.average([line["return"] for line in ended], weights=counts))
    for name in names:
        values = [line[name] for line in lines if line.get(name) is not None]
        row[name] = float(np.mean(values)) if values else None
    return row


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to CSV, numbers with six significant digits; the columns are those of all rows, missing ones empty.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError(f"there is nothing to write to {path}: an experiment without rows has not been run.")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    write_atomically(path, table.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, every value as text; a missing one is the empty string.

    Raises:
        DamagedFile: it is no table in UTF-8, or too large.
        OSError: it cannot be read.
    """
    table = csv.DictReader(io.StringIO(read_text(path, _MOST_TABLE, follow=True), newline=""), restval="")
    try:
        names = list(table.fieldnames or ())
        if len(set(names)) < len(names):
            raise DamagedFile(path, "names a column twice", _REMEDY, 1)
        rows = []
        for row in table:
            if None in row:
                raise DamagedFile(path, f"has more values than columns, {len(names)}", _REMEDY, table.line_num)
            rows.append(row)
    except csv.Error as error:
        raise DamagedFile(path, f"is no table ({error})", _REMEDY, table.line_num) from None
    return rows
