"""The run's own files vanish, are replaced or cannot be written: everything is saved first, and one line says so."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradweave.errors import FolderLost
from gradweave.runs.checkpoints import SavedArray, list_checkpoints
from gradweave.runs.metrics_writer import MetricsWriter
from gradweave.runs.run_folder import RunFolder
from gradweave.training.loop import Summary

from .material import CHUNK, leaves, run, small


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Summary]:
    config = small(tmp_path_factory.mktemp("undisturbed"), num_chunks=3)
    with RunFolder.create(config) as folder:
        summary = run(config, folder)
        return (folder.path / "metrics.jsonl").read_bytes(), summary


def replaced(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes()[:10])
    os.replace(copy, path)


def appended_to(path: Path) -> None:
    with path.open("a") as file:
        file.write("a note\n")


HAPPENS: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "replaced": replaced,
    "changed": appended_to,
}


def disturb(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, happen: Callable[[Path], object]) -> None:
    """Something happens to metrics.jsonl in the middle of the second chunk."""
    write = folder.metrics.write

    def written(row: Any) -> None:
        if row["meta_step"] == CHUNK + 2:
            happen(folder.path / "metrics.jsonl")
        write(row)

    monkeypatch.setattr(folder.metrics, "write", written)


@pytest.mark.parametrize("what", HAPPENS)
def test_rows_that_another_program_takes_away_are_put_back(tmp_path: Path, what: str) -> None:
    state = {"x": SavedArray(np.array(1), "int64")}
    with RunFolder.create(small(tmp_path)) as folder:
        path = folder.path / "metrics.jsonl"
        for step in (1000, 2000):
            folder.metrics.write({"step": step})
        rows = path.read_bytes()
        assert folder.trouble() is None
        HAPPENS[what](path)
        trouble = folder.trouble()
        assert trouble is not None and "metrics.jsonl" in trouble and what in trouble
        with pytest.raises(FolderLost, match=f"{what}.* saved at .*2000.*gradweave resume") as end:
            folder.rescue(trouble, state, 2000)
        assert end.value.exit_code == 8 and path.read_bytes() == rows and folder.trouble() is None
        folder.metrics.write({"step": 3000})
        assert path.read_bytes() == rows + b'{"step": 3000}\n'
    assert len(list_checkpoints(folder.checkpoints)) == 1


def test_rows_that_were_overwritten_are_lost_and_said_to_be(tmp_path: Path) -> None:
    with RunFolder.create(small(tmp_path)) as folder:
        folder.metrics.write({"step": 1000})
        (folder.path / "metrics.jsonl").write_text("")
        trouble = folder.trouble()
        assert trouble is not None
        with pytest.raises(FolderLost, match=r"lost.*checkpoint"):
            folder.rescue(trouble, {"x": SavedArray(np.array(1), "int64")}, 1000)


@pytest.mark.slow
def test_training_ends_with_everything_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple[bytes, Summary]
) -> None:
    rows, summary = undisturbed
    config = small(tmp_path, num_chunks=3)
    with RunFolder.create(config) as folder:
        disturb(folder, monkeypatch, replaced)
        with pytest.raises(FolderLost, match="replaced"):
            run(config, folder)
    assert rows.startswith((folder.path / "metrics.jsonl").read_bytes())
    with RunFolder.open(folder.path) as again:
        resumed = run(config, again, resume=True)
    assert (folder.path / "metrics.jsonl").read_bytes() == rows
    for first, second in zip(leaves(summary.state), leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_rows_that_cannot_be_written_are_in_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple[bytes, Summary]
) -> None:
    rows, _ = undisturbed
    config = small(tmp_path, num_chunks=3)
    with RunFolder.create(config) as folder:
        descriptor = folder.metrics._file.fileno()
        write, count = os.write, []

        def full(number: int, content: Any) -> int:
            if number == descriptor:
                count.append(1)
                if len(count) > CHUNK + 1:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return write(number, content)

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(FolderLost, match=r"No space left.*\b2 rows.*checkpoint"):
            run(config, folder)
        monkeypatch.undo()
    with RunFolder.open(folder.path) as again:
        run(config, again, resume=True)
    assert (folder.path / "metrics.jsonl").read_bytes() == rows


def test_checkpoints_that_were_deleted_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder.create(small(tmp_path)) as folder:
        shutil.rmtree(folder.checkpoints)
        folder.save_checkpoint({"x": SavedArray(np.array(1), "int64")}, 1000)
    said = capsys.readouterr().err
    assert "checkpoints" in said and "deleted" in said
    assert len(list_checkpoints(folder.checkpoints)) == 1


def test_a_checkpoint_that_cannot_be_written_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    array = {"x": SavedArray(np.array(1), "int64")}
    with RunFolder.create(small(tmp_path)) as folder:
        monkeypatch.setattr("gradweave.runs.checkpoints.write", full)
        with pytest.raises(FolderLost, match=r"space.*train again"):
            folder.save_checkpoint(array, 1000)
        monkeypatch.undo()
        folder.save_checkpoint(array, 1000)
        monkeypatch.setattr("gradweave.runs.checkpoints.write", full)
        with pytest.raises(FolderLost, match=r"space.*gradweave resume"):
            folder.save_checkpoint(array, 2000)


def test_a_folder_that_is_gone_is_told_of_in_one_line(tmp_path: Path) -> None:
    with RunFolder.create(small(tmp_path)) as folder:
        folder.metrics.write({"step": 1000})
        shutil.rmtree(folder.path)
        trouble = folder.trouble()
        assert trouble is not None and "deleted" in trouble
        with pytest.raises(FolderLost, match=r"deleted.*cannot be written") as end:
            folder.rescue(trouble, {"x": SavedArray(np.array(1), "int64")}, 1000)
        assert "\n" not in str(end.value)


def test_a_resume_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(tmp_path)
    with RunFolder.create(config) as folder:
        folder.metrics.write({"step": 10**6})
        folder.save_checkpoint({"x": SavedArray(np.array(1), "int64")}, 10**6)
        folder.metrics.write({"step": 2 * 10**6})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write("half a li")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = (folder.path / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FolderLost, match="No space left"):
        RunFolder.open(folder.path)
    monkeypatch.undo()
    assert (folder.path / "metrics.jsonl").read_bytes() == before
    with RunFolder.open(folder.path) as again:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(FolderLost, match="no checkpoint is lost"):
            again.go_on_from(list_checkpoints(again.checkpoints)[0], 10**6)


def test_missing_rows_are_told_of_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small(tmp_path)
    with RunFolder.create(config) as folder:
        folder.metrics.write({"step": 1000})
        path = folder.save_checkpoint({"x": SavedArray(np.array(1), "int64")}, 2000)
        folder.go_on_from(path, 2000)
    said = capsys.readouterr().err
    assert "rows" in said and "1,000" in said and "2,000" in said
    noted = json.loads((folder.path / "provenance.json").read_text())["missing_rows"]
    assert noted == {"after": 1000, "until": 2000}


def test_half_a_row_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, write = MetricsWriter(tmp_path / "metrics.jsonl"), os.write
    writer.write({"step": 1})

    def half(number: int, content: Any) -> int:
        monkeypatch.setattr(os, "write", refuse)
        return write(number, content[:4])

    def refuse(number: int, content: Any) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "write", half)
    writer.write({"step": 2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n' and writer.unwritten == ['{"step": 2}']
    trouble = writer.trouble()
    assert trouble is not None and "metrics.jsonl" in trouble and "Disk quota exceeded" in trouble
    monkeypatch.undo()
    writer.write({"step": 3})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    assert writer.trouble() is None
    writer.close()
