"""metrics.jsonl: what is written can be read back, and a resume neither repeats nor loses a line."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradweave.runs.metrics import format_row, read_metrics
from gradweave.runs.metrics_writer import MetricsWriter


def test_rows_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write({"step": 10, "return": 1.5})
    writer.write({"step": 20, "return": None})
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == [{"step": 10, "return": 1.5}, {"step": 20, "return": None}]
    writer.close()


def test_steps_must_grow(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write({"step": 10})
    for row in ({"step": 10}, {"step": 9}, {"return": 1.0}):
        with pytest.raises(ValueError, match="the row before has 10"):
            writer.write(row)
    writer.close()
    again = MetricsWriter(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="the row before has 10"):
        again.write({"step": 10})
    again.close()


@pytest.mark.parametrize("checkpoint", [0, 25, 30, 99])
def test_a_resume_neither_repeats_nor_loses_a_line(tmp_path: Path, checkpoint: int) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "value": step / 7} for step in range(10, 60, 10)]
    writer = MetricsWriter(path)
    for row in rows:
        writer.write(row)
    writer.close()
    complete = path.read_bytes()
    with path.open("a") as file:
        file.write('{"step": 60, "val')  # the process was killed here
    resumed = MetricsWriter(path)
    resumed.truncate_after(checkpoint)
    assert [row["step"] for row in read_metrics(path)] == [row["step"] for row in rows if row["step"] <= checkpoint]
    for row in rows:
        if row["step"] > checkpoint:
            resumed.write(row)
    resumed.sync()
    resumed.close()
    assert path.read_bytes() == complete


def test_non_finite_values_are_null_and_named() -> None:
    row = {"step": 1, "loss": math.nan, "each": np.array([1.0, np.inf]), "eta": {"a": -math.inf, "b": 2.0}}
    assert json.loads(format_row(row)) == {
        "step": 1,
        "loss": None,
        "each": [1.0, None],
        "eta": {"a": None, "b": 2.0},
        "nonfinite": {"loss": "nan", "each/1": "inf", "eta/a": "-inf"},
    }


def test_arrays_become_numbers_of_their_own_precision() -> None:
    row = {
        "step": jnp.array(3),
        "single": jnp.array(0.9, jnp.float32),
        "half": jnp.array(0.1, jnp.bfloat16),
        "flag": np.array(True),
        "int": np.int32(4),
    }
    assert format_row(row) == '{"step": 3, "single": 0.9, "half": 0.100098, "flag": true, "int": 4}'


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_survives_exactly(value: float) -> None:
    single = np.float32(value)
    assert np.float32(json.loads(format_row({"x": single}))["x"]).tobytes() == single.tobytes()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float64_survives_exactly(value: float) -> None:
    assert json.loads(format_row({"x": np.float64(value), "y": value})) == {"x": value, "y": value}
