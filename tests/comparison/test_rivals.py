"""Rivals: what becomes of a population between stretches."""

import math
import random
from collections import Counter

import pytest

from gradweave.cli.train import parse_config
from gradweave.comparison.rivals import RIVALS, best_member, exchange, first_settings, member_scores, parse_rivals
from gradweave.config.presets import preset
from gradweave.config.search import SearchRange
from gradweave.errors import ConfigError

TABLE = {rival.name: rival for rival in RIVALS}
RANGES = {"learning_rate": SearchRange(0.001, 1.0)}
SETTINGS = [{"learning_rate": value} for value in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08)]
SCORES = [5.0, -math.inf, 7.0, 1.0, 3.0, 9.0, 4.0, 2.0]  # members 1 and 3 are the worst, 2 and 5 the best


def test_the_worst_quarter_becomes_copies_of_the_best():
    seen = Counter()
    for seed in range(30):
        moved = exchange(TABLE["pbt"], SETTINGS, SCORES, RANGES, random.Random(seed))
        assert [moved.source[member] for member in (0, 2, 4, 5, 6, 7)] == [0, 2, 4, 5, 6, 7]
        for member in (1, 3):
            seen[moved.source[member]] += 1
            factor = moved.settings[member]["learning_rate"] / SETTINGS[moved.source[member]]["learning_rate"]
            assert round(factor, 9) in (0.8, 1.2)
    assert set(seen) == {2, 5}


def test_copying_alone_tunes_nothing():
    moved = exchange(TABLE["pbt-copy"], SETTINGS, SCORES, RANGES, random.Random(1))
    assert all(setting in SETTINGS for setting in moved.settings)
    assert moved.settings[1] == SETTINGS[moved.source[1]]


@pytest.mark.parametrize("name", ["plain", "random", "sweep", "meta", "auto"])
def test_the_others_exchange_nothing(name):
    moved = exchange(TABLE[name], SETTINGS, SCORES, RANGES, random.Random(0))
    assert (list(moved.source), list(moved.settings)) == (list(range(8)), SETTINGS)


def test_searches_of_one_seed_begin_alike():
    names = ("random", "sweep", "pbt", "pbt-copy")
    first, *others = (first_settings(TABLE[name], RANGES, 3, 7) for name in names)
    assert len(first) == 3
    assert all(other == first for other in others)
    assert first_settings(TABLE["random"], RANGES, 3, 8) != first
    assert first_settings(TABLE["plain"], RANGES, 3, 7) == [{}]


@pytest.mark.parametrize("scores", [[math.nan] * 8, [-math.inf] * 8, [math.nan] * 4 + [-math.inf] * 4])
def test_where_no_score_is_known_nobody_is_copied(scores):
    moved = exchange(TABLE["pbt"], SETTINGS, scores, RANGES, random.Random(0))
    assert (list(moved.source), list(moved.settings)) == (list(range(8)), SETTINGS)


def test_members_without_an_ended_episode_stay_and_those_that_are_not_finite_are_replaced_and_never_copied():
    for seed in range(20):
        scores = [math.nan, -math.inf, 3.0, math.nan, -math.inf, math.nan, math.nan, -math.inf]
        moved = exchange(TABLE["pbt-copy"], SETTINGS, scores, RANGES, random.Random(seed))
        assert [place for place, source in enumerate(moved.source) if source != place] == [1, 4]
        assert {moved.source[1], moved.source[4]} == {2}


def test_a_member_without_a_score_is_not_the_best():
    assert best_member([math.nan, -5.0, math.nan]) == 1
    assert best_member([-math.inf, math.nan, -math.inf]) == 1


def test_members_are_chosen_by_the_last_training_return_that_is_known():
    def row(member, stretch, value, finite=True):
        return {"member": member, "stretch": stretch, "training_return": value, "finite": finite}

    rows = [
        *[row(0, 0, 5.0), row(0, 1, None)],
        *[row(1, 0, 1.0), row(1, 1, 2.0)],
        *[row(2, 0, None), row(2, 1, None)],
        *[row(3, 0, 9.0), row(3, 1, None, finite=False)],
        *[row(4, 0, None, finite=False), row(4, 1, None)],
    ]
    found = member_scores(rows[::-1])
    assert found[:2] == [5.0, 2.0] and found[3] == -math.inf
    assert math.isnan(found[2]) and math.isnan(found[4])
    assert best_member(found) == 0


def test_rivals_that_cannot_be_are_refused():
    config = preset("ppo")
    assert [rival.name for rival in parse_rivals(["auto", "plain"], config)] == ["auto", "plain"]
    for names, remedy in ((["pbtt"], "did you mean 'pbt'"), ([], "for all"), (["auto", "auto"], "for all")):
        with pytest.raises(ConfigError, match=remedy):
            parse_rivals(names, config)
    with pytest.raises(ConfigError, match="leave meta out"):
        parse_rivals(["meta"], config.untuned())
    with pytest.raises(ConfigError, match="preset ppo"):
        parse_rivals(["meta"], preset("auto"))
    other = parse_config(["auto", "--meta.tuners", "learning_rate=kl:0.05"])  # no longer what auto tunes
    assert [rival.name for rival in parse_rivals(["meta", "auto"], other)] == ["meta", "auto"]
