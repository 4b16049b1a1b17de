"""The tables of estimators and modes: what each text means, and what is refused with a remedy that is accepted."""

import inspect
from typing import Any

import pytest

from gradweave.config.estimators import ESTIMATORS, parse_estimator, parse_reference
from gradweave.config.modes import MODES, parse_mode
from gradweave.config.schema import MetaConfig
from gradweave.config.specs import resolve, usage
from gradweave.errors import ConfigError
from gradweave.measurement.options import MeasureOptions

LENGTH = 5
ROWS = {row.name: row for row in ESTIMATORS}


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        ("unrolled", "unrolled", None),
        ("truncated:3", "truncated", 3),
        ("truncated:5", "truncated", 5),
        ("horizon:1", "horizon", 1),
        ("horizon-mix", "horizon-mix", "uniform"),
        ("horizon-mix:uniform", "horizon-mix", "uniform"),
        ("horizon-mix:geometric:0.8", "horizon-mix", 0.8),
        ("horizon-mix:0.8", "horizon-mix", 0.8),
        ("truncation-mix:0.5,0.3,0.2,0,0", "truncation-mix", (0.5, 0.3, 0.2, 0.0, 0.0)),
        ("window-mix:1", "truncation-mix", 1.0),
        ("adaptive-mix", "adaptive-mix", "signal-to-noise"),
        ("adaptive-mix:least-error", "adaptive-mix", "least-error"),
        ("trace", "trace", 0.9),
        ("trace:0", "trace", 0.0),
        ("bootstrapped", "bootstrapped", 1),
        ("bootstrapped:5", "bootstrapped", 5),
        ("random-truncation:1", "random-truncation", 1.0),
    ],
)
def test_texts_mean_a_row_and_an_argument(text: str, name: str, argument: Any) -> None:
    spec = parse_estimator(text, LENGTH)
    assert (spec.text, spec.row.name, spec.argument) == (text, name, argument)
    assert type(spec.argument) is type(argument)


@pytest.mark.parametrize(
    ("text", "accepted", "remedy"),
    [
        ("unroled", "unrolled", "'unrolled'"),
        ("", "truncated:M", "choose"),
        ("pes", "trace[:DECAY]", "choose"),
        ("unrolled:3", "no argument", "unrolled"),
        ("truncated", "from 1 to 5, the number of inner steps", "truncated:2"),
        ("truncated:", "from 1 to 5, the number of inner steps", "truncated:2"),
        ("truncated:0", "truncated:M", "truncated:1"),
        ("truncated:6", "truncated:M", "truncated:5"),
        ("truncated:2.5", "truncated:M", "truncated:2"),
        ("truncated:" + "9" * 5000, "truncated:M", "truncated:2"),
        ("horizon:x", "horizon:K", "horizon:2"),
        ("horizon-mix:", "horizon-mix:WEIGHTS", "horizon-mix:geometric:0.9"),
        ("horizon-mix:geometric", "geometric:RATIO", "horizon-mix:geometric:0.9"),
        ("horizon-mix:geometric:0.5,0.5", "geometric:RATIO", "horizon-mix:geometric:0.9"),
        ("horizon-mix:2", "[0, 1]", "horizon-mix:geometric:0.9"),
        ("horizon-mix:nan", "[0, 1]", "horizon-mix:geometric:0.9"),
        ("window-mix:0.5,0.5", "each of 5 inner steps, not 2", "window-mix:0.2,0.2,0.2,0.2,0.2"),
        ("truncation-mix:1,1,0,0,0", "sum to 1, not 2", "truncation-mix:0.5,0.5,0,0,0"),
        ("truncation-mix:2,-1,0,0,0", "at least 0", "truncation-mix:uniform"),
        ("truncation-mix:0,0,0,0,0", "sum to 1, not 0", "truncation-mix:uniform"),
        ("adaptive-mix:least-eror", "signal-to-noise, least-error", "adaptive-mix:least-error"),
        ("trace:1.5", "[0, 1]", "trace:0.9"),
        ("trace:nan", "[0, 1]", "trace:0.9"),
        ("trace:", "[0, 1]", "trace:0.9"),
        ("bootstrapped:6", "from 1 to", "bootstrapped:5"),
        ("random-truncation:0", "(0, 1]", "random-truncation:0.5"),
    ],
)
def test_other_texts_are_refused_with_what_is_accepted(text: str, accepted: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_estimator(text, LENGTH, "--estimators")
    assert (raised.value.field, raised.value.value) == ("--estimators", text)
    assert accepted in raised.value.accepted
    assert remedy in raised.value.remedy
    if "'" not in raised.value.remedy and " " not in raised.value.remedy:
        parse_estimator(raised.value.remedy, LENGTH)
    with pytest.raises(ConfigError) as raised:
        parse_estimator(text, LENGTH)
    assert raised.value.field == "meta.estimator"
    assert raised.value.remedy.startswith(("--meta.estimator ", "did you mean", "choose"))


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        ("mixed", "mixed", None),
        ("reverse", "reverse", "none"),
        ("reverse:none", "reverse", "none"),
        ("reverse:step", "reverse", "step"),
        ("reverse:4", "reverse", 4),
        ("forward", "forward", None),
        ("auto", "mixed", None),
    ],
)
def test_modes(text: str, name: str, argument: Any) -> None:
    spec = parse_mode(text, ROWS["unrolled"], LENGTH)
    assert (spec.row.name, spec.argument) == (name, argument)


@pytest.mark.parametrize(
    ("text", "estimator", "accepted"),
    [
        ("revers", "unrolled", "auto"),
        ("reverse:0", "unrolled", "from 1 to 10000"),
        ("reverse:steps", "unrolled", "step"),
        ("mixed:3", "unrolled", "no argument"),
        ("auto:3", "unrolled", "no argument"),
        ("mixed", "trace", "auto or forward"),
        ("reverse:step", "adaptive-mix", "auto or forward"),
    ],
)
def test_other_modes_are_refused(text: str, estimator: str, accepted: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_mode(text, ROWS[estimator], LENGTH)
    assert (raised.value.field, raised.value.value) == ("meta.mode", text)
    assert accepted in raised.value.accepted


def test_auto_serves_every_estimator() -> None:
    assert {row.name: parse_mode("auto", row, LENGTH).row.name for row in ESTIMATORS if row.modes[0] != "mixed"} == {
        "adaptive-mix": "forward",
        "trace": "forward",
    }


def test_references() -> None:
    assert parse_reference("longest", 5) == 5
    assert parse_reference("unroll:7", 5) == 7
    for text in ("unroll:4", "unroll", "pes", "7"):
        with pytest.raises(ConfigError, match="at least 5"):
            parse_reference(text, 5)


def test_help_lists_every_row() -> None:
    trained, measured = (" ".join(inspect.getsource(kind).split()) for kind in (MetaConfig, MeasureOptions))
    for row in (*ESTIMATORS, *MODES):
        assert usage(row) in trained
    for row in ESTIMATORS:
        assert (usage(row) in measured) == row.measurable


@pytest.mark.parametrize("row", [*ESTIMATORS, *MODES], ids=lambda row: row.name)
def test_every_row_is_built_by_what_it_names(row: Any) -> None:
    """What is said of modes and weights before JAX is there is what the class itself says."""
    constructor = resolve(row.constructor)
    parameters = [name for name in inspect.signature(constructor).parameters if name != "self"]
    needs = getattr(row, "needs", ())
    assert set(needs) <= set(parameters)
    assert len(parameters) >= len(needs) + (row.argument is not None)
