"""Is the mean of a run's meta-gradient told from noise? A line in words for each meta-parameter.

A mean is told from noise where its 95 % bootstrap interval does not hold 0. With a signal-to-noise ratio s of one
window, the mean of n windows stands two standard errors from 0 from n = (2 / s)² on.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Final, NamedTuple

from gradweave.core import AbstractEstimator
from gradweave.measurement.estimates import estimates_of, first_steps
from gradweave.measurement.sampling import GradientSamples
from gradweave.measurement.summary import EstimatorSummary, summarize
from gradweave.statistics.bootstrap import LEAST_SAMPLES, FloatArray

__all__ = ["LEGEND", "Verdict", "lines_in_words", "sampled_verdict", "verdict"]

LEGEND: Final = (
    "positive: a lower value lowers the outer loss; s: signal-to-noise of one window; windows: how many it takes"
)
"""Legend of the lines."""


class Verdict(NamedTuple):
    """A verdict on the mean of one estimator: whether it is told from noise.

    Attributes:
        heading: which estimator, how many samples, and how to read the lines.
        lines: by the meta-parameter's name.
    """

    heading: str
    lines: Mapping[str, str]

    def text(self, width: int = 0) -> str:
        """The heading and a line for each meta-parameter, of at most `width` characters; 0: no limit."""
        longest = max(map(len, self.lines), default=0)
        lines = [self.heading, *(f"  {name.rstrip('_'):<{longest}}  {line}" for name, line in self.lines.items())]
        return "\n".join(fill(line, width, subsequent_indent="    ") for line in lines) if width else "\n".join(lines)


def verdict(estimator: str, names: Sequence[str], estimates: FloatArray, *, seed: int = 0) -> Verdict:
    """Judge from independent samples whether an estimator's mean is told from noise.

    Args:
        estimator: its name.
        names: of the meta-parameters.
        estimates: (samples, meta-parameters), at least two samples.
        seed: of the bootstrap.
    """
    heading = f"Is {estimator}, with which this run trains, told from noise? Of {len(estimates)} samples; {LEGEND}"
    if len(estimates) < LEAST_SAMPLES:
        return Verdict(heading, dict.fromkeys(names, f"no verdict from fewer than {LEAST_SAMPLES} samples"))
    lines = lines_in_words(summarize({"own": estimates}, seed=seed)["own"])
    return Verdict(heading, dict(zip(names, lines, strict=True)))


def lines_in_words(summary: EstimatorSummary) -> list[str]:
    """A line for each meta-parameter: is its mean told from noise?"""
    return [_line(*map(float, numbers)) for numbers in zip(*summary.mean, summary.snr.value, strict=True)]


def sampled_verdict(
    estimator: AbstractEstimator, length: int, samples: GradientSamples, *, seed: int = 0
) -> Verdict | None:
    """Judge the estimator that an agent trains with.

    Args:
        estimator: the agent's.
        length: L, the agent's inner updates in a window.
        samples: of windows of L updates or more.
        seed: of the bootstrap.

    Returns:
        None where the samples do not have it: of an estimator that is neither linear nor an adaptive mix, of windows
        that are shorter than in training, or of too few samples for an adaptive mix, which needs four.
    """
    if samples.num_inner_steps < length:
        return None
    estimates = estimates_of(estimator, first_steps(samples, length))
    return None if estimates is None else verdict(type(estimator).__name__, samples.names, estimates, seed=seed)


def _line(mean: float, low: float, high: float, snr: float) -> str:
    if low == high == 0:
        return "0 in every sample"
    if low <= 0 <= high:
        return "not told from noise: its interval holds 0"
    windows = max(1, math.ceil((2 / snr) ** 2))
    return f"{'positive' if mean > 0 else 'negative'}, s = {snr:.2g}: about {windows:,} window{'s' * (windows > 1)}"
