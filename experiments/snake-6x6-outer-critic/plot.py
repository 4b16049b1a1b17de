"""Draws curves.png from curves.csv alone: returns, discount and mean outer advantage over inner steps."""

import tyro
from matplotlib.figure import Figure

from gradweave.analysis.figures import style_axis
from gradweave.analysis.study import Flags, folders
from gradweave.analysis.study_figures import PlotFlags, Row, draw_curves, intervals_title
from gradweave.analysis.study_tables import save_figure
from gradweave.analysis.tables import read_rows

PANELS = {
    "return": "fruits per training episode",
    "evaluation/greedy_return": "fruits, greedy evaluation",
    "eta/discount": "discount",
    "outer_advantage": "mean outer advantage",
}


def draw(rows: list[Row]) -> Figure:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
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
    title = intervals_title(table)
    save_figure(draw(curves), results / "curves.png", curves, title)


if __name__ == "__main__":
    main(tyro.cli(PlotFlags, description=__doc__))
