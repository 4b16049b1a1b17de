"""Is the meta-gradient of a training loop of one's own told from noise? An interval and a line in words for each
meta-parameter, of independent samples, as `measure` does for a run.

Intervals and words are those of `summary` and `verdict`.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import jax
import numpy as np
from jaxtyping import PyTree

from gradweave.agents import named_leaves
from gradweave.agents.state import entry_name
from gradweave.measurement.output import estimate_cell
from gradweave.measurement.summary import summarize
from gradweave.measurement.verdict import LEGEND, Verdict, lines_in_words
from gradweave.statistics.bootstrap import LEAST_SAMPLES, Estimate, FloatArray, without_intervals

__all__ = ["NoiseReport", "told_from_noise"]

_ALL_THE_SAME: Final = "the same in every sample, so no verdict: does each draw its data with a key of its own?"


@dataclass(frozen=True)
class NoiseReport:
    """Noise of a meta-gradient, from independent samples; printed, a paragraph for each meta-parameter.

    Attributes:
        num_samples: how many there were.
        mean: by the meta-parameter's name, with a 95 % bootstrap interval (BCa).
        snr: signal-to-noise of one window, |mean| / standard deviation, with such an interval.
        verdict: whether each mean is told from noise, in words.
    """

    num_samples: int
    mean: Mapping[str, Estimate]
    snr: Mapping[str, Estimate]
    verdict: Verdict

    def __str__(self) -> str:
        lines = {
            name: f"{line}; mean {estimate_cell(self.mean[name])}, s {estimate_cell(self.snr[name])}"
            for name, line in self.verdict.lines.items()
        }
        return Verdict(self.verdict.heading, lines).text(shutil.get_terminal_size((0, 0)).columns)


def told_from_noise(samples: PyTree, *, seed: int = 0) -> NoiseReport:
    """Whether the mean of a meta-gradient is told from noise, for each meta-parameter.

    A mean is told from noise where its 95 % bootstrap interval does not hold 0. With a signal-to-noise ratio s of one
    window, the mean of n windows stands two standard errors from 0 from n = (2 / s)² on.

    Args:
        samples: a pytree of meta-gradients with a leading axis of n >= 2 independent samples, from `gradient_samples`.
        seed: of the bootstrap.

    Returns:
        Intervals and words by the meta-parameter's name; of arrays an entry each, as in `rates[0]`. Of fewer than 8
        samples the ends of intervals are NaN, and there is no verdict, nor of samples that are all the same and not 0.

    Raises:
        ValueError: fewer than two samples, leaves with different numbers of them, or samples that are not finite.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).standard_normal(64)
        >>> found = told_from_noise({"rate": 2 + noise, "unused": 0 * noise})
        >>> found.verdict.lines["rate"], found.verdict.lines["unused"]
        ('positive, s = 2.2: about 1 window', '0 in every sample')
        >>> bool(found.mean["rate"].low < 2 < found.mean["rate"].high)
        True
    """
    columns = _columns(samples)
    table = np.stack(list(columns.values()), axis=1)
    count = len(table)
    found = summarize({"own": table}, seed=seed)["own"]
    if count < LEAST_SAMPLES:
        found = without_intervals(found)
        lines = [f"no verdict from fewer than {LEAST_SAMPLES} samples"] * len(columns)
    else:
        lines = lines_in_words(found)
    for index, column in enumerate(table.T):
        if column[0] != 0 and (column == column[0]).all():
            lines[index] = _ALL_THE_SAME
    heading = f"Is the meta-gradient told from noise? Of {count} samples, with 95 % intervals; {LEGEND}"
    return NoiseReport(
        num_samples=count,
        mean=_by_name(columns, found.mean),
        snr=_by_name(columns, found.snr),
        verdict=Verdict(heading, dict(zip(columns, lines, strict=True))),
    )


def _columns(samples: PyTree) -> dict[str, FloatArray]:
    """The samples of every single number by its name."""
    named = named_leaves(samples).items()
    leaves = {name or "eta": np.asarray(jax.device_get(leaf), np.float64) for name, leaf in named}
    counts = {len(leaf) if leaf.ndim else 0 for leaf in leaves.values()}
    if len(counts) != 1 or min(counts) < 2:
        shapes = {name: leaf.shape for name, leaf in leaves.items()}
        raise ValueError(
            f"samples of shapes {shapes} were given; accepted is a leading axis of the same number of samples, 2 or "
            "more, in every leaf, as gw.gradient_samples returns them."
        )
    found = {}
    for name, leaf in leaves.items():
        bad = int((~np.isfinite(leaf)).reshape(len(leaf), -1).any(1).sum())
        if bad:
            raise ValueError(
                f"{bad} of {len(leaf)} samples of {name!r} are not finite: gw.check_learner names the cause."
            )
        for place in np.ndindex(leaf.shape[1:]):
            found[entry_name(name, place)] = leaf[:, *place]
    return found


def _by_name(columns: Mapping[str, FloatArray], estimate: Estimate) -> dict[str, Estimate]:
    return {name: Estimate(*(end[index] for end in estimate)) for index, name in enumerate(columns)}
