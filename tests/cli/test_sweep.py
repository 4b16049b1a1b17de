"""`gradweave sweep`: every combination is trained as it would be alone, the best is found, the cost is said."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest

from gradweave.cli import seeds
from gradweave.cli.main import main
from gradweave.cli.train import parse_config
from gradweave.config.grid import parse_grid, setting_name
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.sweep_space import candidates, parse_space
from gradweave.config.toml_file import read_config, write_config
from gradweave.errors import ConfigError
from gradweave.reports.sweep_scores import best_setting, format_sweep, late_return, whole_settings
from gradweave.runs.locks import lock_folder
from gradweave.runs.seeds_folder import seed_runs

GRID = ["--grid", "inner.discount=0.5,0.9", "inner.learning-rate=1e-3,0.01"]


@pytest.fixture
def stand_in(monkeypatch):
    """Lets a few lines of Python, which know `run`, `seed`, `discount` and `rate`, stand in for the training of each
    run; its returns are 0 until the last quarter of 1000 steps.
    """

    def use(program: str) -> None:
        head = (
            "import json, pathlib, sys, tomllib; run = pathlib.Path(sys.argv[1]); seed = int(run.name[5:])\n"
            "inner = tomllib.loads((run / 'config.toml').read_text())['inner']\n"
            "discount, rate = inner['discount'], inner['learning_rate']\n"
            "def row(step, returns):\n"
            " return {'step': step, 'num_episodes': int(returns is not None), 'return': returns}\n"
            "def half(): (run / 'metrics.jsonl').write_text(json.dumps(row(500, 0.0)) + '\\n')\n"
            "def done(returns):\n"
            " low, high = (None, None) if returns is None else (returns - 1, returns + 1)\n"
            " rows = [row(700, 0.0), row(800, low), row(1000, high) | {'evaluation/return': 0.0}]\n"
            " (run / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\\n' for row in rows))\n"
            " (run / 'checkpoints' / '000010000000.safetensors').touch()\n (run / 'report.html').touch()\n"
        )
        monkeypatch.setattr(seeds, "command", lambda path, cores: [sys.executable, "-c", head + program, str(path)])

    return use


def sweep(tmp_path: Path, *argv: str) -> int:
    steps = ["--total-steps", "1000", "--meta.num-inner-steps", "1"]
    return main(["sweep", "quick", *steps, "--runs-dir", str(tmp_path), *GRID, *argv])


def sweep_runs(path: Path) -> dict[tuple[str, int], Path]:
    settings = [file.parent for file in path.glob("*/seeds.json")]
    return {(folder.name, seed): run for folder in settings for seed, run in seed_runs(folder).items()}


def only_folder(tmp_path: Path) -> Path:
    (path,) = tmp_path.iterdir()
    return path


@pytest.mark.parametrize(
    ("entries", "remedy"),
    [
        (["inner.discount"], "without spaces"),
        (["=1,2"], "without spaces"),
        (["inner.discount=0.9,"], "without spaces"),
        (["inner.discount=0.9,0.9"], "repetition"),
        (["inner.discount=0.9", "inner.discount=0.8"], "repetition"),
        (["inner.discount=0.9 --inner.lambda_ 0.5"], "without spaces"),
        (["quick"], "a preset stands before"),
        (["inner.learning_rate=1,2", "inner.learning-rate=3"], "repetition"),
        ([], "leave --grid out"),
        *((([f"{name}=1,2"], "as a flag")) for name in ("seed", "seeds", "total-steps", "grid", "help")),
        (["environment.name=snake,bandit"], "as a flag"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(entries, remedy):
    with pytest.raises(ConfigError, match=remedy):
        parse_grid(entries)


def test_settings_are_all_combinations_with_names_that_tell_them_apart():
    grid = ["--inner.discount=0.5,0.9", "inner.learning-rate=1e-3,2e-3,3e-3"]
    settings = {setting_name(setting): setting for setting in candidates(parse_space(grid, [], Config()))}
    assert len(settings) == 6
    assert settings["discount0.9-learning-rate2e-3"] == {"inner.discount": "0.9", "inner.learning-rate": "2e-3"}
    # the same last word twice: the whole fields, and nothing that a file system could take for something else
    assert setting_name({"inner.discount": "0.9", "outer.discount": "1"}) == "inner.discount0.9-outer.discount1"
    assert setting_name({"network.channels": "8 8", "environment.name": "a/../b"}) == "channels8_8-namea_.._b"


def test_a_run_is_scored_by_its_last_quarter_and_a_setting_by_all_its_seeds(tmp_path):
    rows = [{"step": 20 * index, "num_episodes": 1, "return": 0.0} for index in range(1, 16)]
    rows += [{"step": 320, "num_episodes": 1, "return": 5.0}, {"step": 340, "num_episodes": 3, "return": 9.0}]
    rows += [{"step": 380, "num_episodes": 0, "return": None}]
    rows += [{"step": 400, "num_episodes": 0, "return": 9.0, "evaluation/return": 1.0}]
    rows += [{"step": 420, "num_episodes": 1, "return": 99.0}]  # beyond what is asked for
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert late_return(tmp_path, 400) == pytest.approx((5 + 3 * 9) / 4)  # by episodes, after step 300
    (tmp_path / "metrics.jsonl").write_text(json.dumps(rows[-2]) + "\n")
    assert late_return(tmp_path, 400) == float("-inf")
    rows = [{"setting": name, "score": score} for name, score in [("a", 10.0), ("a", 0.0), ("b", 6.0), ("b", 5.0)]]
    assert best_setting(rows) == "b"


def test_the_table_has_what_can_be_compared_first():
    scores = [("a", 10.0), ("a", 0.0), ("b", 6.0), ("b", 5.0), ("c", 50.0), ("c", None), ("d", None), ("d", 1.0)]
    rows = [{"setting": name, "score": score, "outcome": "finished"} for name, score in scores]
    rows[5]["outcome"] = "diverged"
    assert whole_settings(rows) == ["a", "b"]
    lines = [line.split(maxsplit=2) for line in format_sweep(rows).splitlines()[1:]]
    assert lines == [
        ["b", "5.50", "6.00, 5.00"],
        ["a", "5.00", "10.00, 0.00"],
        ["c", "-", "50.00, diverged"],
        ["d", "-", "no episodes, 1.00"],
    ]


@pytest.mark.slow
def test_every_combination_is_trained_and_the_best_is_found(tmp_path, stand_in, capsys):
    stand_in("done(100 * discount + 1000 * rate + seed)")
    assert sweep(tmp_path, "--seed", "5") == 0
    folder, said = only_folder(tmp_path), capsys.readouterr()
    assert folder.name.startswith("quick-sweep-")
    runs = sweep_runs(folder)
    assert len(runs) == 8
    for (setting, seed), run in runs.items():
        config = read_config(run / "config.toml")
        assert setting == f"discount{config.inner.discount}-learning-rate" + (
            "1e-3" if config.inner.learning_rate == 1e-3 else "0.01"
        )
        assert (config.run.seed, config.meta.learned, config.run.total_steps) == (seed, (), 1000)
        assert seed in (5, 6)
    assert "4 settings, 8 runs, 8,000 environment steps planned" in said.err
    assert "environment steps of all runs: 8,000" in said.out
    rows = table_of(folder)
    assert len(rows) == 8
    assert {row["setting"] for row in rows if row["chosen"] == "True"} == {"discount0.9-learning-rate0.01"}
    assert {float(row["score"]) for row in rows if row["chosen"] == "True"} == {105.0, 106.0}
    best = read_config(folder / "best.toml")
    assert (best.inner.discount, best.inner.learning_rate) == (0.9, 0.01)
    assert (best.run.seed, best.run.runs_dir) == (7, str(tmp_path))  # a seed that the sweep has not seen
    assert parse_config(["--config", str(folder / "best.toml")]) == best


@pytest.mark.slow
def test_a_run_that_diverges_is_a_result_and_one_that_fails_is_tried_again(tmp_path, stand_in, capsys):
    diverges = "half(), sys.exit(4) if rate == 0.01 and discount == 0.9 else "
    stand_in(diverges + "sys.exit(5) if seed == 1 else done(discount)")
    assert sweep(tmp_path) == 5
    folder, said = only_folder(tmp_path), capsys.readouterr()
    assert "discount0.5-learning-rate1e-3, seed 1 (5)" in said.err
    assert "learning-rate0.01, seed 0 (4)" not in said.err
    assert f"`gradweave resume {folder}` tries again" in said.err
    assert "none is the best" in said.out
    assert not (folder / "best.toml").exists()
    assert f"environment steps of all runs: {3 * 1000 + 5 * 500:,}" in said.out  # what did not come to an end counts
    assert main(["watch", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "discount0.9-learning-rate1e-3, seed 0: done" in lines
    assert any("discount0.9-learning-rate0.01, seed 0" in line and "not finite" in line for line in lines)
    assert lines[-1] == f"no process trains this; `gradweave resume {folder}` goes on"
    stand_in("done(discount)")
    assert main(["resume", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.err.count("started") == 3  # neither what is finished nor what would diverge again
    assert read_config(folder / "best.toml").inner.discount == 0.9
    assert {row["outcome"] for row in table_of(folder)} == {"finished", "diverged"}
    assert main(["watch", str(folder)]) == 0
    assert capsys.readouterr().out.endswith(f"finished: {folder / 'sweep.csv'}\n")


def table_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_without_scores_there_is_no_best(tmp_path, stand_in, capsys):
    stand_in("done(None)")
    assert sweep(tmp_path) == 0
    assert "none is the best" in capsys.readouterr().out
    assert not (only_folder(tmp_path) / "best.toml").exists()
    assert {row["score"] for row in table_of(only_folder(tmp_path))} == {""}


@pytest.mark.slow
def test_a_setting_that_went_on_by_itself_is_compared_where_the_sweep_ends(tmp_path, stand_in):
    stand_in("done(discount)")
    assert sweep(tmp_path) == 0
    folder = only_folder(tmp_path)
    run = folder / "discount0.5-learning-rate1e-3" / "seed-0"
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2000, "num_episodes": 1, "return": 99.0, "evaluation/return": 99.0}) + "\n")
    before = table_of(folder)
    assert main(["resume", str(folder)]) == 0
    assert table_of(folder) == before


@pytest.mark.slow
def test_a_setting_belongs_to_the_worker_that_trains_it(tmp_path, stand_in, capsys):
    stand_in("done(discount)")
    assert sweep(tmp_path, "--seeds", "1") == 0
    folder = only_folder(tmp_path)
    setting = folder / "discount0.5-learning-rate1e-3"
    with lock_folder(setting):
        assert main(["resume", str(setting)]) == 6
    assert main(["resume", str(setting)]) == 0
    capsys.readouterr()
    assert main(["resume", str(folder), "--total-steps", "2000"]) == 2
    assert "as it was planned" in capsys.readouterr().err


@pytest.mark.slow
def test_its_fields_in_another_order_are_the_same_sweep(tmp_path, stand_in):
    stand_in("done(discount + rate)")
    assert sweep(tmp_path, "--name", "both") == 0
    before = {path.name for path in (tmp_path / "both").iterdir()}
    table = (tmp_path / "both" / "sweep.csv").read_bytes()
    words = ["sweep", "quick", "--total-steps", "1000", "--meta.num-inner-steps", "1", "--runs-dir", str(tmp_path)]
    assert main([*words, "--grid", *reversed(GRID[1:]), "--name", "both"]) == 0
    assert {path.name for path in (tmp_path / "both").iterdir()} == before
    assert (tmp_path / "both" / "sweep.csv").read_bytes() == table


@pytest.mark.slow
def test_what_could_not_be_made_whole_is_not_left(tmp_path, stand_in, monkeypatch):
    stand_in("done(1.0)")
    monkeypatch.setattr("gradweave.runs.sweep_study.begin_journal", interrupt)
    assert sweep(tmp_path) == 130
    assert not list(tmp_path.iterdir())


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--grid", "inner.discount=0.9,1.5"], "inner.discount = 1.5"),
        (["--grid", "inner.discount"], "--grid = 'inner.discount'"),
        (["--seeds", "0"], "--seeds = 0"),
        (["--inner.discount", "0.9", "--grid", "inner.discount=0.9,0.99"], "a field that is swept"),
        (["--inner.learning_rate=0.1", "--grid", "inner.learning-rate=0.1,0.2"], "a field that is swept"),
        (["--grid", "inner.discount=0.9,0.90"], "this one is discount0.9"),
        (["--track", "wandb", "--grid", "inner.discount=0.9"], "wandb"),
        (["--grid", "inner.discount=0.9", "quick"], "a preset stands before"),
        (["--search", "inner.discount=0.9:1.5"], "inner.discount = 1.5"),
        (["--search", "inner.discount=0.9:0.99", "--sampler", "grid"], "a grid of values, without ranges"),
        (["--grid", "inner.discount=0.9,0.99", "--trials", "1"], "tries all 2 settings"),
        (["--search", "inner.discount=0.9:0.99", "--trials", "0"], "--trials = 0"),
        (["--inner.discount", "0.9", "--search", "inner.discount=0.9:0.99"], "a field that is swept"),
        (["--grid", "inner.discount=0.9", "--name", "../outside"], "without a slash"),
        (["--grid", "meta.learning-rate=0.1,0.2"], "nothing is learned"),
        (["--search", "inner.discount=0.9:0.99", "meta.learning-rate=0.1:0.2"], "add --meta.learned"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path, capsys, argv, text):
    assert main(["sweep", "--runs-dir", str(tmp_path / "runs"), *argv]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_field_is_refused(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "--runs-dir", str(tmp_path / "runs"), "--grid", "inner.discont=0.9"])
    assert stopped.value.code == 2


@pytest.mark.slow
def test_a_sweep_is_no_run(tmp_path, stand_in, capsys):
    stand_in("done(1.0)")
    assert sweep(tmp_path, "--seeds", "1") == 0
    for command in ("play", "report"):
        assert main([command, str(only_folder(tmp_path))]) == 2
        assert "of a sweep" in capsys.readouterr().err


@pytest.mark.slow
def test_switches_can_be_swept(tmp_path, stand_in):
    stand_in("done(1.0)")
    flags = ["--runs-dir", str(tmp_path), "--seeds", "1", "--grid", "network.shared-torso=True,False"]
    assert main(["sweep", "quick", *flags]) == 0
    found = {name: read_config(run / "config.toml") for (name, _), run in sweep_runs(only_folder(tmp_path)).items()}
    assert {name: config.network.shared_torso for name, config in found.items()} == {
        "shared-torsoTrue": True,
        "shared-torsoFalse": False,
    }


def test_what_only_tuning_reads_is_left_out(tmp_path, stand_in):
    config = preset("quick")
    meta = dataclasses.replace(config.meta, schedule="network", max_discount=0.998)
    config = dataclasses.replace(config, meta=meta)
    write_config(config, tmp_path / "tuned.toml")
    stand_in("done(1.0)")
    flags = ["--runs-dir", str(tmp_path / "runs"), "--seeds", "1", "--grid", "inner.discount=0.9"]
    assert main(["sweep", "--config", str(tmp_path / "tuned.toml"), *flags]) == 0


@pytest.mark.slow
def test_other_things_can_be_learned_meanwhile(tmp_path, stand_in):
    stand_in("done(1.0)")
    assert sweep(tmp_path, "--meta.learned", "lambda_", "--seeds", "1") == 0
    (config, *_) = [read_config(run / "config.toml") for run in sweep_runs(only_folder(tmp_path)).values()]
    assert config.meta.learned == ("lambda_",)
