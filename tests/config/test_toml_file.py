"""Files of configurations: how numbers may be written."""

from pathlib import Path

import pytest

from gradweave.config.toml_file import read_config
from gradweave.errors import ConfigError


def test_whole_numbers_in_a_file_may_have_an_exponent(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "quick"\n[run]\ntotal_steps = 1e6\n[network]\nchannels = [8e0, 4]\n')
    config = read_config(file)
    assert (config.run.total_steps, config.network.channels) == (1_000_000, (8, 4))
    assert type(config.run.total_steps) is int and type(config.network.channels[0]) is int
    file.write_text('preset = "quick"\n[run]\ntotal_steps = 1.5\n')
    with pytest.raises(ConfigError, match="a whole number"):
        read_config(file)
