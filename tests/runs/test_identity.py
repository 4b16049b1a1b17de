"""A folder does not lie about its past: edited configurations and checkpoints of other runs or names are refused."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradweave.cli.main import main
from gradweave.config.toml_file import format_config, read_config, write_config
from gradweave.errors import CheckpointError, ConfigError
from gradweave.runs.checkpoints import SavedArray, describe, list_checkpoints, newest_good, read, write
from gradweave.runs.provenance import recorded
from gradweave.runs.run_folder import RunFolder
from gradweave.runs.seeds_folder import SeedsFolder

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from reliability.folders import STEPS, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


def edit(run: Path, section: str, **changes: Any) -> None:
    config = read_config(run / "config.toml")
    write_config(
        dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **changes)}),
        run / "config.toml",
    )


EDITS = [("inner", "discount", 0.9, 0.8), ("run", "seed", 0, 3), ("run", "chunk_size", 20, 5)]
EDITS += [
    ("inner", "learning_rate", 1e-3, 1e-2),
    ("network", "policy_layers", [32], (8, 8)),
    ("run", "log_every", 1, 2),
]


@pytest.mark.parametrize(("section", "name", "then", "now"), EDITS)
def test_an_edited_configuration_is_refused_with_both_values(
    run: Path, section: str, name: str, then: Any, now: Any
) -> None:
    edit(run, section, **{name: now})
    before = (run / "provenance.json").read_bytes()
    with pytest.raises(ConfigError, match="--accept-changes") as raised:
        RunFolder.open(run)
    now = list(now) if isinstance(now, tuple) else now
    assert (raised.value.field, raised.value.value) == (f"{section}.{name}", now)
    assert raised.value.accepted.startswith(f"{then!r}, as in the checkpoint of step {STEPS[-1]:,}")
    assert (run / "provenance.json").read_bytes() == before
    edit(run, section, **{name: tuple(then) if isinstance(then, list) else then})
    RunFolder.open(run).close()


def test_all_that_was_edited_is_named(run: Path) -> None:
    edit(run, "inner", discount=0.8, learning_rate=1e-2)
    with pytest.raises(ConfigError) as raised:
        RunFolder.open(run)
    assert [raised.value.field, *(other.field for other in raised.value.others)] == [
        "inner.discount",
        "inner.learning_rate",
    ]


def test_accepted_changes_are_recorded_and_not_asked_about_again(run: Path) -> None:
    edit(run, "inner", discount=0.8)
    with RunFolder.open(run, accept_changes=True):  # and training does not begin
        pass
    with pytest.raises(ConfigError, match=r"inner\.discount"):
        RunFolder.open(run)
    with RunFolder.open(run, accept_changes=True) as folder:
        folder.save_config()
        folder.metrics.write({"step": 99_999})
    assert json.loads((run / "provenance.json").read_text())["accepted_changes"] == [["inner.discount", 0.9, 0.8]]
    with RunFolder.open(run) as folder:  # although no checkpoint has been written with it yet
        folder.save_checkpoint({"x": SavedArray(np.array(1), "int64")}, 99_999)
    with RunFolder.open(run):
        pass
    edit(run, "inner", discount=0.7)
    with pytest.raises(ConfigError, match=r"0\.8, as in the checkpoint of step 99,999"):
        RunFolder.open(run)


def test_what_says_nothing_of_the_past_may_change(run: Path) -> None:
    edit(run, "run", total_steps=10**9, devices=2, track="tensorboard", checkpoint_every=7, keep_checkpoints=1)
    edit(run, "run", runs_dir="moved")
    RunFolder.open(run).close()
    shutil.move(run, run.with_name("elsewhere"))
    RunFolder.open(run.with_name("elsewhere")).close()


def test_resume_says_so_and_takes_the_flag(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[Any] = []

    def launch(open_folder: Any, **_: Any) -> None:
        with open_folder() as folder:
            trained.append(folder.config)

    monkeypatch.setattr("gradweave.cli.resume.launch", launch)
    monkeypatch.setattr("gradweave.cli.resume.train_in", lambda started: started)
    edit(run, "inner", discount=0.8)
    assert main(["resume", str(run)]) == 2
    said = capsys.readouterr().err
    assert "inner.discount = 0.8" in said and "0.9, as in the checkpoint" in said and not trained
    assert main(["resume", str(run), "--accept-changes"]) == 0
    assert trained[0].inner.discount == 0.8


@pytest.mark.slow
def test_reading_an_agent_is_refused_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(run, "inner", discount=0.8)
    assert main(["play", str(run)]) == 2
    assert "0.9, as in the checkpoint" in capsys.readouterr().err


def test_seeds_are_checked_one_by_one(tmp_path: Path, run: Path) -> None:
    config = read_config(run / "config.toml")
    with SeedsFolder.create(config, 2, name="several") as seeds:
        path = seeds.runs[1]
        with RunFolder.open(path) as folder:
            folder.metrics.write({"step": 10})
            folder.save_checkpoint({"x": SavedArray(np.array(1), "int64")}, 10)
        edit(path, "inner", discount=0.8)
        with pytest.raises(ConfigError, match="as in the checkpoint"):
            seeds.change({"total_steps": 10**9})
        seeds.change({"total_steps": 10**9}, accept_changes=True)
        seeds.change({"total_steps": 2 * 10**9})


def test_a_checkpoint_of_another_run_is_passed_over(tmp_path: Path, run: Path) -> None:
    other = make_run(tmp_path, "other")
    newest = list_checkpoints(other / "checkpoints")[-1]
    shutil.copy(newest, run / "checkpoints" / newest.name)
    with RunFolder.open(run) as folder:
        with pytest.raises(CheckpointError, match="belongs to another run"):
            folder.check_origin(folder.checkpoints / newest.name)
        folder.check_origin(list_checkpoints(folder.checkpoints)[-2])


def test_a_provenance_of_another_run_is_named_with_a_remedy_that_helps(run: Path) -> None:
    (run / "provenance.json").write_text('{"run_id": "x"}')
    newest = list_checkpoints(run / "checkpoints")[-1]
    with RunFolder.open(run) as folder, pytest.raises(CheckpointError, match=r"provenance\.json.* x.* remove it"):
        folder.check_origin(newest)
    (run / "provenance.json").unlink()
    with RunFolder.open(run) as folder:
        folder.check_origin(newest)


def test_a_checkpoint_under_another_name_is_refused(run: Path) -> None:
    oldest, *_, newest = list_checkpoints(run / "checkpoints")
    newest.unlink()
    shutil.copy(oldest, newest)
    said: list[str] = []
    path, _ = newest_good(run / "checkpoints", read, said.append)
    assert path.stem == f"{STEPS[1]:012}" and f"checkpoint of step {STEPS[0]} under another name" in said[0]


def test_the_identity_survives_a_lost_provenance(run: Path) -> None:
    run_id, _ = recorded(run)
    assert run_id is not None
    (run / "provenance.json").unlink()
    with RunFolder.open(run) as folder:
        path = folder.save_checkpoint({"x": SavedArray(np.array(1), "int64")}, 99_999)
    assert recorded(run)[0] == describe(path).metadata["run"] == run_id


def test_runs_of_earlier_versions_go_on(run: Path) -> None:
    """Their checkpoints say nothing of a run, and their config.toml has other fields."""
    for path in list_checkpoints(run / "checkpoints"):
        write(path, {"x": SavedArray(np.array(1), "int64")}, int(path.stem))
    (run / "provenance.json").write_text('{"argv": []}')
    text = (
        (run / "config.toml").read_text().replace('mode = "auto"', 'mode = "auto"\nremat = "none"\ntrace_decay = 0.9')
    )
    (run / "config.toml").write_text(text)
    with RunFolder.open(run) as folder:
        assert "remat" not in format_config(folder.config)
        path = folder.save_checkpoint({"x": SavedArray(np.array(1), "int64")}, 99_999)
    assert describe(path).metadata["run"] is None
    edit(run, "inner", discount=0.8)
    with pytest.raises(ConfigError, match="as in the checkpoint of step 99,999"):
        RunFolder.open(run)


@pytest.mark.parametrize("config", [3, "x", [], {"inner": 3}, {"preset": "x"}, {"inner": {"discount": "x"}}])
def test_a_configuration_that_is_none_is_no_traceback(run: Path, config: Any) -> None:
    path = list_checkpoints(run / "checkpoints")[-1]
    write(path, {"x": SavedArray(np.array(1), "int64")}, STEPS[-1], {"config": config})
    with RunFolder.open(run) as folder, pytest.raises(CheckpointError):
        folder.check_origin(path)
