"""`--meta.preset auto`: where it stands between presets, files and flags."""

import dataclasses

import pytest

from gradweave.cli.train import parse_config
from gradweave.config.auto import lost_auto, with_auto
from gradweave.config.configure import configure
from gradweave.config.learners import LEARNERS
from gradweave.config.presets import preset
from gradweave.config.toml_file import read_config, write_config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError


@pytest.mark.parametrize("name", ["ppo", "quick"])
def test_it_replaces_what_the_preset_tunes(name):
    config = parse_config([name, "--meta.preset", "auto"])
    assert config == with_auto(preset(name))
    assert (config.meta.learned, config.meta.preset) == ((), "auto")
    assert config.meta.tuners == LEARNERS[config.learner].auto["tuners"]
    validate(config)


def test_what_it_is():
    """As docs/auto.md has measured it."""
    assert with_auto(preset("quick")).meta.tuners == ("learning_rate=kl-anneal:0.003",)
    assert with_auto(preset("ppo")).meta.tuners == (
        *("learning_rate=kl-anneal", "entropy_cost=bounds:0.003,0.03"),
        *("lambda=bounds:0.95,1", "value_clip_range=error-scale"),
    )


def test_what_it_tunes_is_not_learned_as_well():
    for name in ("learning_rate", "entropy_cost", "lambda"):
        with pytest.raises(ConfigError, match=r"--meta\.preset none"):
            validate(parse_config(["ppo", "--meta.preset=auto", "--meta.learned", name]))


def test_flags_change_it_further():
    config = parse_config(["ppo", "--meta.preset=auto", "--meta.learned", "discount", "--meta.no-guard"])
    assert config.meta.learned == ("discount",)
    assert not config.meta.guard
    assert config.meta.tuners == LEARNERS["ppo"].auto["tuners"]


def test_files_and_calls_have_it_too(tmp_path):
    assert configure("ppo", meta={"preset": "auto"}) == with_auto(preset("ppo"))
    (tmp_path / "short.toml").write_text('preset = "ppo"\n[meta]\npreset = "auto"\nguard = false\n')
    assert not read_config(tmp_path / "short.toml").meta.guard
    changed = parse_config(["ppo", "--meta.preset", "auto", "--meta.no-guard"])
    write_config(changed, tmp_path / "whole.toml")
    assert read_config(tmp_path / "whole.toml") == changed  # what a run had, and not what auto is by then


def test_the_preset_of_this_name_is_ppo_with_it():
    auto = preset("auto")
    assert dataclasses.replace(auto, preset="ppo") == with_auto(preset("ppo"))
    assert parse_config(["auto", "--learner", "actor-critic"]).meta.tuners == LEARNERS["actor-critic"].auto["tuners"]
    assert parse_config(["auto", "--learner", "vtrace"]).meta == auto.untuned().meta
    with pytest.raises(ConfigError, match=r"--meta\.preset none"):
        parse_config(["auto", "--learner", "vtrace", "--meta.preset", "auto"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learner", "vtrace"], True),
        (["auto", "--learner", "vtrace", "--inner.num-envs", "8"], True),
        (["--learner", "vtrace", "--meta.learned", "alpha"], False),
        (["--learner", "actor-critic"], False),
        (["vtrace"], False),
        ([], False),
    ],
)
def test_a_learner_without_one_is_said_to_tune_nothing(words, said):
    note = lost_auto(parse_config(words), None)
    assert said == (note is not None and "vtrace has no auto" in note and "--meta.learned" in note)
    assert lost_auto(parse_config(words), "none") is None, "that was asked for"


def test_the_same_learner_named_again_changes_nothing(tmp_path):
    (tmp_path / "mine.toml").write_text('[meta]\nlearned = ["discount"]\n')
    mine = ["--config", str(tmp_path / "mine.toml")]
    assert parse_config([*mine, "--learner", "ppo"]) == parse_config(mine)
    assert parse_config(mine).meta.learned == ("discount",)


@pytest.mark.parametrize("learner", list(LEARNERS))
def test_none_takes_it_away(learner, tmp_path):
    words = ["auto", "--meta.preset", "none", "--learner", learner]
    assert parse_config(words).meta == preset("auto").untuned().meta
    (tmp_path / "short.toml").write_text('[meta]\npreset = "none"\nlearned = ["learning_rate"]\n')
    found = read_config(tmp_path / "short.toml").meta
    assert (found.learned, found.tuners, found.guard, found.preset) == (("learning_rate",), (), False, "none")
    assert parse_config(["quick", "--meta.preset", "none"]) == preset("quick")


def test_an_unknown_one_is_refused():
    with pytest.raises(ConfigError, match="auto"):
        configure("ppo", meta={"preset": "magic"})


def test_plain_learning_is_not_tuned():
    assert with_auto(preset("ppo")).untuned().meta.preset == "none"


def test_a_learner_of_which_nothing_is_known_has_none(monkeypatch):
    monkeypatch.setitem(LEARNERS, "ppo", dataclasses.replace(LEARNERS["ppo"], auto={}))
    with pytest.raises(ConfigError, match="choose --meta"):
        with_auto(preset("ppo"))


def test_what_auto_tunes_and_is_to_be_learned_names_the_preset():
    with pytest.raises(ConfigError) as caught:
        configure("auto", meta={"learned": ("learning_rate",)})
    assert "--meta.preset none" in caught.value.remedy
    assert configure("auto", meta={"preset": "none", "learned": ("learning_rate",)}).meta.tuners == ()


@pytest.mark.parametrize("flags", [["--meta.preset", "none"], ["--learner", "actor-critic"], ["--learner", "vtrace"]])
def test_what_a_file_tunes_is_kept_where_a_flag_takes_away_the_presets_auto(flags, tmp_path):
    (tmp_path / "mine.toml").write_text('[meta]\nlearned = ["discount"]\ntuners = ["entropy_cost=bounds:0.01,0.1"]\n')
    config = parse_config(["--config", str(tmp_path / "mine.toml"), *flags])
    assert (config.meta.learned, config.meta.tuners) == (("discount",), ("entropy_cost=bounds:0.01,0.1",))
    validate(config)


def test_a_file_may_have_options_of_the_learner_that_a_flag_names(tmp_path):
    (tmp_path / "mine.toml").write_text("[inner]\nalpha = 0.9\n")
    assert parse_config(["--config", str(tmp_path / "mine.toml"), "--learner", "vtrace"]).inner.alpha == 0.9
