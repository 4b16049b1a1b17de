"""Learning curves are means over whole stretches, and survive being written and read."""

import json
import os
from pathlib import Path

import pytest

from gradweave.errors import DamagedFile
from gradweave.reports.tables import learning_curve, read_rows, write_rows


def test_a_stretch_counts_episodes_not_lines(tmp_path: Path) -> None:
    lines = [
        {"step": 10, "num_episodes": 0, "return": None, "eta/discount": 0.5},
        {"step": 20, "num_episodes": 1, "return": 4.0, "eta/discount": 0.7},
        {"step": 30, "num_episodes": 3, "return": 8.0, "eta/discount": 0.9, "evaluation/return": 5.0},
        {"step": 40, "num_episodes": 0, "return": None, "eta/discount": 0.1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (whole,) = learning_curve(tmp_path, num_rows=1)
    assert whole["return"] == 7.0
    assert whole["num_episodes"] == 4
    assert whole["eta/discount"] == pytest.approx(0.55)
    first, second = learning_curve(tmp_path, num_rows=2)
    assert (first["step"], first["return"], first["evaluation/return"]) == (20, 4.0, None)
    assert (second["step"], second["return"], second["evaluation/return"]) == (40, 8.0, 5.0)
    assert len(learning_curve(tmp_path, num_rows=10)) == 4


def test_rows_come_back(tmp_path: Path) -> None:
    write_rows(tmp_path / "new" / "rows.csv", [{"a": 1, "b": 1 / 3}, {"a": 2, "c": None}])
    assert read_rows(tmp_path / "new" / "rows.csv") == [
        {"a": "1", "b": "0.333333", "c": ""},
        {"a": "2", "b": "", "c": ""},
    ]
    with pytest.raises(ValueError, match="nothing to write"):
        write_rows(tmp_path / "rows.csv", [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2,3\n", "line 2.* more values than columns"),
        (b"a,a\n1,2\n", "line 1.* twice"),
        (b"a\n" + b"x" * 200_000, "is no table"),
        (b"a\n\xff\n", "UTF-8"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(DamagedFile, match=rf"rows\.csv.*{words}"):
        read_rows(tmp_path / "rows.csv")


def test_a_table_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    os.truncate(tmp_path / "rows.csv", 2**40)  # a hole, which takes no space
    with pytest.raises(DamagedFile, match=r"rows\.csv.* at most"):
        read_rows(tmp_path / "rows.csv")


def test_a_value_that_a_row_lacks_is_empty(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1\n")
    assert read_rows(tmp_path / "rows.csv") == [{"a": "1", "b": ""}]
