"""What the intervals of the baselines say of evaluations that are known."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gradweave.reports.tables import read_rows, write_rows

RETURNS = {  # library: the evaluations of seeds 0 and 1 after 10, 20, 30 and 40 steps
    "ours": ([100, 1, 2, 0], [100, 4, 5, 9]),
    "theirs": ([0, 7, 7, 7], [0, 7, 7, 7]),
}


@pytest.fixture(name="baselines")
def load_intervals(script):
    return script("baselines", "intervals")


def table_of(curves, first_seed=0):
    return [
        {"library": library, "seed": first_seed + seed, "environment_steps": 10 * (place + 1), "return": value}
        for library, by_seed in curves.items()
        for seed, curve in enumerate(by_seed)
        for place, value in enumerate(curve)
    ]


def found_in(rows):
    return [(row["arm"], row["seeds"], row["steps"], row["evaluations"], row["mean"]) for row in rows]


def test_a_row_is_the_mean_over_seeds_of_the_last_evaluation_or_of_the_last_three(baselines, tmp_path) -> None:
    write_rows(tmp_path / "returns.csv", table_of(RETURNS))
    rows = baselines.intervals(tmp_path, baselines.Source(["returns.csv"], "game"))
    assert found_in(rows) == [
        ("ours", 2, 40, 1, 4.5),
        ("ours", 2, 40, 3, 3.5),
        ("theirs", 2, 40, 1, 7),
        ("theirs", 2, 40, 3, 7),
    ]
    # A quarter of the resamples of two seeds has the lower one twice, a quarter the higher one.
    assert [(row["low"], row["high"]) for row in rows] == [(0, 9), (1, 6), (7, 7), (7, 7)]


def test_rows_can_be_read_up_to_some_steps_of_one_arm_and_from_several_files(baselines, tmp_path) -> None:
    write_rows(tmp_path / "returns.csv", table_of(RETURNS))
    write_rows(tmp_path / "more.csv", table_of({"ours": ([0, 0, 0, 3],)}, first_seed=2))
    earlier = baselines.Source(["returns.csv"], "game", until=20)
    assert found_in(baselines.intervals(tmp_path, earlier)) == [("ours", 2, 20, 1, 2.5), ("theirs", 2, 20, 1, 7)]
    together = baselines.Source(["returns.csv", "more.csv"], "game", where=("library", "ours"))
    assert found_in(baselines.intervals(tmp_path, together)) == [("ours", 3, 40, 1, 4), ("ours", 3, 40, 3, 8 / 3)]


def test_seeds_that_end_elsewhere_or_were_not_evaluated_are_refused(baselines, tmp_path) -> None:
    write_rows(tmp_path / "returns.csv", table_of({"ours": ([1, 2], [1, 2, 3])}))
    with pytest.raises(ValueError, match="not every seed of ours was evaluated at 30"):
        baselines.intervals(tmp_path, baselines.Source(["returns.csv"], "game"))
    write_rows(tmp_path / "returns.csv", table_of(RETURNS))
    with pytest.raises(ValueError, match="at 25 steps"):
        baselines.intervals(tmp_path, baselines.Source(["returns.csv"], "game", until=25))


def test_2048_is_timed_with_the_constants_of_its_returns(script, monkeypatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import jumanji_trainer
    import variants

    jumanji_a2c = script("baselines", "jumanji_a2c")
    timed = variants.configured(jumanji_trainer.JUMANJI_SIZES["2048"])
    game = jumanji_a2c.GAMES["game_2048"]
    assert (timed.environment.name, timed.environment.options) == (game.ours, {})
    network = {**jumanji_a2c.OUR_NETWORK, **game.network}
    assert {name: getattr(timed.network, name) for name in network} == network
    same = ("num_envs", "num_steps", "discount", "learning_rate")
    assert {name: getattr(timed.inner, name) for name in same} == {name: getattr(game, name) for name in same}
    costs = (timed.inner.lambda_, timed.inner.value_cost, timed.inner.entropy_cost)
    assert costs == (jumanji_a2c.LAMBDA, jumanji_a2c.VALUE_COST, jumanji_a2c.ENTROPY_COST)
    assert (timed.inner.optimizer, timed.inner.max_grad_norm) == ("adam", None)


def test_rounds_of_physics_take_turns_and_the_first_two_are_not_counted(script, monkeypatch) -> None:
    physics = script("baselines", "physics")
    turns = []
    round_steps = physics.ROLLOUTS * physics.ROLLOUT_STEPS

    def our_round(**network):
        name = "equal" if network else "own"
        return (lambda: turns.append(name)), 12 if network else 7

    def train_theirs(*, num_timesteps, num_evals, run_evals, progress_fn):
        assert not run_evals
        epochs = num_evals - 1  # Brax counts the evaluation before training
        assert num_timesteps == epochs * round_steps
        for epoch in range(1, epochs + 1):
            turns.append("theirs")
            progress_fn(epoch * round_steps, {"training/sps": 100.0 * epoch})
        return None, (np.zeros(3), np.zeros(8), np.zeros(4)), None

    monkeypatch.setattr(physics, "our_round", our_round)
    monkeypatch.setattr(physics, "train_theirs", train_theirs)
    rows = physics.speed(repeats=2)
    assert turns == ["theirs", "own", "equal"] * 4
    assert [(row["library"], row["repeat"]) for row in rows] == [
        (library, repeat) for repeat in (1, 2) for library in ("brax", "gradweave", "gradweave, layers of Brax")
    ]
    assert [row["steps_per_second"] for row in rows if row["library"] == "brax"] == [300, 400]
    monkeypatch.setattr(physics, "our_round", lambda **network: (lambda: None, 11))
    with pytest.raises(RuntimeError, match="layers are not those of Brax"):
        physics.speed(repeats=1)


class Learner:
    """A population that counts its windows."""

    def __init__(self, config, at_once):
        self.counts = []
        Learner.newest = self

    def begin(self, seeds, settings):
        assert settings == [{}] * len(seeds)
        return self

    def advance(self, members, num_windows):
        self.counts.append(num_windows)
        steps = 10 * sum(self.counts)
        each = range(5)
        return self, SimpleNamespace(environment_steps=[steps] * 5, evaluation_return=[steps + seed for seed in each])


def test_a_run_on_a_game_is_as_long_as_its_configuration_and_evaluated_six_times(script, monkeypatch) -> None:
    games = script("baselines", "games")
    monkeypatch.setattr(sys.modules["evaluations"], "Population", Learner)
    rows = games.train("ppo", "gymnax:Catch-bsuite", 100_000)
    counts = Learner.newest.counts
    assert counts[0] == 0 and len(counts) == 6 and max(counts[1:]) - min(counts[1:]) <= 1
    assert sum(counts) == games.config("ppo", "gymnax:Catch-bsuite", 100_000).num_meta_steps
    assert len(rows) == 30
    assert rows[-1]["return"] == rows[-1]["environment_steps"] + 4 == 10 * sum(counts) + 4


def test_games_that_are_there_are_kept(script, monkeypatch, tmp_path) -> None:
    games = script("baselines", "games")
    write_rows(tmp_path / "games.csv", [{"learner": "ppo", "game": "one", "return": 1.0, "commit": "before"}])
    monkeypatch.setattr(games, "PPO", {"one": 10, "two": 20})
    monkeypatch.setattr(games, "VTRACE", {})
    monkeypatch.setattr(games, "current_source", lambda: {"commit": "now"})
    monkeypatch.setattr(
        games, "train", lambda learner, game, steps: [{"learner": learner, "game": game, "return": float(steps)}]
    )
    monkeypatch.setattr("sys.argv", ["games.py", "--results", str(tmp_path)])
    games.main()
    rows = [(row["game"], float(row["return"]), row["commit"]) for row in read_rows(tmp_path / "games.csv")]
    assert rows == [("one", 1.0, "before"), ("two", 20.0, "now")]
    assert json.loads((tmp_path / "games.json").read_text())["commit"] == "now"
