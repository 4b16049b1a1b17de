"""Reads results.csv and config.json; writes figure.png beside them and prints the tables of the documentation.

`python experiments/adaptive-mix/plot.py [--results FOLDER]`
"""

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np


def read(results: Path) -> dict[tuple[str, str, float], dict[str, np.ndarray]]:
    """Columns over seeds, by (problem, estimator, meta learning rate)."""
    table: dict[tuple[str, str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (results / "results.csv").open() as file:
        for row in csv.DictReader(file):
            key = row.pop("problem"), row.pop("estimator"), float(row.pop("meta_learning_rate"))
            for name, value in row.items():
                table[key][name].append(float(value))
    return {key: {name: np.array(values) for name, values in rows.items()} for key, rows in table.items()}


def interval(values: np.ndarray) -> tuple[float, float]:
    """(mean over seeds, half of its 95% interval)."""
    return values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results/adaptive-mix"))
    results = parser.parse_args().results
    table = read(results)
    mark = json.loads((results / "config.json").read_text()).get("mark")
    problems, estimators = (list(dict.fromkeys(key[i] for key in table)) for i in (0, 1))
    rates = sorted({key[2] for key in table} - {0.0})
    figure, axes = plt.subplots(
        1, len(problems), figsize=(4.5 * len(problems), 4.2), layout="constrained", squeeze=False
    )
    for axis, problem in zip(axes[0], problems, strict=True):
        for offset, rate in enumerate(rates):
            means, halves = zip(*(interval(table[problem, e, rate]["excess_loss"]) for e in estimators), strict=True)
            places = np.arange(len(estimators)) + 0.2 * (offset - 1)
            axis.errorbar(means, places, xerr=halves, fmt="o", markersize=4, label=f"meta learning rate {rate:g}")
        axis.set(title=problem, xlabel="excess loss", yticks=range(len(estimators)), yticklabels=estimators)
        axis.invert_yaxis()
    axes[0, -1].legend(fontsize=7)
    if mark:
        figure.suptitle(f"[{mark}]", fontsize=10, color="#b00000")
    figure.savefig(results / "figure.png", dpi=120)
    for problem in problems:
        print(f"\n{problem}: excess loss, mean and 95% interval over seeds\n")
        for name in estimators:
            cells = [interval(table[problem, name, rate]["excess_loss"]) for rate in rates]
            print(f"| {name} | " + " | ".join(f"{mean:.3f} ± {half:.3f}" for mean, half in cells) + " |")
        print(f"\n{problem}: gradients at the start, of rate and of shift; in units of the mean of unrolled\n")
        for name in estimators:
            cells = []
            for leaf in ("rate", "shift"):
                reference = table[problem, "unrolled", 0.0][f"{leaf}_gradient"].mean()
                column = table[problem, name, 0.0]
                mean, square = column[f"{leaf}_gradient"].mean(), column[f"{leaf}_gradient_squared"].mean()
                deviation = np.sqrt(square - mean**2)
                error = np.sqrt(deviation**2 + (mean - reference) ** 2) / abs(reference)
                bias, ratio = (mean - reference) / abs(reference), np.sign(reference) * mean / deviation
                cells += [f"{bias:+.2f}", f"{error:.2f}", f"{ratio:+.3f}"]
            print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
