"""Files of a measurement, and its table.

estimators.csv   one row for each estimator, meta-parameter and statistic: value and both ends of its interval
summary.json     the same, nested, with the plan of the measurement
samples.npz      the samples themselves: plain arrays, readable without gradweave
horizons.png  estimators.png
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradweave.files import write_atomically
from gradweave.measurement.figures import draw_estimators, draw_horizons
from gradweave.measurement.sampling import GradientSamples
from gradweave.measurement.summary import EstimatorSummary
from gradweave.reports.figures import save_figure
from gradweave.statistics.bootstrap import Estimate

__all__ = ["Row", "estimate_cell", "format_table", "measurement_rows", "write_measurement"]


class Row(NamedTuple):
    """One number with its interval."""

    estimator: str
    meta_parameter: str
    """"all" for all of them together."""
    statistic: str
    value: float
    low: float
    high: float


def write_measurement(
    folder: Path,
    samples: GradientSamples,
    summaries: Mapping[str, EstimatorSummary],
    single: Mapping[str, EstimatorSummary],
    details: Mapping[str, Any],
    *,
    length: int | None = None,
) -> list[Path]:
    """Write a measurement.

    Args:
        folder: where to; made if needed, and files of an earlier measurement are replaced.
        samples: the samples.
        summaries: of the estimators that are compared.
        single: of every horizon and window by itself, under the names of `single_estimates`.
        details: settings of the measurement, for summary.json; anything JSON can hold.
        length: updates in the windows of the estimators, where the samples' windows are longer.

    Returns:
        the files, the table first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(measurement_rows(samples.names, {**summaries, **single}))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    write_atomically(folder / "estimators.csv", table.getvalue())
    about = {"num_samples": samples.num_samples, "num_inner_steps": length or samples.num_inner_steps, **details}
    text = json.dumps({**about, "estimators": _nested(rows)}, indent=2, allow_nan=False)
    write_atomically(folder / "summary.json", text + "\n")
    content = io.BytesIO()
    np.savez_compressed(content, contributions=samples.contributions, names=np.array(samples.names, dtype=np.str_))
    write_atomically(folder / "samples.npz", content.getvalue())
    save_figure(draw_horizons(samples.names, length or samples.num_inner_steps, single), folder / "horizons.png")
    save_figure(draw_estimators(samples.names, summaries), folder / "estimators.png")
    names = ("estimators.csv", "summary.json", "samples.npz", "horizons.png", "estimators.png")
    return [folder / name for name in names]


def measurement_rows(names: Sequence[str], summaries: Mapping[str, EstimatorSummary]) -> Iterator[Row]:
    """Every statistic of every estimator as a row."""
    for estimator, summary in summaries.items():
        ratio = summary.variance_ratio
        singles = {**summary.overall._asdict(), "cosine": summary.cosine, "variance_ratio": ratio.total}
        singles["variance_ratio_scale_free"] = ratio.total_scale_free
        for statistic, estimate in singles.items():
            yield Row(estimator, "all", statistic, *(float(end) for end in estimate))
        each: dict[str, Estimate] = {
            field: getattr(summary, field)
            for field in summary._fields
            if field not in ("cosine", "variance_ratio", "overall")
        }
        each |= {"variance_ratio": ratio.leaves, "variance_ratio_scale_free": ratio.leaves_scale_free}
        for statistic, estimate in each.items():
            for index, name in enumerate(names):
                yield Row(estimator, name, statistic, *(float(end[index]) for end in estimate))


def format_table(names: Sequence[str], summaries: Mapping[str, EstimatorSummary], *, width: int = 0) -> str:
    """Statistics of every estimator as plain text, intervals in brackets.

    Args:
        names: of the meta-parameters.
        summaries: by the estimator's name, the reference first.
        width: of the terminal, in characters; columns that have no room are written below the first ones. 0: no limit.
    """
    reference = next(iter(summaries))
    parts: list[tuple[str, Sequence[str], Callable[[EstimatorSummary], list[Estimate]]]] = [
        (
            "signal-to-noise of one sample",
            [*names, "all"],
            lambda summary: [*_each(summary.snr), summary.overall.snr],
        ),
        (
            f"variance relative to {reference}",
            [*names, "all", "all, scale-free"],
            lambda summary: [
                *_each(summary.variance_ratio.leaves),
                summary.variance_ratio.total,
                summary.variance_ratio.total_scale_free,
            ],
        ),
        (
            "mean, and cosine of one sample with the reference",
            [*names, "cosine"],
            lambda summary: [*_each(summary.mean), summary.cosine],
        ),
        (
            "bias against the reference",
            [*names, "all"],
            lambda summary: [*_each(summary.bias), summary.overall.bias],
        ),
        (
            "mean squared error of one sample",
            [*names, "all"],
            lambda summary: [*_each(summary.mse), summary.overall.mse],
        ),
        (
            "probability that one sample has the reference's sign",
            [*names, "all"],
            lambda summary: [*_each(summary.sign_agreement), summary.overall.sign_agreement],
        ),
    ]
    lines = []
    for title, headings, choose in parts:
        table = [["", *(heading.rstrip("_") for heading in headings)]]
        table += [
            [name, *(estimate_cell(estimate) for estimate in choose(summary))] for name, summary in summaries.items()
        ]
        lines += ["", title, *_rows(table, width)]
    return "\n".join(lines[1:])


def _rows(table: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """The table as lines of at most `width` characters where one column fits, its first column before each group."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    column = 1
    while column < len(widths):
        last, taken = column + 1, widths[0] + 2 + widths[column]
        while last < len(widths) and (not width or taken + 2 + widths[last] <= width):
            taken += 2 + widths[last]
            last += 1
        for row in table:
            cells = [(0, row[0]), *((place, row[place]) for place in range(column, last))]
            yield "  ".join(cell.ljust(widths[place]) for place, cell in cells).rstrip()
        column = last


def _each(estimate: Estimate) -> list[Estimate]:
    """One estimate for each meta-parameter."""
    return [Estimate(*ends) for ends in zip(*estimate, strict=True)]


def estimate_cell(estimate: Estimate) -> str:
    """A number and its interval, such as "0.5 [0.26, 0.73]"; the number alone where the interval is not known."""
    value, low, high = (f"{float(end):.2g}" for end in estimate)
    return value if low == high == "nan" else f"{value} [{low}, {high}]"


def _nested(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
    """{estimator: {meta-parameter: {statistic: {value, low, high}}}}; null for non-finite numbers, as JSON asks."""
    nested: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    for row in rows:
        ends = {name: end if math.isfinite(end) else None for name, end in zip(Row._fields[3:], row[3:], strict=True)}
        nested.setdefault(row.estimator, {}).setdefault(row.meta_parameter, {})[row.statistic] = ends
    return nested
