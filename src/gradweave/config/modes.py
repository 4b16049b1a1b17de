"""The table of modes: how a meta-gradient may be differentiated, by name."""

from dataclasses import dataclass
from typing import Final, Literal

from gradweave.config.estimators import EstimatorRow
from gradweave.config.specs import MOST_UPDATES, Refused, Row, Spec, parse_spec, whole_number
from gradweave.errors import ConfigError

__all__ = ["AUTO", "MODES", "parse_mode"]

AUTO: Final = "auto"
"""The mode that costs least, among those that serve the estimator."""


@dataclass(frozen=True)
class Remat:
    """Recomputation in reverse mode: `none`, of each `step`, or of segments of N steps."""

    metavar: str = "REMAT"
    default: str = "none"

    def parse(self, text: str, num_inner_steps: int) -> Literal["none", "step"] | int:
        """The argument of `ReverseMode`."""
        if text == "none" or text == "step":
            return "none" if text == "none" else "step"
        length = whole_number(text)
        if length is not None and 1 <= length <= MOST_UPDATES:
            return length
        raise Refused(f"REMAT none, step, or the updates of a segment, a whole number from 1 to {MOST_UPDATES}", "step")


MODES: Final = (
    Row("mixed", "gradweave.core:MixedMode"),
    Row("reverse", "gradweave.core:ReverseMode", Remat()),
    Row("forward", "gradweave.core:ForwardMode"),
)
"""Every mode; all of them give the same gradient."""

_AUTO_ROW: Final = Row(AUTO, "")  # so that an error lists it


_EVERY: Final = tuple(row.name for row in MODES)


def parse_mode(
    text: str,
    estimator: EstimatorRow,
    num_inner_steps: int,
    field: str = "meta.mode",
    *,
    learner: tuple[str, ...] = _EVERY,
) -> Spec[Row]:
    """The mode that a text means; for "auto" the usual one of the estimator and the learner.

    Args:
        text: "auto", or a name of the table and its argument.
        estimator: the one it has to serve.
        num_inner_steps: L.
        field: to name in an error.
        learner: the modes that can differentiate the learner.

    Raises:
        ConfigError: an unknown mode, an argument that it does not take, or a mode that does not serve the estimator.
    """
    serving = tuple(mode for mode in estimator.modes if mode in learner)
    if not serving:
        accepted = f"one of the modes {', '.join(learner)} for this learner; {estimator.name} has {estimator.modes}"
        raise ConfigError("meta.estimator", estimator.name, accepted, "--meta.estimator unrolled")
    if text == AUTO:
        text = serving[0]
    spec = parse_spec(text, (*MODES, _AUTO_ROW), num_inner_steps, field)
    if spec.row.name not in serving:
        accepted = f"{' or '.join((AUTO, *serving))} for this learner and the estimator {estimator.name}"
        raise ConfigError(field, text, accepted, "leave --meta.mode out")
    return spec
