"""Outcomes: of rows written by hand, what a user would have got."""

import pytest

from gradweave.comparison.outcome import outcomes, summarize


def row(rival, seed, member, stretch, steps, training, evaluation):
    return {
        "rival": rival,
        "seed": seed,
        "member": member,
        "stretch": stretch,
        "environment_steps": steps,
        "training_return": training,
        "evaluation_return": evaluation,
    }


ROWS = [
    row("plain", 0, 0, 0, 50, 1.0, 10.0),
    row("plain", 0, 0, 1, 100, 2.0, 4.0),  # lost: 4 is below half of 10
    row("random", 0, 0, 0, 50, 3.0, 6.0),
    row("random", 0, 1, 0, 50, 2.0, 9.0),  # better when it is played, which a user would not know
    row("random", 0, 2, 0, 50, None, None),
    row("sweep-search", 7, 0, 0, 300, 3.0, 1.0),
    row("sweep-search", 7, 1, 0, 300, 3.0, 1.0),
    row("sweep", 0, 0, 0, 100, 2.0, -3.0),
    row("sweep", 0, 0, 1, 110, 2.0, -7.0),
]


def test_the_member_is_chosen_by_training_returns():
    plain, random, sweep = outcomes(ROWS, [0])
    assert (plain["score"], plain["best"], plain["lost"], plain["environment_steps"]) == (4.0, 10.0, True, 100)
    assert (random["score"], random["median"], random["environment_steps"]) == (6.0, 7.5, 150)
    assert not random["lost"]
    assert (sweep["environment_steps"], sweep["cost"], sweep["lost"]) == (110, 710, True)  # -7 is below twice -3


def test_an_interval_needs_five_seeds():
    found = [{**outcomes(ROWS, [0])[0], "seed": seed, "score": float(seed)} for seed in range(5)]
    (five,) = summarize(found)
    assert (five["mean"], five["lowest"], five["lost"]) == (2.0, 0.0, 5)
    assert 0.0 <= five["low"] < 2.0 < five["high"] <= 4.0
    (four,) = summarize(found[:4])
    assert (four["mean"], four["low"], four["high"]) == (1.5, None, None)


def test_a_run_without_a_score_leaves_no_mean():
    found = outcomes(ROWS, [0])
    (summary,) = summarize([{**found[1], "score": None, "lost": True}, found[1]])
    assert summary["mean"] is None
    assert summary["lost"] == 1
    assert summary["median_member"] == pytest.approx(7.5)
