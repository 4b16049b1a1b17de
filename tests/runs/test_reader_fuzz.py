"""Whatever bytes stand in a folder, every reader answers with what gradweave writes, or with an error of its own."""

import contextlib
import json
import random
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradweave.config.presets import preset
from gradweave.config.toml_file import format_config, read_config
from gradweave.errors import CheckpointError, ConfigError, DamagedFile
from gradweave.measurement.sample_store import SampleStore
from gradweave.reports import report
from gradweave.reports.tables import read_rows
from gradweave.runs.checkpoints import read
from gradweave.runs.comparison_folder import read_comparison
from gradweave.runs.locks import is_in_use
from gradweave.runs.metrics import MetricsTail, read_metrics
from gradweave.runs.metrics_writer import MetricsWriter
from gradweave.runs.provenance import processes, read_provenance
from gradweave.runs.seeds_folder import seed_runs
from gradweave.runs.sweep_folder import JOURNAL_FILE, SweepPlan, read_plan
from gradweave.runs.sweep_study import SweepStudy

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from reliability import damage

OURS = (ConfigError, CheckpointError, DamagedFile)
FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def objects(*names: str) -> st.SearchStrategy[bytes]:
    """JSON objects in which some names are likely."""
    keys = st.sampled_from(names) | st.text(max_size=8)
    return st.dictionaries(keys, values, max_size=5).map(lambda found: json.dumps(found).encode())


def write_metrics(path: Path) -> None:
    MetricsWriter(path, lambda text: None).close()
    list(read_metrics(path))  # what was kept can be read


def read_table(path: Path) -> None:
    for row in read_rows(path):
        assert all(isinstance(name, str) and isinstance(value, str) for name, value in row.items())


def read_journal(path: Path) -> None:
    study = SweepStudy(path.parent, SweepPlan(preset("quick"), {"inner.discount": ("0.9",)}, "grid", 1, 1, "none"))
    study.records()
    assert study.ended in (False, True)


READERS: dict[str, tuple[str, Callable[[Path], object], st.SearchStrategy[bytes]]] = {
    "metrics": ("metrics.jsonl", lambda path: list(read_metrics(path)), objects("step", "return", "num_episodes")),
    "tail": ("metrics.jsonl", lambda path: MetricsTail(path).read(), objects("step", "eta/x", "meta_step")),
    "writer": ("metrics.jsonl", write_metrics, objects("step", "return")),
    "provenance": (
        "provenance.json",
        lambda path: processes(read_provenance(path)),
        objects("continued", "source", "run_id", "accepted_changes"),
    ),
    "seeds": ("seeds.json", lambda path: seed_runs(path.parent), objects("seeds")),
    "sweep": ("sweep.json", lambda path: read_plan(path.parent), objects("space", "sampling", "trials")),
    "comparison": (
        "compare.json",
        lambda path: read_comparison(path.parent),
        objects("rivals", "ranges", "trials", "seeds", "at_once"),
    ),
    "journal": (JOURNAL_FILE, read_journal, objects("op_code", "worker_id", "study_id", "study_name", "trial_id")),
    "evaluation": ("evaluation.json", lambda path: report._random_return(path.parent), objects("random_return")),
    "measurement": (
        "measurement.json",
        lambda path: report._measurement(path.parent, path.name, report._measured),
        objects("estimator", "samples", "total", "total_scale_free", "verdict"),
    ),
    "lock": ("lock", lambda path: is_in_use(path.parent), st.binary(max_size=30)),
    "configuration": ("config.toml", read_config, st.text(max_size=40).map(str.encode)),
    "checkpoint": ("000000000050.safetensors", read, st.binary(max_size=100)),
    "table": ("rows.csv", read_table, st.text(',"\r\n\0abé', max_size=30).map(str.encode)),
    "samples": ("samples.npz", lambda path: SampleStore(path, {}).known(), st.binary(max_size=100)),
}


@pytest.mark.parametrize("reader", READERS)
@FUZZ
@given(data=st.data())
def test_no_reader_fails_otherwise_than_by_an_error_of_ours(reader: str, tmp_path: Path, data: st.DataObject) -> None:
    name, use, likely = READERS[reader]
    lines = st.lists(likely | st.binary(max_size=30), max_size=4).map(b"\n".join)
    path = tmp_path / name
    path.write_bytes(data.draw(lines) + data.draw(st.sampled_from([b"", b"\n"])))
    with contextlib.suppress(*OURS):
        use(path)


@FUZZ
@given(data=st.data())
def test_a_configuration_of_other_values_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    lines = format_config(preset("discounting-chain")).splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    name = lines[place].partition(" = ")[0]
    lines[place] = data.draw(
        st.sampled_from(["", "[]", f"{name} = [[1]]", f"{name} = -1e999", f"{name} = 'x'", "x = 1"])
    )
    (tmp_path / "config.toml").write_text("\n".join(lines))
    with contextlib.suppress(*OURS):
        read_config(tmp_path / "config.toml")


@pytest.mark.parametrize("content", damage.CONTENTS)
def test_other_contents_under_a_right_hash_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "000000000050.safetensors"
    damage.save(path, damage.state(), 50)
    path.write_bytes(damage.forged(path.read_bytes(), damage.CONTENTS[content]))
    with pytest.raises(CheckpointError):
        damage.load(path, damage.state())


def test_random_damage_is_refused(tmp_path: Path) -> None:
    rows = list(damage.corrupt(tmp_path, 40, random.Random(0)))
    assert len(rows) > 30 and all(row["ok"] for row in rows)


def zipped(**members: bytes) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(f"{name}.npy", member)
    return content.getvalue()


def arrays(**members: Any) -> bytes:
    content = BytesIO()
    np.savez(content, **members)
    return content.getvalue()


ARCHIVES = {
    "a bomb": zipped(samples=b"\0" * (2**28 + 1)),
    "no arrays": zipped(samples=b"x", settings=b"y"),
    "objects": arrays(samples=np.array([{}], object), settings=np.array("{}")),
    "text": arrays(samples=np.array("x"), settings=np.array("{}")),
    "settings that are a list": arrays(samples=np.zeros(3), settings=np.array("[]"), sources=np.array("[]")),
    "one number": arrays(samples=np.array(3.0), settings=np.array("{}"), sources=np.array("[]")),
}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_samples_that_are_none_are_refused(tmp_path: Path, archive: str) -> None:
    (tmp_path / "samples.npz").write_bytes(ARCHIVES[archive])
    with pytest.raises(ConfigError, match="unreadable"):
        SampleStore(tmp_path / "samples.npz", {}).known()
