"""Draws curves.png from curves.csv and exact.csv alone: how far the discount is from 1, and the chosen chain."""

import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from _study.figures import PlotFlags, Row, draw_curves
from _study.jobs import Flags, folders
from _study.tables import save_figure
from gradweave.reports.figures import style_axis
from gradweave.reports.tables import read_rows


def draw(rows: list[Row], exact: list[Row]) -> Figure:
    """One column for each delay: the horizon 1 / (1 - discount) with the one that has to be reached, and returns."""
    delays = sorted({int(row["delay"]) for row in rows})
    ways = list(dict.fromkeys(row["way"] for row in rows))
    needed = {int(row["delay"]): float(row["threshold"]) for row in exact}
    far = [{**row, "horizon": str(1 / (1 - float(row["eta/discount"])))} for row in rows if row["eta/discount"]]
    figure = Figure(figsize=(4.2 * len(delays), 6.5), layout="constrained")
    axes = figure.subplots(2, len(delays), squeeze=False, sharex=True)
    for column, delay in enumerate(delays):
        own = [row for row in far if int(row["delay"]) == delay]
        draw_curves(axes[0, column], own, "horizon", ways, group="way")
        axes[0, column].axhline(1 / (1 - needed[delay]), color="grey", linestyle="--", linewidth=1)
        axes[0, column].set_yscale("log")
        style_axis(axes[0, column], f"best chain pays after {delay} steps", "")
        draw_curves(axes[1, column], own, "return", ways, group="way")
        axes[1, column].axhline(1.1, color="grey", linestyle="--", linewidth=1)
        style_axis(axes[1, column])
        axes[1, column].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0, 0].set_ylabel("1 / (1 - discount); dashed: needed")
    axes[1, 0].set_ylabel("return per training episode; dashed: best")
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def main(flags: PlotFlags) -> None:
    _, results = folders("discounting-chain", Flags(size=flags.size, results=flags.results))
    curves, exact, table = (read_rows(results / f"{name}.csv") for name in ("curves", "exact", "table"))
    missing = sorted({f"{row['arm']} {row['missing_seeds']}" for row in table if row["missing_seeds"]})
    title = "interquartile means over seeds with 95 % intervals" + (
        f"; MISSING: {'; '.join(missing)}" if missing else ""
    )
    save_figure(draw(curves, exact), results / "curves.png", curves, title)


if __name__ == "__main__":
    main(tyro.cli(PlotFlags, description=__doc__))
