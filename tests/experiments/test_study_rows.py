"""What the studies' tables say of runs whose metrics are known."""

import dataclasses
import json
import math

import pytest

from _study.jobs import Job, with_changes
from gradweave.config.presets import preset

ENVS, STEPS = 4, 5  # a rollout is 20 steps


def run_of(tmp_path, rows, total_steps):
    """(job, folder) of a run that logged these rows."""
    config = preset("quick")
    config = dataclasses.replace(
        config,
        inner=dataclasses.replace(config.inner, num_envs=ENVS, num_steps=STEPS),
        run=dataclasses.replace(config.run, total_steps=total_steps),
    )
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Job("arm", 3, config), tmp_path


def row_of(step, returns, num_episodes=1, **others):
    return {"step": step, "return": returns, "num_episodes": num_episodes, "eta/discount": step / 1000, **others}


def evaluated(sampled, greedy):
    return {"evaluation/return": sampled, "evaluation/greedy_return": greedy}


def test_final_scores_of_a_run(script, tmp_path):
    run = script("returns-snake", "run")
    rows = [row_of(20 * index, float(index), outer_loss=0.0) for index in range(1, 101)]
    rows[49] |= evaluated(7.0, 8.0)
    rows[79] |= evaluated(9.0, 10.0)
    rows[99] |= evaluated(99.0, 99.0)  # beyond the steps that are asked for
    job, path = run_of(tmp_path, rows, total_steps=1590)
    found = run.final_row(job, path)
    assert (found["arm"], found["seed"], found["environment_steps"]) == ("arm", 3, 1600)
    assert (found["final_return"], found["final_greedy_return"]) == (9.0, 10.0)
    assert found["mean_return"] == pytest.approx(40.5)  # of 1 to 80
    assert found["steps_to_20"] == 400  # the twentieth row


def test_a_return_that_is_never_reached(script, tmp_path):
    run = script("returns-snake", "run")
    job, path = run_of(tmp_path, [row_of(20, 1.0), row_of(40, 2.0, **evaluated(1.0, 2.0))], total_steps=40)
    assert run.final_row(job, path)["steps_to_20"] is None


def test_reports_at_inner_steps(script, tmp_path):
    run = script("snake-6x6-outer-critic", "run")
    rows = [row_of(20 * index, 2.0 * index, num_episodes=index, outer_advantage=0.1 * index) for index in range(1, 41)]
    rows[9] |= evaluated(1.0, 2.0)  # step 200: 180 inner steps
    rows[11] |= evaluated(3.0, 4.0)  # step 240: 220 inner steps
    rows[39] |= evaluated(5.0, 6.0)
    job, path = run_of(tmp_path, rows, total_steps=800)
    first, second = run.report_rows(job, path, (200, 700))
    assert (first["report"], first["inner_steps"], first["environment_steps"]) == (200, 220, 240)
    assert (first["return_sampled"], first["return_greedy"], first["discount"]) == (3.0, 4.0, 0.24)
    assert (second["inner_steps"], second["return_sampled"]) == (780, 5.0)
    # the last tenth of the rows since the report before: of 12 one, of 28 two
    assert first["training_return"] == pytest.approx(24.0)
    assert first["outer_advantage"] == pytest.approx(1.2)
    assert second["training_return"] == pytest.approx((39 * 78 + 40 * 80) / 79)
    assert second["outer_advantage"] == pytest.approx(3.95)
    assert [row["report"] for row in run.report_rows(job, path, (200, 900))] == [200]


def test_added_arms_have_fewer_seeds_and_steps(script, tmp_path):
    run = script("snake-6x6-outer-critic", "run")
    size = run.SIZES["full"]
    planned = run.planned_jobs(size, run.base("full"), tmp_path)
    assert [job.seed for job in planned if job.arm == "outer-critic"] == [0, 1, 2]
    assert [job.seed for job in planned if job.arm == "outer-critic-fast"] == [0, 1, 2]
    (added,) = [job for job in planned if job.arm == "outer-critic-long-rollouts"]
    assert (added.seed, added.config.run.total_steps) == (0, 10_000_000 + 512 * 20)
    assert planned[0].config.run.total_steps == 40_000_000 + 512 * 5
    report = {"arm": added.arm, "seed": 0, "report": 10_000_000, "discount": 0.75, **dict.fromkeys(run.SCORES[:3], 1.0)}
    rows = run.table_rows([{**report, "outer_advantage": None}], planned, size)
    own = [row for row in rows if row["arm"] == added.arm]
    assert {row["report"] for row in own} == {1_000_000, 2_000_000, 5_000_000, 10_000_000}
    found = {(row["report"], row["score"]): row for row in own}
    assert found[10_000_000, "discount"]["iqm"] == 0.75
    assert found[10_000_000, "discount"]["missing_seeds"] == ""
    assert found[5_000_000, "discount"]["missing_seeds"] == "0"


def test_levels_are_means_over_the_published_window_at_inner_steps(script, tmp_path):
    run = script("snake-6x6", "run")
    rows = [row_of(2560 + 200_000 * index, 1.0) for index in range(1, 13)]  # inner and outer rollouts: 100,000 each
    for index, row in enumerate(rows, 1):
        row["eta/discount"] = 0.8 + index / 100
    rows[4] |= evaluated(1.0, 2.0)
    rows[10] |= evaluated(3.0, 4.0)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = Job("outer-critic", 10, preset("snake-6x6"))
    first, second = run.level_rows(job, tmp_path, (600_000, 1_200_000, 1_300_000))
    assert first["discount"] == pytest.approx(0.845)  # of 300,000 to 600,000: 374,000 inner steps are a window
    assert (first["return_sampled"], first["return_greedy"], first["evaluated_at"]) == (1.0, 2.0, 500_000)
    assert (first["environment_steps"], second["return_sampled"]) == (1_002_560, 3.0)
    plain = job._replace(config=with_changes(job.config, {"meta.learned": ()}))
    assert run.level_rows(plain, tmp_path, (600_000,))[0]["discount"] == pytest.approx(0.825)  # of 400,000, 600,000


def test_the_fixed_test_is_of_the_raw_discount_and_doubles_the_smaller_side(script):
    run = script("snake-6x6", "run")
    levels = [
        {"arm": arm, "seed": seed, "inner_steps": point, "discount": 1 / (1 + math.exp(-raw))}
        for arm, seed, values in (
            ("outer-critic", 1, (0.0, 0.5, 2.0)),
            ("outer-critic", 2, (0.0, 0.1, 1.0)),
            ("outer-critic-next", 1, (0.0, 2.0, 1.5)),
            ("outer-critic-next", 2, (1.0, 3.0, 1.7)),
        )
        for point, raw in zip((10, 20, 30), values, strict=True)
    ]
    change, level = run.test_rows(levels, (10, 20, 30), planned=2)
    assert (change["mean"], change["other_mean"]) == pytest.approx((0.3, 2.0))
    assert (level["mean"], level["other_mean"]) == pytest.approx((1.5, 1.6))
    assert change["p"] == pytest.approx(2 / 6)  # of six ways to divide four runs one is as low
    assert level["p"] == pytest.approx(1.0) and change["decided"] and level["decided"]
    assert not run.test_rows(levels, (10, 20, 30), planned=3)[0]["decided"]


def test_scores_on_the_discounting_chain(script, tmp_path):
    run = script("discounting-chain", "run")
    rows = [row_of(20 * index, 1.0) for index in range(1, 50)]  # discounts 0.02 to 0.98
    rows[-2] |= {"outer_advantage": 0.5}
    rows[-1] |= {"outer_advantage": 0.25, **evaluated(1.04, 1.1)}
    job, path = run_of(tmp_path, rows, total_steps=980)
    found = run.scores(job._replace(arm="mix-delay3"), path)
    assert found["final_discount"] == pytest.approx(0.95)  # of 0.92 to 0.98
    assert found["far_enough"] == 0  # 1.1 ** -0.5 is 0.9535
    assert run.scores(job._replace(arm="mix-delay3"), path)["best_chain_chosen"] == pytest.approx(0.4)
    assert found["best_chain_chosen_greedily"] == pytest.approx(1)
    assert found["outer_advantage"] == pytest.approx(0.375)


def test_rows_of_two_colors_are_rewards_per_step_of_two_phases(script, tmp_path):
    run = script("two-colors", "run")
    rows = [{**row_of(10 * index, 2.0), "num_episodes": 0, "eta/entropy_cost": 0.1 * index} for index in range(1, 7)]
    for index, total in ((1, 4.0), (3, 8.0), (5, 12.0)):
        rows[index] |= {"num_episodes": 1, "return": total}
    job, path = run_of(tmp_path, rows, total_steps=60)
    job = job._replace(arm="plain", config=with_changes(job.config, {"environment.options": {"swap_every": 10}}))
    phases = run.phase_rows(job, path)
    assert [(row["step"], row["reward"]) for row in phases] == [(20, 0.2), (40, 0.4), (60, 0.6)]
    assert [row["entropy_cost"] for row in phases] == pytest.approx([0.15, 0.35, 0.55])
    other = job._replace(seed=job.seed + 1)
    table = {row["score"]: row for row in run.table_rows(phases, [job, other])}
    assert table["life"]["mean"] == pytest.approx(0.4)
    assert table["last_fifth"]["mean"] == pytest.approx(0.6)
    assert table["life"]["missing_seeds"] == str(other.seed)
