"""A noisy quadratic on which short and long horizons disagree about the learning rate, and what is measured on it.

Three coordinates of curvature 1, 0.3 and 0.05 follow noisy targets by gradient steps; the outer target is noisy too.
Two meta-parameters: the learning rate, and a shift that is added to the learner's targets and should be 0. The fast
coordinates stand at their optimum and the slow one far from it: a higher rate costs noise at once and pays off late.
"""

from typing import NamedTuple

ABOUT = "noisy quadratic: bias, variance and mixes of every horizon, closed form against measurement"
COST = {"tiny": "10 seconds", "quick": "half a minute", "full": "2 minutes"}

CURVATURE = (1.0, 0.3, 0.05)
START = (0.0, 0.0, 4.0)
TARGET_NOISE, OUTER_NOISE = 0.6, 1.0
RATE, SHIFT = 0.2, 0.3
MIX_LAMBDAS = (0.5, 0.8, 0.95)


class Size(NamedTuple):
    """How much of it."""

    num_inner_steps: int
    num_samples: int
    """Of each estimator; an eighth in each repetition for the intervals' coverage."""
    num_repetitions: int
    num_windows: int
    """Windows that the adaptive mix sees; the last half is measured."""


SIZES = {"tiny": Size(3, 80, 2, 60), "quick": Size(16, 1_600, 5, 4_000), "full": Size(16, 4_000, 60, 40_000)}
ADAPTIVE_DECAY = 0.9995
"""Of the moments that the adaptive mix keeps over these windows."""
EVOLUTION = {"sigma": 0.02, "num_pairs": 8, "num_windows": 4}
"""Evolution strategies as a reference without derivatives; the persistent ones over this many windows."""
