"""The folder for compiled programs is one that only the user can write."""

import stat
from pathlib import Path

import pytest

from gradweave.machine.runtime import compilation_cache_folder


def test_the_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "gradweave" / "jax").mkdir(parents=True, mode=0o777)
    folder = compilation_cache_folder()
    assert folder == tmp_path / "gradweave" / "jax"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "gradweave").mkdir()
    (tmp_path / "gradweave" / "jax").symlink_to(tmp_path / "elsewhere")
    assert compilation_cache_folder() is None
