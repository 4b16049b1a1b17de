"""Draws arrows.png from effects.csv and gradients.csv alone."""

import numpy as np
import tyro
from matplotlib.figure import Figure

from _study.figures import PlotFlags
from _study.jobs import Flags, folders
from _study.tables import save_figure
from gradweave.reports.figures import COLOURS, style_axis
from gradweave.reports.tables import read_rows

WHAT = {"effects": "return after so many updates", "gradients": "what the meta-gradient asks for"}


def draw(tables: dict[str, list[dict[str, str]]]) -> Figure:
    """One column for each meta-parameter: z-scores (mean over half of its interval) of every agent and moment."""
    names = list(dict.fromkeys(row["meta_parameter"] for row in tables["effects"]))
    steps = sorted({int(row["step"]) for row in tables["effects"]})
    figure = Figure(figsize=(3 * len(names), 5.2), layout="constrained")
    axes = figure.subplots(2, len(names), squeeze=False)
    for row_index, (table, what) in enumerate(WHAT.items()):
        for column, name in enumerate(names):
            axis = axes[row_index, column]
            for colour, step in zip(COLOURS, steps, strict=False):
                own = [r for r in tables[table] if (r["meta_parameter"], int(r["step"])) == (name, step)]
                own = [r for r in own if r.get("way", "differences") == "differences"]
                for index, seed in enumerate(sorted({r["seed"] for r in own})):
                    points = [(int(r["updates"]), score(r)) for r in own if r["seed"] == seed]
                    label = f"{step:,} steps" if not index else None
                    axis.plot(*np.array(points).T, marker="o", ms=3, lw=0.8, color=colour, alpha=0.8, label=label)
            axis.axhspan(-1, 1, color="0.9", zorder=0)
            axis.set_xscale("log")
            axis.set_yscale("symlog", linthresh=1)
            style_axis(axis, name.strip("_").replace("_", " ") if not row_index else None, "updates")
            if not column:
                axis.set_ylabel(f"{what}\n(mean / half its interval)", fontsize=8)
    axes[0, 0].legend(fontsize=7)
    return figure


def score(row: dict[str, str]) -> float:
    half = (float(row["high"]) - float(row["low"])) / 2
    return float(row["value"]) / half if half else 0.0


def main(flags: PlotFlags) -> None:
    _, results = folders("arrows", Flags(size=flags.size, results=flags.results))
    tables = {name: read_rows(results / f"{name}.csv") for name in WHAT}
    title = "Above 0: a higher value is asked for, or pays. Grey: not told from 0"
    save_figure(draw(tables), results / "arrows.png", tables["effects"], title)


if __name__ == "__main__":
    main(tyro.cli(PlotFlags, description=__doc__))
