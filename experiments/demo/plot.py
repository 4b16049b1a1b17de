"""Draws results/demo/figure.png from rows.csv alone: return and meta-parameters of every seed."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from gradweave.reports.figures import style_axis
from gradweave.reports.tables import read_rows

PANELS = {
    "return": "fruits per episode, training",
    "evaluation/return": "fruits per episode, 128 evaluation episodes",
    "eta/discount": "discount",
    "eta/lambda_": "lambda",
    "eta/entropy_cost": "entropy cost",
    "eta/learning_rate": "learning rate",
}


@dataclass(frozen=True)
class Options:
    """What to read, and where to write figure.png."""

    results: Path = Path("results/demo")


def main(options: Options) -> None:
    """Read rows.csv and draw one panel for each quantity."""
    rows = read_rows(options.results / "rows.csv")
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    for index, (name, title) in enumerate(PANELS.items()):
        axis = figure.add_subplot(2, 3, index + 1)
        for seed in sorted({row["seed"] for row in rows}):
            points = [(float(row["step"]), float(row[name])) for row in rows if row["seed"] == seed and row[name]]
            style = "o-" if "evaluation" in name else "-"
            axis.plot(*zip(*points, strict=True), style, markersize=3, linewidth=1.2, label=f"seed {seed}")
        if "return" in name:
            axis.axhline(22, color="grey", linewidth=0.8, linestyle="--")
        style_axis(axis, title)
        axis.xaxis.set_major_formatter(EngFormatter())
    figure.axes[0].legend(frameon=False)
    figure.savefig(options.results / "figure.png", dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
