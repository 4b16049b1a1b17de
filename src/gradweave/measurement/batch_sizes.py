"""How a meta-gradient's mean, variance and signal-to-noise change with the size of the batches: table and figure.

The size is a rollout's number of environments, and the inner and the outer batch change together
(`measure.with_num_envs`). Variance need not fall as 1 / size then, as it would for an average over more samples.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from gradweave.files import write_atomically
from gradweave.measurement.output import measurement_rows
from gradweave.measurement.summary import EstimatorSummary
from gradweave.reports.figures import COLOURS, save_figure, style_axis
from gradweave.statistics.bootstrap import Estimate

__all__ = ["BatchSizeRow", "batch_size_rows", "remove_batch_sizes", "write_batch_sizes"]

_PANELS = ("variance", "snr")
_FILES = ("batch_sizes.csv", "batch_sizes.png")


class BatchSizeRow(NamedTuple):
    """One number with its interval, at one size of batches."""

    num_envs: int
    estimator: str
    meta_parameter: str
    statistic: str
    value: float
    low: float
    high: float


def batch_size_rows(
    num_envs: int, names: Sequence[str], summaries: Mapping[str, EstimatorSummary]
) -> list[BatchSizeRow]:
    """Every statistic of every estimator at one size."""
    return [BatchSizeRow(num_envs, *row) for row in measurement_rows(names, summaries)]


def write_batch_sizes(folder: Path, rows: Sequence[BatchSizeRow]) -> list[Path]:
    """Write batch_sizes.csv and batch_sizes.png.

    Args:
        folder: an existing one.
        rows: of all sizes.

    Returns:
        the files.

    Raises:
        OSError: they cannot be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(BatchSizeRow._fields)
    writer.writerows(rows)
    files = [folder / name for name in _FILES]
    write_atomically(files[0], table.getvalue())
    save_figure(draw_batch_sizes(rows), files[1])
    return files


def remove_batch_sizes(folder: Path) -> None:
    """Delete the files of `write_batch_sizes`, for a measurement that has none of these sizes.

    Raises:
        OSError: a file cannot be deleted.
    """
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def draw_batch_sizes(rows: Sequence[BatchSizeRow]) -> Figure:
    """Variance and signal-to-noise against the size, one column for each meta-parameter, one line an estimator."""
    parameters = [name for name in dict.fromkeys(row.meta_parameter for row in rows) if name != "all"]
    estimators = list(dict.fromkeys(row.estimator for row in rows))
    figure = Figure(figsize=(1.5 + 3.0 * len(parameters), 5.2), layout="constrained")
    axes = figure.subplots(len(_PANELS), len(parameters), sharex=True, squeeze=False)
    for line, statistic in enumerate(_PANELS):
        for column, parameter in enumerate(parameters):
            axis = axes[line, column]
            for index, estimator in enumerate(estimators):
                wanted = (estimator, parameter, statistic)
                own = sorted(row for row in rows if (row.estimator, row.meta_parameter, row.statistic) == wanted)
                sizes = [row.num_envs for row in own]
                ends = Estimate(*(np.array([getattr(row, name) for row in own]) for name in Estimate._fields))
                colour, style = COLOURS[index % len(COLOURS)], "-" if index < len(COLOURS) else "--"
                axis.plot(sizes, ends.value, style, marker="o", markersize=3, color=colour, label=estimator)
                axis.fill_between(sizes, ends.low, ends.high, color=colour, alpha=0.1, linewidth=0)
            style_axis(axis, parameter.rstrip("_").replace("_", " ") if line == 0 else None, "environments in a batch")
            axis.set_xscale("log", base=2)
            if statistic == "variance" and all(row.value > 0 for row in rows if row.statistic == "variance"):
                axis.set_yscale("log")
        axes[line, 0].set_ylabel(f"{statistic} of one sample")
    axes[0, 0].legend(fontsize=7, frameon=False)
    return figure
