"""Parsing the flags of a command, with a remedy where they cannot be parsed."""

import contextlib
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gradweave.machine.streams import say

__all__ = ["parse_flags", "wrapped"]

FlagsT = TypeVar("FlagsT")


def parse_flags(
    kind: type[FlagsT],
    prog: str,
    description: str,
    argv: Sequence[str],
    default: FlagsT | None = None,
    *,
    needs_words: bool = False,
) -> FlagsT:
    """The flags that a command line gives.

    Args:
        kind: a dataclass with a field for each.
        prog: name of the command.
        description: of the command, for its help.
        argv: the words after its name.
        default: the values of absent flags; None: those of the dataclass.
        needs_words: whether a command line without any is wrong, and answered with the help.

    Raises:
        SystemExit: the command line is wrong (2), with a remedy on standard error, or asks for help (0).
    """
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        words = list(argv) or ["--help"] * needs_words
        return tyro.cli(kind, prog=prog, description=wrapped(description), args=words, registry=_RULES, **options)
    except SystemExit as error:
        if needs_words and not argv:
            raise SystemExit(2) from None
        if error.code == 2:
            say(f"  remedy:   correct it; `{prog} --help` lists the values of each flag")
        raise


def wrapped(text: str) -> str:
    """A description in lines that fit the terminal; tyro would join those that begin with a letter again."""
    return textwrap.fill(text, shutil.get_terminal_size().columns, subsequent_indent=" ")


_RULES: Final = ConstructorRegistry()


@_RULES.primitive_rule
def _whole_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    """Whole numbers may be written as in the papers: 1e6, 75e6."""
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: _whole(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def _whole(word: str) -> int:
    with contextlib.suppress(ValueError):
        return int(word)
    with contextlib.suppress(ValueError):
        if (number := float(word)).is_integer():
            return int(number)
    raise ValueError(f"{word!r} is no whole number")
