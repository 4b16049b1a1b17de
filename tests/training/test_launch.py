"""Experiments start, continue and lengthen their one run by the same call."""

import dataclasses
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.errors import ConfigError, RunInUse
from gradweave.runs.run_folder import RunFolder
from gradweave.training.launch import run_or_continue


def config_in(runs_dir: Path, **changes: Any) -> Config:
    config = preset("quick")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(runs_dir), **changes))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    calls: list[tuple[int, bool]] = []

    def trained(folder: Any, *, resume: bool, **_: Any) -> Any:
        calls.append((folder.config.run.total_steps, resume))
        (folder.checkpoints / "000000000001.safetensors").write_text("not read here")
        return types.SimpleNamespace()

    monkeypatch.setattr("gradweave.training.launch._trained", trained)
    return calls


def test_the_second_call_continues_and_may_lengthen(tmp_path: Path, launches: list[tuple[int, bool]]) -> None:
    first, _ = run_or_continue(config_in(tmp_path, total_steps=10_000))
    again, _ = run_or_continue(config_in(tmp_path, total_steps=20_000))
    assert first == again
    assert launches == [(10_000, False), (20_000, True)]


def test_two_that_start_at_once_make_one_run(
    tmp_path: Path, launches: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = RunFolder.create

    def create_late(config: Config, argv: Sequence[str] = ()) -> RunFolder:
        with pytest.raises(RunInUse):  # another one, which finds no run either
            run_or_continue(config)
        return create(config, argv)

    monkeypatch.setattr(RunFolder, "create", create_late)
    path, _ = run_or_continue(config_in(tmp_path))
    again, _ = run_or_continue(config_in(tmp_path))
    assert again == path and [resume for _, resume in launches] == [False, True]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, launches: list[tuple[int, bool]]) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"run\.runs_dir"):
        run_or_continue(config_in(tmp_path / "file" / "runs"))
    assert not launches


def test_a_moved_run_is_the_same_run(tmp_path: Path, launches: list[tuple[int, bool]]) -> None:
    path, _ = run_or_continue(config_in(tmp_path / "here"))
    (tmp_path / "there").mkdir()
    path.rename(tmp_path / "there" / path.name)
    run_or_continue(config_in(tmp_path / "there"))
    assert [resume for _, resume in launches] == [False, True]


def test_another_configuration_is_refused(tmp_path: Path, launches: list[tuple[int, bool]]) -> None:
    run_or_continue(config_in(tmp_path))
    with pytest.raises(ConfigError, match="this very configuration"):
        run_or_continue(config_in(tmp_path, seed=7))
    assert len(launches) == 1


def test_several_runs_in_one_folder_are_refused(tmp_path: Path, launches: list[tuple[int, bool]]) -> None:
    for name in ("a", "b"):
        run_or_continue(config_in(tmp_path / name))
        (path,) = (file.parent for file in (tmp_path / name).glob("*/config.toml"))
        path.rename(tmp_path / path.name)
    with pytest.raises(ConfigError, match="at most one run"):
        run_or_continue(config_in(tmp_path))
