"""Draws horizons.png and mixes.png from moments.csv alone: the closed form as lines or rings, samples with bars."""

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from _study.figures import PlotFlags
from _study.jobs import Flags, folders
from _study.tables import save_figure
from gradweave.reports.figures import COLOURS, style_axis
from gradweave.reports.tables import read_rows

STATISTICS = {"mean": "mean", "variance": "variance of one sample", "snr": "signal-to-noise of one sample"}
PARAMETERS = {"rate": "learning rate", "shift": "shift of the targets"}
FAMILIES = {"horizon": "outer loss after k updates ($g_k$)", "truncation": "through the last m updates ($h_m$)"}


def picked(rows: list[dict[str, str]], parameter: str, statistic: str) -> list[dict[str, str]]:
    return [row for row in rows if (row["meta_parameter"], row["statistic"]) == (parameter, statistic)]


def bars(rows: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Measured values and the lengths of their error bars, (2, n)."""
    value, low, high = (np.array([float(row[name]) for row in rows]) for name in ("measured", "low", "high"))
    return value, np.maximum(np.stack([value - low, high - value]), 0)


def draw_horizons(rows: list[dict[str, str]]) -> Figure:
    figure = Figure(figsize=(9.5, 8), layout="constrained")
    axes = figure.subplots(len(STATISTICS), len(PARAMETERS), sharex=True)
    for (line, (statistic, label)), column in ((pair, c) for pair in enumerate(STATISTICS.items()) for c in (0, 1)):
        axis: Axes = axes[line, column]
        for index, (family, described) in enumerate(FAMILIES.items()):
            own = [
                row
                for row in picked(rows, list(PARAMETERS)[column], statistic)
                if row["estimator"].startswith(f"{family} ")
            ]
            places = np.array([int(row["estimator"].split()[1]) for row in own])
            value, lengths = bars(own)
            axis.plot(places, [float(row["closed_form"]) for row in own], color=COLOURS[index], linewidth=1)
            axis.errorbar(
                places + 0.12 * index, value, yerr=lengths, fmt="o", markersize=3, color=COLOURS[index], label=described
            )
        style_axis(axis, list(PARAMETERS.values())[column] if line == 0 else None, "k, m" if line == 2 else "")
        axis.set_ylabel(label if column == 0 else "")
        if statistic == "mean":
            axis.axhline(0, color="grey", linewidth=0.6)
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def draw_mixes(rows: list[dict[str, str]]) -> Figure:
    names = [name for name in dict.fromkeys(row["estimator"] for row in rows) if "mix" in name or name == "unrolled"]
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    axes = figure.subplots(1, 4, sharey=True)
    places = np.arange(len(names))[::-1]
    for column, (statistic, parameter) in enumerate((s, p) for s in ("variance", "snr") for p in PARAMETERS):
        own = {row["estimator"]: row for row in picked(rows, parameter, statistic)}
        chosen = [own[name] for name in names]
        value, lengths = bars(chosen)
        axes[column].errorbar(value, places, xerr=lengths, fmt="o", markersize=4, color=COLOURS[0])
        axes[column].plot(
            [float(row["closed_form"]) for row in chosen], places, "o", markersize=9, fillstyle="none", color=COLOURS[1]
        )
        style_axis(axes[column], PARAMETERS[parameter], {"variance": "variance", "snr": "signal-to-noise"}[statistic])
        axes[column].set_xlim(left=0)
    axes[0].set_yticks(places, names)
    return figure


def main(flags: PlotFlags) -> None:
    _, results = folders("noisy-quadratic", Flags(size=flags.size, results=flags.results))
    rows = read_rows(results / "moments.csv")
    save_figure(
        draw_horizons(rows), results / "horizons.png", rows, "closed form (lines), measured with 95 % intervals"
    )
    save_figure(draw_mixes(rows), results / "mixes.png", rows, "closed form (rings), measured with 95 % intervals")


if __name__ == "__main__":
    main(tyro.cli(PlotFlags, description=__doc__))
