"""The table of tuners, for `--meta.tuners learning_rate=kl:0.01`, and classes of the user's beside it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gradweave.config.hyperparameters import Range, single
from gradweave.config.specs import Number, Refused, Row, Spec, parse_spec, usage
from gradweave.envs.own import class_reference
from gradweave.errors import ConfigError, nearest_name

__all__ = ["TUNERS", "TunerRow", "parse_tuner", "parse_tuners", "usual_choice"]


@dataclass(frozen=True)
class TunerRow(Row):
    """A tuner.

    Attributes:
        serves: the hyper-parameters that it can move; None: any.
        own: whether it is a class of the user's, which takes its argument only where one is given.
        timed: whether it is told how many windows the run has, before its argument.
    """

    serves: tuple[str, ...] | None = None
    own: bool = False
    timed: bool = False


@dataclass(frozen=True)
class Candidates:
    """At least two different numbers."""

    metavar: str
    default: None = None

    def parse(self, text: str, num_inner_steps: int) -> tuple[float, ...]:
        """The numbers."""
        values = _numbers(text)
        if len(values) < 2 or len({single(value) for value in values}) < len(values):
            raise Refused(f"{self.metavar} at least two different numbers", "3e-4,1e-3")
        return values


@dataclass(frozen=True)
class Ends:
    """A lowest and a highest number."""

    metavar: str = "LOWEST,HIGHEST"
    default: None = None

    def parse(self, text: str, num_inner_steps: int) -> tuple[float, float]:
        """The two numbers."""
        ends = _numbers(text)
        if not (len(ends) == 2 and _rising(ends)):
            raise Refused(f"{self.metavar} two numbers, the lower one first", "1e-4,1e-3")
        return ends[0], ends[1]


@dataclass(frozen=True)
class Divergences:
    """A divergence in nats in (0, 10], or a least and a greater most."""

    metavar: str = "TARGET[,MOST]"
    default: float = 0.01

    def parse(self, text: str, num_inner_steps: int) -> float | tuple[float, float]:
        """The divergence, or the two."""
        target = _numbers(text)
        if len(target) not in (1, 2) or not (_rising((0.0, *target)) and target[-1] <= 10):
            raise Refused("TARGET a number in (0, 10], or a least and a greater most", "0.01")
        return target[0] if len(target) == 1 else (target[0], target[1])


@dataclass(frozen=True)
class Share:
    """A share in (0, 1], alone or with the two ends of the cost."""

    metavar: str = "SHARE[,LOWEST,HIGHEST]"
    default: float = 0.5

    def parse(self, text: str, num_inner_steps: int) -> float | tuple[float, float, float]:
        """The share, or the three numbers."""
        share, *ends = _numbers(text) or (0.0,)
        if not (_rising((0.0, share)) and share <= 1 and len(ends) in (0, 2) and _rising((0.0, *ends))):
            raise Refused("SHARE a number in (0, 1], alone or with LOWEST < HIGHEST above 0", "0.5")
        return (share, ends[0], ends[1]) if ends else share


def _numbers(text: str) -> tuple[float, ...]:
    """Numbers separated by commas; none if one of them is none, or is lost in single precision."""
    try:
        values = tuple(float(entry) for entry in text.split(","))
    except ValueError:
        return ()
    return values if all(map(_usable, values)) else ()


def _rising(values: Sequence[float]) -> bool:
    return all(single(low) < single(high) for low, high in itertools.pairwise(values))


def _usable(value: float) -> bool:
    """Whether single precision has the number, which is neither lost below nor above."""
    return math.isfinite(single(value)) and (value == 0) == (single(value) == 0)


TUNERS: Final = (
    TunerRow(
        "kl",
        "gradweave.agents.tuners:KLControl",
        Divergences(),
        serves=("learning_rate",),
    ),
    TunerRow(
        "kl-anneal",
        "gradweave.agents.tuners:KLAnneal",
        Number("GOAL", 0.1, highest=10.0, exclusive=True),
        serves=("learning_rate",),
        timed=True,
    ),
    TunerRow(
        "target-entropy",
        "gradweave.agents.tuners:TargetEntropy",
        Number("NATS", 0.5, highest=100.0, exclusive=True),
        serves=("entropy_cost",),
    ),
    TunerRow(
        "entropy-share",
        "gradweave.agents.tuners:share_within",
        Share(),
        serves=("entropy_cost",),
    ),
    TunerRow(
        "evolution",
        "gradweave.agents.tuners:LiveEvolution",
        Number("SIGMA", 0.3, highest=3.0, exclusive=True),
        serves=("entropy_cost", "learning_rate", "value_cost", "clip_range", "value_clip_range"),
    ),
    TunerRow(
        "error-scale",
        "gradweave.agents.tuners:ErrorScale",
        Number("SCALE", 1.0, highest=100.0, exclusive=True),
        serves=("value_clip_range",),
    ),
    TunerRow("return-choice", "gradweave.agents.tuners:ReturnChoice", Candidates("V1,V2,...")),
    TunerRow("bounds", "gradweave.agents.tuners:Bounds", Ends()),
)
"""Every tuner of the library."""

_OWN: Final = "package.module:Class[:NUMBERS] of your own"


def usual_choice(name: str, limits: Range) -> str:
    """A tuner that serves the hyper-parameter of this name and range, as an example in remedies."""
    if name == "clip_range":
        return "return-choice:0.1,0.2,0.3"
    if name == "value_clip_range":
        return "error-scale"
    return "return-choice:0.9,0.99" if limits.upper == 1 else "return-choice:3e-4,1e-3"


def parse_tuner(text: str, hyperparameters: Mapping[str, Range]) -> tuple[str, Spec[TunerRow]]:
    """(the hyper-parameter, its tuner).

    Args:
        text: such as "learning_rate=kl:0.01", or "learning_rate=package.module:Class:20". Of a class of the user's only
            the name is checked here.
        hyperparameters: those of the learner, with their ranges.

    Raises:
        ConfigError: an unknown name, a tuner that does not serve it, or an argument out of range.

    Example:
        >>> from gradweave.config.learners import LEARNERS
        >>> name, spec = parse_tuner("learning_rate=kl:0.02", LEARNERS["ppo"].hyperparameters)
        >>> name, spec.row.name, spec.argument
        ('learning_rate', 'kl', 0.02)
    """
    field = "meta.tuners"
    spelt, equals, rule = text.partition("=")
    name = spelt if spelt in hyperparameters else f"{spelt}_"  # lambda, which is a word of Python's
    if not equals or name not in hyperparameters:
        near = nearest_name(spelt, hyperparameters) or "learning_rate"
        names = " ".join(each.rstrip("_") for each in hyperparameters)
        accepted = f"NAME=TUNER with NAME one of {names}, TUNER one of {_usages(TUNERS)}"
        rule = rule or ("kl:0.01" if near == "learning_rate" else usual_choice(near, hyperparameters[near]))
        raise ConfigError(field, text, accepted, f"--meta.tuners {near.rstrip('_')}={rule}")
    own = _own_tuner(text, rule)
    if own is not None:
        return name, own
    serving = [row for row in TUNERS if row.serves is None or name in row.serves]
    try:
        spec = parse_spec(rule, serving, 1, field)
    except ConfigError as refused:
        known = any(rule.partition(":")[0] == row.name for row in serving)
        accepted = refused.accepted if known else f"for {spelt} one of {_usages(serving)}"
        example = refused.remedy.rpartition(" ")[2]
        complete = [row.name for row in serving if row.argument and row.argument.default is not None]
        similar = nearest_name(rule.partition(":")[0], complete)
        if similar and not known:
            example = similar
        elif not known or rule.startswith("return-choice"):
            example = usual_choice(name, hyperparameters[name])
        elif rule.startswith("bounds") and hyperparameters[name].upper == 1:
            example = "bounds:0.9,0.99"
        raise ConfigError(field, text, accepted, f"--meta.tuners {spelt}={example}") from None
    values = spec.argument if spec.row.name in ("return-choice", "bounds") else ()
    if not all(hyperparameters[name].contains(value, learned=False) for value in values):
        accepted = f"numbers that are each {hyperparameters[name].describe(learned=False)}"
        raise ConfigError(field, text, accepted, "give others")
    return name, spec


def parse_tuners(
    texts: Sequence[str], learned: Sequence[str], hyperparameters: Mapping[str, Range]
) -> dict[str, Spec[TunerRow]]:
    """The tuners by the names of their hyper-parameters.

    Args:
        texts: one for each tuner, as for `parse_tuner`.
        learned: names of the meta-parameters that the meta-gradient moves.
        hyperparameters: those of the learner.

    Raises:
        ConfigError: as `parse_tuner`; or a hyper-parameter would be moved twice.
    """
    found: dict[str, Spec[TunerRow]] = {}
    for text in texts:
        name, spec = parse_tuner(text, hyperparameters)
        if name in found or name in learned:
            other = "by another tuner" if name in found else "by the meta-gradient (meta.learned)"
            accepted = f"a hyper-parameter that is not moved {other} already"
            raise ConfigError("meta.tuners", text, accepted, "leave one of the two out")
        found[name] = spec
    return found


def _own_tuner(text: str, rule: str) -> Spec[TunerRow] | None:
    """A class of the user's with the numbers for its constructor; None if it is another kind of rule."""
    module, _, rest = rule.partition(":")
    attribute, colon, argument = rest.partition(":")
    if any(module == row.name for row in TUNERS) or class_reference(f"{module}:{attribute}") is None:
        return None
    try:
        numbers = tuple(float(entry) for entry in argument.split(",")) if colon else ()
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        accepted = "NAME=package.module:Class:NUMBERS with NUMBERS one number, or several separated by commas"
        raise ConfigError("meta.tuners", text, accepted, f"--meta.tuners {text.removesuffix(colon + argument)}:20")
    value = numbers[0] if len(numbers) == 1 else numbers or None
    return Spec(rule, TunerRow(rule, f"{module}:{attribute}", own=True), value)


def _usages(rows: Sequence[TunerRow]) -> str:
    return ", ".join([*(usage(row) for row in rows), _OWN])
