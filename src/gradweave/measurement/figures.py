"""Figures of a measurement: variance and signal-to-noise against the horizon, and the estimators side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradweave.measurement.summary import EstimatorSummary
from gradweave.reports.figures import COLOURS
from gradweave.statistics.bootstrap import Estimate

__all__ = ["draw_estimators", "draw_horizons"]


def draw_horizons(names: Sequence[str], num_inner_steps: int, single: Mapping[str, EstimatorSummary]) -> Figure:
    """Variance and signal-to-noise of g_k and h_m for each k and m, one column for each meta-parameter.

    Args:
        names: of the meta-parameters.
        num_inner_steps: L.
        single: summaries named "horizon k" and "truncation m", k and m from 1 to L.
    """
    figure = Figure(figsize=(0.8 + 3.0 * len(names), 5.2), layout="constrained")
    axes = figure.subplots(2, len(names), sharex=True, squeeze=False)
    steps = np.arange(1, num_inner_steps + 1)
    families = {"horizon": "outer loss after k updates ($g_k$)", "truncation": "through the last m updates ($h_m$)"}
    for column, name in enumerate(names):
        for row, field in enumerate(("variance", "snr")):
            for index, (family, label) in enumerate(families.items()):
                estimates = [getattr(single[f"{family} {step}"], field) for step in steps]
                ends = [Estimate(*(np.asarray(end[column]) for end in estimate)) for estimate in estimates]
                _errors(axes[row, column], steps + 0.12 * (index - 0.5), ends, COLOURS[index], label)
        axes[0, column].set_title(_title(name), fontsize=10)
        if any((summary.variance.value[column] > 0).any() for summary in single.values()):
            axes[0, column].set_yscale("log")
        axes[1, column].set_ylim(bottom=0)
        axes[1, column].set_xlabel("k, m")
        axes[1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel("variance of one sample")
    axes[1, 0].set_ylabel("signal-to-noise of one sample")
    axes[0, 0].legend(fontsize=8, frameon=False)
    for axis in axes.flat:
        _tidy(axis)
    return figure


def draw_estimators(names: Sequence[str], summaries: Mapping[str, EstimatorSummary]) -> Figure:
    """Signal-to-noise of each estimator, one panel for each meta-parameter, and its scale-free variance relative to the
    first.
    """
    count = len(summaries)
    figure = Figure(figsize=(2.0 + 2.6 * (len(names) + 1), 1.2 + 0.3 * count), layout="constrained")
    axes = figure.subplots(1, len(names) + 1, sharey=True, squeeze=False)[0]
    places = np.arange(count)[::-1]
    for column, name in enumerate(names):
        found = [Estimate(*(np.asarray(end[column]) for end in one.snr)) for one in summaries.values()]
        _horizontal(axes[column], places, found)
        axes[column].set_xlim(left=0)
        axes[column].set_title(_title(name), fontsize=10)
        axes[column].set_xlabel("signal-to-noise of one sample")
    _ratios(axes[-1], places, [one.variance_ratio.total_scale_free for one in summaries.values()])
    axes[-1].set_title("all meta-parameters", fontsize=10)
    axes[-1].set_xlabel(f"variance / mean², relative to {next(iter(summaries))}")
    axes[0].set_yticks(places, list(summaries))
    for axis in axes:
        _tidy(axis)
    return figure


def _errors(axis: Axes, places: np.ndarray, estimates: Sequence[Estimate], colour: str, label: str) -> None:
    values, below, above = _bars(estimates)
    axis.errorbar(
        places, values, yerr=np.stack([below, above]), fmt="o-", color=colour, markersize=4, capsize=2, label=label
    )


def _horizontal(axis: Axes, places: np.ndarray, estimates: Sequence[Estimate]) -> None:
    values, below, above = _bars(estimates)
    axis.errorbar(values, places, xerr=np.stack([below, above]), fmt="o", color=COLOURS[0], markersize=4, capsize=2)


def _ratios(axis: Axes, places: np.ndarray, estimates: Sequence[Estimate]) -> None:
    """Ratios on a logarithmic axis that ends a little beyond all that is known; open intervals are drawn to there."""
    values, low, high = (np.array([float(end) for end in ends]) for ends in zip(*estimates, strict=True))
    known = np.concatenate([values, low, high, [1.0]])
    known = known[np.isfinite(known) & (known > 0)]
    bounds = known.min() / 2, known.max() * 2
    told = ~np.isnan(low)
    axis.hlines(places[told], low[told].clip(*bounds), high[told].clip(*bounds), color=COLOURS[0], linewidth=1.5)
    inside = (values >= bounds[0]) & (values <= bounds[1])
    axis.plot(values[inside], places[inside], "o", color=COLOURS[0], markersize=4)
    axis.axvline(1.0, color="grey", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlim(bounds)


def _bars(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and the lengths of their error bars; non-finite ones are left out of the picture."""
    values, low, high = (np.array([float(end) for end in ends]) for ends in zip(*estimates, strict=True))
    values, low, high = (np.where(np.isfinite(ends), ends, np.nan) for ends in (values, low, high))
    # The resampled statistic may be biased so much that its interval leaves out the value itself.
    return values, np.maximum(values - low, 0), np.maximum(high - values, 0)


def _title(name: str) -> str:
    return name.rstrip("_").replace("_", " ")


def _tidy(axis: Axes) -> None:
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)
