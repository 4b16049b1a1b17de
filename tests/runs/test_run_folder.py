"""Run folders: what is in them, one process at a time, and going on from a checkpoint."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from gradweave.config.presets import preset
from gradweave.config.schema import Config, EnvironmentConfig, RunConfig
from gradweave.config.toml_file import read_config
from gradweave.errors import CheckpointError, ConfigError, FolderLost, RunInUse
from gradweave.runs import provenance
from gradweave.runs.locks import lock_folder
from gradweave.runs.run_folder import RunFolder, find_run, new_name
from gradweave.training.checkpoints import load_newest, named_arrays


def make_config(tmp_path: Path, **changes: int) -> Config:
    run = RunConfig(runs_dir=str(tmp_path / "runs"), **changes)
    return dataclasses.replace(preset("snake-6x6"), run=run)


def test_create_writes_configuration_and_provenance(tmp_path: Path) -> None:
    config = make_config(tmp_path, seed=11)
    with RunFolder.create(config, ["train", "snake-6x6"]) as folder:
        assert re.fullmatch(r"snake-6x6-\d{8}T\d{6}Z-[a-z]{4}", folder.path.name)
        assert read_config(folder.path / "config.toml") == config
        folder.add_provenance({"devices": ["cpu"]})
        origin = json.loads((folder.path / "provenance.json").read_text())
    assert origin["argv"] == ["gradweave", "train", "snake-6x6"]
    assert origin["seed"] == 11
    assert origin["devices"] == ["cpu"]
    assert origin["versions"]["jax"].count(".") == 2
    assert {"source", "python", "flags", "started"} <= set(origin)


def test_arguments_and_folders_may_be_any_bytes(tmp_path: Path) -> None:
    with RunFolder.create(make_config(tmp_path), ["train", "--config", "cf\udcff.toml"]) as folder:
        folder.metrics.write({"step": 10})
    assert noted(folder.path)["argv"][-1] == "cf?.toml"
    moved = folder.path.rename(tmp_path / "bad\udcff")
    with RunFolder.open(moved, ["gradweave", "resume", str(moved)]) as again:
        again.add_provenance({"devices": ["cpu"]})
    assert noted(moved)["continued"][0]["argv"][-1] == f"{tmp_path}/bad?"


def noted(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "provenance.json").read_text())
    return found


def test_who_goes_on_with_a_run_is_noted_beside_who_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"commit": "a", "diff": ""}
    monkeypatch.setattr(provenance, "source_state", lambda: dict(state))
    with RunFolder.create(make_config(tmp_path), ["train"]) as folder:
        folder.add_provenance({"devices": ["cpu"], "backend": "cpu"})
        folder.metrics.write({"step": 10})
        first = noted(folder.path)
    with RunFolder.open(folder.path) as again:  # not to train
        again.save_config()
    assert noted(folder.path) == first
    for commit, device in (("b", "gpu"), ("a", "cpu")):
        state["commit"] = commit
        with RunFolder.open(folder.path, ["run.py", "--stage", "runs"]) as again:
            again.add_provenance({"devices": [device], "backend": "cpu"})
            again.add_provenance({"from_step": 10})
    found = noted(folder.path)
    continued = found.pop("continued")
    assert found == first
    assert [entry.pop("started")[-1] for entry in continued] == ["Z", "Z"]
    own = {"argv": ["run.py", "--stage", "runs"], "from_step": 10}
    assert continued == [{"source": {"commit": "b", "diff": ""}, "devices": ["gpu"], **own}, own]
    processes = provenance.processes(noted(folder.path))
    assert [entry["source"]["commit"] for entry in processes] == ["a", "b", "a"]
    assert [entry["devices"] for entry in processes] == [["cpu"], ["gpu"], ["cpu"]]
    assert [entry["backend"] for entry in processes] == ["cpu"] * 3
    assert provenance.processes(first) == [first]  # as older versions wrote it


def test_a_folder_begins_with_the_process_that_first_logs_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds wait in folders that another process has made; a process that failed before its first row made nothing."""
    state = {"commit": "a", "diff": ""}
    monkeypatch.setattr(provenance, "source_state", lambda: dict(state))
    with RunFolder.create(make_config(tmp_path), ["train", "--seeds", "2"]) as folder:
        folder.add_provenance({"devices": ["cpu"]})
    state["commit"] = "b"
    with RunFolder.open(folder.path, ["one_seed.py"]) as again:
        again.add_provenance({"devices": ["gpu"]})
        again.add_provenance({"memory_forecast": 1})
    found = noted(folder.path)
    assert "continued" not in found
    assert (found["source"], found["devices"], found["memory_forecast"]) == (state, ["gpu"], 1)
    assert found["argv"] == ["gradweave", "train", "--seeds", "2"]


def test_source_that_cannot_be_compared_is_not_called_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    git = {"ls-files": "provenance.py\n", "rev-parse": "abc\n", "diff": None}
    monkeypatch.setattr(provenance, "_git", lambda folder, command, *rest: git[command])
    assert provenance.source_state() == {"commit": "abc", "diff": None}


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with RunFolder.create(config) as first, RunFolder.create(config) as second:
        assert first.path != second.path


def test_a_folder_in_use_is_refused_until_it_is_free(tmp_path: Path) -> None:
    with RunFolder.create(make_config(tmp_path)) as folder:
        with pytest.raises(RunInUse, match="in use by process") as raised:
            RunFolder.open(folder.path)
        assert raised.value.exit_code == 6
    with RunFolder.open(folder.path) as again:
        assert again.config == folder.config


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (errno.EAGAIN, RunInUse),
        (errno.EACCES, RunInUse),
        (errno.ENOLCK, ConfigError),
        (errno.ENOSYS, ConfigError),
        (errno.EOPNOTSUPP, ConfigError),
    ],
)
def test_a_file_system_without_locks_is_no_run_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: type[Exception]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("gradweave.runs.locks.fcntl.flock", refuse)
    with pytest.raises(raised, match=re.escape(str(tmp_path))) as caught:
        lock_folder(tmp_path)
    if isinstance(caught.value, ConfigError):
        assert caught.value.field == "run.runs_dir" and os.strerror(number) in caught.value.accepted


def test_a_lock_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(ConfigError, match="a folder to write in"):
        lock_folder(tmp_path)


def test_a_killed_process_frees_the_folder(tmp_path: Path) -> None:
    RunFolder.create(make_config(tmp_path)).close()
    (path,) = (tmp_path / "runs").iterdir()
    code = (
        "import sys, time; from pathlib import Path; from gradweave.runs.run_folder import RunFolder;"
        "folder = RunFolder.open(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunInUse, match=str(process.pid)):
            RunFolder.open(path)
        process.kill()
        process.wait()
    RunFolder.open(path).close()


def test_going_on_from_a_checkpoint_removes_later_rows(tmp_path: Path) -> None:
    with RunFolder.create(make_config(tmp_path, keep_checkpoints=2)) as folder:
        for step in (10, 20, 30, 40):
            folder.metrics.write({"step": step})
            if step < 40:
                folder.save_checkpoint(named_arrays({"x": jnp.array(step)}), step, {"step": step})
        assert len(list(folder.checkpoints.iterdir())) == 2
    with RunFolder.open(folder.path) as again:
        checkpoint = load_newest(again, {"x": jnp.array(0)})
        assert (int(checkpoint.tree["x"]), checkpoint.step, checkpoint.metadata["step"]) == (30, 30, 30)
        again.metrics.write({"step": 40, "again": True})
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 10},
        {"step": 20},
        {"step": 30},
        {"step": 40, "again": True},
    ]


def test_checkpoints_that_were_passed_over_are_not_gone_on_from_later(tmp_path: Path) -> None:
    """A file system that fails for a while: once rows have been removed, what is newer no longer fits them."""
    newer = [f"{step:012d}.safetensors" for step in (20, 30)]
    with RunFolder.create(make_config(tmp_path, keep_checkpoints=3)) as folder:
        for step in (10, 20, 30):
            folder.metrics.write({"step": step})
            folder.save_checkpoint(named_arrays({"x": jnp.array(step)}), step)
    whole = {name: (folder.checkpoints / name).read_bytes() for name in newer}
    for name in newer:
        (folder.checkpoints / name).write_bytes(b"unreadable")
    with RunFolder.view(folder.path) as viewed:
        assert load_newest(viewed, {"x": jnp.array(0)}, lambda _: None).step == 10
    assert len(list(folder.checkpoints.glob("*.safetensors"))) == 3
    with RunFolder.open(folder.path) as again:
        assert load_newest(again, {"x": jnp.array(0)}, lambda _: None).step == 10
        damaged = sorted(folder.checkpoints.glob("*.damaged"))
        assert [path.name for path in damaged] == [f"{name}.damaged" for name in newer]
        for path in damaged:
            path.write_bytes(whole[path.stem])
        again.metrics.write({"step": 15})
    with RunFolder.open(folder.path) as again:
        assert load_newest(again, {"x": jnp.array(0)}, pytest.fail).step == 10


def test_looking_at_a_run_changes_nothing_and_needs_no_lock(tmp_path: Path) -> None:
    with RunFolder.create(make_config(tmp_path)) as folder:
        folder.metrics.write({"step": 10})
        folder.save_checkpoint(named_arrays({"x": jnp.array(10)}), 10)
        folder.metrics.write({"step": 20})
        before = (folder.path / "metrics.jsonl").read_bytes()
        with RunFolder.view(folder.path) as viewed:
            assert int(load_newest(viewed, {"x": jnp.array(0)}).tree["x"]) == 10
            with pytest.raises(ValueError, match=r"RunFolder\.open"):
                viewed.metrics.write({"step": 30})
        assert (folder.path / "metrics.jsonl").read_bytes() == before
        folder.metrics.write({"step": 30})
    with pytest.raises(ConfigError):
        RunFolder.view(tmp_path / "absent")


def test_rows_are_kept_when_no_checkpoint_can_be_loaded(tmp_path: Path) -> None:
    with RunFolder.create(make_config(tmp_path)) as folder:
        folder.metrics.write({"step": 10})
        with pytest.raises(CheckpointError):
            load_newest(folder, {"x": jnp.array(0)})
        assert (folder.path / "metrics.jsonl").read_text() == '{"step": 10}\n'


def longer(config: Config) -> Config:
    return dataclasses.replace(config, run=dataclasses.replace(config.run, total_steps=10**9))


def test_another_configuration_is_saved_and_ends_what_the_earlier_one_measured(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with RunFolder.create(config) as folder:
        names = ("evaluation.json", "measurement.json", "report.html")
        for name in names:
            (folder.path / name).touch()
        folder.config = longer(config)
        assert read_config(folder.path / "config.toml") == config
        folder.save_config()
        assert read_config(folder.path / "config.toml") == longer(config)
        assert not any((folder.path / name).exists() for name in names)


def test_a_configuration_that_cannot_be_written_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = make_config(tmp_path)
    with RunFolder.create(config) as folder:
        (folder.path / "report.html").touch()
        folder.config = longer(config)
        monkeypatch.setattr("gradweave.runs.run_folder.write_atomically", full)
        with pytest.raises(FolderLost, match=r"config\.toml cannot be replaced \(No space left"):
            folder.save_config()
        assert (folder.path / "report.html").exists()
        assert read_config(folder.path / "config.toml") == config


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, not a folder")
    with pytest.raises(ConfigError, match=r"run\.runs_dir"):
        RunFolder.create(make_config(tmp_path))


def test_an_unknown_run_names_the_nearest(tmp_path: Path) -> None:
    with RunFolder.create(make_config(tmp_path)) as folder:
        misspelt = folder.path.with_name(folder.path.name[:-1])
        with pytest.raises(ConfigError, match=f"did you mean .*{folder.path.name}"):
            find_run(misspelt)
        with pytest.raises(ConfigError, match=f"name one of the runs in it, such as {folder.path}"):
            find_run(folder.path.parent)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_results_that_are_being_written_are_no_change_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, result = tmp_path / "src" / "code.py", tmp_path / "results" / "table.csv"
    for file in (source, result):
        file.parent.mkdir()
        file.write_text("before\n")
    for command in ("init", "add .", "-c user.name=n -c user.email=e commit -m first"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(provenance, "__file__", str(source))
    result.write_text("after\n")
    unchanged = provenance.source_state()
    assert unchanged is not None and unchanged["diff"] == ""
    source.write_text("after\n")
    changed = provenance.source_state()
    assert changed is not None and "code.py" in changed["diff"] and "table.csv" not in changed["diff"]


@pytest.mark.parametrize(
    ("preset_name", "environment", "what"),
    [
        ("quick", "snake", "quick-snake"),
        ("snake-6x6", "snake", "snake-6x6"),
        ("snake-sweep", "snake", "snake-sweep"),
        ("quick", "jumanji:Game2048-v1", "quick-jumanji-game2048-v1"),
    ],
)
def test_a_folders_name_says_the_environment(preset_name: str, environment: str, what: str) -> None:
    config = dataclasses.replace(Config(), preset=preset_name, environment=EnvironmentConfig(name=environment))
    assert re.fullmatch(what + r"-\d{8}T\d{6}Z-[a-z]{4}", new_name(config))
