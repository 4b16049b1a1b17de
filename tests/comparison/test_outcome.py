"""Outcomes: of rows written by hand, what a user would have got."""

import pytest

from gradweave.comparison.outcome import outcomes, summarize, write_outcome
from gradweave.config.presets import preset
from gradweave.config.search import SearchRange
from gradweave.runs.comparison_folder import ComparisonPlan


def row(rival, seed, member, stretch, steps, training, evaluation, *, finite=True):
    return {
        "rival": rival,
        "seed": seed,
        "member": member,
        "stretch": stretch,
        "environment_steps": steps,
        "training_return": training,
        "evaluation_return": evaluation,
        "finite": finite,
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


PLAN = ComparisonPlan(preset("ppo"), ("plain", "random"), {"discount": SearchRange(0.5, 0.9)}, 2, (0, 1), 1)


def test_a_run_whose_values_are_not_finite_has_no_score_and_is_named(tmp_path):
    """A network of NaN plays the first action, which an evaluation cannot tell."""
    rows = [row("plain", seed, 0, 0, 50, 1.0, 10.0) for seed in (0, 1)]
    rows += [row("random", 0, 0, 0, 50, 1.0, 300.0), row("random", 1, 0, 0, 50, None, 15.0, finite=False)]
    found = outcomes(rows, [0, 1])
    assert (found[3]["score"], found[3]["lost"], found[3]["median"]) == (None, True, None)
    text = write_outcome(PLAN, rows, tmp_path)
    assert "Not ranked, since a run's values or returns stopped being finite: random 1 of 2." in text
    assert "Of the others the highest mean return is that of plain" in text
    assert "| random | - |" in text


def test_a_choice_without_a_training_return_is_said_to_be_blind(tmp_path):
    rows = [row("plain", seed, 0, 0, 50, None, 10.0) for seed in (0, 1)]  # nothing is chosen
    rows += [row("random", seed, member, 0, 25, None, 3.0) for seed in (0, 1) for member in (0, 1)]
    assert [found["blind"] for found in outcomes(rows, [0, 1])] == [False, False, True, True]
    text = write_outcome(PLAN, rows, tmp_path)
    assert "no episode had ended: random 2 of 2. Take more steps or fewer trials." in text
    rows += [row("random", 0, 1, 1, 50, 0.5, 4.0), row("random", 0, 0, 1, 50, None, 2.0)]
    assert [found["blind"] for found in outcomes(rows, [0, 1])] == [False, False, False, True]
    assert outcomes(rows, [0, 1])[2]["score"] == 4.0
    sweep = [row("sweep", 0, 0, 0, 50, 2.0, 3.0), row("sweep-search", 7, 0, 0, 300, None, 1.0)]
    assert [found["blind"] for found in outcomes(sweep, [0])] == [True]
