"""Options of environments on the command line, before any parser."""

from typing import Any

import pytest

from gradweave.cli.environment_flags import merged, take_environment_options
from gradweave.cli.train import parse_config
from gradweave.config.presets import preset


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--environment.options.num-rows 6", {"num_rows": 6}),
        ("--environment.num_rows=6", {"num_rows": 6}),
        ("--environment.num-rows None", {"num_rows": None}),
        ("--environment.options.grid-only", {"grid_only": True}),
        ("--environment.no-grid-only", {"grid_only": False}),
        ("--environment.options.no-action-mask", {"action_mask": False}),
        ("--environment.options.action-mask False", {"action_mask": False}),
        ("--environment.grid-only True", {"grid_only": True}),
        ("--environment.options.mass 1.5 --environment.options.kind tall", {"mass": 1.5, "kind": "tall"}),
        ("--environment.options.no-wind 1", {"no_wind": 1}),
        ("--environment.options.last", {"last": True}),
        ("--environment.options.name tall", {"name": "tall"}),
        ("--environment.options.name=tall", {"name": "tall"}),
        ("--environment.options.step-cost -0.5", {"step_cost": -0.5}),  # a switch of another environment's
        ("--environment.step-cost", {"step_cost": True}),
    ],
)
def test_every_way_to_write_an_option(words: str, options: dict[str, Any]) -> None:
    rest = ["snake", "--environment.name", "snake", "--seed", "1"]
    assert take_environment_options([*rest, *words.split()]) == (rest, options)
    assert take_environment_options([*words.split(), *rest[1:]]) == (rest[1:], options)


def test_a_switch_does_not_swallow_the_preset() -> None:
    assert take_environment_options(["--environment.grid-only", "snake"]) == (["snake"], {"grid_only": True})


def test_none_takes_an_option_back() -> None:
    assert merged({"num_rows": 6, "num_cols": 6}, {"num_rows": None, "time_limit": 9}) == {
        "num_cols": 6,
        "time_limit": 9,
    }


def test_options_change_what_the_preset_has() -> None:
    config = parse_config(["snake-6x6", "--environment.options.time-limit", "9", "--environment.grid-only", "None"])
    expected = {**preset("snake-6x6").environment.options, "time_limit": 9}
    del expected["grid_only"]
    assert config.environment.options == expected
