"""Flags: how numbers may be written."""

from dataclasses import dataclass

import pytest

from gradweave.cli.flags import parse_flags


@dataclass
class _Flags:
    steps: int = 5
    seeds: tuple[int, ...] = ()
    every: int | None = None
    rate: float = 0.5


def _parsed(*words: str) -> _Flags:
    return parse_flags(_Flags, "prog", "About it.", words)


@pytest.mark.parametrize(
    ("word", "number"), [("7", 7), ("1e6", 1_000_000), ("2.5e3", 2500), ("1_000", 1000), ("-3", -3), ("4.0", 4)]
)
def test_whole_numbers_may_be_written_with_an_exponent(word: str, number: int) -> None:
    flags = _parsed("--steps", word, "--seeds", word, "1", "--every", word)
    assert (flags.steps, flags.seeds, flags.every) == (number, (number, 1), number)
    assert all(type(found) is int for found in (flags.steps, *flags.seeds, flags.every))


@pytest.mark.parametrize("word", ["1.5", "nan", "inf", "many", "1e-3", ""])
@pytest.mark.parametrize("flag", ["--steps", "--seeds", "--every"])
def test_others_are_refused_and_named(flag: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        _parsed(flag, word)
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert flag in told and "remedy" in told
    assert "is no whole number" in told or flag == "--seeds"


def test_other_types_and_defaults_stay() -> None:
    assert _parsed() == _Flags()
    assert _parsed("--rate", "1e-3").rate == 1e-3
    assert _parsed("--every", "None").every is None
