"""Reading and writing the files of a folder that may come from anybody."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gradweave.errors import DamagedFile
from gradweave.files import (
    is_regular,
    open_appending,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    real_folder,
    set_aside,
    write_atomically,
)


def make_link(path: Path) -> None:
    target = path.parent / "target"
    target.write_text("{}")
    path.symlink_to(target)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


ODD: dict[str, Callable[[Path], None]] = {
    "link": make_link,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to("absent"),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_is_no_regular_file_is_neither_read_nor_appended_to(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    make(path)
    for use in (lambda: read_bytes(path, 10), lambda: open_appending(path)):
        with pytest.raises((DamagedFile, IsADirectoryError)):
            use()
    assert not is_regular(path)


def test_a_socket_is_no_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the names of sockets must be short
    make_socket(Path("file"))
    with pytest.raises(OSError):
        read_bytes(Path("file"), 10)


def test_a_file_that_the_user_names_may_be_a_link(tmp_path: Path) -> None:
    make_link(tmp_path / "file")
    assert read_text(tmp_path / "file", follow=True) == "{}"
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(DamagedFile, match="no regular file"):
        read_text(tmp_path / "zero", follow=True)


def test_size_is_bounded_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no space on the disk, and would take all memory
    with pytest.raises(DamagedFile, match="at most 10 are read"):
        read_bytes(path, 10)
    path.write_bytes(b"0123456789")
    assert read_bytes(path, 10) == b"0123456789"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "UTF-8"),
        (b"", "no JSON"),
        (b"[1]", "holds a list"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[" * 100_000, "nested too deeply|no JSON"),
    ],
    ids=["bytes", "empty", "list", "nan", "digits", "nested"],
)
def test_what_is_no_json_object_names_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=message) as raised:
        read_json(tmp_path / "file.json")
    assert str(tmp_path / "file.json") in str(raised.value) and raised.value.exit_code == 2


def test_a_line_is_named() -> None:
    with pytest.raises(DamagedFile, match=r"a\.jsonl, line 7, is no JSON") as raised:
        parse_json(Path("a.jsonl"), "{", 7)
    assert raised.value.line == 7


def test_writing_replaces_a_link_and_leaves_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_link(tmp_path / "file")
    trap = tmp_path / f".{os.getpid()}.file.tmp"  # where the content goes first
    trap.symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "file", iter([b"a", b"b"]))
    assert (tmp_path / "file").read_bytes() == b"ab" and not (tmp_path / "file").is_symlink()
    assert (tmp_path / "target").read_text() == "{}" and not trap.is_symlink()


def test_a_folder_must_be_real(tmp_path: Path) -> None:
    assert real_folder(tmp_path / "new", make=True).is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "new")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(DamagedFile, match=name):
            real_folder(tmp_path / name, make=True)
    with pytest.raises(FileNotFoundError):
        real_folder(tmp_path / "absent")


def test_a_damaged_file_is_kept_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("x")
    assert set_aside(tmp_path / "a.json").read_text() == "x"
    assert not (tmp_path / "a.json").exists()
