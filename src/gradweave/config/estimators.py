"""The table of estimators: their names in configurations and on command lines, their arguments and modes.

`gradweave train --meta.estimator truncated:3` and `gradweave measure RUN --estimators unrolled horizon-mix` read the
same rows. A row names its builder, as text, because this room never imports JAX.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from gradweave.config.specs import (
    MOST_UPDATES,
    Choice,
    Count,
    Number,
    Refused,
    Row,
    Spec,
    parse_spec,
    usage,
    whole_number,
)
from gradweave.errors import ConfigError

__all__ = [
    "ESTIMATORS",
    "EstimatorRow",
    "MixWeights",
    "measurable_estimator",
    "parse_estimator",
    "parse_reference",
]

MixWeights: TypeAlias = Literal["uniform"] | float | tuple[float, ...]
"""Equal weights; the ratio of geometric ones; or one number for each inner step."""

_ALL: Final = ("mixed", "reverse", "forward")
_FORWARD: Final = ("forward",)


@dataclass(frozen=True)
class EstimatorRow(Row):
    """An estimator.

    Attributes:
        needs: arguments of the constructor beside the argument, by keyword: "num_inner_steps", "distance".
        modes: names of the modes that can differentiate it; the first one is the usual one.
        linear: whether it weighs horizons and steps, as a sampling correction asks for.
        measurable: whether `gradweave measure` can find it from its samples.
    """

    needs: tuple[str, ...] = ()
    modes: tuple[str, ...] = _ALL
    linear: bool = False
    measurable: bool = False


@dataclass(frozen=True)
class Weights:
    """Weights of a mix: `uniform`, `geometric:RATIO` (or the ratio alone), or one number for each inner step."""

    metavar: str = "WEIGHTS"
    default: str = "uniform"

    def parse(self, text: str, num_inner_steps: int) -> MixWeights:
        """The weights."""
        if text == "uniform":
            return "uniform"
        numbers = _numbers(text.removeprefix("geometric:"))
        if numbers is None or (text.startswith("geometric:") and len(numbers) > 1):
            forms = "uniform, geometric:RATIO, or one number for each inner step, as in 0.5,0.3,0.2"
            raise Refused(f"WEIGHTS one of {forms}", "geometric:0.9")
        if len(numbers) == 1:
            if not 0 <= numbers[0] <= 1:
                raise Refused("the ratio of geometric weights a number in [0, 1]", "geometric:0.9")
            return numbers[0]
        return _explicit(numbers, num_inner_steps)


ESTIMATORS: Final = (
    EstimatorRow("unrolled", "gradweave.core:Unrolled", linear=True, measurable=True),
    EstimatorRow("truncated", "gradweave.core:Truncated", Count("M"), linear=True, measurable=True),
    EstimatorRow(
        "horizon",
        "gradweave.training.estimators:horizon",
        Count("K"),
        needs=("num_inner_steps",),
        linear=True,
        measurable=True,
    ),
    EstimatorRow(
        "horizon-mix",
        "gradweave.training.estimators:horizon_mix",
        Weights(),
        needs=("num_inner_steps",),
        linear=True,
        measurable=True,
    ),
    EstimatorRow(
        "truncation-mix",
        "gradweave.training.estimators:truncation_mix",
        Weights(),
        aliases=("window-mix",),
        needs=("num_inner_steps",),
        linear=True,
        measurable=True,
    ),
    EstimatorRow(
        "adaptive-mix",
        "gradweave.training.estimators:adaptive_mix",
        Choice("CRITERION", ("signal-to-noise", "least-error")),
        needs=("num_inner_steps",),
        modes=_FORWARD,
        measurable=True,
    ),
    EstimatorRow("trace", "gradweave.core:Trace", Number("DECAY", 0.9), modes=_FORWARD),
    EstimatorRow("bootstrapped", "gradweave.core:Bootstrapped", Count("STEPS", 1), needs=("distance",)),
    EstimatorRow("random-truncation", "gradweave.core:RandomTruncation", Number("PROBABILITY", 0.5, exclusive=True)),
)
"""Every estimator of an agent."""


def parse_estimator(text: str, num_inner_steps: int, field: str = "meta.estimator") -> Spec[EstimatorRow]:
    """The estimator that a text means.

    Args:
        text: its name, and its argument behind a colon.
        num_inner_steps: L, which some arguments may not exceed.
        field: the configuration's field, or the flag, to name in an error.

    Raises:
        ConfigError: an unknown name, or an argument that is missing, superfluous or out of range.

    Example:
        >>> parse_estimator("horizon-mix:geometric:0.8", 5).argument
        0.8
    """
    return parse_spec(text, ESTIMATORS, num_inner_steps, field)


def measurable_estimator(text: str, num_inner_steps: int, field: str = "--estimators") -> Spec[EstimatorRow]:
    """The same for estimators that `gradweave measure` can find from its samples.

    Raises:
        ConfigError: as `parse_estimator`, or the estimator needs more than the samples hold.
    """
    spec = parse_estimator(text, num_inner_steps, field)
    if not spec.row.measurable:
        measurable = ", ".join(usage(row) for row in ESTIMATORS if row.measurable)
        raise ConfigError(field, text, f"{measurable}: the others need more than a window's gradients", "unrolled")
    return spec


def parse_reference(text: str, num_inner_steps: int) -> int:
    """How many updates the reference is evaluated after: L for "longest", K for "unroll:K".

    Raises:
        ConfigError: it is neither of these, or K is below L.
    """
    if text == "longest":
        return num_inner_steps
    family, _, argument = text.partition(":")
    length = whole_number(argument)
    if family == "unroll" and length is not None and num_inner_steps <= length <= MOST_UPDATES:
        return length
    accepted = f"longest, or unroll:K with K of at least {num_inner_steps} updates and at most {MOST_UPDATES}"
    remedy = f"unroll:{2 * num_inner_steps}"
    if family in ("pes", "es"):
        remedy += "; evolution strategies serve as a reference for a MetaProblem in a program of your own, see docs"
    raise ConfigError("--reference", text, accepted, remedy)


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(entry) for entry in text.split(",")]
    except ValueError:
        return None


def _explicit(weights: list[float], count: int) -> tuple[float, ...]:
    if len(weights) != count:
        uniform = ",".join(f"{1 / count:.6g}" for _ in range(count))
        raise Refused(f"one number for each of {count} inner steps, not {len(weights)} numbers", uniform)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise Refused("finite weights of at least 0", "uniform")
    total = math.fsum(weights)
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        scaled = ",".join(f"{weight / total:.6g}" for weight in weights) if total > 0 else "uniform"
        raise Refused(f"weights that sum to 1, not {total:g}", scaled)
    return tuple(weights)
