"""Mixes of horizons on noisy quadratics: which are fixed, which adapt, and on what they are measured.

Three coordinates of curvature 1, 0.3 and 0.05 are learned by gradient steps on noisy targets. The learner's targets are
off by one, which the meta-parameter `shift` can undo; the meta-parameter `rate` is its learning rate. The slow
coordinate's optimum moves. A higher rate costs noise at once in the fast coordinates and pays off later in the slow
one, so that short and long horizons disagree about the rate, in sign, whenever the optimum moves.
"""

from typing import NamedTuple

import gradweave as gw

NUM_INNER_STEPS = 10
NUM_WINDOWS = 1600
NUM_BURN_IN = 100
NUM_SEEDS = 64
START = {"rate": 0.2, "shift": 0.0}
META_LEARNING_RATES = (0.0, 0.003, 0.01, 0.03)
"""Of Adam; 0 leaves the meta-parameters where they are, to measure gradients there."""


class Problem(NamedTuple):
    """How far the optimum of the slow coordinate moves in an inner step: two velocities that take turns."""

    name: str
    velocities: tuple[float, float]
    windows_per_turn: int = 400


PROBLEMS = (
    Problem("still", (0.0, 0.0)),
    Problem("moving", (0.03, 0.03)),
    Problem("switching", (0.1, 0.01)),
)


def estimators() -> dict[str, gw.AbstractEstimator]:
    """Fixed mixes from the shortest to the longest, then the adaptive ones."""
    length = NUM_INNER_STEPS
    fixed = {f"geometric {x}": gw.HorizonMix(gw.geometric_weights(length, x)) for x in (0.0, 0.5, 0.8, 0.9, 0.95)}
    return {
        **fixed,
        "uniform": gw.HorizonMix(gw.uniform_weights(length)),
        "unrolled": gw.Unrolled(),
        "signal to noise": gw.AdaptiveMix(length),
        "least error, 1": gw.AdaptiveMix(length, gw.LeastError(num_averaged=1.0)),
        "least error, 100": gw.AdaptiveMix(length, gw.LeastError(num_averaged=100.0)),
    }
