"""Draws curves.png, meta_parameters.png and final.png from curves.csv and table.csv alone.

Of an unfinished study it draws the finished runs; without an arm that learns its meta-parameters there is no
meta_parameters.png.
"""

import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from sweep import ADDED, SWEPT

from _study.figures import GamePlotFlags, Row, draw_curves, draw_intervals, intervals_title
from _study.jobs import GameFlags, folders
from _study.tables import save_figure
from gradweave.reports.figures import style_axis
from gradweave.reports.tables import read_rows

PANELS = {
    "poor": "from poor hyper-parameters",
    "good": "from good hyper-parameters",
    "short": "the discount alone, from 0.8",
    "added": "added: why does self-tuning plateau?",
}
META = {"discount": "discount", "lambda_": "lambda", "entropy_cost": "entropy cost", "learning_rate": "learning rate"}
SCORES = {
    "final_return": "fruits, 128 episodes at the end",
    "mean_return": "fruits, mean over the run",
    "steps_to_20": "steps to 20 fruits",
}


def arms_of(rows: list[Row], panel: str) -> list[str]:
    """The arms of a panel; the best of the sweep stands beside all."""
    names = list(dict.fromkeys(row["arm"] for row in rows))
    if panel == "added":
        found = [name for name in names if name in ADDED]
    else:
        found = [name for name in names if name.endswith(panel) and name not in ADDED]
    return found + [name for name in names if found and name == SWEPT]


def draw_returns(rows: list[Row]) -> Figure:
    """One panel for each start; the best of the sweep has one only while nothing else is there."""
    panels = {panel: arms for panel in PANELS if (arms := arms_of(rows, panel))} or {SWEPT: [SWEPT]}
    figure = Figure(figsize=(max(9.0, 5.5 * len(panels)), 6), layout="constrained")  # the title needs some width
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (panel, arms) in zip(axes, panels.items(), strict=True):
        draw_curves(axis, rows, "return", arms)
        style_axis(axis, PANELS.get(panel, "the best of the sweep"))
        axis.set_ylabel("fruits per training episode")
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return figure


def draw_meta_parameters(rows: list[Row]) -> Figure | None:
    """One line of panels for each start; None while no arm has learned any."""
    learning = {panel: [arm for arm in arms_of(rows, panel) if not arm.startswith("plain")] for panel in PANELS}
    learning = {panel: arms for panel, arms in learning.items() if arms}
    if not learning:
        return None
    figure = Figure(figsize=(14, 3 * len(learning)), layout="constrained")
    axes = figure.subplots(len(learning), len(META), sharex=True, squeeze=False)
    for line, (panel, arms) in enumerate(learning.items()):
        for column, (name, title) in enumerate(META.items()):
            draw_curves(axes[line, column], rows, f"eta/{name}", arms)
            style_axis(axes[line, column], title if line == 0 else None)
            axes[line, column].set_yscale("linear" if name in ("discount", "lambda_") else "log")
        axes[line, 0].set_ylabel(PANELS[panel])
        handles, names = axes[line, 0].get_legend_handles_labels()
        axes[line, -1].legend(handles, names, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_final(rows: list[Row]) -> Figure:
    count = len({row["arm"] for row in rows})
    figure = Figure(figsize=(12, 1.2 + 0.28 * count), layout="constrained")
    axes = figure.subplots(1, len(SCORES), sharey=True)
    for axis, (score, title) in zip(axes, SCORES.items(), strict=True):
        draw_intervals(axis, [row for row in rows if row["score"] == score], "", title)
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[-1].xaxis.set_major_locator(MaxNLocator(5))
    return figure


def main(flags: GamePlotFlags) -> None:
    _, results = folders("returns-snake", GameFlags(size=flags.size, results=flags.results, game=flags.game))
    curves, table = (read_rows(results / f"{name}.csv") for name in ("curves", "table"))
    title = intervals_title(table)
    save_figure(draw_returns(curves), results / "curves.png", curves, title)
    save_figure(draw_meta_parameters(curves), results / "meta_parameters.png", curves, title)
    save_figure(draw_final(table), results / "final.png", table, title)


if __name__ == "__main__":
    main(tyro.cli(GamePlotFlags, description=__doc__))
