"""Configurations: presets, TOML files, and every bad value refused with its field and a remedy."""

import copy
import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradweave.config.learners.actor_critic import has_outer_critic
from gradweave.config.presets import PRESETS, preset
from gradweave.config.schema import Config, EnvironmentConfig
from gradweave.config.toml_file import config_from_dict, format_config, read_config, typed, write_config
from gradweave.config.validation import find_problems, validate
from gradweave.errors import ConfigError, nearest_name


def changed(field: str, value: Any, **others: Any) -> Config:
    """The quick preset with one field changed; others as section__name."""
    config = preset("quick")
    for name, entry in {field.replace(".", "__"): value, **others}.items():
        if "__" not in name:
            config = dataclasses.replace(config, **{name: entry})
            continue
        section, name, *option = name.split("__")
        before = getattr(config, section)
        entry = {**getattr(before, name), option[0]: entry} if option else entry
        config = dataclasses.replace(config, **{section: dataclasses.replace(before, **{name: entry})})
    return config


def unchecked(field: str, value: Any, **others: Any) -> Config:
    """The quick preset with values of any type, which the annotations checked in tests would refuse."""
    config = copy.deepcopy(preset("quick"))
    for name, entry in {field: value, **others}.items():
        section, _, last = name.rpartition(".")
        object.__setattr__(getattr(config, section) if section else config, last, entry)
    return config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_a_file(name: str, tmp_path: Path) -> None:
    config = preset(name)
    assert config.preset == name
    validate(config)
    write_config(config, tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml") == config


def test_files_keep_none_where_the_preset_has_a_value(tmp_path: Path) -> None:
    config = dataclasses.replace(preset("snake-6x6"), meta=dataclasses.replace(preset("snake-6x6").meta))
    config = dataclasses.replace(config, meta=dataclasses.replace(config.meta, max_grad_norm=None))
    assert preset("snake-6x6").meta.max_grad_norm is not None
    write_config(config, tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml").meta.max_grad_norm is None


def test_partial_files_change_only_what_they_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "snake-6x6"\n[inner]\nnum_envs = 8\ndiscount = 0.5\n[meta]\nestimator = "trace:0.5"\n')
    config = read_config(path)
    base = preset("snake-6x6")
    assert config == dataclasses.replace(
        base,
        inner=dataclasses.replace(base.inner, num_envs=8, discount=0.5),
        meta=dataclasses.replace(base.meta, estimator="trace:0.5"),
    )
    assert read_config(path, "quick").preset == "quick"


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        ("[inner]\nnum_env = 8", "inner.num_env", "inner.num_envs"),
        ("[iner]\nnum_envs = 8", "iner", "inner"),
        ('[inner]\nnum_envs = "8"', "inner.num_envs", "type"),
        ("[inner]\nnum_envs = 8.5", "inner.num_envs", "type"),
        ("[inner]\nnum_envs = true", "inner.num_envs", "type"),
        ("[network]\nchannels = [1, 2.5]", "network.channels", "type"),
        ('[inner]\noptimizer = "adamw"', "inner.optimizer", "type"),
        ("inner = 3", "inner", "[inner]"),
        ('preset = "snak"', "preset", "snake"),
        ("preset = ", "config.toml", "correct it"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, field: str, remedy: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_config(tmp_path / "bad.toml")
    assert raised.value.field == field
    assert remedy in raised.value.remedy


def test_a_file_of_another_environment_leaves_the_presets_board_behind(tmp_path: Path) -> None:
    path = tmp_path / "chain.toml"
    path.write_text('[environment]\nname = "discounting-chain"\n')
    assert read_config(path).environment.options == {}
    validate(read_config(path))
    path.write_text('preset = "quick"\n[environment]\nname = "snake"\nnum_rows = 6\n')
    assert read_config(path).environment.options == {"num_rows": 6, "num_cols": 12, "time_limit": 4000}


@pytest.mark.parametrize(("line", "field"), [('outer_torso = "detached"\n', "network.outer_torso"), ("", "network")])
def test_a_complete_file_does_not_take_todays_defaults(tmp_path: Path, line: str, field: str) -> None:
    text = format_config(preset("quick"))
    start, end = text.index("[network]"), text.index("[inner]")
    assert line in text
    (tmp_path / "old.toml").write_text(text.replace(line, "") if line else text[:start] + text[end:])
    with pytest.raises(ConfigError, match="complete = true") as raised:
        read_config(tmp_path / "old.toml")
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("run.total_steps", "400", "a whole number"),
        ("run.total_steps", 1.5, "a whole number"),
        ("run.total_steps", None, "a whole number"),
        ("run.devices", "two", "'all'"),
        ("run.track", "bogus", "tensorboard"),
        ("run.runs_dir", Path("runs"), "a string"),
        ("inner.discount", "0.9", "a number"),
        ("inner.optimizer", 3, "'adam'"),
        ("network.channels", 16, "a list"),
        ("environment.options", 3, "a table"),
        ("learner", 3, "a string"),
        ("run", None, "RunConfig"),
    ],
)
def test_a_replaced_field_has_the_type_that_a_file_would_give_it(field: str, value: Any, accepted: str) -> None:
    with pytest.raises(ConfigError, match=accepted) as raised:
        validate(unchecked(field, value))
    assert raised.value.field == field


def test_numbers_of_numpy_and_whole_floats_become_python_numbers(tmp_path: Path) -> None:
    given = {"run.seed": np.int64(3), "inner.discount": np.float32(0.5), "run.devices": 1.0}
    config = typed(unchecked("run.total_steps", 1e6, **given, **{"network.channels": [np.int32(4), 8.0]}))
    write_config(config, tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml") == config
    numbers = (config.run.total_steps, config.run.seed, config.inner.discount, config.run.devices)
    assert numbers == (1_000_000, 3, 0.5, 1) and [type(one) for one in numbers] == [int, int, float, int]
    assert config.network.channels == (4, 8)
    assert typed(config) == config
    with pytest.raises(ConfigError, match="a whole number"):  # the float itself would be written
        validate(unchecked("run.total_steps", 1e6))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"inner__optimizer": "rmsprop", "inner__eps": 0.0}, "inner.eps"),
        ({"inner__optimizer": "rmsprop", "inner__eps_root": 1e-8}, "inner.eps_root"),
        ({"meta__estimator": "trace", "meta__mode": "mixed"}, "meta.mode"),
        ({"meta__estimator": "trace", "meta__sampling_correction": 0.1}, "meta.sampling_correction"),
        ({"meta__sampling_correction": 0.1, "outer__standardize_advantages": True}, "meta.sampling_correction"),
    ],
)
def test_pairs_that_do_not_go_together_are_refused(changes: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in find_problems(changed("run.seed", 0, **changes))] == [field]


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "absent.toml")


def test_formatting_is_deterministic_and_valid_toml() -> None:
    text = format_config(preset("quick"))
    assert text == format_config(preset("quick"))
    assert config_from_dict(tomllib.loads(text)) == preset("quick")


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("preset", "quikc", "quick"),
        ("environment.name", "snaek", "snake"),
        ("environment.name", "SearchAndRescue-v0", "jumanji:SearchAndRescue-v0"),
        ("environment.options.num_rows", 1, "--environment.options.num-rows"),
        ("network.strides", (2,), "--network.strides 2 2"),
        ("network.channels", (0, 16), "--network.channels"),
        ("network.kernel_size", 0, "--network.kernel-size"),
        ("inner.num_envs", 0, "--inner.num-envs"),
        ("inner.num_steps", -1, "--inner.num-steps"),
        ("inner.discount", 1.0, "--inner.discount"),
        ("inner.discount", 0.0, "--inner.discount"),
        ("inner.discount", math.nan, "--inner.discount"),
        ("inner.lambda_", 1.0, "--inner.lambda"),
        ("inner.entropy_cost", 0.0, "--inner.entropy-cost"),
        ("inner.value_cost", -1.0, "--inner.value-cost"),
        ("inner.learning_rate", 0.0, "--inner.learning-rate"),
        ("inner.learning_rate", math.inf, "--inner.learning-rate"),
        ("inner.eps_root", 0.0, "--inner.eps-root"),
        ("inner.rmsprop_decay", 1.0, "--inner.rmsprop-decay"),
        ("inner.max_grad_norm", 0.0, "--inner.max-grad-norm"),
        ("meta.learned", ("discont",), "discount"),
        ("meta.learned", ("discount", "discount"), "--meta.learned discount"),
        ("meta.learned", ("zzz",), "set --meta.learned to some of these"),
        ("meta.max_discount", 1.5, "--meta.max-discount"),
        ("meta.max_discount", 0.9, "--inner.discount"),  # where it starts
        ("meta.num_inner_steps", 0, "--meta.num-inner-steps"),
        ("meta.estimator", "horizon-mix:1,1,0,0,0", "--meta.estimator horizon-mix:0.5,0.5,0,0,0"),
        ("meta.estimator", "truncated:6", "--meta.estimator truncated:5"),
        ("meta.mode", "reverse:0", "--meta.mode reverse:step"),
        ("inner.rmsprop_decay", 0.5, "--inner.optimizer rmsprop"),
        ("meta.learning_rate", 0.0, "--meta.learning-rate"),
        ("outer.discount", 1.1, "--outer.discount"),
        ("outer.lambda_", -0.1, "--outer.lambda"),
        ("outer.value_cost", -0.1, "--outer.value-cost"),
        ("inner.microbatches", 3, "leave --inner.microbatches out"),
        ("run.seed", -1, "--seed"),
        ("run.total_steps", 1599, "--total-steps 1600"),
        ("run.log_every", 0, "--log-every"),
        ("run.checkpoint_every", -1, "--checkpoint-every"),
        ("run.runs_dir", "", "--runs-dir"),
    ],
)
def test_bad_values_name_their_field_and_a_remedy(field: str, value: Any, remedy: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(changed(field, value))
    assert raised.value.field == field
    assert remedy in raised.value.remedy
    assert raised.value.others == ()
    assert raised.value.exit_code == 2
    for part in (field.rstrip("_"), raised.value.accepted, raised.value.remedy):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value", "others"),
    [
        ("outer.discount", 1.0, {}),
        ("outer.lambda_", 0.0, {}),
        ("inner.lambda_", 1.0, {"meta__learned": ("discount",)}),
        ("inner.entropy_cost", 0.0, {"meta__learned": ("discount",)}),
        ("inner.eps_root", 0.0, {"inner__optimizer": "sgd"}),
        ("meta.max_discount", 0.997, {}),
        ("meta.estimator", "truncated:5", {}),
        ("meta.estimator", "horizon:2", {"meta__sampling_correction": 0.5}),
        ("meta.mode", "reverse:2", {}),
        ("meta.learned", (), {}),
        ("run.total_steps", 3200, {}),
    ],
)
def test_values_at_the_edge_are_accepted(field: str, value: Any, others: dict[str, Any]) -> None:
    assert find_problems(changed(field, value, **others)) == []


@pytest.mark.parametrize(("field", "value"), [("outer.value_cost", 0.5), ("inner.max_grad_norm", 1.0)])
def test_a_detached_critic_that_would_lose_a_derivative_is_refused(field: str, value: float) -> None:
    (problem,) = find_problems(changed(field, value))
    assert (problem.field, problem.remedy) == ("network.outer_torso", "--network.outer-torso own")
    assert field in problem.accepted
    assert find_problems(changed(field, value, network__outer_torso="own")) == []
    assert find_problems(changed(field, value, outer__critic="off")) == []


def test_what_has_no_derivative_is_left_to_tuners() -> None:
    ppo = preset("ppo")

    def with_meta(**meta: Any) -> Config:
        return dataclasses.replace(ppo, meta=dataclasses.replace(ppo.meta, **meta))

    (problem,) = find_problems(with_meta(learned=("clip_range",)))
    assert problem.field == "meta.learned"
    assert "some of discount, lambda, " in problem.accepted and "derivative" in problem.accepted
    flag, tuner = problem.remedy.split()[-2:]
    assert flag == "--meta.tuners" and tuner.startswith("clip_range=")
    assert find_problems(with_meta(learned=(), tuners=(tuner,))) == []
    (misspelled,) = find_problems(with_meta(learned=("clip_rang",)))
    assert "clip_range" not in misspelled.accepted + misspelled.remedy


def test_minibatches_that_do_not_divide_name_the_nearest_number_below() -> None:
    ppo = preset("ppo")
    inner = dataclasses.replace(ppo.inner, num_minibatches=16, num_envs=24)
    memory = dataclasses.replace(ppo.network, memory="gru")
    (problem,) = find_problems(dataclasses.replace(ppo, inner=inner, network=memory))
    assert problem.remedy == "--inner.num-minibatches 12"


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        validate(changed("inner.discount", 2.0, outer__lambda_=2.0, run__seed=-1))
    assert [raised.value.field, *(other.field for other in raised.value.others)] == [
        "inner.discount",
        "outer.lambda_",
        "run.seed",
    ]
    assert "outer.lambda = 2.0" in str(raised.value)
    assert "lambda_" not in str(raised.value)


def test_environments_must_divide_over_devices() -> None:
    validate(preset("quick"), num_processes=8)
    with pytest.raises(ConfigError, match=r"--inner\.num-envs 66"):
        validate(preset("quick"), num_processes=6)


def test_options_of_another_environment_are_refused() -> None:
    problems = find_problems(changed("environment.name", "discounting-chain"))
    assert {problem.field for problem in problems} == {
        "environment.options.num_rows",
        "environment.options.num_cols",
        "environment.options.time_limit",
    }


def test_options_are_handed_on_as_the_environment_takes_them() -> None:
    assert preset("snake-6x6").environment.options == {
        "num_rows": 6,
        "num_cols": 6,
        "time_limit": 500,
        "grid_only": True,
        "action_mask": False,
    }
    assert "grid_only" not in preset("quick").environment.options
    chain = EnvironmentConfig("discounting-chain", {"best_chain": 5})
    (problem,) = find_problems(dataclasses.replace(preset("discounting-chain"), environment=chain))
    assert problem.field == "environment.options.best_chain"
    assert problem.accepted == "a whole number from 0 to 4"


def test_a_suite_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = preset("discounting-chain")
    chosen = dataclasses.replace(chosen, environment=dataclasses.replace(chosen.environment, name="gymnax:Pong-misc"))
    monkeypatch.setattr("gradweave.envs.suites.find_spec", lambda name: None)
    (problem,) = find_problems(chosen)
    assert "gymnax>=1.0" in problem.remedy


def test_derived_values() -> None:
    config = preset("quick")
    assert config.window_steps == 64 * 5 * 5
    assert config.num_meta_steps == math.ceil(config.run.total_steps / config.window_steps)
    for expected, settings in (
        (True, config),
        (False, changed("outer.critic", "off")),
        (False, changed("meta.learned", ("learning_rate",))),
        (True, changed("outer.critic", "on", meta__learned=("learning_rate",))),
    ):
        assert has_outer_critic(settings.outer, settings.meta.learned) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("quikc", "quick"), ("sn", "snake"), ("zzzz", None), ("", None), ("snake", "snake")]
)
def test_nearest_name(name: str, expected: str | None) -> None:
    assert nearest_name(name, ["quick", "snake"]) == expected


def test_outer_rollouts_of_their_own_are_counted() -> None:
    config = preset("snake-6x6")
    assert config.own_outer_rollouts and config.window_steps == 2 * 512 * 5
    following = dataclasses.replace(config, outer=dataclasses.replace(config.outer, rollout="next"))
    plain = dataclasses.replace(config, meta=dataclasses.replace(config.meta, learned=()))
    assert following.window_steps == plain.window_steps == 512 * 5
    assert find_problems(plain) == []


def test_a_sampling_correction_needs_the_next_rollout() -> None:
    config = preset("snake-6x6")
    config = dataclasses.replace(config, meta=dataclasses.replace(config.meta, sampling_correction=0.5))
    assert [problem.field for problem in find_problems(config)] == ["meta.sampling_correction"]


def test_the_published_setting_has_every_constant_of_the_public_code() -> None:
    """Of instadeepai/outer-value-function-meta-rl at eda5463: snake/configs, snake/networks/cnn.py, setup_run.py."""
    config = preset("snake-6x6")
    environment = config.environment.options
    network, inner, meta, outer = (vars(getattr(config, name)) for name in ("network", "inner", "meta", "outer"))
    published = (
        (environment, {"num_rows": 6, "num_cols": 6, "time_limit": 500, "grid_only": True, "action_mask": False}),
        (network, {"channels": (32, 32), "strides": (2, 1), "kernel_size": 2, "shared_torso": False}),
        (network, {"policy_layers": (64, 64), "value_layers": (128, 128), "policy_scale": 1.0, "outer_torso": "own"}),
        (inner, {"num_envs": 512, "num_steps": 5, "optimizer": "rmsprop", "rmsprop_decay": 0.9, "eps": 1e-8}),
        (inner, {"learning_rate": 5e-4, "discount": 0.8, "lambda_": 0.95, "value_cost": 0.5, "entropy_cost": 0.01}),
        (inner, {"max_grad_norm": None}),
        (meta, {"learned": ("discount",), "optimizer": "adam", "learning_rate": 3e-3, "eps_root": 1e-8}),
        (meta, {"max_grad_norm": 0.1, "num_inner_steps": 1, "estimator": "unrolled"}),
        (outer, {"discount": 1.0, "lambda_": 1.0, "value_cost": 0.0, "entropy_cost": 0.0, "kl_cost": 0.0}),
        (outer, {"rollout": "own", "standardize_advantages": False, "critic_cost": inner["value_cost"]}),
    )
    for section, expected in published:
        assert {name: section[name] for name in expected} == expected
    assert has_outer_critic(config.outer, config.meta.learned)
