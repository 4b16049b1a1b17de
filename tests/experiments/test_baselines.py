"""What the intervals of the baselines say of evaluations that are known."""

import pytest

from gradweave.reports.tables import write_rows

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
