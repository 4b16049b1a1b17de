"""Draws results/estimators-snake/figure.png from rows.csv alone: every seed thin, their mean thick."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from gradweave.reports.figures import style_axis
from gradweave.reports.tables import read_rows

PANELS = {"return": "fruits per episode, training", "eta/discount": "discount", "eta/entropy_cost": "entropy cost"}


@dataclass(frozen=True)
class Options:
    """What to read, and where to write figure.png."""

    results: Path = Path("results/estimators-snake")


def main(options: Options) -> None:
    """Read rows.csv and draw one panel for each quantity."""
    rows = read_rows(options.results / "rows.csv")
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    figure = Figure(figsize=(13, 4), layout="constrained")
    for index, (name, title) in enumerate(PANELS.items()):
        axis = figure.add_subplot(1, len(PANELS), index + 1)
        for colour, arm in enumerate(arms):
            curves = []
            for seed in sorted({row["seed"] for row in rows if row["arm"] == arm}):
                points = [row for row in rows if row["arm"] == arm and row["seed"] == seed]
                steps = [float(row["step"]) for row in points]
                curves.append([float(row[name]) if row[name] else np.nan for row in points])
                axis.plot(steps, curves[-1], color=f"C{colour}", linewidth=0.6, alpha=0.4)
            axis.plot(steps, np.ma.masked_invalid(curves).mean(axis=0), color=f"C{colour}", linewidth=2, label=arm)
        style_axis(axis, title)
        axis.xaxis.set_major_formatter(EngFormatter())
    figure.axes[0].legend(frameon=False)
    figure.savefig(options.results / "figure.png", dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
