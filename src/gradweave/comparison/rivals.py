"""The table of rivals: their uses of a budget of environment steps, and their results for a user.

Every rival has the same budget for each seed that is reported. A search divides it among its trials; only `sweep`, the
line to look up to, trains every trial for as long as the others' single run, and its cost is reported beside it.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from gradweave.config.auto import is_auto
from gradweave.config.schema import Config
from gradweave.config.search import SearchRange, draw, perturbed
from gradweave.errors import ConfigError, nearest_name

__all__ = [
    "RIVALS",
    "SWEEP_SEED",
    "SWEEP_SEEDS",
    "Exchange",
    "Rival",
    "best_member",
    "exchange",
    "first_settings",
    "member_scores",
    "parse_rivals",
]

SWEEP_SEED: Final = 2**31
"""A sweep is chosen by runs of seeds from here on, so that it is not chosen by those that are reported."""
SWEEP_SEEDS: Final = 2
"""The number of these seeds."""

Setting: TypeAlias = Mapping[str, float]
_QUARTER: Final = 4


@dataclass(frozen=True)
class Exchange:
    """Changes of a population between two stretches.

    Attributes:
        source: the member that each copies, itself for most.
        settings: of each member from now on.
    """

    source: tuple[int, ...]
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Rival:
    """One row of the table.

    Attributes:
        name: as `--rivals` takes it.
        words: its description.
        searches: whether it has as many members as there are trials, each with a setting of its own; otherwise one.
        shares: whether its members share the budget; otherwise each has all of it.
        copies: whether the worst quarter is replaced by copies of the best between stretches.
        perturbs: whether the copies' settings are moved.
        tunes: its tuning of the configuration: "plain", "given" or "auto".
    """

    name: str
    words: str
    searches: bool = False
    shares: bool = True
    copies: bool = False
    perturbs: bool = False
    tunes: str = "plain"


RIVALS: Final = (
    Rival("plain", "the configuration without tuning"),
    Rival("random", "random search, the budget divided among its trials", searches=True),
    Rival("sweep", "the best of as many trials, each trained to the full budget", searches=True, shares=False),
    Rival("pbt", "population-based training", searches=True, copies=True, perturbs=True),
    Rival("pbt-copy", "the same with copying alone", searches=True, copies=True),
    Rival("meta", "the configuration with its own tuning", tunes="given"),
    Rival("auto", "--meta.preset auto", tunes="auto"),
)
"""Every rival."""


def parse_rivals(names: Sequence[str], config: Config) -> list[Rival]:
    """The rivals by their names.

    Args:
        names: as `--rivals` has them.
        config: of the rival `meta`.

    Raises:
        ConfigError: an unknown name, one twice, or `meta` of a configuration that tunes nothing.
    """
    table = {rival.name: rival for rival in RIVALS}
    for name in names:
        if name not in table:
            near = nearest_name(name, table)
            remedy = f"did you mean {near!r}?" if near else "use some of these"
            raise ConfigError("--rivals", name, " ".join(table), remedy)
    if not names or len(set(names)) < len(names):
        raise ConfigError("--rivals", " ".join(names), "some names, each once", "leave --rivals out for all")
    if "meta" in names and not (config.meta.learned or config.meta.tuners):
        accepted = "a configuration that tunes something, for the rival meta"
        raise ConfigError("--rivals", "meta", accepted, "give --meta.learned discount, or leave meta out")
    if "meta" in names and is_auto(config):
        accepted = "a configuration that tunes something else than auto does, for the rival meta"
        raise ConfigError("--rivals", "meta", accepted, "compare the preset ppo, or leave meta out")
    return [table[name] for name in names]


def first_settings(rival: Rival, ranges: Mapping[str, SearchRange], trials: int, seed: int) -> list[Setting]:
    """The settings that a rival's members begin with; the same draws for every search of one seed."""
    if not rival.searches:
        return [{}]
    rng = random.Random(f"settings {seed}")
    return [draw(ranges, rng) for _ in range(trials)]


def exchange(
    rival: Rival,
    settings: Sequence[Setting],
    scores: Sequence[float],
    ranges: Mapping[str, SearchRange],
    rng: random.Random,
) -> Exchange:
    """Replace the worst quarter of a population by copies of members of its best quarter.

    Args:
        rival: decides on copies and on moves of their settings.
        settings: of each member.
        scores: of each member, its mean training return over the last stretch; NaN where no episode ended in it: such
            a member stays as it is; -inf where its values are not finite: it is the worst, and never copied.
        ranges: the bounds of settings.
        rng: for the choice of sources and moves.

    Returns:
        Each member's source and its new settings.
    """
    source, after = list(range(len(settings))), list(settings)
    if rival.copies and len(settings) > 1:
        ranked = sorted((member for member in source if not math.isnan(scores[member])), key=lambda one: scores[one])
        count = max(1, len(settings) // _QUARTER)
        best = [member for member in ranked[-count:] if scores[member] > -math.inf]
        for member in ranked[: min(count, len(ranked) - len(best))] if best else ():
            source[member] = rng.choice(best)
            after[member] = settings[source[member]]
            if rival.perturbs:
                after[member] = perturbed(ranges, after[member], rng)
    return Exchange(tuple(source), tuple(after))


def best_member(scores: Sequence[float]) -> int:
    """The member with the highest score; after them come those of which none is known (NaN), and -inf."""
    return max(range(len(scores)), key=lambda member: _order(scores[member]))


def _order(score: float) -> tuple[int, float]:
    return (1, 0.0) if math.isnan(score) else (2 if score > -math.inf else 0, score)


def member_scores(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The scores that the members of one seed are chosen by.

    Args:
        rows: of every member and stretch, as `gradweave.comparison.conduct.conduct` returns them.

    Returns:
        The last training return that is known of each member, since in a short stretch no episode may end; NaN where
        none is; -inf where its values are no longer finite.
    """
    scores: dict[int, float] = {}
    for row in sorted(rows, key=lambda row: row["stretch"]):
        member, known = row["member"], row["training_return"]
        before = scores.get(member, math.nan)
        unknown = math.nan if before == -math.inf else before  # it has been made a copy of another
        scores[member] = -math.inf if not row["finite"] else unknown if known is None else known
    return [scores[member] for member in sorted(scores)]
