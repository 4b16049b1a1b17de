"""Draws curves.png from phases.csv and table.csv alone: reward per step and the entropy cost, over a lifetime."""

from collections.abc import Sequence

import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from _study.figures import PlotFlags, Row, draw_curves
from _study.jobs import Flags, folders
from _study.tables import save_figure
from gradweave.reports.figures import style_axis
from gradweave.reports.tables import read_rows


def draw(rows: Sequence[Row]) -> Figure:
    """A column for plain learning and one for each number of steps ahead: reward above, entropy cost below."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    plain = [arm for arm in arms if arm.startswith("plain")]
    ahead = sorted({arm.split("-")[1] for arm in arms if arm not in plain})
    columns = {"plain": plain} | {
        f"K = {steps}": plain[:1] + [arm for arm in arms if arm.split("-")[1:2] == [steps]] for steps in ahead
    }
    figure = Figure(figsize=(3.6 * len(columns), 6), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False, sharex=True, sharey="row")
    for column, (title, own) in enumerate(columns.items()):
        mine = [row for row in rows if row["arm"] in own]
        draw_curves(axes[0, column], mine, "reward", own)
        style_axis(axes[0, column], title, "")
        draw_curves(axes[1, column], mine, "entropy_cost", own)
        axes[1, column].set_yscale("log")
        style_axis(axes[1, column])
        axes[1, column].xaxis.set_major_formatter(EngFormatter(sep=""))
        axes[1, column].legend(fontsize=7, frameon=False, loc="lower left")
    axes[0, 0].set_ylabel("reward per step")
    axes[1, 0].set_ylabel("entropy cost")
    return figure


def main(flags: PlotFlags) -> None:
    _, results = folders("two-colors", Flags(size=flags.size, results=flags.results))
    phases, table = (read_rows(results / f"{name}.csv") for name in ("phases", "table"))
    missing = sum(len(row["missing_seeds"].split()) for row in table if row["score"] == "life")
    title = "mean over each two phases" + (f"; {missing} runs are MISSING" if missing else "")
    save_figure(draw(phases), results / "curves.png", phases, title)


if __name__ == "__main__":
    main(tyro.cli(PlotFlags, description=__doc__))
