"""The run of material.py, shared by a file's tests."""

import shutil

import pytest

from gradweave.runs.run_folder import RunFolder
from gradweave.training.checkpoints import named_arrays

from .material import first_state, tiny_config


@pytest.fixture(name="run", scope="module")
def make_run(tmp_path_factory):
    """Two checkpoints, of steps 4 and 12, and a row of metrics after the newer one."""
    config = tiny_config(tmp_path_factory.mktemp("runs"))
    with RunFolder.create(config) as folder:
        for count, step in enumerate((4, 12)):
            folder.save_checkpoint(named_arrays(first_state(config, count)), step)
        for step in (4, 12, 20):
            folder.metrics.write({"step": step})
    return folder.path


@pytest.fixture(name="own")
def make_own_run(run, tmp_path):
    """A copy of the run, for a test that changes it."""
    return shutil.copytree(run, tmp_path / run.name)
