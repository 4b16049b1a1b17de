"""How many seeds may be trained, and on which cores."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gradweave.cli import seeds
from gradweave.cli.seeds import check_seeds, plan_shares
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.errors import ConfigError
from gradweave.training.hosts import ALONE, Hosts


def config_in(runs_dir: Path, **changes: Any) -> Config:
    config = preset("quick")
    return dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(runs_dir), **changes))


@pytest.mark.parametrize(
    ("seed", "count", "hosts", "field"),
    [
        (0, 0, ALONE, "--seeds = 0"),
        (0, -3, ALONE, "--seeds = -3"),
        (2**32 - 2, 3, ALONE, "--seeds = 3"),
        (0, 2, Hosts("here:1", 2, 0), "--coordinator"),
    ],
)
def test_what_cannot_be_is_refused(seed: int, count: int, hosts: Hosts, field: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=field):
        check_seeds(config_in(tmp_path, seed=seed), count, hosts)


def test_the_last_seed_there_is_may_be_taken(tmp_path: Path) -> None:
    check_seeds(config_in(tmp_path, seed=2**32 - 2), 2, ALONE)


def test_cores_are_shared_on_cpus_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(seeds, "usable_cores", lambda: 4)
    monkeypatch.setattr(seeds, "share_cores", lambda count, least: asked.append((count, least)) or [(0,)])
    monkeypatch.setattr(seeds, "default_backend", lambda: "cpu")
    for devices in (1, 2, "all"):
        plan_shares(config_in(tmp_path, devices=devices), 3)
    assert asked == [(3, 1), (3, 2), (3, 4)]
    with pytest.raises(ConfigError, match="at most 4 here"):
        plan_shares(config_in(tmp_path, devices=5), 3)
    monkeypatch.setattr(seeds, "default_backend", lambda: "gpu")
    assert plan_shares(config_in(tmp_path, devices=8), 3) == [()]
