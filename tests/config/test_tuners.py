"""Tuners by name: what is understood and what is refused with a remedy."""

import pytest

from gradweave.config.configure import configure
from gradweave.config.learners import LEARNERS
from gradweave.config.tuners import parse_tuner
from gradweave.errors import ConfigError

HYPERPARAMETERS = LEARNERS["actor-critic"].hyperparameters
PPO = LEARNERS["ppo"].hyperparameters


@pytest.mark.parametrize(
    ("text", "name", "tuner", "argument"),
    [
        ("learning_rate=kl", "learning_rate", "kl", 0.01),
        ("learning_rate=kl:0.5", "learning_rate", "kl", 0.5),
        ("learning_rate=kl:0.001,0.02", "learning_rate", "kl", (0.001, 0.02)),
        ("learning_rate=kl-anneal", "learning_rate", "kl-anneal", 0.1),
        ("learning_rate=kl-anneal:0.02", "learning_rate", "kl-anneal", 0.02),
        ("entropy_cost=target-entropy:1", "entropy_cost", "target-entropy", 1.0),
        ("entropy_cost=entropy-share", "entropy_cost", "entropy-share", 0.5),
        ("entropy_cost=entropy-share:0.5,3e-3,0.03", "entropy_cost", "entropy-share", (0.5, 3e-3, 0.03)),
        ("lambda=return-choice:0.5,1", "lambda_", "return-choice", (0.5, 1.0)),
        ("clip_range=return-choice:0.1,0.2,0.3", "clip_range", "return-choice", (0.1, 0.2, 0.3)),
        ("clip_range=evolution", "clip_range", "evolution", 0.3),
        ("entropy_cost=bounds:0,0.03", "entropy_cost", "bounds", (0.0, 0.03)),
    ],
)
def test_what_is_understood(text, name, tuner, argument) -> None:
    found, spec = parse_tuner(text, PPO if name == "clip_range" else HYPERPARAMETERS)
    assert (found, spec.row.name, spec.argument) == (name, tuner, argument)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("learning_rate", "--meta.tuners learning_rate=kl:0.01"),
        ("learning_rat=kl:0.1", "--meta.tuners learning_rate=kl:0.1"),
        ("learning_rate=kl:0", "--meta.tuners learning_rate=kl:0.01"),
        ("learning_rate=kl:0.02,0.01", "--meta.tuners learning_rate=kl:0.01"),
        ("learning_rate=kl:0.01,0.01", "--meta.tuners learning_rate=kl:0.01"),
        ("learning_rate=kl:0.01,11", "--meta.tuners learning_rate=kl:0.01"),
        ("learning_rate=kl-anneal:0", "--meta.tuners learning_rate=kl-anneal:0.1"),
        ("learning_rate=kl-anneal:0.01,1", "--meta.tuners learning_rate=kl-anneal:0.1"),
        ("learning_rate=kl:x", "--meta.tuners learning_rate=kl:0.01"),
        ("learning_rate=kll", "--meta.tuners learning_rate=kl"),
        ("learning_rate=kl-aneal:0.1", "--meta.tuners learning_rate=kl-anneal"),
        ("discount", "--meta.tuners discount=return-choice:0.9,0.99"),
        ("discount=kl:0.1", "--meta.tuners discount=return-choice:0.9,0.99"),
        ("lambda=return-choice:0.9", "--meta.tuners lambda=return-choice:0.9,0.99"),
        ("lamda=return-choice:0.8,0.9", "--meta.tuners lambda=return-choice:0.8,0.9"),
        ("entropy_cost=entropy-share:0.5,0.03,0.03", "--meta.tuners entropy_cost=entropy-share:0.5"),
        ("entropy_cost=entropy-share:0.5,0,0.03", "--meta.tuners entropy_cost=entropy-share:0.5"),
        ("entropy_cost=entropy-share:1.5,0.01,0.03", "--meta.tuners entropy_cost=entropy-share:0.5"),
        ("entropy_cost=entropy-share:0.5,0.1", "--meta.tuners entropy_cost=entropy-share:0.5"),
        ("entropy_cost=entropy-share:0", "--meta.tuners entropy_cost=entropy-share:0.5"),
        ("entropy_cost=entropy-share:x", "--meta.tuners entropy_cost=entropy-share:0.5"),
        ("learning_rate=return-choice", "--meta.tuners learning_rate=return-choice:3e-4,1e-3"),
        ("learning_rate=return-choice:1,1", "--meta.tuners learning_rate=return-choice:3e-4,1e-3"),
        ("discount=return-choice:0.9,1.1", "give others"),
        ("discount=bounds:0.9,1.1", "give others"),
        ("discount=bounds", "--meta.tuners discount=bounds:0.9,0.99"),
        ("discount=bounds:0.9", "--meta.tuners discount=bounds:0.9,0.99"),
        ("discount=bounds:0.9,0.9", "--meta.tuners discount=bounds:0.9,0.99"),
        ("entropy_cost=bounds:x", "--meta.tuners entropy_cost=bounds:1e-4,1e-3"),
        ("discount=bounds:0.9,0.95,1", "--meta.tuners discount=bounds:0.9,0.99"),
    ],
)
def test_what_is_refused(text, remedy) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tuner(text, HYPERPARAMETERS)
    assert caught.value.field == "meta.tuners" and caught.value.remedy == remedy
    assert "lambda_" not in caught.value.accepted
    if remedy.startswith("--meta.tuners "):
        parse_tuner(remedy.split()[1], HYPERPARAMETERS)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("clip_range", "--meta.tuners clip_range=return-choice:0.1,0.2,0.3"),
        ("clip_range=kl", "--meta.tuners clip_range=return-choice:0.1,0.2,0.3"),
        ("clip_range=return-choice:0.2", "--meta.tuners clip_range=return-choice:0.1,0.2,0.3"),
        ("clip_range=return-choice:0,0.2", "give others"),
    ],
)
def test_what_is_refused_of_a_clip_range(text, remedy) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tuner(text, PPO)
    assert caught.value.remedy == remedy
    with pytest.raises(ConfigError, match="NAME one of"):
        parse_tuner("clip_range=return-choice:0.1,0.2", HYPERPARAMETERS)


@pytest.mark.parametrize(
    ("meta", "accepted"),
    [
        ({"learned": ("discount",), "tuners": ("discount=return-choice:0.9,0.99",)}, "by the meta-gradient"),
        ({"learned": (), "tuners": ("learning_rate=kl", "learning_rate=kl:0.1")}, "by another tuner"),
        ({"learned": ("discount",), "tuners": ("learning_rate=kl",), "schedule": "network"}, "none with a schedule"),
    ],
)
def test_what_does_not_go_together(meta, accepted) -> None:
    with pytest.raises(ConfigError, match=accepted):
        configure("quick", meta=meta)


def test_names_of_what_moves() -> None:
    config = configure("quick", meta={"learned": ("discount",), "tuners": ("entropy_cost=target-entropy",)})
    assert config.moving_names == ("discount", "entropy_cost")
    assert config.untuned().moving_names == ()


@pytest.mark.parametrize("name", ["auxiliary_cost", "auxiliary_discount", "auxiliary_lambda"])
def test_numbers_that_every_head_has_of_its_own_have_no_tuner(name) -> None:
    meta = {"learned": (), "tuners": (f"{name}=return-choice:0.1,0.2",)}
    with pytest.raises(ConfigError, match="every auxiliary head") as caught:
        configure("vtrace", inner={"auxiliary_heads": 2}, meta=meta)
    assert caught.value.field == "meta.tuners" and "--meta.learned" in caught.value.remedy
