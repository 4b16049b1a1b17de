"""Draws horizons.png, directions.png and mixes.png from horizons.csv, directions.csv and mixes.csv alone."""

from collections.abc import Sequence

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from _study.figures import GamePlotFlags, Row, draw_intervals
from _study.jobs import GameFlags, folders
from _study.tables import save_figure
from gradweave.reports.figures import COLOURS, style_axis
from gradweave.reports.tables import read_rows

STATISTICS = {"mean": "mean", "variance": "variance", "snr": "signal-to-noise", "sign_agreement": "sign as the longest"}
BOUNDS = {"raw": (1e-4, 3.0), "free of scale": (1e-3, 1e2)}
"""Of the axes of variance ratios; intervals that are open end there."""


def unique(rows: Sequence[Row], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def lines(axis: Axes, rows: Sequence[Row], label: str, colour: str, x: str, y: str = "value") -> None:
    """Seeds as thin lines with their intervals, one colour."""
    for index, seed in enumerate(unique(rows, "seed")):
        own = sorted((row for row in rows if row["seed"] == seed), key=lambda row: float(row[x]))
        places, values, low, high = (np.array([float(row[name]) for row in own]) for name in (x, y, "low", "high"))
        values = np.where((low == -1) & (high == 1), np.nan, values)  # a cosine of which nothing is known
        axis.plot(places, values, "-", color=colour, linewidth=1, label=label if index == 0 else None)
        axis.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)


def draw_horizons(rows: Sequence[Row]) -> Figure:
    """Rows: statistics; columns: meta-parameters; colours: moments."""
    parameters, all_moments = unique(rows, "meta_parameter"), unique(rows, "moment")
    figure = Figure(figsize=(1 + 3.2 * len(parameters), 2.6 * len(STATISTICS)), layout="constrained")
    axes = figure.subplots(len(STATISTICS), len(parameters), squeeze=False, sharex=True)
    for line, (statistic, label) in enumerate(STATISTICS.items()):
        for column, parameter in enumerate(parameters):
            for index, moment in enumerate(all_moments):
                wanted = ("horizon", statistic, parameter, moment)
                own = [
                    row
                    for row in rows
                    if (row["family"], row["statistic"], row["meta_parameter"], row["moment"]) == wanted
                ]
                lines(axes[line, column], own, f"step {int(moment):,}", COLOURS[index % len(COLOURS)], "steps")
            style_axis(axes[line, column], parameter.strip("_") if line == 0 else None, "")
            if statistic == "variance":
                axes[line, column].set_yscale("log")
        axes[line, 0].set_ylabel(label)
    for axis in axes[-1]:
        axis.set_xlabel("k")
    axes[0, 0].legend(fontsize=7, frameon=False)
    return figure


def draw_directions(rows: Sequence[Row]) -> Figure:
    """Rows: moments; columns: of what, raw and standardised; colours: agents."""
    panels = [(scale, of) for scale in unique(rows, "scale") for of in unique(rows, "of")]
    all_moments = unique(rows, "moment")
    figure = Figure(figsize=(3.4 * len(panels), 1 + 1.7 * len(all_moments)), layout="constrained")
    axes = figure.subplots(len(all_moments), len(panels), squeeze=False, sharex=True, sharey=True)
    for line, moment in enumerate(all_moments):
        for column, (scale, of) in enumerate(panels):
            for index, seed in enumerate(unique(rows, "seed")):
                wanted = (scale, of, moment, seed)
                own = [row for row in rows if (row["scale"], row["of"], row["moment"], row["seed"]) == wanted]
                lines(axes[line, column], own, f"seed {seed}", COLOURS[index % len(COLOURS)], "steps")
            style_axis(axes[line, column], f"{of}, {scale}" if line == 0 else None, "")
        axes[line, 0].set_ylabel(f"step {int(moment):,}")
    for axis in axes[-1]:
        axis.set_xlabel("k")
    axes[0, 0].legend(fontsize=7, frameon=False, loc="lower right")
    return figure


def draw_mixes(rows: Sequence[Row]) -> Figure:
    """Rows: raw and free of scale; columns: moments; all meta-parameters together, the longest window."""
    longest = max(int(row["length"]) for row in rows)
    rows = [row for row in rows if int(row["length"]) == longest and row["meta_parameter"] == "all"]
    scales, all_moments, names = (unique(rows, name) for name in ("scale", "moment", "estimator"))
    figure = Figure(figsize=(2.2 + 2.8 * len(all_moments), 6), layout="constrained")
    axes = figure.subplots(len(scales), len(all_moments), squeeze=False, sharey=True)
    for line, scale in enumerate(scales):
        for column, moment in enumerate(all_moments):
            axis = axes[line, column]
            for index, seed in enumerate(unique(rows, "seed")):
                own = {
                    row["estimator"]: row
                    for row in rows
                    if (row["scale"], row["moment"], row["seed"]) == (scale, moment, seed)
                }
                empty = dict.fromkeys(("ratio", "low", "high"), "")
                filled = [own.get(name, {"estimator": name, **empty}) for name in names]
                title, label = f"step {int(moment):,}" if line == 0 else "", f"variance ratio, {scale}"
                draw_intervals(
                    axis,
                    filled,
                    title,
                    label,
                    label="estimator",
                    value="ratio",
                    colour=COLOURS[index],
                    offset=0.2 * index,
                    bounds=BOUNDS[scale],
                )
            axis.axvline(1, color="grey", linewidth=0.8)
            axis.axvline(1 / 3, color="grey", linewidth=0.8, linestyle=":")
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
    return figure


def main(flags: GamePlotFlags) -> None:
    _, results = folders("variance-snake", GameFlags(size=flags.size, results=flags.results, game=flags.game))
    horizons, directions, mixes = (read_rows(results / f"{name}.csv") for name in ("horizons", "directions", "mixes"))
    save_figure(
        draw_horizons(horizons), results / "horizons.png", horizons, "after k updates, by moment; 95 % intervals"
    )
    save_figure(
        draw_directions(directions),
        results / "directions.png",
        directions,
        "cosine with the mean of the longest horizon; 95 % intervals",
    )
    longest = max(int(row["length"]) for row in mixes)
    title = (
        f"variance over that of the unmixed gradient (1), dotted: a third; {longest} updates; a colour for each seed"
    )
    save_figure(draw_mixes(mixes), results / "mixes.png", mixes, title)


if __name__ == "__main__":
    main(tyro.cli(GamePlotFlags, description=__doc__))
