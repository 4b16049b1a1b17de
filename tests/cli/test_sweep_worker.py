"""Workers of a sweep: they share the trials, give up hopeless ones, and finish what a killed one has left.

Training is a few lines of metrics, written by this process.
"""

import csv
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gradweave.cli.main import main
from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config

GRID = ["--grid", "inner.discount=0.5,0.7,0.9"]
PAIR = ["--grid", "inner.discount=0.5,0.9"]
TENTHS = range(100, 1001, 100)
Levels = Callable[[Config], float | None]


class Killed(BaseException):
    """What ends a worker without its doing."""


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what a sweep of real runs needs: the state of the checkout, and a disk that has written all."""
    monkeypatch.setattr("gradweave.runs.provenance.collect_provenance", lambda *_: {})
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[Levels], list[str]]:
    """Takes the return of a configuration, which every episode has; returns the names of what has been trained."""
    names: list[str] = []

    def train(run: Path, level: float | None) -> Iterator[None]:
        for step in TENTHS:
            row = {"step": step, "num_episodes": int(level is not None), "return": level}
            if step == TENTHS[-1]:
                row["evaluation/return"] = 0.0
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            yield
        (run / "checkpoints" / "000010000000.safetensors").touch()
        (run / "report.html").touch()

    def use(levels: Levels) -> list[str]:
        def run_here(jobs: Any, shares: Any, received: Any, *, started: Any, ended: Any, looked: Any) -> None:
            for job in itertools.takewhile(lambda job: job is not None, jobs):
                names.append(job.name)
                started(job)
                job.log.touch()
                run = job.log.parent
                (run / "metrics.jsonl").unlink(missing_ok=True)
                going = train(run, levels(read_config(run / "config.toml")))
                stopped = any(received or job.name in looked([job]) for _ in going)
                ended(job, 143 if stopped else 0)
                if received:
                    return

        monkeypatch.setattr("gradweave.cli.sweep.run_jobs", run_here)
        monkeypatch.setattr("gradweave.cli.sweep_worker._SECONDS_BETWEEN_REPORTS", 0.0)
        return names

    return use


def sweep(tmp_path: Path, *argv: str) -> int:
    steps = ["--total-steps", "1000", "--meta.num-inner-steps", "1", "--seeds", "1"]
    return main(["sweep", "quick", *steps, "--runs-dir", str(tmp_path), "--name", "mine", *argv])


def table_of(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "mine" / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def test_hopeless_trials_are_given_up_and_their_steps_are_counted(tmp_path, trained, capsys):
    trained(lambda config: 100 * config.inner.discount)
    search = ["--search", "inner.discount=0.5:0.9:even", "--sampler", "random", "--trials", "5", "--prune", "halving"]
    assert sweep(tmp_path, *search) == 0
    rows, said = table_of(tmp_path), capsys.readouterr()
    # Every trial keeps its return, so that one is given up exactly when it is not in the better half of those before.
    given_up, before = [], []
    for row in rows:
        before.append(float(row["inner.discount"]))
        kept = sorted(before, reverse=True)[: max(1, len(before) // 2)]
        given_up.append(before[-1] not in kept)
    assert any(given_up) and not all(given_up)
    assert [row["outcome"] == "pruned" for row in rows] == given_up
    steps = [int(row["environment_steps"]) for row in rows]
    assert steps == [100 if early else 1000 for early in given_up]
    assert (
        f"environment steps of all runs: {sum(steps):,}, of these {100 * sum(given_up):,} in runs that were" in said.out
    )
    assert said.err.count("its trial is pruned") == sum(given_up)
    (best,) = [row for row in rows if row["chosen"] == "True"]
    assert float(best["inner.discount"]) == max(before)
    assert main(["watch", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out.count("seed 0: given up") == sum(given_up)


def test_a_second_worker_shares_the_trials(tmp_path, trained, capsys):
    inside: list[int] = []

    def level(config: Config) -> float:
        if not inside:  # while the first worker trains its first run, a second one begins
            inside.append(0)
            assert sweep(tmp_path, *GRID) == 0
            inside.append(len(names))
            assert "not all trials have ended" in capsys.readouterr().out
        return config.inner.discount

    names = trained(level)
    assert sweep(tmp_path, *GRID) == 0
    assert inside == [0, 3]  # the second had all but the first's
    assert len(set(names)) == len(names) == 3
    rows = table_of(tmp_path)
    assert {row["outcome"] for row in rows} == {"finished"}
    assert sorted(row["inner.discount"] for row in rows) == ["0.5", "0.7", "0.9"]
    assert "not all trials have ended" not in capsys.readouterr().out
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_the_trial_of_a_killed_worker_is_finished_by_another(tmp_path, trained):
    def level(config: Config) -> float:
        if len(names) == 2:
            raise Killed
        return config.inner.discount

    names = trained(level)
    with pytest.raises(Killed):
        sweep(tmp_path, *PAIR)
    lost = names[-1]
    assert sweep(tmp_path, *PAIR) == 0
    assert names == [names[0], lost, lost] and names[0] != lost
    assert {row["outcome"] for row in table_of(tmp_path)} == {"finished"}
    assert len(list((tmp_path / "mine").glob("*/seed-0"))) == 2


def test_a_worker_that_is_told_to_stop_leaves_its_trial_to_others(tmp_path, trained, capsys):
    def level(config: Config) -> float:
        if len(names) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return config.inner.discount

    names = trained(level)
    assert sweep(tmp_path, *PAIR) == 143
    folder = tmp_path / "mine"
    assert f"`gradweave resume {folder}` goes on" in capsys.readouterr().err
    assert main(["watch", str(folder)]) == 0
    state, remedy = capsys.readouterr().out.splitlines()[-2:]
    assert "1 of 2" in state and f"`gradweave resume {folder}`" in remedy
    assert main(["resume", str(folder)]) == 0
    assert names[0] == names[1] and len(names) == 3


def test_what_was_not_made_whole_is_made_again(tmp_path, trained, monkeypatch):
    names = trained(lambda config: config.inner.discount)

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("gradweave.runs.seeds_folder.write_atomically", killed)
        with pytest.raises(Killed):
            sweep(tmp_path, *PAIR)
    assert names == []
    assert len(list((tmp_path / "mine").glob("*/seed-0"))) == 1
    assert sweep(tmp_path, *PAIR) == 0
    assert len(set(names)) == len(names) == 2


def test_settings_that_cannot_be_trained_are_left_out(tmp_path, trained, capsys):
    """Both ends can be had, but not every combination: batches have to be divisible."""
    names = trained(lambda config: float(config.inner.num_envs))
    search = ["inner.num-envs=8:12:even", "inner.microbatches=2,4", "--sampler", "random", "--trials", "4"]
    assert sweep(tmp_path, "--search", *search) == 0
    rows, said = table_of(tmp_path), capsys.readouterr()
    assert all(int(row["inner.num-envs"]) % int(row["inner.microbatches"]) == 0 for row in rows)
    assert 0 < len(rows) == len(names) < 4
    assert said.err.count("cannot be trained, and is left out") == 4 - len(rows)
    assert "not all trials have ended" not in said.out


def test_a_worker_without_anything_to_show_says_so(tmp_path, trained, capsys, monkeypatch):
    trained(lambda config: 1.0)
    monkeypatch.setattr("gradweave.runs.sweep_study.SweepStudy.claim", lambda self, leave: None)
    assert sweep(tmp_path, *GRID) == 0
    assert "no run has been begun" in capsys.readouterr().out


def test_other_flags_are_another_sweep(tmp_path, trained, capsys):
    trained(lambda config: 1.0)
    grid = ["--grid", "inner.discount=0.9"]
    assert sweep(tmp_path, *grid) == 0
    assert sweep(tmp_path, *grid, "--seed", "5") == 2
    assert "differs in run" in capsys.readouterr().err
    assert sweep(tmp_path, "--grid", "inner.discount=0.8,0.9", "--prune", "median") == 2
    assert "differs in space, trials, pruning" in capsys.readouterr().err
