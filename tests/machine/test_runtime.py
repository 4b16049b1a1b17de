"""The folder for compiled programs is one that only the user can write."""

import os
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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = compilation_cache_folder()
    assert folder is not None
    return folder


@pytest.mark.parametrize("above", ["", "..", "../.."])
def test_a_folder_that_others_can_replace_is_not_used(cache: Path, above: str) -> None:
    place = (cache / above).resolve()
    for mode, used in ((0o777, above == ""), (0o1777, True), (0o755, True)):
        place.chmod(mode)  # the folder itself is made private again
        assert (compilation_cache_folder() is not None) == used, oct(mode)


def test_entries_that_others_can_have_made_are_deleted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mode in (("own", 0o600), ("usual", 0o644), ("writable", 0o666)):
        (cache / name).touch()
        (cache / name).chmod(mode)
    (cache / "link").symlink_to(cache / "own")
    assert compilation_cache_folder() == cache
    assert sorted(path.name for path in cache.iterdir()) == ["own", "usual"]


def test_folders_of_the_compiler_are_kept_and_cleaned(cache: Path) -> None:
    """On GPUs JAX makes one for tuned kernels in its cache, which the second run must not stumble over."""
    kernels = cache / "xla_gpu_per_fusion_autotune_cache_dir"
    kernels.mkdir()
    (kernels / "own").touch(0o600)
    (kernels / "writable").touch()
    (kernels / "writable").chmod(0o666)
    kernels.chmod(0o777)
    assert compilation_cache_folder() == cache
    assert [path.name for path in kernels.iterdir()] == ["own"] and stat.S_IMODE(kernels.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_group_of_several_is_not_trusted_and_the_users_own_is(cache: Path) -> None:
    for group, used in ((os.getuid(), True), (12345, False)):
        os.chown(cache.parent, -1, group)
        cache.parent.chmod(0o775)
        assert (compilation_cache_folder() is not None) == used


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_entries_of_somebody_else_are_deleted(cache: Path) -> None:
    (cache / "folder").mkdir()
    for name in ("theirs", "folder/theirs", "folder"):
        (cache / name).touch()
        os.chown(cache / name, 12345, 12345)
    assert compilation_cache_folder() == cache and not list(cache.iterdir())
    os.chown(cache.parent, 12345, 12345)
    assert compilation_cache_folder() is None


def test_a_relative_home_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "here")
    assert compilation_cache_folder() is None and not list(tmp_path.iterdir())
