"""Draws curves.png and added.png from curves.csv alone: returns, discount and mean outer advantage over inner steps."""

import tyro
from matplotlib.figure import Figure
from sweep import ADDED

from _study.figures import PlotFlags, Row, draw_curves, intervals_title
from _study.jobs import Flags, folders
from _study.tables import save_figure
from gradweave.reports.figures import style_axis
from gradweave.reports.tables import read_rows

PANELS = {
    "return": "fruits per training episode",
    "evaluation/greedy_return": "fruits, greedy evaluation",
    "eta/discount": "discount",
    "outer_advantage": "mean outer advantage",
}


def draw(rows: list[Row]) -> Figure | None:
    """All of these rows' arms; None when there are none."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    if not arms:
        return None
    figure = Figure(figsize=(10, 7), layout="constrained")
    for index, (column, title) in enumerate(PANELS.items()):
        axis = figure.add_subplot(2, 2, index + 1)
        draw_curves(axis, rows, column, arms, x="inner_steps")
        style_axis(axis, title, "inner steps")
        if column == "outer_advantage":
            axis.axhline(0, color="grey", linewidth=0.6)
    figure.axes[0].legend(fontsize=8, frameon=False)
    return figure


def main(flags: PlotFlags) -> None:
    _, results = folders("snake-6x6-outer-critic", Flags(size=flags.size, results=flags.results))
    curves, table = (read_rows(results / f"{name}.csv") for name in ("curves", "table"))
    for name, added in (("curves", False), ("added", True)):
        own, summary = ([row for row in rows if (row["arm"] in ADDED) == added] for rows in (curves, table))
        save_figure(draw(own), results / f"{name}.png", own, intervals_title(summary))


if __name__ == "__main__":
    main(tyro.cli(PlotFlags, description=__doc__))
