"""What a sweep searches: ranges and choices, how they are written and which values they give."""

import itertools

import pytest

from gradweave.config.schema import Config
from gradweave.config.sweep_space import Span, candidates, check_names, parse_space, space_from_json, space_to_json
from gradweave.errors import ConfigError


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("inner.learning-rate=1e-5:0.1", Span(1e-5, 0.1, "log", whole=False)),
        ("inner.learning_rate=1e-5:0.1:even", Span(1e-5, 0.1, "even", whole=False)),
        ("inner.discount=0.9:0.999", Span(0.9, 0.999, "distance-to-1", whole=False)),
        ("inner.discount=0.9:0.999:log", Span(0.9, 0.999, "log", whole=False)),
        ("inner.lambda_=0.5:0.99", Span(0.5, 0.99, "distance-to-1", whole=False)),
        ("inner.lambda_=0.5:1", Span(0.5, 1.0, "log", whole=False)),  # 1 has no logarithm of its distance
        ("inner.entropy-cost=0:0.1", Span(0.0, 0.1, "even", whole=False)),
        ("inner.num-steps=4:32", Span(4.0, 32.0, "log", whole=True)),
        ("environment.options.time-limit=100:500", Span(100.0, 500.0, "log", whole=True)),
        ("inner.optimizer=adam,rmsprop", ("adam", "rmsprop")),
        ("meta.mode=mixed,reverse:step", ("mixed", "reverse:step")),
    ],
)
def test_an_entry_is_a_range_or_a_choice(entry, expected):
    config = Config()
    config.environment.options["time_limit"] = 200
    assert list(parse_space([], [entry], config).values()) == [expected]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("inner.learning-rate=0.1:0.01", "LOW below HIGH"),
        ("inner.learning-rate=0:inf", "LOW below HIGH"),
        ("inner.learning-rate=a:b", "two numbers with a colon"),
        ("inner.entropy-cost=0:1:log", "where LOW is above 0"),
        ("inner.learning-rate=0.1:1:square", "nothing after HIGH"),
        ("inner.num-steps=4:5.5", "whole numbers"),
        ("inner.learning-rate", "without spaces"),
        ("run.seed=0:5", "the same in all runs"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(entry, words):
    with pytest.raises(ConfigError, match=words):
        parse_space([], [entry], Config())


def test_a_field_is_called_as_its_flag_is():
    names = [*parse_space(["inner.lambda_=0.5,0.9"], ["--inner.learning_rate=0.1:0.2"], Config())]
    assert names == ["inner.lambda", "inner.learning-rate"]


def test_a_field_stands_there_once():
    with pytest.raises(ConfigError, match="every field once"):
        parse_space(["inner.discount=0.9,0.99"], ["inner.discount=0.9:0.99"], Config())


def test_values_have_four_digits_and_stay_within_their_range():
    rate = Span(1e-5, 0.012345, "log", whole=False)
    assert [rate.text(drawn) for drawn in (1.23456e-4, 0.012345)] == ["0.0001235", "0.012345"]
    discount = Span(0.8, 0.9991, "distance-to-1", whole=False)
    assert discount.ends == pytest.approx((0.0009, 0.2))
    assert [discount.text(drawn) for drawn in (*discount.ends, 0.0123456)] == ["0.9991", "0.8", "0.98765"]
    assert Span(4.0, 32.0, "log", whole=True).text(7) == "7"


def test_all_settings_of_a_grid_and_every_end_of_a_range_are_candidates():
    grid = {"inner.discount": ("0.5", "0.9"), "inner.optimizer": ("adam", "sgd", "rmsprop")}
    expected = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    assert candidates(grid) == expected
    mixed = {**grid, "inner.learning-rate": Span(0.1, 0.2, "log", whole=False)}
    assert candidates(mixed) == [
        {"inner.discount": "0.5", "inner.optimizer": "adam", "inner.learning-rate": "0.1"},
        {"inner.discount": "0.9", "inner.optimizer": "sgd", "inner.learning-rate": "0.2"},
        {"inner.discount": "0.5", "inner.optimizer": "rmsprop", "inner.learning-rate": "0.1"},
    ]


def test_names_tell_settings_apart_and_fit_a_folder():
    with pytest.raises(ConfigError, match="differ in letters"):
        check_names({"network.channels": ("8 8", "8/8")})
    with pytest.raises(ConfigError, match="fewer fields"):
        check_names({f"inner.field{index}": ("0.123456789",) for index in range(12)})


def test_a_space_is_read_as_it_was_written():
    space = parse_space(["inner.optimizer=adam,sgd"], ["inner.discount=0.9:0.99", "inner.num-steps=4:8"], Config())
    assert space_from_json(space_to_json(space)) == space


SPAN = {"low": 0.1, "high": 0.2, "scale": "log", "whole": False}


@pytest.mark.parametrize(
    "found",
    [
        None,
        {},
        {"inner.discount": []},
        {"inner.discount": [0.9]},
        {"inner.discount": {"low": 0.1}},
        *(
            {"x": {**SPAN, **change}}
            for change in ({"low": 0.3}, {"low": "a"}, {"scale": "x"}, {"low": 0}, {"whole": 1}, {"high": 1e999})
        ),
    ],
)
def test_what_is_no_space_is_refused(found):
    with pytest.raises(ValueError):
        space_from_json(found)
