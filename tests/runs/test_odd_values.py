"""Files as gradweave writes them, in which one value after the other is replaced by one that it never writes."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradweave.comparison.outcome import outcomes, summarize
from gradweave.comparison.plan_checks import check_plan
from gradweave.comparison.saved import read_progress
from gradweave.config.presets import preset
from gradweave.config.search import SearchRange
from gradweave.config.toml_file import write_config
from gradweave.errors import ConfigError, DamagedFile
from gradweave.reports import report
from gradweave.reports.tables import write_rows
from gradweave.runs.checkpoints import SavedArray, write
from gradweave.runs.comparison_folder import ComparisonPlan, create_comparison, read_comparison
from gradweave.runs.metrics import read_metrics
from gradweave.runs.provenance import processes, read_provenance, recorded
from gradweave.runs.seeds_folder import seed_runs
from gradweave.runs.sweep_folder import read_plan

ODD: tuple[Any, ...] = (
    *(None, True, "x", "\x1b[2J\udcff", 0, -1, 3.5, -0.0, 10**400, -(10**400), float("inf")),
    *([], [1], [[1]], ["x"], {}, {"a": 1}, [None] * 100_000),
)


def odd_copies(value: Any) -> Iterator[Any]:
    """The document with one value, at any depth, replaced or left out."""
    yield from ODD
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {other: kept for other, kept in value.items() if other != key}
            for copy in odd_copies(inner):
                yield {**value, key: copy}
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            for copy in odd_copies(inner):
                yield [*value[:place], copy, *value[place + 1 :]]


def planned(path: Path) -> dict[str, Any]:
    base = preset("discounting-chain")
    config = dataclasses.replace(base, run=dataclasses.replace(base.run, runs_dir=str(path / "new")))
    ranges = {"discount": SearchRange(0.5, 0.99, True)}
    made = create_comparison(ComparisonPlan(config, ("plain", "random"), ranges, 4, (0, 1), 8))
    write_config(config, path / "compare.toml")
    write_config(config, path / "sweep.toml")
    found: dict[str, Any] = json.loads((made / "compare.json").read_text())
    return found


def read_plan_of_comparison(path: Path) -> None:
    check_plan(plan := read_comparison(path.parent))
    assert len(plan.identity) == 64


ROW = {"environment_steps": 16, "training_return": 1.5, "evaluation_return": None, "finite": True, "eta/discount": 0.5}
PROGRESS = {
    "rows": [{"rival": "random", "seed": 7, "member": member, "stretch": 0, **ROW} for member in (0, 1)],
    "settings": [{"discount": 0.5}, {"discount": 0.75}],
    "stretches": 1,
}


def read_saved(path: Path) -> None:
    """The rows and settings in a checkpoint of a comparison, under a right hash, and what is made of the rows."""
    saved = json.loads(path.read_text())
    plan = ComparisonPlan(
        preset("discounting-chain"), ("random",), {"discount": SearchRange(0.5, 0.99, True)}, 2, (7,), 8
    )
    file = path.with_name("random.safetensors")
    metadata = {**saved, "plan": plan.identity} if isinstance(saved, dict) else {"plan": plan.identity}
    write(file, {"x": SavedArray(np.zeros(1), "float64")}, 0, metadata)
    members, settings = [(7, 0), (7, 1)], PROGRESS["settings"]
    found = read_progress(file, plan, "random", members, stretches=2, settings=settings)
    assert found is not None
    summarize(outcomes(found.rows, plan.seeds))
    write_rows(path.with_name("rows.csv"), found.rows)
    assert all(math.isfinite(value) for setting in found.settings for value in setting.values())


def two_seeds(path: Path) -> object:
    for seed in (0, 1):
        (path / f"seed-{seed}").mkdir(exist_ok=True)
    return seed_runs(path)


RATIO = {"value": 0.5, "low": 0.4, "high": None}
VERDICT = {"heading": "told", "lines": {"discount": "is told"}}
DOCUMENTS: dict[str, tuple[Callable[[Path], object], Any]] = {
    "compare.json": (read_plan_of_comparison, planned),
    "random.json": (read_saved, PROGRESS),
    "evaluation.json": (lambda path: report._random_return(path.parent), {"return": 1.0, "random_return": 0.5}),
    "measurement.json": (
        lambda path: report._measurement(path.parent, path.name, report._measured),
        {"estimator": "x", "samples": 8, "total": RATIO, "total_scale_free": RATIO, "step": 4, "verdict": VERDICT},
    ),
    "metrics.jsonl": (
        lambda path: [report.RunMetrics("run", list(read_metrics(path))).series(name) for name in ("return", "eta/x")],
        {"step": 1, "meta_step": 1, "return": 1.0, "num_episodes": 1, "eta/x": 0.5, "evaluation/return": 1.0},
    ),
    "provenance.json": (
        lambda path: (processes(read_provenance(path)), recorded(path.parent), report._provenance(path)),
        {"run_id": "a", "source": {"commit": "b", "diff": ""}, "accepted_changes": [["a", 1, 2]], "continued": [{}]},
    ),
    "seeds.json": (lambda path: two_seeds(path.parent), {"seeds": [0, 1]}),
    "sweep.json": (
        lambda path: read_plan(path.parent),
        {
            "space": {"a": ["1"], "b": {"low": 0.1, "high": 0.2, "scale": "log", "whole": False}},
            "sampling": "random", "trials": 2, "num_seeds": 1, "pruning": "none",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_odd_value_is_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    use, document = DOCUMENTS[name]
    whole = planned(tmp_path)
    path = tmp_path / name
    whole = document if isinstance(document, dict) else whole
    path.write_text(json.dumps(whole) + "\n")
    use(path)
    for copy in odd_copies(whole):
        path.write_text(json.dumps(copy).replace("Infinity", "1e999") + "\n")
        try:
            with contextlib.suppress(ConfigError, DamagedFile):
                use(path)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error!s:.80} of {json.dumps(copy)[:300]}")
