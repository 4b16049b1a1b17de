"""A run's metrics as columns of NumPy arrays."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gradweave.errors import nearest_name

__all__ = ["MetricsTable"]


class MetricsTable(Mapping[str, npt.NDArray[np.float64]]):
    """Metrics as columns: a mapping from a name (`gradweave.runs.metrics`) to one float64 number for each row.

    A number that a row does not have is NaN, as is one that was not finite and NaN; infinities are themselves. A data
    frame is `pandas.DataFrame(dict(table))`.

    Example:
        >>> table = MetricsTable([{"step": 10, "return": None}, {"step": 20, "return": 1.5}])
        >>> table["step"], table["return"]
        (array([10., 20.]), array([nan, 1.5]))
        >>> table.series("return")
        (array([20.]), array([1.5]))
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table of these rows, in order."""
        self.rows = tuple(rows)
        """As they are in metrics.jsonl: dictionaries."""
        names = dict.fromkeys(name for row in self.rows for name in row if name != "nonfinite")
        self._columns = {name: np.array([_number(row, name) for row in self.rows], np.float64) for name in names}

    def __getitem__(self, name: str) -> npt.NDArray[np.float64]:
        if name not in self._columns:
            near = nearest_name(name, self._columns)
            raise KeyError(f"no column {name!r}; " + (f"did you mean {near!r}?" if near else f"there are {list(self)}"))
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def series(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Environment steps and values of one column, without the rows that have no value.

        Raises:
            KeyError: there is no such column.
        """
        values = self[name]
        there = ~np.isnan(values)
        return self["step"][there], values[there]

    def __repr__(self) -> str:
        return f"MetricsTable({len(self.rows)} rows: {', '.join(self)})"


def _number(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if value is None:
        value = row.get("nonfinite", {}).get(name, "nan")  # JSON knows no infinity
    return float(value)
