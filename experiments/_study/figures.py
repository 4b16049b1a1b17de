"""Figures of studies, drawn from their tables alone: curves of arms over seeds, and intervals side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from _study.jobs import Game, Size
from gradweave.reports.figures import COLOURS, style_axis
from gradweave.statistics.bootstrap import bootstrap_interval
from gradweave.statistics.few_seeds import interquartile_mean

__all__ = ["GamePlotFlags", "PlotFlags", "draw_curves", "draw_intervals", "intervals_title"]

Row = Mapping[str, str]


@dataclass(frozen=True)
class PlotFlags:
    """The flags of every study's plot.py."""

    size: Size = "full"
    """Which size's results to draw."""
    results: Path | None = None
    """Where they lie, and figures go; by default where run.py puts them."""


@dataclass(frozen=True)
class GamePlotFlags(PlotFlags):
    """Those of studies that are made in several games."""

    game: Game = "masked"
    """Which game's results to draw."""


def intervals_title(table: Sequence[Row]) -> str:
    """The title of figures of a table that names each arm's missing seeds: they are counted here, by arm."""
    done: dict[str, int] = {}
    planned = 0
    for row in table:  # a score that no run reached has no seeds, though the arm has
        seeds = int(row["num_seeds"])
        done[row["arm"]] = max(seeds, done.get(row["arm"], 0))
        planned = max(planned, seeds + len(row["missing_seeds"].split()))
    title = "one seed of each arm" if planned == 1 else "interquartile means over seeds with 95 % intervals"
    if not any(row["missing_seeds"] for row in table):
        fewest = min(done.values(), default=0)
        return title if fewest in (0, planned) else f"{title}; {fewest} to {planned} seeds an arm"
    some = sorted(count for count in done.values() if count)
    absent = len(done) - len(some)
    found = f"{some[0]} of {planned} seeds an arm" if some[0] == some[-1] else f"{some[0]} to {some[-1]} of {planned}"
    return f"{title}; INCOMPLETE: {found}" + (f", {absent} of {len(done)} arms not run yet" if absent else "")


def draw_curves(
    axis: Axes, rows: Sequence[Row], column: str, arms: Sequence[str], *, group: str = "arm", x: str = "step"
) -> None:
    """The interquartile mean over seeds of one column for each arm, with a band: its 95 % bootstrap interval.

    Args:
        axis: where to draw.
        rows: of a table of curves, with `seed`, `x` and `group`; empty cells leave gaps.
        column: the column to draw.
        arms: which values of `group`, in the order of their colours.
        group: the column that tells curves apart.
        x: the column of the abscissa; seeds of one arm are joined by row, so that they must log alike.
    """
    for index, arm in enumerate(arms):
        own = [row for row in rows if row[group] == arm]
        curves = [[row for row in own if row["seed"] == seed] for seed in dict.fromkeys(row["seed"] for row in own)]
        length = min(map(len, curves), default=0)
        if not length:
            continue
        steps = [float(row[x]) for row in curves[0][:length]]
        values = np.array([[float(row[column] or "nan") for row in curve[:length]] for curve in curves])
        known = np.isfinite(values).all(0)
        colour, places = COLOURS[index % len(COLOURS)], np.array(steps)[known]
        style = "-" if index < len(COLOURS) else "--"
        axis.plot(places, interquartile_mean(values[:, known], axis=0), style, color=colour, linewidth=1.5, label=arm)
        if len(values) > 1 and known.any():
            _, low, high = bootstrap_interval(interquartile_mean, values[:, known], num_resamples=500)
            axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def draw_intervals(
    axis: Axes,
    rows: Sequence[Row],
    title: str,
    xlabel: str,
    *,
    label: str = "arm",
    value: str = "iqm",
    colour: str = COLOURS[0],
    offset: float = 0.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """One dot with its interval for each row, the first on top; rows without a value only take their place.

    Args:
        axis: where to draw.
        rows: of a table, with `label`, `value`, `low` and `high`.
        title: of the panel.
        xlabel: the measured quantity.
        label: the column that names the rows.
        value: the column of the dots.
        colour: of all of them.
        offset: moves all of them down, so that several calls can share an axis.
        bounds: where the axis is to end: open intervals are drawn to there, and dots beyond are left out.
    """
    for place, row in enumerate(rows):
        if not row[value]:
            continue
        centre = float(row[value])
        if bounds[0] <= centre <= bounds[1]:
            axis.plot(centre, -place - offset, "o", color=colour, markersize=4)
        if row["low"] and row["high"]:
            ends = np.clip([float(row["low"]), float(row["high"])], *bounds)
            axis.plot(ends, [-place - offset] * 2, color=colour, linewidth=1.5)
    if np.isfinite(bounds).all():
        axis.set_xlim(bounds)
    axis.set_yticks([-place for place in range(len(rows))], [row[label] for row in rows])
    style_axis(axis, title, xlabel)
