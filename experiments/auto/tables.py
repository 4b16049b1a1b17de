"""Tables and the figure of one folder of results/auto, from its CSV files alone.

by_start.csv   for each arm and start: mean, lowest and interval of the last evaluation, and how many runs were lost
judged.csv     criteria, with the values found
starts.png     evaluations over steps, by start

    python experiments/auto/tables.py results/auto/cartpole
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gradweave.reports.figures import COLOURS, save_figure, style_axis
from gradweave.reports.tables import read_rows, write_rows
from gradweave.statistics.few_seeds import stratified_interval

Row = dict[str, str]


def curves(rows: Sequence[Row]) -> dict[tuple[str, str], np.ndarray]:
    """Evaluations by (arm, start): an axis of runs, one of ninths of the steps."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault((row["arm"], row["start"]), {}).setdefault(row["seed"], []).append(
            float(row["evaluation_return"])
        )
    return {key: np.array(list(runs.values())) for key, runs in found.items()}


def lost(runs: np.ndarray) -> np.ndarray:
    """Whether a run ended below half of its best evaluation, or for negative returns below twice it."""
    best = runs.max(1)
    return runs[:, -1] < np.where(best > 0, best / 2, 2 * best)


def by_start(found: dict[tuple[str, str], np.ndarray]) -> list[dict[str, Any]]:
    table = []
    for (arm, start), runs in found.items():
        interval = stratified_interval(np.mean, runs[:, -1])
        table.append(
            {
                "arm": arm,
                "start": start,
                "runs": len(runs),
                "mean": round(float(runs[:, -1].mean()), 2),
                "low": round(float(interval.low), 2),
                "high": round(float(interval.high), 2),
                "lowest": float(runs[:, -1].min()),
                "lost": int(lost(runs).sum()),
            }
        )
    return table


def judged(folder: Path, found: dict[tuple[str, str], np.ndarray]) -> list[dict[str, Any]]:
    plain, auto = found["plain", "swept"], found["auto", "swept"]
    spread = 0.05 * np.abs(plain[:, -1])
    within = auto[:, -1] >= plain[:, -1] - spread
    rows = [
        {
            "what": "auto runs that end below half of their own best evaluation, of all starts",
            "asked": 0,
            "found": int(sum(lost(runs).sum() for (arm, _), runs in found.items() if arm == "auto")),
            "of": sum(len(runs) for (arm, _), runs in found.items() if arm == "auto"),
        },
        {
            "what": "from the swept values auto ends within 5 % of plain with the same seed, or above",
            "asked": 0.9,
            "found": int(within.sum()),
            "of": len(within),
        },
    ]
    for (arm, start), runs in found.items():
        if arm == "auto" and start != "swept":
            what = f"median of auto from {start} minus median of plain from the swept values"
            rows.append({"what": what, "asked": 0, "found": float(np.median(runs[:, -1]) - np.median(plain[:, -1]))})
    if (folder / "random.csv").is_file():
        settings = curves(read_rows(folder / "landscape.csv"))
        level = float(np.percentile([runs[:, -1].mean() for runs in settings.values()], 90))
        ends = np.array([runs[0, -1] for runs in curves(read_rows(folder / "random.csv")).values()])
        what = f"random starts from which auto reaches the 90th percentile of the landscape, {level:.1f}"
        rows.append({"what": what, "asked": 90, "found": int((ends >= level).sum()), "of": len(ends)})
    return rows


def figure(found: dict[tuple[str, str], np.ndarray], steps: Sequence[int]) -> Figure:
    drawn = Figure(figsize=(9.0, 3.6), layout="constrained")
    names = list(dict.fromkeys(start for _, start in found))
    for axes, arm in zip(drawn.subplots(1, 2, sharey=True), ("plain", "auto"), strict=True):
        for (_, start), runs in (entry for entry in found.items() if entry[0][0] == arm):
            colour = COLOURS[names.index(start) % len(COLOURS)]
            axes.plot(steps, runs.mean(0), color=colour, label=start)
            axes.fill_between(steps, runs.min(0), runs.max(0), color=colour, alpha=0.12, linewidth=0)
        style_axis(axes, f"{arm}, by the first learning rate")
    max(drawn.axes, key=lambda axes: len(axes.lines)).legend(frameon=False)
    return drawn


def main(folder: Path) -> None:
    rows = read_rows(folder / "starts.csv")
    found = curves(rows)
    write_rows(folder / "by_start.csv", by_start(found))
    write_rows(folder / "judged.csv", judged(folder, found))
    save_figure(figure(found, sorted({int(row["environment_steps"]) for row in rows})), folder / "starts.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
