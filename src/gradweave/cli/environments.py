"""`gradweave environments`: names to train on, and refused ones with the reason. JAX is not imported."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradweave.cli.flags import parse_flags
from gradweave.envs.catalogue import CATALOGUE, UNTRIED
from gradweave.envs.suites import REFUSED_SUITES, SUITES, missing, suite_of

__all__ = ["run"]

_WIDTH = 150
"""Of a line with options, in letters."""
_BOUND = "\u00a0"
"""A space at which no line is broken."""


@dataclass(frozen=True)
class _Flags:
    """The flags of `gradweave environments`: none."""


def run(argv: Sequence[str]) -> int:
    """Print the list; returns the exit code."""
    parse_flags(_Flags, "gradweave environments", "List the environments, and why some are not available.", argv)
    print("\n".join(_lines()))
    return 0


def _wrapped(beginning: str, words: str) -> list[str]:
    """A line, whose last column goes on below where it is long."""
    lines = textwrap.wrap(words, _WIDTH - len(beginning), break_on_hyphens=False) or [""]
    lines = [line.replace(_BOUND, " ") for line in lines]
    return [f"{beginning if index == 0 else ' ' * len(beginning)}{line}".rstrip() for index, line in enumerate(lines)]


def _lines() -> Iterator[str]:
    rows = [("name", "observation", "actions", "options")]
    lacking = {suite: why for suite in SUITES.values() if (why := missing(suite))}
    for name, row in CATALOGUE.items():
        if suite_of(name) in lacking:
            continue
        note = f"({row.note})".replace(" ", _BOUND) if row.note else ""
        rows.append((name, row.observation, row.actions, " ".join(filter(None, [*row.options, note]))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    last = {suite_of(name): name for name in CATALOGUE}
    for *cells, options in rows:
        beginning = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        yield from _wrapped(beginning, options)
        suite = suite_of(cells[0])
        if suite is not None and suite.not_in_ci and cells[0] == last[suite]:
            yield f"    {suite.not_in_ci}"
    yield from ("", "Learned so far, mean returns of sampled actions at the end (the page The state of the evidence):")
    for name, row in CATALOGUE.items():
        yield from (f"on {name:<{widths[0]}}  {learned}" for learned in row.learned)
    yield from ("", "Refused, as a suite:", *(f"{suite} {reason}" for suite, reason in REFUSED_SUITES.items()))
    yield from (
        "",
        "Refused, as their models are cloned from a repository when they are made, so that they could not be tried:",
    )
    yield from sorted(UNTRIED)
    if lacking:
        yield from ("", "Left out, as something is not installed:")
        for prefix, suite in SUITES.items():
            names = [name for name in CATALOGUE if suite_of(name) is suite]
            if suite in lacking:
                beginning = f"{prefix}{'/' if ':' in prefix else ':'}"
                yield f"{beginning}... ({len(names)}) {lacking[suite]}"
                yield from _wrapped("    ", " ".join(name.removeprefix(beginning) for name in names))
                yield from [f"    {suite.not_in_ci}"] if suite.not_in_ci else []
    yield from (
        "",
        "Sizes are those without options. Options are given as --environment.options.NAME VALUE; all take action_mask.",
        "Classes of your own have names, too: package.module:Class. `gradweave check-environment NAME` checks them.",
    )
