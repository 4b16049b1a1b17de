"""Timing as ratios: variants take turns in one process, so that a wandering clock slows all of them alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = ["Program", "Spread", "alternate", "spread"]


class Program:
    """A compiled function from a state to (state, anything), which keeps its state between calls.

    Attributes:
        calls_per_unit: what a call's time is divided by, for instance inner updates.
        peak_bytes: temporary memory, by the compiler's account.
    """

    def __init__(self, function: Callable[[Any], Any], state: Any, calls_per_unit: float) -> None:
        self._compiled = jax.jit(function, donate_argnums=0).lower(state).compile()
        self._state = jax.tree.map(jax.numpy.copy, state)
        self.calls_per_unit = calls_per_unit
        account = self._compiled.memory_analysis()
        self.peak_bytes = 0 if account is None else account.temp_size_in_bytes

    def __call__(self) -> None:
        self._state, rest = self._compiled(self._state)
        jax.block_until_ready((self._state, rest))


class Spread(NamedTuple):
    """Median and quartiles of a ratio over rounds."""

    median: float
    low: float
    high: float


def alternate(
    programs: Mapping[str, Callable[[], None]], rounds: int, *, seed: int = 0, least_seconds: float = 0.02
) -> dict[str, np.ndarray]:
    """Seconds of one call of every program in every round, the order drawn anew each time.

    Args:
        programs: what to call, by name; each is called once before, uncounted.
        rounds: how often.
        seed: of the orders.
        least_seconds: short programs are called several times in a row, for as long as this together.

    Returns:
        (rounds,) seconds for each name.
    """
    order = np.random.default_rng(seed)
    repeats = {}
    for name, program in programs.items():
        program()
        start = time.perf_counter()
        program()
        repeats[name] = max(1, round(least_seconds / (time.perf_counter() - start)))
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name in order.permutation(list(programs)):
            start = time.perf_counter()
            for _ in range(repeats[name]):
                programs[name]()
            seconds[name].append((time.perf_counter() - start) / repeats[name])
    return {name: np.array(values) for name, values in seconds.items()}


def spread(ratios: Sequence[float] | np.ndarray) -> Spread:
    """Median and quartiles."""
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return Spread(float(median), float(low), float(high))
