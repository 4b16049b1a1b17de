"""The suites whose environments have names with a prefix, what each needs to be installed, and which cannot be had.

A suite is one row here, a module of the same name beside (`jumanji`, `gymnax`, `envelope`) and rows of the catalogue.
Nothing here imports JAX or a suite.
"""

import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final, NamedTuple

__all__ = ["PREFIXES", "REFUSED_SUITES", "SUITES", "Suite", "missing", "refused_suite", "suite_of"]


class Suite(NamedTuple):
    """A suite, and the packages that it needs."""

    title: str
    needs: tuple[tuple[str, str], ...]
    """Module and requirement of each package."""
    python: tuple[int, int] = (3, 11)
    """The oldest Python that it runs on."""
    not_in_ci: str = ""
    """Why CI does not try its environments, and the file of a try by hand; empty if CI does."""


_ENVELOPE: Final = ("envelope", "jax-envelope>=0.6.1")
_NEWER: Final = (3, 12)
_BY_HAND: Final = (
    "CI does not try these: it has Python 3.11, and jax-envelope needs 3.12. "
    "All were tried by hand: results/baselines/envelope/contract.csv in the repository"
)

SUITES: Final[Mapping[str, Suite]] = {
    "jumanji": Suite("Jumanji", (("jumanji", "jumanji>=1.1"),)),
    "gymnax": Suite("Gymnax", (("gymnax", "gymnax>=1.0"),)),
    "envelope:brax": Suite("Brax", (_ENVELOPE, ("brax", "brax>=0.14.2")), _NEWER, _BY_HAND),
    "envelope:navix": Suite("Navix", (_ENVELOPE, ("navix", "navix>=4.0")), _NEWER, _BY_HAND),
    "envelope:craftax": Suite("Craftax", (_ENVELOPE, ("craftax", "craftax>=1.6.1")), _NEWER, _BY_HAND),
    "envelope:mujoco_playground": Suite(
        "MuJoCo Playground", (_ENVELOPE, ("mujoco_playground", "playground>=0.2")), _NEWER, _BY_HAND
    ),
}
"""By the prefix of the environment's own name: `gymnax:` or `envelope:brax/`."""

REFUSED_SUITES: Final[Mapping[str, str]] = {
    "envelope:gymnax": "is reached without jax-envelope: gymnax:CartPole-v1",
    "envelope:jumanji": "is reached without jax-envelope: jumanji:Maze-v0",
    "envelope:kinetix": "has no published package that the adapter of jax-envelope works with",
    "envelope:pgx": "is one of games for two and more players, and jax-envelope has no adapter for it; "
    "its games for one are gymnax's MinAtar and jumanji:Game2048-v1",
}
"""Suites that cannot be had, and why: the rest of a sentence that begins with the suite."""

PREFIXES: Final = frozenset(part for name in (*SUITES, *REFUSED_SUITES) for part in name.split(":"))
"""Prefixes of names that belong to no module of the user's; `brax:ant`, too, is a misspelt suite."""


def suite_of(name: str) -> Suite | None:
    """The suite that an environment is from; None for one of our own.

    Example:
        >>> suite_of("envelope:brax/ant").title, suite_of("gymnax:CartPole-v1").title, suite_of("snake")
        ('Brax', 'Gymnax', None)
    """
    return SUITES.get(name.rpartition("/" if "/" in name else ":")[0])


def missing(suite: Suite) -> str | None:
    """The unmet requirement of a suite, with its remedy; None if the suite can be used."""
    packages = " ".join(f'"{requirement}"' for _, requirement in suite.needs)
    if sys.version_info < suite.python:
        wanted, here = (".".join(map(str, version[:2])) for version in (suite.python, sys.version_info))
        return f"needs Python {wanted} or newer, and this is {here}: with such a Python, pip install {packages}"
    lacking = [requirement for module, requirement in suite.needs if find_spec(module) is None]
    if lacking:
        names = " and ".join(re.split("[<>=]", requirement)[0] for requirement in lacking)
        return f"needs {names}, which {'is' if len(lacking) == 1 else 'are'} not installed: pip install {packages}"
    return None


def refused_suite(name: str) -> str | None:
    """Why all environments of the suite that `name` begins with are refused; None if they are not."""
    first, *rest = re.split("[:/]+", name)
    within = len(rest) > 1 or (rest and first == "envelope")
    key = f"{first}:{rest[0]}" if within else name if first in SUITES else f"envelope:{first}"
    return f"{key.rpartition(':')[2]} {REFUSED_SUITES[key]}" if key in REFUSED_SUITES else None
