"""Training on two devices is training on one, whatever is estimated and however; what cannot be split is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config, write_config
from gradweave.config.validation import find_problems
from gradweave.errors import ConfigError
from gradweave.runs.run_folder import RunFolder
from gradweave.training.devices import DEFAULT_DEVICE, Devices, find_devices

from .material import CHUNK, WINDOW, leaves, run, small


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    return dataclasses.replace(
        config,
        **{name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()},
    )


def on(config: Config, devices: Any) -> Config:
    return changed(config, run={"devices": devices})


# Together: every estimator that is a program of its own, every mode, and every option that reads whole batches.
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "corrected": {
        "meta": {"sampling_correction": 0.5, "schedule": "network"},
        "inner": {"learning_rate_groups": "parts"},
        "outer": {"kl_cost": 0.5},
    },
    "trace": {"meta": {"estimator": "trace"}, "network": {"condition_on_eta": True}},
    "parts": {
        "meta": {"estimator": "horizon-mix:geometric:0.9"},
        "inner": {"microbatches": 2},
        "outer": {"standardize_advantages": True},
    },
    "adaptive": {"meta": {"estimator": "adaptive-mix"}, "inner": {"optimizer": "rmsprop"}},
    "bootstrapped": {"meta": {"estimator": "bootstrapped:2"}, "inner": {"max_grad_norm": 0.5}},
    "one number": {"meta": {"learned": ("discount",)}, "inner": {"microbatches": 2}},
    "tuned": {
        "meta": {
            "learned": ("discount",),
            "tuners": ("learning_rate=kl:1e-4", "entropy_cost=target-entropy", "lambda=return-choice:0.5,0.9"),
            "guard": True,
        },
        "inner": {"scale_rewards": "on", "normalize_observations": True},
    },
    "random": {
        "meta": {"estimator": "random-truncation", "mode": "reverse:step"},
        "inner": {"targets": "stopped"},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_chunk_on_two_devices_is_that_of_one(name: str, tmp_path: Path) -> None:
    config = small(tmp_path, num_chunks=1, learned=("discount", "learning_rate"))
    config = changed(changed(config, **OPTIONS[name]), environment={"name": "truncated-reward"})
    summaries, rows = [], []
    for devices in (DEFAULT_DEVICE, find_devices(2)):
        with RunFolder.create(config) as folder:
            summaries.append(run(config, folder, devices=devices))
            rows.append((folder.path / "metrics.jsonl").read_text().count("\n"))
    assert rows == [CHUNK, CHUNK]
    for one, two in zip(leaves(summaries[0].state), leaves(summaries[1].state), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-12)
    assert len(summaries[1].state.rollout.episode_return.sharding.device_set) == 1


@pytest.mark.slow
def test_a_run_goes_on_with_other_devices(tmp_path: Path) -> None:
    half, whole = small(tmp_path, num_chunks=1), small(tmp_path, num_chunks=2)
    with RunFolder.create(whole) as folder:
        expected = run(whole, folder)
    with RunFolder.create(half) as folder:
        run(half, folder, devices=find_devices(2))
        resumed = run(whole, folder, resume=True)
    for one, two in zip(leaves(expected.state), leaves(resumed.state), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-12)
    assert resumed.environment_steps == whole.inner.num_envs * whole.inner.num_steps + 2 * CHUNK * WINDOW


def test_more_devices_than_there_are_is_refused(tmp_path: Path) -> None:
    config = changed(on(small(tmp_path), 64), inner={"num_envs": 64})
    with pytest.raises(ConfigError, match=r"run\.devices = 64 cannot be used") as caught:
        find_devices(config.run.devices)
    assert "usable cores" in str(caught.value)
    assert f"--devices {min(2, jax.local_device_count())}" in str(caught.value) or "--devices 1" in str(caught.value)


def test_one_device_needs_no_mesh(tmp_path: Path) -> None:
    assert find_devices(1) == DEFAULT_DEVICE
    assert find_devices("all").total <= jax.local_device_count()


def test_environments_are_shared_evenly(tmp_path: Path) -> None:
    problems = find_problems(on(small(tmp_path), 3))
    assert [problem.field for problem in problems] == ["inner.num_envs"]
    assert "--inner.num-envs 6," in problems[0].remedy and "2 devices" in problems[0].remedy
    assert not find_problems(on(small(tmp_path), 2), num_processes=2)
    assert find_problems(on(small(tmp_path), 2), num_processes=4)
    assert [problem.field for problem in find_problems(on(small(tmp_path), 0))] == ["run.devices"]


@pytest.mark.parametrize("devices", [4, "all"])
def test_the_number_of_devices_survives_a_file(devices: Any, tmp_path: Path) -> None:
    write_config(on(small(tmp_path), devices), tmp_path / "config.toml")
    assert read_config(tmp_path / "config.toml").run.devices == devices


@pytest.mark.slow
def test_an_environment_that_cannot_be_split_is_refused(tmp_path: Path) -> None:
    config = changed(small(tmp_path), environment={"name": "jumanji:Maze-v0"})
    devices: Devices = find_devices(2)
    with pytest.raises(ConfigError, match=r"environment\.name"):
        devices.checked(config)
    assert DEFAULT_DEVICE.checked(config) is DEFAULT_DEVICE
