"""`gradweave watch`: what another process writes is shown as it comes, and nothing of the run is touched."""

import dataclasses
import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from gradweave.cli import watch
from gradweave.cli.main import main
from gradweave.config.presets import preset
from gradweave.runs.locks import is_in_use
from gradweave.runs.metrics import MetricsTail
from gradweave.runs.metrics_writer import MetricsWriter
from gradweave.runs.run_folder import RunFolder
from gradweave.runs.seeds_folder import SeedsFolder


def row(step: int, returns: float, num_episodes: int = 1) -> dict[str, Any]:
    return {"step": step, "num_episodes": num_episodes, "return": returns, "eta/discount": step / 1000}


@pytest.fixture
def folder(tmp_path: Path):
    config = preset("quick")
    config = dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, runs_dir=str(tmp_path), total_steps=1000),
        meta=dataclasses.replace(config.meta, learned=("discount",)),
    )
    with RunFolder.create(config) as folder:
        yield folder


def table(text: str) -> list[list[str]]:
    """The cells of the table's lines."""
    return [line.split() for line in text.splitlines() if line[:10].strip().replace(",", "").isdigit()]


def test_a_tail_returns_whole_rows_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read() == []  # not there yet
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [found["step"] for found in tail.read()] == [1, 2]
    assert tail.read() == []
    with path.open("a") as file:
        file.write('ep": 3, "text": "a\u2028b"}\n')
    assert tail.read() == [{"step": 3, "text": "a\u2028b"}]


def test_a_tail_does_not_repeat_what_a_resumed_run_writes_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    for step in (10, 20, 30):
        writer.write({"step": step})
    tail = MetricsTail(path)
    assert len(tail.read()) == 3
    writer.truncate_after(10)
    assert tail.read() == []
    for step in (20, 30, 40):
        writer.write({"step": step})
    writer.close()
    assert tail.read() == [{"step": 40}]


def test_asking_whether_a_folder_is_in_use_takes_nothing_from_it(folder):
    assert is_in_use(folder.path)
    assert is_in_use(folder.path)
    folder.close()
    assert not is_in_use(folder.path)
    RunFolder.open(folder.path).close()  # not held by having asked
    (folder.path / "lock").unlink()
    assert not is_in_use(folder.path)


def test_the_past_is_summed_up_and_what_comes_is_shown(folder, capsys, monkeypatch):
    for index in range(1, 21):
        folder.metrics.write(row(10 * index, float(index)))
    looks = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            folder.metrics.write(row(300, 4.0, 3))
            folder.metrics.write(row(310, 8.0, 1))
        if len(looks) == 3:
            folder.metrics.write(row(320, 9.0))
            folder.close()
        assert len(looks) < 10

    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_ROWS", 0.0)
    watch._watch_run(folder.path, wait)
    out = capsys.readouterr().out
    rows = table(out)
    assert [cells[:2] for cells in rows[:2]] == [["20", "1.50"], ["40", "3.50"]]  # two lines of metrics each
    assert len(rows) == 10 + 2
    assert rows[-2][:3] == ["310", "5.00", "0.3050"]  # weighted by episodes
    assert rows[-1][:2] == ["320", "9.00"]
    assert float(rows[-1][3].replace(",", "")) > 0  # steps per second
    assert f"no checkpoint; `gradweave train --config {folder.path / 'config.toml'}`" in out
    assert len(looks) == 3


def test_rows_are_not_shown_more_often_than_can_be_read(folder, capsys):
    looks = []

    def wait(_: float) -> None:
        looks.append(None)
        folder.metrics.write(row(10 * len(looks), 1.0))
        if len(looks) == 5:
            folder.close()

    watch._watch_run(folder.path, wait)
    assert [cells[0] for cells in table(capsys.readouterr().out)] == ["50"]


def test_a_run_that_is_lengthened_while_it_is_watched_has_its_new_end(folder, capsys, monkeypatch):
    longer = dataclasses.replace(folder.config.run, total_steps=10**6)
    looks = []

    def wait(_: float) -> None:
        looks.append(None)
        if len(looks) == 1:
            folder.config = dataclasses.replace(folder.config, run=longer)
            folder.save_config()
        folder.metrics.write(row(1000 * len(looks), 1.0))
        if len(looks) == 3:
            folder.close()

    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_ROWS", 0.0)
    watch._watch_run(folder.path, wait)
    out = capsys.readouterr().out
    assert "all steps are taken" not in out and "finished" not in out
    assert all(cells[-1] != "0s" for cells in table(out))


def test_a_run_that_has_ended_is_shown_whole(folder, capsys):
    folder.metrics.write(row(10, 1.0))
    folder.close()
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert main(["watch", str(folder.path)]) == 0
    out = capsys.readouterr().out
    assert [cells[0] for cells in table(out)] == ["10"]
    assert before == {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}


@pytest.mark.parametrize("report", [True, False])
def test_it_says_how_a_run_ended(folder, capsys, report):
    folder.close()
    (folder.path / "checkpoints" / "999999999.safetensors").touch()
    if report:
        (folder.path / "report.html").touch()
    assert main(["watch", str(folder.path)]) == 0
    page = folder.path / "report.html"
    said = f": {page}" if report else f"; `gradweave report {folder.path}` makes report.html"
    assert capsys.readouterr().out.endswith(f"finished{said}\n")


def test_a_run_that_was_stopped_after_a_checkpoint_can_be_resumed(folder, capsys):
    folder.close()
    (folder.path / "checkpoints" / "000000000320.safetensors").touch()
    assert main(["watch", str(folder.path)]) == 0
    assert capsys.readouterr().out.endswith(f"no process trains this; `gradweave resume {folder.path}` goes on\n")


def test_a_seed_that_waits_for_its_turn_is_waited_for(tmp_path, capsys):
    config = preset("quick")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(tmp_path)))
    looks = []
    with SeedsFolder.create(config, 2) as folder:
        run = folder.runs[1]

        def wait(_: float) -> None:
            looks.append(None)
            if len(looks) == 1:
                (run / "metrics.jsonl").write_text(json.dumps(row(1000, 0.5)) + "\n")
            if len(looks) == 2:  # this seed is done, the other goes on
                (run / "checkpoints" / "999999999.safetensors").touch()
                (run / "report.html").touch()
            assert len(looks) < 3

        watch._watch_run(run, wait)
    out = capsys.readouterr().out
    assert "it waits for its turn" in out
    assert [cells[0] for cells in table(out)] == ["1,000"]
    assert out.endswith(f"finished: {run / 'report.html'}\n")


def test_whoever_asks_does_not_keep_others_out(folder, monkeypatch):
    """The lock is taken for a moment only: who wants it asks again."""
    path = folder.path
    folder.close()
    asking = (path / "lock").open()
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("gradweave.runs.locks.time.sleep", lambda _: asking.close())
    RunFolder.open(path).close()


def test_several_seeds_say_how_far_they_are(tmp_path, capsys):
    config = preset("quick")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(tmp_path), seed=3))
    looks = []
    with SeedsFolder.create(config, 2) as folder:
        (folder.runs[4] / "metrics.jsonl").write_text(json.dumps(row(2000, 1.25)) + "\n")

        def wait(_: float) -> None:
            looks.append(None)
            (folder.runs[3] / "metrics.jsonl").write_text(json.dumps(row(1000, 0.5)) + "\n")
            folder.__exit__(None, None, None)

        runs = {f"seed {seed}": run for seed, run in folder.runs.items()}
        watch._watch_several(folder.path, runs, "report.html", wait)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["seed 3: nothing logged yet", "seed 4: 2,000 steps, return 1.25"]
    assert lines[2:4] == ["seed 3: 1,000 steps, return 0.50", "seed 4: 2,000 steps, return 1.25"]
    assert lines[4] == f"no process trains this; `gradweave resume {folder.path}` goes on"
    assert len(looks) == 1


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main(["watch", str(tmp_path / "absent")]) == 2
    assert "the folder of a run" in capsys.readouterr().err
