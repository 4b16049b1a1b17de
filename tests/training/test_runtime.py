"""The compilation cache lies where only the user can write."""

import stat
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from gradweave.training.runtime import describe_devices, enable_compilation_cache


@pytest.fixture(autouse=True)
def restore_cache() -> Iterator[None]:
    folder = jax.config.values["jax_compilation_cache_dir"]
    seconds = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    yield
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def test_jax_is_given_the_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = enable_compilation_cache()
    assert folder is not None and folder.is_relative_to(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)


def test_a_chosen_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "chosen"))
    assert enable_compilation_cache() == tmp_path / "chosen"


def test_devices_are_described() -> None:
    described = describe_devices()
    assert described["backend"] == "cpu"
    assert len(described["devices"]) == jax.device_count()
    assert described["float"] == "float64"
