"""Configuration files of earlier versions say the same in today's words."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gradweave.config.presets import preset
from gradweave.config.toml_file import config_from_dict, format_config, read_config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError

OLD = {
    "weights": "uniform",
    "mix_lambda": 0.9,
    "trace_decay": 0.9,
    "target_steps": 1,
    "follow_probability": 0.5,
    "remat": "none",
    "schedule_layers": [8],
}


def complete(**meta: Any) -> dict[str, Any]:
    """What a run of an earlier version left, with a section [meta] of today and the fields of then."""
    data = tomllib.loads(format_config(preset("quick")))
    data["meta"] |= OLD | meta
    return data


@pytest.mark.parametrize(
    ("meta", "estimator", "mode"),
    [
        ({}, "horizon-mix", "auto"),
        ({"weights": "geometric"}, "horizon-mix:geometric:0.9", "auto"),
        ({"weights": "geometric", "mix_lambda": 0.5}, "horizon-mix:geometric:0.5", "auto"),
        ({"weights": [0.5, 0.5, 0, 0, 0]}, "horizon-mix:0.5,0.5,0,0,0", "auto"),
        ({"estimator": "window-mix", "mix_lambda": 0.5}, "window-mix", "auto"),
        ({"estimator": "unrolled", "weights": "geometric"}, "unrolled", "auto"),
        ({"estimator": "truncated", "window": 3}, "truncated:3", "auto"),
        ({"estimator": "trace", "trace_decay": 0.5}, "trace:0.5", "auto"),
        ({"estimator": "trace"}, "trace", "auto"),
        ({"estimator": "bootstrapped", "target_steps": 2}, "bootstrapped:2", "auto"),
        ({"estimator": "random-truncation", "follow_probability": 0.25}, "random-truncation:0.25", "auto"),
        ({"mode": "reverse"}, "horizon-mix", "reverse"),
        ({"mode": "reverse", "remat": "step"}, "horizon-mix", "reverse:step"),
        ({"mode": "reverse", "remat": 3}, "horizon-mix", "reverse:3"),
    ],
)
def test_complete_files_are_translated(meta: dict[str, Any], estimator: str, mode: str) -> None:
    config = config_from_dict(complete(**meta))
    assert (config.meta.estimator, config.meta.mode) == (estimator, mode)
    validate(config)


def test_the_file_of_an_earlier_run_can_be_read() -> None:
    """complete.toml was written before tuners, guards and scaled rewards; a new field has to say what runs did then."""
    assert read_config(Path(__file__).with_name("complete.toml")) == preset("snake-6x6")


def test_partial_files_may_name_an_estimator_and_its_old_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[meta]\nestimator = "truncated"\nwindow = 2\nmode = "reverse"\nremat = 2\n')
    config = read_config(path)
    assert (config.meta.estimator, config.meta.mode) == ("truncated:2", "reverse:2")


@pytest.mark.parametrize(
    "line", ['weights = "geometric"', "window = 3", 'estimator = "trace"\ntarget_steps = 2', "remat = 2"]
)
def test_other_partial_files_are_told_how_it_is_written_today(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine.toml").write_text(f"[meta]\n{line}\n")
    with pytest.raises(ConfigError) as raised:
        read_config(tmp_path / "mine.toml")
    assert raised.value.field == "meta." + line.rpartition("\n")[2].partition(" ")[0]
    assert "truncated:3" in raised.value.accepted


def test_a_size_that_is_gone_is_refused_where_it_counts() -> None:
    assert config_from_dict(complete(schedule_layers=[3])) == preset("quick")
    with pytest.raises(ConfigError) as raised:
        config_from_dict(complete(schedule="network", schedule_layers=[3]))
    assert (raised.value.field, raised.value.value) == ("meta.schedule_layers", [3])


def test_todays_files_are_left_alone() -> None:
    config = config_from_dict(tomllib.loads(format_config(preset("snake-6x6"))))
    assert config == preset("snake-6x6")


def test_an_environments_options_were_beside_its_name() -> None:
    data = complete()
    del data["learner"]
    data["environment"] = {"name": "snake", "num_rows": 4, "grid_only": False, "action_mask": True}
    config = config_from_dict(data)
    assert config.environment.options == {"num_rows": 4}
    assert config.learner == "actor-critic"
    data["environment"] = {"name": "snake", "num_rows": 4, "grid_only": True, "action_mask": False}
    assert config_from_dict(data).environment.options == {"num_rows": 4, "grid_only": True, "action_mask": False}
    partial = config_from_dict({"preset": "quick", "environment": {"num_rows": 4}})
    assert partial.environment.options == {**preset("quick").environment.options, "num_rows": 4}


def test_a_complete_file_may_lack_what_was_added_since() -> None:
    text = format_config(preset("quick")).replace('finish = "all"\n', "")
    assert "finish" not in text
    assert config_from_dict(tomllib.loads(text)) == preset("quick")
    with pytest.raises(ConfigError, match=r"run\.seed"):
        config_from_dict(tomllib.loads(text.replace("seed = 0\n", "")))


@pytest.mark.parametrize(("clip_values", "expected"), [(False, 0.2), (True, 0.3)])
def test_values_of_ppo_had_the_clip_range_of_the_ratio(clip_values, expected):
    config = preset("ppo")
    inner = dataclasses.replace(config.inner, clip_values=clip_values, clip_range=0.3)
    data = tomllib.loads(format_config(dataclasses.replace(config, inner=inner)))
    del data["inner"]["value_clip_range"]
    found = config_from_dict(data)
    assert found.inner == dataclasses.replace(inner, value_clip_range=expected)
    validate(found)
