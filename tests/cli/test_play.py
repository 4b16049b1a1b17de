"""`play`, and reading agents, on a run that was never trained."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from gradweave.cli.main import main
from gradweave.config.learners.actor_critic import NetworkConfig
from gradweave.config.schema import EnvironmentConfig
from gradweave.errors import CheckpointError, ConfigError
from gradweave.runs.run_folder import RunFolder
from gradweave.training.checkpoints import named_arrays
from gradweave.training.loading import check_run, read_agent

from .material import content_of, first_state, tiny_config


@pytest.mark.slow
def test_play(run, tmp_path, capsys):
    before = content_of(run)
    output = tmp_path / "agent.gif"
    assert main(["play", str(run), "--greedy", "--output", str(output), "--step", "4"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("return ")
    steps = int(shown.split(" in ")[1].split()[0])
    with Image.open(output) as gif:
        assert gif.n_frames == steps
    assert content_of(run) == before
    assert main(["play", str(run)]) == 0
    assert (run / "agent.gif").exists()


@pytest.mark.slow
def test_reading_needs_no_lock_and_takes_the_wanted_step(run):
    with RunFolder.open(run):
        newest, older = read_agent(run), read_agent(run, 4)
    assert (newest.step, older.step) == (12, 4)
    assert newest.config.run.measure_samples == 4
    expected = first_state(older.config, 0)
    for found, wanted in zip(jax.tree.leaves(older.state.learner), jax.tree.leaves(expected.learner), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(own):
    path = own / "checkpoints" / f"{12:012d}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    warnings = []
    assert read_agent(own, warn=warnings.append).step == 4
    assert "falling back" in warnings[0]
    with pytest.raises(CheckpointError, match="damaged"):
        read_agent(own, 12)


def test_what_check_run_refuses(run, tmp_path):
    with pytest.raises(ConfigError, match=f"did you mean.*{run.name}"):
        check_run(run.with_name(run.name + "x"))
    with pytest.raises(CheckpointError, match="there are 4, 12"):
        check_run(run, 5)
    with RunFolder.create(tiny_config(tmp_path)) as folder, pytest.raises(CheckpointError, match="no checkpoint in"):
        check_run(folder.path)


def test_what_is_written_is_called_a_gif(run, tmp_path, capsys):
    assert main(["play", str(run), "--output", str(tmp_path / "p.png")]) == 2
    assert f"--output {tmp_path / 'p.png'}.gif" in capsys.readouterr().err


@pytest.mark.slow
def test_a_snake_run_is_drawn_as_a_snake(tmp_path, capsys):
    config = dataclasses.replace(
        tiny_config(tmp_path),
        environment=EnvironmentConfig("snake", {"num_rows": 4, "num_cols": 4, "time_limit": 6}),
        network=NetworkConfig(channels=(2,), strides=(2,), policy_layers=(4,), value_layers=(4,)),
    )
    with RunFolder.create(config) as folder:
        folder.save_checkpoint(named_arrays(first_state(config, 0)), 4)
    assert main(["play", str(folder.path), "--max-steps", "2"]) == 0
    assert " in 2 steps" in capsys.readouterr().out or " in 1 steps" in capsys.readouterr().out
    with Image.open(Path(folder.path) / "agent.gif") as gif:
        red = np.asarray(gif.convert("RGB"), int)
        assert ((red[..., 0] > 200) & (red[..., 1] < 120)).sum() > 50, "the fruit"
