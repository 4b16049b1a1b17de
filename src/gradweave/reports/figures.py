"""Figures of runs, drawn from their metrics only: learning curves, meta-parameters, meta-gradients, losses.

Matplotlib's figure objects are used without pyplot, so nothing global is touched and no display is needed.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter

from gradweave.files import real_folder, write_atomically
from gradweave.statistics.bootstrap import FloatArray

__all__ = ["COLOURS", "Drawn", "RunMetrics", "draw_figures", "save_figure", "style_axis"]

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette: told apart with any colour vision."""

DARK: Final = ("#16181c", "#e6e6e6")
"""Ground and ink of the figures of a page in the dark."""

_GRADIENT: Final = "meta_gradient/"
_SNR: Final = "signal_to_noise/"
_SNR_WINDOW: Final = 50

_LOSSES: Final = ("policy_loss", "value_loss", "entropy", "outer_loss")


class Drawn(NamedTuple):
    """A figure in a file, and the same on a dark ground."""

    path: Path
    dark: bytes


class RunMetrics(NamedTuple):
    """The metrics of one run."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    plain: bool = False
    """Whether it learns no meta-parameter: the baseline of self-tuning."""
    random: float | None = None
    """Mean return of random allowed actions, where it was evaluated."""

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one number, without the rows that have none."""
        points = [(int(row["step"]), float(row[name])) for row in self.rows if row.get(name) is not None]
        return [step for step, _ in points], [value for _, value in points]


def draw_figures(runs: Sequence[RunMetrics], folder: Path) -> list[Drawn]:
    """Draw every figure there are numbers for, all runs in each.

    Args:
        runs: one or more runs.
        folder: where to write the PNG files; made if needed.

    Returns:
        the figures, in the order they should be read. Only those on a light ground are written to files.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    real_folder(folder, make=True)
    figures: dict[str, Callable[[Sequence[RunMetrics]], Figure | None]] = {
        "return.png": _returns,
        "meta_parameters.png": lambda runs: _panels(runs, "eta/"),
        "meta_gradients.png": lambda runs: _panels(runs, "meta_gradient/"),
        "signal_to_noise.png": _signal_to_noise,
        "losses.png": _losses,
    }
    written = []
    for name, draw in figures.items():
        figure = draw(runs)
        if figure is not None:
            save_figure(figure, folder / name)
            written.append(Drawn(folder / name, _as_png(_darkened(figure))))
    return written


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; a link of that name is replaced.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, _as_png(figure))


def _as_png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, dpi=120, format="png")
    return content.getvalue()


def _darkened(figure: Figure) -> Figure:
    """The figure itself, its ground dark and its ink light; colours that tell runs apart stay, black turns white."""
    ground, ink = DARK
    for artist in figure.findobj():
        if isinstance(artist, Text):
            artist.set_color(ink)
        elif isinstance(artist, Spine):
            artist.set_edgecolor(ink)
        elif isinstance(artist, Line2D) and artist.get_color() == COLOURS[-1]:
            artist.set_color("#ffffff")
    for axis in figure.axes:
        axis.set_facecolor(ground)
        axis.tick_params(colors=ink)
    figure.set_facecolor(ground)
    return figure


def _returns(runs: Sequence[RunMetrics]) -> Figure | None:
    if not _present(runs, ("return", "evaluation/return", "evaluation/greedy_return")):
        return None
    figure, axes = _grid(1, width=7.0)
    markers = {"evaluation/return": ("o", "evaluation"), "evaluation/greedy_return": ("x", "evaluation, greedy")}
    for index, run in enumerate(runs):
        colour = COLOURS[index % len(COLOURS)]
        training = "training, plain" if run.plain else "training"
        _line(axes[0], *run.series("return"), colour, _label(run, runs, training), style="--" if run.plain else "-")
        for name, (marker, what) in markers.items():
            steps, values = run.series(name)
            if steps:
                axes[0].plot(steps, values, marker, color=colour, markersize=4, label=_label(run, runs, what))
    for index, value in enumerate(sorted({run.random for run in runs if run.random is not None})):
        axes[0].axhline(value, color="#777777", linestyle=":", linewidth=1.5, label="" if index else "random play")
    axes[0].set_ylabel("return per episode")
    return _finish(figure, axes)


def _panels(runs: Sequence[RunMetrics], prefix: str) -> Figure | None:
    """One panel for each number whose name begins with `prefix`, without those that never change."""
    seen = {name for run in runs for row in run.rows for name in row if name.startswith(prefix)}
    names = [name for name in _present(runs, sorted(seen)) if any(len(set(run.series(name)[1])) > 1 for run in runs)]
    return _draw_panels(runs, names, smooth=prefix != "eta/")


def _signal_to_noise(runs: Sequence[RunMetrics]) -> Figure | None:
    """One panel for each meta-gradient: |mean| / standard deviation over a moving window of logged meta-steps.

    The mean moves while it is averaged, and meta-gradients that follow each other resemble each other, so this is a
    rough gauge of a run; `gradweave measure` gives the number with an interval at one moment.
    """
    with_snr = [_with_signal_to_noise(run) for run in runs]
    seen = {name for run in with_snr for row in run.rows for name in row if name.startswith(_SNR)}
    return _draw_panels(with_snr, _present(with_snr, sorted(seen)), smooth=False)


def _with_signal_to_noise(run: RunMetrics) -> RunMetrics:
    """The ratios, and under "low" and "high" before their names the ends of their intervals."""
    names = sorted({name for row in run.rows for name in row if name.startswith(_GRADIENT)})
    points: dict[int, dict[str, Any]] = {}
    for name in names:
        steps, values = run.series(name)
        window = max(_SNR_WINDOW, len(values) // 12)
        if len(values) < window or len(set(values)) == 1:
            continue
        short = _SNR + name.removeprefix(_GRADIENT)
        for step, *ratio in zip(steps[window - 1 :], *_ratios(np.asarray(values), window), strict=True):
            found = dict(zip((short, f"low/{short}", f"high/{short}"), map(float, ratio), strict=True))
            points.setdefault(step, {"step": step}).update(found)
    return RunMetrics(run.name, [points[step] for step in sorted(points)])


def _ratios(values: FloatArray, window: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """|mean| / deviation of each window, with 95 % intervals for draws that are independent and normal.

    The variance of mean / deviation over n draws is (1 + its square / 2) / n. Its interval is folded at 0.
    """
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    noise = windows.std(axis=1, ddof=1)
    ratios = np.abs(windows.mean(axis=1)) / np.where(noise > 0, noise, np.inf)
    reach = 1.96 * np.sqrt((1 + ratios**2 / 2) / window)
    return ratios, np.maximum(ratios - reach, 0.0), ratios + reach


def _losses(runs: Sequence[RunMetrics]) -> Figure | None:
    return _draw_panels(runs, _present(runs, _LOSSES))


def _draw_panels(runs: Sequence[RunMetrics], names: Sequence[str], *, smooth: bool = True) -> Figure | None:
    """One panel for each of the numbers called `names`, all runs in each; None when there is nothing to draw."""
    if not names:
        return None
    figure, axes = _grid(len(names))
    for axis, name in zip(axes, names, strict=True):
        for index, run in enumerate(runs):
            colour = COLOURS[index % len(COLOURS)]
            _line(axis, *run.series(name), colour, run.name, smooth=smooth, style="--" if run.plain else "-")
            steps, low = run.series(f"low/{name}")
            if steps:
                axis.fill_between(steps, low, run.series(f"high/{name}")[1], color=colour, alpha=0.2, linewidth=0)
        axis.set_title(name.rpartition("/")[2].rstrip("_").replace("_", " "), fontsize=10)
    return _finish(figure, axes, legend=len(runs) > 1)


def _present(runs: Sequence[RunMetrics], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(run.series(name)[0] for run in runs)]


def _label(run: RunMetrics, runs: Sequence[RunMetrics], what: str) -> str:
    return what if len(runs) == 1 else f"{run.name}, {what}"


def _grid(count: int, width: float = 4.5) -> tuple[Figure, list[Axes]]:
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, 3.0 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    return figure, axes


def _line(
    axis: Axes,
    steps: Sequence[int],
    values: Sequence[float],
    colour: str,
    label: str,
    *,
    smooth: bool = True,
    style: str = "-",
) -> None:
    """The values; if they are noisy and many, pale, with their running mean on top."""
    if len(values) < 50 or not smooth:
        axis.plot(steps, values, style, color=colour, linewidth=1.5, label=label)
        return
    axis.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
    axis.plot(steps, _running_mean(values, len(values) // 25), style, color=colour, linewidth=1.5, label=label)


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over the last `window` values, over fewer at the beginning."""
    means, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - window] if index >= window else 0.0)
        means.append(total / min(index + 1, window))
    return means


def style_axis(axis: Axes, title: str | None = None, xlabel: str = "environment steps") -> None:
    """The look of every panel: a faint grid, no box, and, where given, a title."""
    if title is not None:
        axis.set_title(title, fontsize=10)
    axis.set_xlabel(xlabel)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)


def _finish(figure: Figure, axes: Sequence[Axes], legend: bool = True) -> Figure:
    for axis in axes:
        style_axis(axis)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    if legend and axes[0].get_legend_handles_labels()[1]:
        axes[0].legend(fontsize=8, frameon=False)
    return figure
