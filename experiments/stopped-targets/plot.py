"""Draws results/stopped-targets/figure.png from table.csv alone: departure from finite differences by window length."""

import csv
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from gradweave.reports.figures import style_axis

STATISTICS = ("relative error", "typical relative error", "signs that agree")


@dataclass(frozen=True)
class Options:
    """What to read, and where to write figure.png."""

    results: Path = Path("results/stopped-targets")


def main(options: Options) -> None:
    """One panel for each statistic, one line for each writing; bars are 95 % intervals over seeds."""
    with (options.results / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for index, statistic in enumerate(STATISTICS):
        axis = figure.add_subplot(1, 3, index + 1)
        for writing in ("stopped", "differentiated"):
            chosen = [row for row in rows if row["statistic"] == statistic and row["targets"] == writing]
            lengths, values = ([float(row[name]) for row in chosen] for name in ("length", "value"))
            bars = [[abs(float(row["value"]) - float(row[end])) for row in chosen] for end in ("low", "high")]
            axis.errorbar(lengths, values, bars, fmt="o-", markersize=4, capsize=3, label=writing)
        style_axis(axis, f"{statistic}, against finite differences", "inner updates in a window (L)")
        axis.set_xticks(lengths)
    figure.axes[0].legend(frameon=False)
    figure.savefig(options.results / "figure.png", dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
