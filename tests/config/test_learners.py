"""What a learner's options say of hyper-parameters, and what follows from it elsewhere."""

import dataclasses
import math

import pytest

from gradweave.agents import ActorCriticEta, OuterObjective
from gradweave.cli.train import parse_config
from gradweave.config.hyperparameters import Range, hyperparameter
from gradweave.config.learners import LEARNERS, Learner
from gradweave.config.learners.actor_critic import HYPERPARAMETERS, InnerConfig, OuterConfig
from gradweave.config.learners.sections import InnerSection, NetworkSection, OuterSection
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.toml_file import config_from_dict
from gradweave.config.validation import find_problems
from gradweave.errors import ConfigError
from gradweave.training.build import build_agent


def with_inner(name: str, value: float, learned: tuple[str, ...]) -> Config:
    config = preset("quick")
    inner, meta = dataclasses.replace(config.inner, **{name: value}), dataclasses.replace(config.meta, learned=learned)
    return dataclasses.replace(config, inner=inner, meta=meta)


def test_the_learner_has_a_meta_parameter_for_each_row() -> None:
    assert tuple(HYPERPARAMETERS) == ActorCriticEta._fields
    assert LEARNERS["actor-critic"].hyperparameters == HYPERPARAMETERS


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_a_row_decides_what_is_accepted_and_where_it_is_learned(name: str) -> None:
    limits = HYPERPARAMETERS[name]
    others = tuple(other for other in HYPERPARAMETERS if other != name)
    for end in (limits.lower, limits.upper):
        for learned in (others, (name,)):
            problems = [problem.field for problem in find_problems(with_inner(name, end, learned))]
            accepted = limits.closed and learned is others and math.isfinite(end)
            assert problems == ([] if accepted else [f"inner.{name}"])
    agent = build_agent(with_inner(name, getattr(preset("quick").inner, name), (name,)))
    bijector = getattr(agent.spec, name)
    far = [float(bijector.forward(raw)) for raw in (-60.0, 60.0)]
    assert far[0] == pytest.approx(limits.lower, abs=1e-6)
    assert far[1] == pytest.approx(limits.upper, rel=1e-6) if math.isfinite(limits.upper) else far[1] > 1e3


@pytest.mark.parametrize(
    ("limits", "learned", "inside", "outside", "text"),
    [
        (Range(0.0, 1.0), False, (0.5,), (0, 1, math.nan), "(0, 1)"),
        (Range(0.0, 1.0, closed=True), False, (0, 0.5, 1), (-0.1, 1.1, math.nan), "[0, 1]"),
        (Range(0.0, 1.0, closed=True), True, (0.5,), (0, 1), "because it is learned"),
        (Range(0.0), False, (1e-9, 1e9), (0, -1, math.inf, math.nan), "above 0"),
        (Range(0.0, closed=True), False, (0, 1e9), (-1e-9, math.inf, math.nan), "at least 0"),
    ],
)
def test_ranges(limits: Range, learned: bool, inside: tuple[float, ...], outside: tuple[float, ...], text: str) -> None:
    assert all(limits.contains(value, learned=learned) for value in inside)
    assert not any(limits.contains(value, learned=learned) for value in outside)
    assert text in limits.describe(learned=learned)


def test_lambda_is_written_without_an_underscore() -> None:
    config = parse_config(["quick", "--inner.lambda", "0.5", "--outer.lambda", "0.25"])
    assert (config.inner.lambda_, config.outer.lambda_) == (0.5, 0.25)


def test_lambda_is_learned_by_that_name() -> None:
    flags = parse_config(["quick", "--meta.learned", "discount", "lambda"])
    file = config_from_dict({"meta": {"learned": ["discount", "lambda"]}})
    assert flags.meta.learned == file.meta.learned == ("discount", "lambda_")
    assert find_problems(flags) == []


def test_another_learner_brings_its_own_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Inner(InnerSection):
        clip: float = hyperparameter(0.2, 0.0)

    row = Learner("somewhere", NetworkSection, Inner, OuterSection, lambda *sections: iter(()))
    monkeypatch.setattr("gradweave.config.schema.LEARNERS", {**LEARNERS, "clipped": row})
    flags = parse_config(["quick", "--learner", "clipped", "--inner.clip", "0.3"])
    file = config_from_dict({"preset": "quick", "learner": "clipped", "inner": {"clip": 0.3}})
    assert flags == file
    assert flags.inner == Inner(clip=0.3)
    assert flags.environment == preset("quick").environment
    with pytest.raises(ConfigError) as caught:
        parse_config(["--learner", "cliped"])
    assert caught.value.field == "learner" and "clipped" in caught.value.remedy


def test_lambda_is_lambda_in_a_file_too() -> None:
    config = config_from_dict({"inner": {"lambda": 0.5}, "outer": {"lambda_": 0.25}})
    assert (config.inner.lambda_, config.outer.lambda_) == (0.5, 0.25)


def test_library_and_command_line_have_the_same_outer_loss() -> None:
    outer = OuterConfig()
    assert OuterObjective()._asdict() == {name: getattr(outer, name) for name in OuterObjective._fields}


def test_a_bare_configuration_is_a_plain_learner_that_can_be_run() -> None:
    config = Config()
    assert find_problems(config) == []
    assert config.meta.learned == () and config.environment.options == {}
    assert config.inner == InnerConfig() != preset("quick").inner
    assert not build_agent(config).learns
