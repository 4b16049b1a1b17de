"""Trackers: only numbers are sent, with their steps, and a missing package is named as its extra has it."""

import dataclasses
import importlib
import importlib.util
import sys
import threading
import time
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest

from gradweave.api.training import open_to_resume
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config
from gradweave.errors import ConfigError
from gradweave.runs.run_folder import run_name
from gradweave.runs.trackers import check_tracker, make_tracker

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from reliability.folders import make_run

ROW = {"step": 7, "return": 1.5, "note": "text", "absent": None, "nonfinite": {"x": "nan"}, "each": [1.0, 2.0]}


def config_with(name: str) -> Config:
    config = preset("quick")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, track=name))


class FakeWriter:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.calls: list[Any] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.calls.append((name, value, step))

    def close(self) -> None:
        self.calls.append("closed")


def test_none_does_nothing(tmp_path: Path) -> None:
    tracker = make_tracker(tmp_path, preset("quick"))
    tracker.log(ROW)
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def extra(name: str) -> str:
    """What pyproject.toml installs for the extra `name`."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = project["optional-dependencies"][name]
    return str(requirement)


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_names_its_extra(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=package) as raised:
        check_tracker(name)
    assert f'pip install "{extra(name)}"' in raised.value.remedy


def test_tensorboard_gets_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[FakeWriter] = []

    def make_writer(folder: str) -> FakeWriter:
        writers.append(FakeWriter(folder))
        return writers[-1]

    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(importlib, "import_module", lambda module: types.SimpleNamespace(SummaryWriter=make_writer))
    tracker = make_tracker(tmp_path, config_with("tensorboard"))
    tracker.log(ROW)
    tracker.close()
    assert writers[0].folder == str(tmp_path / "tensorboard")
    assert writers[0].calls == [("return", 1.5, 7), "closed"]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_get_every_number(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    module = types.SimpleNamespace(
        init=lambda **settings: calls.append(settings),
        log=lambda numbers, step: calls.append((numbers, step)),
        finish=lambda: calls.append("finished"),
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(importlib, "import_module", lambda imported: module)
    tracker = make_tracker(tmp_path, config_with(name))
    tracker.log(ROW)
    tracker.close()
    assert calls[0]["name"] == tmp_path.name
    assert calls[0]["config"]["inner"]["num_envs"] == 64
    assert calls[1:] == [({"return": 1.5}, 7), "finished"]


def test_seeds_of_two_studies_do_not_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Any]] = []
    module = types.SimpleNamespace(init=lambda **settings: found.append(settings))
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(importlib, "import_module", lambda imported: module)
    for study in ("a", "b"):
        (tmp_path / study / "seed-0").mkdir(parents=True)
        (tmp_path / study / "seeds.json").touch()
        make_tracker(tmp_path / study / "seed-0", config_with("wandb")).close()
    assert [settings["id"] for settings in found] == ["a-seed-0", "b-seed-0"]
    assert [settings["name"] for settings in found] == ["a-seed-0", "b-seed-0"]
    assert run_name(tmp_path / "b") == "b"
    monkeypatch.chdir(tmp_path / "b")
    assert run_name(Path("seed-0")) == "b-seed-0"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A package whose functions do nothing, until a test replaces one."""
    found = types.SimpleNamespace(init=lambda **_: None, log=lambda numbers, step: None, finish=lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(importlib, "import_module", lambda imported: found)
    return found


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


RAISED = [RuntimeError("no network"), SystemExit(0), KeyboardInterrupt(), GeneratorExit(), Speechless()]


@pytest.mark.parametrize("error", RAISED, ids=[type(error).__name__ for error in RAISED])
@pytest.mark.parametrize("function", ["init", "log", "finish"])
def test_whatever_a_tracker_raises_is_said_once_and_ends_only_the_tracker(
    tmp_path: Path, module: types.SimpleNamespace, function: str, error: BaseException
) -> None:
    calls: list[str] = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(function)
        raise error

    setattr(module, function, fail)
    said: list[str] = []
    tracker = make_tracker(tmp_path, config_with("wandb"), said.append, patience=5.0)
    for _ in range(3000):  # more than there is room for
        tracker.log(ROW)
    tracker.close()
    off = [text for text in said if "switched off" in text]
    assert calls == [function] and len(off) == 1 and type(error).__name__ in off[0]
    assert not any("left behind" in text for text in said)


@pytest.mark.parametrize("function", ["init", "log", "finish"])
def test_a_tracker_that_hangs_is_left_behind(tmp_path: Path, module: types.SimpleNamespace, function: str) -> None:
    release = threading.Event()
    setattr(module, function, lambda *_, **__: release.wait(60))
    said: list[str] = []
    tracker = make_tracker(tmp_path, config_with("trackio"), said.append, patience=0.2)
    begun = time.monotonic()
    for _ in range(3000 if function != "finish" else 1):
        tracker.log(ROW)
    tracker.close()
    assert time.monotonic() - begun < 5
    assert sum("falls behind" in text for text in said) == (function != "finish")
    assert "left behind" in said[-1]
    release.set()


def test_a_run_is_resumed_without_the_package_of_its_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    said: list[str] = []
    tracker = make_tracker(tmp_path, config_with("wandb"), said.append)
    tracker.log(ROW)
    tracker.close()
    assert len(said) == 1 and "nothing is sent to wandb" in said[0] and "pip install" in said[0]


def test_resume_takes_another_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    with open_to_resume(run, track="tensorboard") as folder:
        assert folder.config.run.track == "tensorboard"
        folder.save_config()
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match="wandb"):
        open_to_resume(run, track="wandb")
    assert read_config(run / "config.toml").run.track == "tensorboard"
