"""Draws curves.png from curves.csv and levels.csv alone: discount and returns of every run over the published range."""

from collections.abc import Mapping, Sequence

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from _study.figures import PlotFlags
from _study.jobs import Flags, folders
from _study.tables import save_figure
from gradweave.reports.figures import COLOURS, style_axis
from gradweave.reports.tables import read_rows

PANELS = {"eta/discount": ("discount", "discount"), "evaluation/return": ("return_sampled", "fruits, sampled")}
PUBLISHED = "published outer-critic"

Row = Mapping[str, str]


def draw_panel(axis: Axes, curves: Sequence[Row], levels: Sequence[Row], column: str) -> None:
    """Every run a line, arms by colour; the range of the ten published runs as a band."""
    score, title = PANELS[column]
    end = max((float(row["inner_steps"]) for row in curves), default=0.0)
    own = [row for row in levels if row["arm"] == PUBLISHED and row[score] and float(row["inner_steps"]) <= end]
    points = sorted({float(row["inner_steps"]) for row in own})
    values = [[float(row[score]) for row in own if float(row["inner_steps"]) == point] for point in points]
    if points:
        axis.fill_between(
            points,
            list(map(min, values)),
            list(map(max, values)),
            color="grey",
            alpha=0.25,
            linewidth=0,
            label=PUBLISHED,
        )
    for index, arm in enumerate(dict.fromkeys(row["arm"] for row in curves)):
        for number, seed in enumerate(dict.fromkeys(row["seed"] for row in curves if row["arm"] == arm)):
            run = [row for row in curves if (row["arm"], row["seed"]) == (arm, seed) and row[column]]
            axis.plot(
                [float(row["inner_steps"]) for row in run],
                [float(row[column]) for row in run],
                color=COLOURS[index % len(COLOURS)],
                linewidth=1,
                label=None if number else arm,
            )
    style_axis(axis, title, "inner steps")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def main(flags: PlotFlags) -> None:
    _, results = folders("snake-6x6", Flags(size=flags.size, results=flags.results))
    curves, levels = (read_rows(results / f"{name}.csv") for name in ("curves", "levels"))
    figure = Figure(figsize=(10, 4), layout="constrained")
    for index, column in enumerate(PANELS):
        draw_panel(figure.add_subplot(1, 2, index + 1), curves, levels, column)
    figure.axes[0].legend(fontsize=8, frameon=False)
    save_figure(
        figure if curves else None, results / "curves.png", curves, "every run; grey: the range of ten published"
    )


if __name__ == "__main__":
    main(tyro.cli(PlotFlags, description=__doc__))
