"""What studies share: their runs are found or missed, aggregated by hand, marked by size; nothing is trained here."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from _study.figures import draw_curves, draw_intervals, intervals_title
from _study.jobs import MARKS, Flags, GameFlags, chosen, collect, finished_run, folders, jobs, train, with_changes
from _study.reproduce import run
from _study.tables import aggregate, configurations, improvements, provenance, save_figure, write_study
from gradweave.cli.main import answering
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.errors import (
    CheckpointError,
    ConfigError,
    HostLost,
    NonFiniteError,
    OutOfMemory,
    RunInUse,
    SeedFailed,
    Stopped,
)
from gradweave.reports.tables import learning_curve, read_rows
from gradweave.runs.run_folder import RunFolder

ARMS = {"plain": {"meta.learned": ()}, "mix": {"meta.estimator": "window-mix"}}


SMALL = with_changes(preset("quick"), {"inner.num_envs": 2, "inner.num_steps": 5, "meta.num_inner_steps": 1})
END = 110  # of a run of 100 steps: the first rollout, which evaluates nothing, has ten


def planned(runs: Path, total_steps: int = 100):
    return jobs(SMALL, ARMS, (0, 7), total_steps, runs)


def leave_run(job, *steps, evaluated=None, saved=None):
    """A run's folder as training would have left it, by default evaluated and saved at its last row."""
    with RunFolder.create(job.config) as folder:
        for step in steps:
            row = {"step": step, "num_episodes": 1, "return": 1.0 * step}
            noted = step in (steps[-1:] if evaluated is None else evaluated)
            folder.metrics.write(row | ({"evaluation/return": 2.0 * step} if noted else {}))
        for step in steps[-1:] if saved is None else saved:
            (folder.checkpoints / f"{step:012}.safetensors").touch()
    return folder.path


def test_jobs_are_every_arm_with_every_seed(tmp_path):
    found = planned(tmp_path)
    assert [job.name for job in found] == ["plain-0", "mix-0", "plain-7", "mix-7"]
    config = found[3].config
    assert (config.run.seed, config.run.total_steps, config.meta.estimator) == (7, 100, "window-mix")
    assert config.run.runs_dir == str(tmp_path / "mix-7")
    assert with_changes(Config(), {"inner.discount": 0.5, "run.seed": 3}).inner.discount == 0.5


def test_flags_choose_and_wrong_ones_are_refused(tmp_path):
    assert [job.name for job in chosen(Flags(arms=("mix",), seeds=(7,)), planned(tmp_path))] == ["mix-7"]
    with pytest.raises(ConfigError, match="did you mean 'plain'"):
        chosen(Flags(arms=("plan",)), planned(tmp_path))
    with pytest.raises(ConfigError, match="0, 7"):
        chosen(Flags(seeds=(1,)), planned(tmp_path))


def test_an_arm_without_the_chosen_seeds_is_refused(tmp_path):
    found = [job for job in planned(tmp_path) if job.name != "mix-7"]
    assert [job.name for job in chosen(Flags(seeds=(7,)), found)] == ["plain-7"]
    assert [job.name for job in chosen(Flags(arms=("mix", "plain"), seeds=(7,)), found)] == ["plain-7"]
    with pytest.raises(ConfigError, match=r"--seeds = \(7,\)") as raised:
        chosen(Flags(arms=("mix",), seeds=(7,)), found)
    assert raised.value.accepted == "0 for mix"


def test_added_arms_of_returns_snake_refuse_other_seeds(tmp_path, capsys):
    flags = ["--stage", "runs", "--runs", str(tmp_path), "--arms", "horizon-mix-16-poor", "--seeds", "4"]
    assert answering(lambda: run(["returns-snake", *flags])) == 2
    assert "0, 1, 2 for horizon-mix-16-poor" in capsys.readouterr().err


def test_only_finished_runs_of_this_configuration_count(tmp_path, capsys):
    plain, mix, again, other = planned(tmp_path)
    leave_run(plain, 50, END)
    leave_run(mix, 50)
    long = with_changes(again.config, {"run.total_steps": 500})
    leave_run(again._replace(config=long), END, 510)
    leave_run(other._replace(config=with_changes(other.config, {"inner.discount": 0.5})), END)
    found = collect(planned(tmp_path))
    assert [job.name for job, _ in found.finished] == ["plain-0", "plain-7"]
    assert found.missing == ["mix-0", "mix-7"]
    assert "mix-0, mix-7" in capsys.readouterr().err
    assert finished_run(again._replace(config=long)) is not None


@pytest.mark.parametrize(
    ("steps", "evaluated", "saved"),
    [
        ((90, 100), (), (60,)),  # its last rows are written, their evaluation goes on
        ((90, 100, END), (END,), (60, 100)),  # killed before the last checkpoint
        ((90, 100, END, 120), (60,), (120,)),  # a longer run that has not been evaluated since
    ],
)
def test_a_run_whose_end_is_not_evaluated_or_not_saved_is_not_finished(tmp_path, steps, evaluated, saved):
    job = planned(tmp_path)[0]
    leave_run(job, *steps, evaluated=evaluated, saved=saved)
    assert finished_run(job) is None


def test_train_leaves_finished_runs_alone(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("_study.jobs.run_or_continue", lambda config: started.append(config.run.runs_dir))
    leave_run(planned(tmp_path)[0], END)
    train(Flags(), planned(tmp_path))
    assert [Path(place).name for place in started] == ["mix-0", "plain-7", "mix-7"]
    train(Flags(stage="tables"), planned(tmp_path))
    assert len(started) == 3


def test_a_run_that_another_process_has_is_skipped(tmp_path, monkeypatch, capsys):
    started = []

    def start(config):
        started.append(Path(config.run.runs_dir).name)
        if len(started) == 2:
            raise RunInUse("it is in use by process 12")

    monkeypatch.setattr("_study.jobs.run_or_continue", start)
    train(Flags(), planned(tmp_path))
    assert started == ["plain-0", "mix-0", "plain-7", "mix-7"]
    assert "mix-0: skipped: it is in use by process 12" in capsys.readouterr().err


def starting(monkeypatch, errors):
    """The names of the runs that `train` starts from now on, in order; those in `errors` end with theirs."""
    started = []

    def start(config):
        started.append(Path(config.run.runs_dir).name)
        if started[-1] in errors:
            raise errors[started[-1]]

    monkeypatch.setattr("_study.jobs.run_or_continue", start)
    return started


def test_runs_that_fail_do_not_stop_the_others(tmp_path, monkeypatch, capsys):
    errors = {"mix-0": NonFiniteError("the outer loss", 60), "plain-7": CheckpointError("it is damaged")}
    started = starting(monkeypatch, errors)
    with pytest.raises(SeedFailed, match=r"mix-0 \(4\), plain-7 \(3\)") as raised:
        train(Flags(), planned(tmp_path))
    assert started == ["plain-0", "mix-0", "plain-7", "mix-7"]
    assert raised.value.exit_code == NonFiniteError.exit_code
    assert "--stage tables" in str(raised.value)
    shown = capsys.readouterr().err
    assert "mix-0: failed: the outer loss is not finite at environment step 60" in shown
    assert "plain-7: failed: it is damaged" in shown


@pytest.mark.parametrize(
    "error",
    [ConfigError("a", 1, "b", "c"), OutOfMemory("lower it"), HostLost("gone"), Stopped("SIGTERM"), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_what_would_meet_every_run_ends_the_study(tmp_path, monkeypatch, error):
    started = starting(monkeypatch, {"mix-0": error})
    with pytest.raises(type(error)):
        train(Flags(), planned(tmp_path))
    assert started == ["plain-0", "mix-0"]


def test_a_sweep_that_fails_does_not_keep_the_other_arms(tmp_path, monkeypatch, capsys):
    setting = "lr0.001-discount0.997-entropy0.01-100"
    started = starting(monkeypatch, {setting: NonFiniteError("the loss", 8)})
    flags = ["--size", "tiny", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    assert answering(lambda: run(["returns-snake", *flags])) == NonFiniteError.exit_code
    assert started == ["lr0.0003-discount0.997-entropy0.01-100", setting, "horizon-mix-poor-0"]
    assert f"{setting} (4)" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arms", "trained"),
    [
        ((), ["horizon-mix-poor-0"]),
        (("plain-swept",), []),
        (("plain-swept", "horizon-mix-poor"), ["horizon-mix-poor-0"]),
        (("horizon-mix-poor",), ["horizon-mix-poor-0"]),
    ],
)
def test_while_another_process_has_the_sweep_the_other_arms_are_trained(tmp_path, monkeypatch, capsys, arms, trained):
    started = []

    def start(config):
        place = Path(config.run.runs_dir)
        if place.parent.name == "sweep":
            raise RunInUse("in use")
        started.append(place.name)

    monkeypatch.setattr("_study.jobs.run_or_continue", start)
    flags = ["--size", "tiny", "--stage", "runs", "--runs", str(tmp_path), *(["--arms", *arms] if arms else [])]
    assert answering(lambda: run(["returns-snake", *flags])) == 0
    assert started == trained
    assert "plain-swept: its sweep is not finished" in capsys.readouterr().err


def test_a_longer_run_is_read_as_the_shorter_one(tmp_path):
    path = leave_run(planned(tmp_path)[0], 60, 100, 120, 140, 200, evaluated=(60, 120, 200))
    assert [row["step"] for row in learning_curve(path)] == [60, 100, 120, 140, 200]
    assert [row["step"] for row in learning_curve(path, until=100)] == [60, 100, 120]


def test_only_whole_studies_go_where_results_are_published():
    assert folders("it", Flags()) == (Path("runs/it"), Path("results/it"))
    assert folders("it", Flags(size="long")) == (Path("runs/it"), Path("results/it-long"))
    for size in ("tiny", "quick"):
        runs, results = folders("it", Flags(size=size))
        assert runs.parts[:3] == results.parts[:3] == ("runs", "reproduce", f"it-{size}")
    assert folders("it", Flags(results=Path("there")))[1] == Path("there")
    assert folders("it", GameFlags(game="unmasked")) == (Path("runs/it-unmasked"), Path("results/it-unmasked"))
    assert folders("it", GameFlags(game="unmasked-large"))[1] == Path("results/it-unmasked-large")
    assert folders("it", GameFlags()) == folders("it", Flags())


@pytest.mark.slow
def test_aggregates_by_hand():
    assert aggregate([]) == {"num_seeds": 0, "iqm": None, "low": None, "high": None}
    assert aggregate([2.0]) == {"num_seeds": 1, "iqm": 2.0, "low": None, "high": None}
    found = aggregate([0.0, 1.0, 2.0, 100.0])
    assert (found["num_seeds"], found["iqm"]) == (4, 1.5)
    assert found["low"] < 1.5 < found["high"]
    rows = improvements({"a": [3.0, 2.0], "b": [1.0, 2.0], "one": [5.0]}, ["b", "none"])
    assert [(row["arm"], row["reference"], row["probability"]) for row in rows] == [("a", "b", 0.875)]


@pytest.mark.slow
def test_comparisons_that_cannot_have_an_interval_have_none():
    ends = ("probability", "low", "high")
    scores = {"two": [5.0, 6.0], "above": [7.0, 8.0, 9.0], "mixed": [1.0, 8.0, 4.0], "low": [0.0, 2.0, 6.0]}
    rows = {row["arm"]: tuple(row[name] for name in ends) for row in improvements(scores, ["low"])}
    assert rows["two"] == (pytest.approx(4.5 / 6), None, None)  # of two seeds
    assert rows["above"] == (1.0, None, None)  # however resampled
    probability, low, high = rows["mixed"]
    assert probability == pytest.approx(6 / 9)
    assert low < probability < high


def test_tables_say_their_size_and_where_runs_came_from(tmp_path, monkeypatch, capsys):
    now = {"commit": "now", "modified": True}
    monkeypatch.setattr("_study.tables.current_source", lambda: now)
    leave_run(planned(tmp_path / "runs")[0], END)
    found = collect(planned(tmp_path / "runs"))
    about = {"configurations": configurations(planned(tmp_path / "runs")), **provenance(found)}
    results = tmp_path / "results"
    write_study(results, "quick", {"table": [{"arm": "plain", "value": np.float64(1.5)}], "empty": []}, about)
    assert str(results) in capsys.readouterr().out
    assert read_rows(results / "table.csv") == [{"size": "quick", "arm": "plain", "value": "1.5"}]
    assert not (results / "empty.csv").exists()
    write_study(results, "quick", {"table": [{"arm": "mix"}], "stale": [{"arm": "mix"}]}, about)
    write_study(results, "quick", {"table": [{"arm": "plain"}], "stale": []}, about)
    assert [path.name for path in results.glob("*.csv")] == ["table.csv"]
    written = json.loads((results / "provenance.json").read_text())
    assert written["mark"] == MARKS["quick"]
    assert written["tables"] == {"commit": "now", "modified": True}
    assert written["missing"] == ["mix-0", "plain-7", "mix-7"]
    assert set(written["runs"]) == {"plain-0"}
    assert {"seed", "commit", "modified", "started", "environment"} == set(written["runs"]["plain-0"])
    assert written["environments"][0]["versions"]["jax"]
    assert written["configurations"]["arms"] == {
        "plain": {},
        "mix": {
            "meta.learned": ["discount", "lambda_", "entropy_cost", "learning_rate"],
            "meta.estimator": "window-mix",
        },
    }


def test_tables_name_every_commit_and_device_of_a_run(tmp_path, monkeypatch):
    state = {"commit": "a", "diff": ""}
    monkeypatch.setattr("gradweave.runs.provenance.source_state", lambda: dict(state))
    first, _, second, _ = planned(tmp_path)
    path = leave_run(first, END)
    with RunFolder.open(path) as folder:
        folder.add_provenance({"memory_forecast": {"available": 1}, "from_step": 50})  # all as at the beginning
    state |= {"commit": "b", "diff": None}
    for step in (60, 70):
        with RunFolder.open(path) as folder:
            folder.add_provenance({"devices": ["gpu"], "memory_forecast": {"available": step}, "from_step": step})
    state |= {"commit": "a", "diff": ""}
    with RunFolder.open(path) as folder:
        folder.add_provenance({"from_step": 80})
    with RunFolder.open(leave_run(second, END)) as folder:
        folder.add_provenance({"memory_forecast": {"available": 2}})
    found = provenance(collect([first, second]))
    assert len(found["environments"]) == 2
    assert "memory_forecast" not in found["environments"][0]
    assert found["environments"][1]["devices"] == ["gpu"]
    run = found["runs"][first.name]
    assert (run["commit"], run["modified"], run["environment"]) == ("a", False, 0)
    for entry in run["continued"]:
        assert entry.pop("started")
    assert run["continued"] == [
        {"from_step": 60, "commit": "b", "modified": None, "environment": 1},
        {"from_step": 80, "commit": "a", "modified": False, "environment": 0},
    ]
    assert "continued" not in found["runs"][second.name]


def test_nothing_finished_is_no_study(tmp_path):
    with pytest.raises(ConfigError, match="--stage all"):
        write_study(tmp_path / "results", "full", {"curves": [], "table": [{"arm": "plain"}]}, {})
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("size", "marked"), [("full", False), ("quick", True), ("tiny", True)])
def test_figures_of_less_than_the_study_are_marked(tmp_path, size, marked):
    figure = Figure()
    save_figure(figure, tmp_path / "figure.png", [{"size": size}], "a title")
    text = figure.get_suptitle()
    assert text.startswith("a title")
    assert (size in text) == marked
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_figure_of_nothing_is_removed(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"of runs that are no longer there")
    for _ in range(2):
        save_figure(None, path, [{"size": "full"}])
        assert not path.exists()


def test_curves_are_interquartile_means_with_gaps():
    rows = [
        {
            "arm": "a",
            "seed": str(seed),
            "step": str(step),
            "return": "" if step == 2 and seed == 1 else str(seed + step),
        }
        for seed in range(4)
        for step in (1, 2, 3)
    ]
    axis = Figure().add_subplot()
    draw_curves(axis, rows, "return", ["a", "absent"])
    (line,) = axis.get_lines()
    assert line.get_xdata().tolist() == [1, 3]
    assert line.get_ydata().tolist() == [2.5, 4.5]
    assert len(axis.collections) == 1


def test_intervals_leave_a_place_for_what_is_missing():
    rows = [
        {"arm": "a", "iqm": "1", "low": "0.5", "high": "2"},
        {"arm": "b", "iqm": "", "low": "", "high": ""},
        {"arm": "c", "iqm": "3", "low": "", "high": ""},
    ]
    axis = Figure().add_subplot()
    draw_intervals(axis, rows, "", "fruits")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert [tuple(line.get_ydata()) for line in axis.get_lines()] == [(0,), (0, 0), (-2,)]


def test_titles_say_what_is_incomplete():
    def row(arm, num_seeds, missing):
        return {"arm": arm, "num_seeds": str(num_seeds), "missing_seeds": missing}

    assert intervals_title([row("a", 3, ""), row("b", 3, "")]).endswith("95 % intervals")
    assert intervals_title([row("a", 1, ""), row("b", 1, "")]) == "one seed of each arm"
    assert intervals_title([row("a", 3, ""), row("b", 1, "")]).endswith("95 % intervals; 1 to 3 seeds an arm")
    # A score that none of its runs reached does not make an arm one that has not been run.
    some = [row("a", 2, "2"), row("a", 0, "2"), row("b", 1, "1 2"), row("c", 0, "0 1 2")]
    assert intervals_title(some).endswith("INCOMPLETE: 1 to 2 of 3, 1 of 3 arms not run yet")
    assert intervals_title(some[:1]).endswith("INCOMPLETE: 2 of 3 seeds an arm")
