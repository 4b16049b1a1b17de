"""The studies' own scripts: what they refuse, what they mark, and where they write."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from _study.figures import GamePlotFlags
from _study.jobs import Collected, GameFlags, Job, jobs, with_changes
from gradweave.config.presets import preset
from gradweave.errors import ConfigError
from gradweave.reports.tables import read_rows, write_rows
from gradweave.runs.run_folder import RunFolder


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (GameFlags(size="tiny", stage="tables"), "--stage = 'tables'"),
        (GameFlags(size="tiny", stage="runs"), "--stage = 'runs'"),
        (GameFlags(size="tiny", seeds=(1,)), "--seeds = (1,)"),
        (GameFlags(size="tiny", arms=("a",)), "--arms = ('a',)"),
        (GameFlags(size="tiny", runs=Path("x")), "--runs = "),
        (GameFlags(size="long"), "--size = 'long'"),
    ],
)
def test_noisy_quadratic_refuses_what_has_no_meaning(script, monkeypatch, tmp_path, flags, flag):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        script("noisy-quadratic", "run").main(flags)
    assert str(raised.value).startswith(flag)


def run_adaptive_mix(script, monkeypatch, arguments):
    """A sweep of one problem and one estimator."""
    run = script("adaptive-mix", "run")
    monkeypatch.setattr(run.sweep, "PROBLEMS", run.sweep.PROBLEMS[:1])
    monkeypatch.setattr(run.sweep, "NUM_BURN_IN", 1)
    monkeypatch.setattr(run.sweep, "META_LEARNING_RATES", (0.0, 0.01))
    monkeypatch.setattr(run.sweep, "estimators", lambda: {"unrolled": gw.Unrolled()})
    monkeypatch.setattr(run, "tune", lambda *_: tuned())
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    run.main()


def tuned():
    """What a run of three windows might have reported."""
    grad = {"rate": jnp.arange(3.0), "shift": -jnp.arange(3.0)}
    return jnp.ones(3), grad, grad, jnp.zeros((3, 2, 10))


@pytest.mark.parametrize("flag", ["--seeds", "--windows"])
def test_a_reduced_adaptive_mix_is_marked_and_stays_apart(script, monkeypatch, tmp_path, flag):
    monkeypatch.chdir(tmp_path)
    run_adaptive_mix(script, monkeypatch, [flag, "2"])
    assert not (tmp_path / "results").exists()
    folder = tmp_path / "runs" / "reproduce" / "adaptive-mix-reduced"
    config = json.loads((folder / "config.json").read_text())
    assert config["mark"].startswith("reduced")
    assert {"commit", "modified", "versions"} <= set(config)
    plot = script("adaptive-mix", "plot")
    figures = []
    monkeypatch.setattr(plot.plt.Figure, "savefig", lambda figure, path, **_: figures.append((figure, path)))
    monkeypatch.setattr(sys, "argv", ["plot.py", "--results", str(folder)])
    plot.main()
    ((figure, path),) = figures
    assert path == folder / "figure.png"
    assert config["mark"] in figure.get_suptitle()


def test_the_whole_adaptive_mix_is_not_marked(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("asked git at the end"))
    run = script("adaptive-mix", "run")
    monkeypatch.setattr(run, "machine", lambda: {"commit": "c", "modified": False})
    monkeypatch.setattr(run.sweep, "NUM_SEEDS", 2)
    monkeypatch.setattr(run.sweep, "NUM_WINDOWS", 2)
    run_adaptive_mix(lambda *_: run, monkeypatch, [])
    folder = tmp_path / "results" / "adaptive-mix"
    config = json.loads((folder / "config.json").read_text())
    assert "mark" not in config
    assert (config["commit"], config["modified"]) == ("c", False)
    with (folder / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2


def test_adaptive_mix_needs_windows_after_the_burn_in(script, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_adaptive_mix(script, monkeypatch, ["--windows", "1"])
    assert "--windows" in capsys.readouterr().err


def test_variance_snake_takes_fewer_samples_of_large_batches_in_the_full_size_alone(script):
    script("variance-snake", "run")
    sweep = sys.modules["sweep"]
    for game in ("masked", "unmasked", "unmasked-large"):
        assert sweep.size_of("quick", game) == sweep.SIZES["quick"]
    full, large = sweep.SIZES["full"], sweep.size_of("full", "unmasked-large")
    assert sweep.size_of("full", "unmasked") == full
    assert (large.horizons, large.lengths, large.seeds) == (full.horizons, full.lengths, full.seeds)
    assert large.num_samples < full.num_samples and set(large.moments) < set(full.moments)
    assert sweep.base("full", "unmasked-large").inner.num_envs == 8 * sweep.base("full", "unmasked").inner.num_envs


def test_variance_snake_names_the_code_that_drew_each_sample(script, tmp_path):
    run = script("variance-snake", "run")
    size = run.size_of("tiny", "masked")
    (tmp_path / "checkpoints").mkdir()
    samples = np.zeros((size.num_samples, size.horizons, size.horizons, 2))
    sources = [{"commit": commit, "modified": False} for commit in ("a", "b")]
    for step in size.moments:
        (tmp_path / "checkpoints" / f"{step:012d}.safetensors").touch()
        for count, source in ((1, sources[0]), (size.num_samples, sources[1])):
            store = run.store_of(tmp_path, step, size, source)
            store.known()
            store.keep(samples[:count], now=True)
    found = list(run.measured([(Job("agent", 0, preset("quick")), tmp_path)], size))
    assert [place["moment"] for place, _, _ in found] == list(size.moments)
    assert all(own == sources for _, _, own in found)


def leave_tables(results, arms):
    """The tables of an unfinished returns-snake: one run of each of `arms`, as run.py would have left them."""
    etas = {"eta/discount": 0.9, "eta/lambda_": 0.9, "eta/entropy_cost": 0.01, "eta/learning_rate": 1e-3}
    curves = [{"arm": arm, "seed": 0, "step": step, "return": 1.0, **etas} for arm in arms for step in (100, 200)]
    scores = {"final_return": 1.0, "mean_return": 1.0, "steps_to_20": None}
    table = [
        {"arm": arm, "score": score, "num_seeds": 1, "iqm": value, "low": None, "high": None, "missing_seeds": "1 2"}
        for arm in (*arms, "absent-poor")
        for score, value in scores.items()
    ]
    for name, rows in (("curves", curves), ("table", table)):
        write_rows(results / f"{name}.csv", [{"size": "tiny", **row} for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arms", "panels", "learns"),
    [
        (("plain-poor", "plain-good"), 2, False),
        (("plain-swept",), 1, False),
        (("plain-good", "plain-swept"), 1, False),
        (("horizon-mix-swept",), 1, True),
        (("unrolled-poor", "plain-swept"), 1, True),
    ],
)
def test_a_part_of_returns_snake_is_drawn(script, tmp_path, arms, panels, learns):
    leave_tables(tmp_path, arms)
    stale = tmp_path / "meta_parameters.png"
    stale.write_bytes(b"of runs that are no longer there")
    plot = script("returns-snake", "plot")
    plot.main(GamePlotFlags(size="tiny", results=tmp_path))
    assert stale.exists() == learns
    assert {path.name for path in tmp_path.glob("*.png")} - {stale.name} == {"curves.png", "final.png"}
    axes = plot.draw_returns(read_rows(tmp_path / "curves.csv")).axes
    drawn = {name for axis in axes for name in axis.get_legend_handles_labels()[1]}
    assert (len(axes), drawn) == (panels, set(arms))


def leave_returns(job, final_return, planned_steps=None):
    """A finished run of returns-snake; one that is to go on for longer where `planned_steps` says so."""
    total_steps = job.config.run.total_steps
    config = with_changes(job.config, {"run.total_steps": planned_steps or total_steps})
    scores = {"evaluation/return": final_return, "evaluation/greedy_return": final_return}
    end = total_steps + 1_000_000  # the last window ends beyond them
    with RunFolder.create(config) as folder:
        folder.metrics.write({"step": end, "num_episodes": 1, "return": final_return, **scores})
        (folder.checkpoints / f"{end:012}.safetensors").touch()


def full_and_long(run, runs):
    """Both sizes' jobs of every arm, by name."""
    sizes = (run.SIZES[name] for name in ("full", "long"))
    return (
        {job.name: job for job in jobs(run.base("full"), run.ARMS, size.seeds, size.total_steps, runs)}
        for size in sizes
    )


@pytest.mark.slow
def test_the_best_mix_is_chosen_among_those_with_all_seeds(script, tmp_path, capsys):
    run = script("returns-snake", "run")
    full, _ = full_and_long(run, tmp_path)
    for seed in range(5):
        leave_returns(full[f"window-mix-poor-{seed}"], 20.0)
        if seed < 4:
            leave_returns(full[f"horizon-mix-poor-{seed}"], 30.0)
    flags = GameFlags(size="long", stage="runs", runs=tmp_path)
    assert run.long_arms(flags, tmp_path)[0] == ["window-mix-poor"]
    leave_returns(full["horizon-mix-poor-4"], 30.0)
    assert run.long_arms(flags, tmp_path)[0] == ["horizon-mix-poor"]


@pytest.mark.slow
def test_without_a_best_mix_the_long_size_needs_arms(script, monkeypatch, tmp_path):
    run = script("returns-snake", "run")
    full, long = full_and_long(run, tmp_path)
    for mix in run.MIXES:
        for seed in range(4):
            leave_returns(full[f"{mix}-{seed}"], 12.0)
    trained = []
    monkeypatch.setattr("_study.jobs.run_or_continue", lambda config: trained.append(config.run.runs_dir))
    flags = GameFlags(size="long", stage="runs", runs=tmp_path)
    with pytest.raises(ConfigError, match="window-mix-poor-4, horizon-mix-poor-4, adaptive-mix-poor-4"):
        run.main(flags)
    assert not trained
    run.main(dataclasses.replace(flags, arms=("plain-good",), seeds=(0,)))
    assert trained == [long["plain-good-0"].config.run.runs_dir]
    leave_returns(long["plain-good-0"], 15.0)
    results = tmp_path / "results"
    run.main(dataclasses.replace(flags, stage="tables", results=results))
    missing = json.loads((results / "provenance.json").read_text())["missing"]
    assert any("the best mix" in entry and "horizon-mix-poor-4" in entry for entry in missing)


@pytest.mark.slow
def test_long_tables_keep_every_arm_with_a_long_run(script, monkeypatch, tmp_path):
    run = script("returns-snake", "run")
    runs, results = tmp_path / "runs", tmp_path / "results"
    full, long = full_and_long(run, runs)
    long_steps = run.SIZES["long"].total_steps
    for seed in range(5):
        leave_returns(full[f"horizon-mix-poor-{seed}"], 19.0)
    # The choice when fewer seeds were there: one finished, and another arm that was begun.
    leave_returns(long["window-mix-poor-0"], 15.0)
    leave_returns(full["horizon-mix-bounded-poor-0"], 14.0, planned_steps=long_steps)
    leave_returns(full["unrolled-good-0"], 14.0)
    leave_returns(long["plain-good-0"], 15.0)
    monkeypatch.setattr("_study.jobs.run_or_continue", lambda config: None)
    source = {"commit": "before the runs", "modified": False}
    monkeypatch.setattr(run, "current_source", lambda: source)
    run.main(GameFlags(size="long", arms=("plain-good",), runs=runs, results=results))
    arms = {row["arm"]: row for row in read_rows(results / "table.csv") if row["score"] == "final_return"}
    own = {arm for arm in run.SIZES["long"].arms if arm != run.SWEPT}  # there is no sweep to choose from
    assert set(arms) == {*own, "horizon-mix-poor", "window-mix-poor", "horizon-mix-bounded-poor"}
    assert (arms["window-mix-poor"]["num_seeds"], arms["window-mix-poor"]["missing_seeds"]) == ("1", "1 2")
    assert arms["horizon-mix-bounded-poor"]["missing_seeds"] == "0 1 2"
    assert json.loads((results / "provenance.json").read_text())["tables"] == source


@pytest.mark.slow
def test_large_batches_are_the_published_ones_and_have_arms_of_their_own(script):
    sweep = script("returns-snake", "sweep")
    size = sweep.size_of("full", "unmasked-large")
    arms = sweep.arms_of(size.arms, "unmasked-large")
    assert (*arms, sweep.SWEPT) == size.arms
    own = jobs(sweep.base("full", "unmasked-large"), arms, (0,), size.total_steps, Path())
    assert len({job.config.planned_steps for job in own}) == 1
    assert len({job.config.window_steps * job.config.run.log_every for job in own}) == 1
    assert {(job.config.inner.num_envs, job.config.inner.num_steps) for job in own} == {(512, 5)}
    assert all(job.config.environment.options["action_mask"] is False for job in own)
    alone = [job.config for job in own if job.arm.endswith("-short") and job.config.meta.learned]
    assert {config.meta.learned for config in alone} == {("discount",)}
    assert {config.inner.discount for config in alone} == {0.8}
    plain = {job.config.inner.discount for job in own if job.arm.startswith("plain")}
    assert plain == {0.8, 0.9, 0.95, 0.99, 0.997}
    assert sweep.size_of("full", "masked") == sweep.SIZES["full"]
    with pytest.raises(ConfigError, match="unmasked-large"):
        sweep.size_of("long", "unmasked-large")


def test_an_arm_of_five_steps_has_the_best_of_its_settings_once_all_are_finished(script, monkeypatch, tmp_path):
    run = script("snake-6x6", "run")
    size = run.SIZES["tiny"]._replace(five_step_arms=("horizon-mix-5", "window-mix-5"))
    shared = run.base("tiny")
    tried = run.choice_jobs(size, shared, tmp_path)
    assert {job.seed for job in tried} == set(size.choice_seeds) and not set(size.choice_seeds) & set(size.seeds)
    rates = {job.arm: job.config.meta.learning_rate for job in tried}
    monkeypatch.setattr("_study.tables.late_return", lambda path, steps: -abs(rates[path.name] - 0.015))
    monkeypatch.setattr("_study.tables.metrics_until", lambda path, steps: [{"step": steps}])
    finished = [(job, tmp_path / job.arm) for job in tried]
    rows = run.choice_rows(size, Collected(finished[:-1], []))
    assert {row["arm"] for row in rows} == {"horizon-mix-5"}, "a setting of the other one is missing"
    assert {row["setting"] for row in rows if row["chosen"]} == {"horizon-mix-5-rate0.015-norm0.1"}
    (job,) = run.five_step_jobs(size, shared, rows, tmp_path)
    meta = job.config.meta
    assert (job.arm, meta.num_inner_steps, meta.learning_rate, meta.max_grad_norm) == ("horizon-mix-5", 5, 0.015, 0.1)
    assert job.config.run.total_steps == 2 * size.inner_steps + run.first_rollout(job.config)
