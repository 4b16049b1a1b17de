"""Names of estimators on the command line, such as "truncated:3" or "horizon-mix:0.8"; nothing here imports JAX."""

from collections.abc import Callable
from typing import Final, NamedTuple

from gradweave.errors import ConfigError

__all__ = ["ACCEPTED", "EstimatorName", "parse_estimator", "parse_reference"]

ACCEPTED: Final = (
    "unrolled, truncated:M (through the last M updates), horizon:K (judged after K updates), horizon-mix:W and "
    "window-mix:W with W uniform or the ratio of geometric weights from 0 to 1, adaptive-mix, adaptive-mix:least-error"
)
"""Every name that is understood, in words."""


class EstimatorName(NamedTuple):
    """A name taken apart."""

    text: str
    family: str
    number: int | float | None
    """M, K or lambda; None where there is none, for uniform weights too."""


def parse_estimator(text: str, num_inner_steps: int, flag: str = "--estimators") -> EstimatorName:
    """The estimator that a name means.

    Args:
        text: the name.
        num_inner_steps: L, which M and K may not exceed.
        flag: to be named when it is wrong.

    Raises:
        ConfigError: nothing is called so, or its number is out of range.
    """
    family, colon, argument = text.partition(":")
    if text in ("unrolled", "adaptive-mix", "adaptive-mix:least-error"):
        return EstimatorName(text, text, None)
    if family in ("truncated", "horizon"):
        limits = f"{family}:N with a whole number N from 1 to {num_inner_steps}"
        number = _number(argument, int)
        if number is None or not 1 <= number <= num_inner_steps:
            raise ConfigError(flag, text, limits, f"{family}:{num_inner_steps}, or a higher --horizons")
        return EstimatorName(text, family, number)
    if family in ("horizon-mix", "window-mix") and colon:
        if argument == "uniform":
            return EstimatorName(text, family, None)
        number = _number(argument, float)
        if number is not None and 0 <= number <= 1:
            return EstimatorName(text, family, number)
        raise ConfigError(flag, text, f"{family}:uniform or {family}:LAMBDA, 0 to 1", f"{family}:0.9")
    raise ConfigError(flag, text, ACCEPTED, "choose among these")


def parse_reference(text: str, num_inner_steps: int) -> int:
    """How many updates the reference is judged after: L for "longest", K for "unroll:K".

    Raises:
        ConfigError: it is neither of these, or K is below L.
    """
    if text == "longest":
        return num_inner_steps
    family, _, argument = text.partition(":")
    number = _number(argument, int)
    if family == "unroll" and number is not None and number >= num_inner_steps:
        return int(number)
    accepted = f"longest, or unroll:K with K of at least {num_inner_steps} updates"
    remedy = f"unroll:{2 * num_inner_steps}"
    if family in ("pes", "es"):
        remedy += "; evolution strategies serve as a reference for a MetaProblem in a program of your own, see docs"
    raise ConfigError("--reference", text, accepted, remedy)


def _number(text: str, kind: Callable[[str], int | float]) -> int | float | None:
    try:
        return kind(text)
    except ValueError:
        return None
