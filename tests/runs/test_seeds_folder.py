"""The folder of several seeds: an ordinary run in it for each, found, changed together, refused when it cannot be."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.errors import ConfigError, DamagedFile, RunInUse
from gradweave.runs.checkpoints import SavedArray, write
from gradweave.runs.run_folder import RunFolder, find_run
from gradweave.runs.seeds_folder import SeedsFolder, find_runs, is_finished, is_seeds_folder


def config_in(runs_dir: Path, **changes: Any) -> Config:
    config = preset("quick")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(runs_dir), **changes))


def test_every_seed_has_an_ordinary_run(tmp_path: Path) -> None:
    config = config_in(tmp_path, seed=7)
    with SeedsFolder.create(config, 2, ["train", "--seeds", "2"]) as folder:
        assert is_seeds_folder(folder.path)
        assert folder.seeds == (7, 8)
        assert [path.name for path in folder.runs.values()] == ["seed-7", "seed-8"]
        with pytest.raises(RunInUse):
            SeedsFolder.open(folder.path)
    for seed, path in folder.runs.items():
        with RunFolder.open(path) as run:
            own = dataclasses.replace(config.run, seed=seed, runs_dir=str(folder.path))
            assert run.config == dataclasses.replace(config, run=own)
    with SeedsFolder.open(folder.path) as again:
        assert again.runs == folder.runs


def test_all_or_none_are_changed(tmp_path: Path) -> None:
    with SeedsFolder.create(config_in(tmp_path), 2) as folder:
        folder.change({"total_steps": 9_999_999})
        with pytest.raises(ConfigError, match="at least one window"):
            folder.change({"total_steps": 1})
        for path in folder.runs.values():
            assert RunFolder.view(path).config.run.total_steps == 9_999_999


def test_none_is_changed_where_one_is_in_use(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with SeedsFolder.create(config, 2) as folder:
        first, second = folder.runs.values()
        (first / "report.html").touch()
        with RunFolder.open(second), pytest.raises(RunInUse):
            folder.change({"total_steps": 9_999_999})
        assert RunFolder.view(first).config.run.total_steps == config.run.total_steps
        assert (first / "report.html").exists()


def test_runs_are_found_in_it_and_it_is_no_run(tmp_path: Path) -> None:
    with SeedsFolder.create(config_in(tmp_path), 3) as folder:
        first, second, _ = folder.runs.values()
        assert find_runs(folder.path) == [first]  # so that what is refused names a run
        with RunFolder.open(second) as run:
            run.metrics.write({"step": 1})
        assert find_runs(folder.path) == [second]
        assert find_runs(second) == [second]
        with pytest.raises(ConfigError, match="seed-0"):
            find_run(folder.path)
        with pytest.raises(ConfigError, match=f"did you mean {folder.path}"):
            find_run(folder.path.with_name(folder.path.name[:-1]))


def test_finished_is_the_last_checkpoint_and_a_report(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with SeedsFolder.create(config, 1) as folder:
        (path,) = folder.runs.values()
        total = config.inner.num_envs * config.inner.num_steps + config.num_meta_steps * config.window_steps
        (path / "checkpoints" / f"{total - 1:012d}.safetensors").touch()
        (path / "report.html").touch()
        assert not is_finished(path)
        (path / "checkpoints" / f"{total:012d}.safetensors").touch()
        assert is_finished(path)
        (path / "report.html").unlink()
        assert not is_finished(path)


def test_a_seed_that_goes_on_for_longer_is_finished_only_when_it_is_reported_again(tmp_path: Path) -> None:
    with SeedsFolder.create(config_in(tmp_path), 1) as folder:
        (path,) = folder.runs.values()
        steps = config_in(tmp_path).run.total_steps
        (path / "checkpoints" / f"{steps + 10**5:012d}.safetensors").touch()  # it ends with a whole window
        for name in ("report.html", "measurement.json"):
            (path / name).touch()
        folder.change({"devices": 2})
        assert is_finished(path)
        folder.change({"total_steps": 2 * steps})
        assert not is_finished(path) and not (path / "measurement.json").exists()
        (path / "report.html").touch()
        assert not is_finished(path)
        last = 2 * steps + 10**5
        write(path / "checkpoints" / f"{last:012d}.safetensors", {"x": SavedArray(np.array(1), "int64")}, last)
        assert is_finished(path)
        with pytest.raises(ConfigError, match=f"{last} or more"):
            folder.change({"total_steps": steps})
        assert is_finished(path)


def test_a_seed_that_was_deleted_is_named(tmp_path: Path) -> None:
    with SeedsFolder.create(config_in(tmp_path), 2) as folder:
        shutil.rmtree(folder.runs[1])
    with pytest.raises(DamagedFile, match=r"lists seed-1, which is not there.*take 1 out of it"):
        find_runs(folder.path)
