"""Folders from somebody else, or damaged ones: nothing outside is touched, nothing hangs, file and line are named."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradweave.api import Run
from gradweave.cli.main import main
from gradweave.errors import ConfigError, DamagedFile
from gradweave.runs.identity import check_longer
from gradweave.runs.metrics import MetricsTail, read_metrics
from gradweave.runs.metrics_writer import MetricsWriter
from gradweave.runs.run_folder import RunFolder
from gradweave.runs.seeds_folder import seed_runs
from gradweave.runs.sweep_folder import setting_runs

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from reliability.folders import DAMAGED_LINES, SIDE_FILES, STEPS, TREES, make_run, snapshot

SAID = (0, 2, 3, 8)
"""The exit codes of what has been done, or refused."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "precious.txt").write_text("not yours")
    for step in STEPS:
        (folder / "folder" / f"{step:012}.safetensors").write_text("somebody else's")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs")


class Finished(Run):
    """A run of which only the end is known."""

    def __init__(self, *fields: Any) -> None:
        object.__setattr__(self, "summary", fields[-1])


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of training: rows and a checkpoint are written, as it would."""

    def trained(folder: Any, **_: Any) -> Any:
        import numpy as np

        from gradweave.runs.checkpoints import SavedArray, newest_good, read

        path, saved = newest_good(folder.checkpoints, read, lambda text: None)
        folder.go_on_from(path, saved.step, saved.metadata)
        folder.add_provenance({"backend": "cpu"})
        folder.metrics.write({"step": 99_999, "return": 2.0, "num_episodes": 1})
        folder.save_checkpoint({"x": SavedArray(np.array(1), "int64")}, 99_999)
        return types.SimpleNamespace(agent=None, state=None, environment_steps=99_999)

    def finish(folder: Any, *_: Any) -> str:
        from PIL import Image

        from gradweave.reports.board import save_gif
        from gradweave.reports.report import write_report

        save_gif(folder.path / "agent.gif", [Image.new("RGB", (8, 8))])
        write_report([folder.path], folder.path)
        return "finished"

    monkeypatch.setattr("gradweave.training.launch._trained", trained)
    monkeypatch.setattr("gradweave.api.training.finish", finish)
    monkeypatch.setattr("gradweave.api.training.Run", Finished)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take a second, and only trees about them need any."""
    monkeypatch.setattr("gradweave.reports.report.draw_figures", lambda runs, folder: [])


def touch_nothing(tree: str, run: Path, outside: Path) -> None:
    TREES[tree](run, outside)
    before, names = snapshot(outside), sorted(outside.rglob("*"))
    for command in ("watch", "report", "resume"):
        assert main([command, str(run)]) in SAID, command
    assert snapshot(outside) == before and sorted(outside.rglob("*")) == names


FIGURES = [tree for tree in TREES if tree.startswith("figures")]


@pytest.mark.parametrize("tree", [tree for tree in TREES if tree not in FIGURES])
def test_nothing_outside_is_touched(tree: str, run: Path, outside: Path, no_training: None, no_figures: None) -> None:
    touch_nothing(tree, run, outside)


@pytest.mark.parametrize("tree", FIGURES)
def test_nothing_outside_is_drawn_over(tree: str, run: Path, outside: Path, no_training: None) -> None:
    touch_nothing(tree, run, outside)


@pytest.mark.parametrize("line", DAMAGED_LINES)
def test_a_damaged_line_is_named_and_stops_no_resume(
    line: str, run: Path, no_training: None, no_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], DAMAGED_LINES[line], *lines[2:]]) + b"\n")
    whole = path.read_bytes()
    for command in ("watch", "report"):
        code = main([command, str(run)])
        said = capsys.readouterr().err
        if not (command == "watch" and line in ("step again", "step back")):  # a run that was taken up again
            assert code == 2 and f"{path}, line 3," in said, command
    with pytest.raises(DamagedFile):
        list(read_metrics(path))
    assert main(["resume", str(run)]) == 0
    assert "metrics.jsonl.damaged" in capsys.readouterr().err
    assert (run / "metrics.jsonl.damaged").read_bytes() == whole
    assert [row["step"] for row in read_metrics(path)] == [*STEPS[:2], 99_999]


@pytest.mark.parametrize("content", SIDE_FILES)
def test_a_damaged_provenance_stops_no_resume_and_no_report(
    content: str, run: Path, no_training: None, no_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "provenance.json").write_bytes(SIDE_FILES[content])
    assert main(["report", str(run)]) == 0
    assert "provenance.json" in (run / "report.html").read_text()
    assert main(["resume", str(run)]) == 0
    assert (run / "provenance.json.damaged").read_bytes() == SIDE_FILES[content]
    assert json.loads((run / "provenance.json").read_text())["backend"] == "cpu"


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b'{"total": 3, "total_scale_free": {}}', b'{"estimator": 1}'])
def test_a_damaged_measurement_is_left_out_of_the_report(run: Path, content: bytes, no_figures: None) -> None:
    (run / "measurement.json").write_bytes(content)
    assert main(["report", str(run)]) == 0
    assert "left out: " in (run / "report.html").read_text()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"random_return": true}', b'{"random_return": "3"}'])
def test_a_damaged_evaluation_is_left_out_of_the_report(run: Path, content: bytes, no_figures: None) -> None:
    (run / "evaluation.json").write_bytes(content)
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "left out: " in page and "evaluation.json" in page and "random play" not in page


def test_a_long_measurement_is_in_the_report(run: Path, no_figures: None) -> None:
    (run / "measure").mkdir(exist_ok=True)
    found = {"verdict": {"heading": "In words.", "lines": {"discount": "positive"}}, "rows": ["x" * 2**20]}
    (run / "measure" / "summary.json").write_text(json.dumps(found))
    assert main(["report", str(run)]) == 0
    assert "In words." in (run / "report.html").read_text()


SEEDS = [
    b"{",
    b"[0]",
    b"{}",
    b'{"seeds": []}',
    b'{"seeds": 3}',
    b'{"seeds": ["../../outside"]}',
    b'{"seeds": [0, 0]}',
    b'{"seeds": [true]}',
    b'{"seeds": [-1]}',
    b'{"seeds": [4294967296]}',
]


@pytest.mark.parametrize("content", SEEDS)
def test_a_damaged_list_of_seeds_is_named(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "seeds.json").write_bytes(content)
    for command in ("watch", "report", "resume"):
        assert main([command, str(tmp_path)]) == 2
        assert str(tmp_path / "seeds.json") in capsys.readouterr().err


SPAN = {"low": 0.1, "high": 0.2, "scale": "log", "whole": False}
PLAN = {"space": {"inner.discount": ["0.9"]}, "sampling": "grid", "trials": 1, "num_seeds": 1, "pruning": "none"}
PLANS: list[Any] = [
    {},
    {**PLAN, "space": {}},
    {**PLAN, "space": {"inner.discount": [0.9]}},
    {**PLAN, "space": {"inner.discount": {**SPAN, "low": "a"}}},
    {**PLAN, "space": ["inner.discount"]},
    {**PLAN, "sampling": "best"},
    {**PLAN, "pruning": ["none"]},
    {**PLAN, "trials": "5"},
    {**PLAN, "num_seeds": 0},
]


@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_a_damaged_plan_of_a_sweep_is_named(tmp_path: Path, plan: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    for command in ("watch", "resume"):
        assert main([command, str(tmp_path)]) == 2
        assert str(tmp_path / "sweep.json") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mark", "content", "link", "read"),
    [
        ("seeds.json", '{"seeds": [0]}', "seed-0", seed_runs),
        ("sweep.json", json.dumps(PLAN), "a", lambda path: setting_runs(path, "a")),
    ],
)
def test_runs_of_a_folder_lie_in_it(
    tmp_path: Path, mark: str, content: str, link: str, read: Callable[[Path], object]
) -> None:
    run = make_run(tmp_path / "elsewhere")
    (tmp_path / mark).write_text(content)
    (tmp_path / link).symlink_to(run)
    with pytest.raises(DamagedFile, match="symbolic link"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["empty", "folder", "copy"])
def test_a_name_is_no_proof_of_steps_that_were_taken(kind: str, run: Path) -> None:
    """A file that only is called a newer checkpoint does not keep the run from being made longer."""
    newer = run / "checkpoints" / "000000099999.safetensors"
    newest = run / "checkpoints" / f"{STEPS[-1]:012}.safetensors"
    {"empty": newer.touch, "folder": newer.mkdir, "copy": lambda: newer.write_bytes(newest.read_bytes())}[kind]()
    check_longer(run, STEPS[-1])
    with pytest.raises(ConfigError, match=f"{STEPS[-1]} or more"):
        check_longer(run, STEPS[-1] - 1)
    assert main(["resume", str(run), "--total-steps", str(STEPS[-1] - 1)]) == 2


def test_hard_links_of_a_backup_stay_as_they_are(run: Path) -> None:
    """`cp -al` is how backups are made that take no space."""
    before = {}
    for name in ("lock", "metrics.jsonl"):
        (run / f"{name}.backup").hardlink_to(run / name)
        before[name] = (run / name).read_bytes()
    with RunFolder.open(run) as folder:
        folder.metrics.write({"step": 99_999})
    for name, content in before.items():
        assert (run / f"{name}.backup").read_bytes() == content


def test_a_tail_reads_on_after_a_line_that_was_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    path.write_text('{"step": 1}\n{"step": 2')
    assert [row["step"] for row in tail.read()] == [1]
    with path.open("a") as file:
        file.write('}\n{"step": "x"}\n')
    with pytest.raises(DamagedFile, match="line 3"):
        tail.read()


def test_a_writer_says_what_it_left_out(tmp_path: Path) -> None:
    path, said = tmp_path / "metrics.jsonl", []
    path.write_text('{"step": 1}\n{"step": 2}\nx\n{"step": 3}\n')
    MetricsWriter(path, said.append).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert len(said) == 1 and "line 3" in said[0] and "The 2 rows before it stay" in said[0]
