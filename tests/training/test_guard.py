"""A run whose entropy cost is spoiled halfway ends, with a guard, with the policy that it had."""

import sys
from pathlib import Path

import pytest

import gradweave as gw
from gradweave.runs.metrics import read_metrics


@pytest.mark.slow
def test_a_run_with_a_guard_ends_with_what_it_had_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The game pays 1 for the action that is shown, -1 for the other; from window 30 of 60 on the entropy cost is 100.

    So the policy becomes uniform, is put back, becomes uniform again, and is put back in the last window.
    """
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.delitem(sys.modules, "own_tuners", raising=False)
    config = gw.configure(
        "quick",
        environment={"name": "matched-reward", "options": {}},
        network={"policy_layers": (16,), "value_layers": (16,)},
        inner={"num_envs": 8, "num_steps": 8, "learning_rate": 0.01},
        meta={"learned": (), "tuners": ("entropy_cost=own_tuners:Spoiled:30",), "guard": True, "num_inner_steps": 2},
        run={
            "total_steps": 60 * 2 * 64,
            "chunk_size": 5,
            "evaluation_episodes": 64,
            "finish": "none",
            "runs_dir": str(tmp_path),
        },
    )
    path = gw.train(config, quiet=True).path
    assert path is not None
    rows = list(read_metrics(path / "metrics.jsonl"))
    assert len(rows) == 60
    returns = [row["return"] for row in rows]
    assert min(returns[15:30]) > 0.9
    assert max(returns[-3:]) < 0.3
    restored = [window for window, row in enumerate(rows) if row.get("restored")]
    assert len(restored) == 2 and restored[-1] == 59
    assert min(returns[restored[0] + 1 : restored[0] + 3]) > 0.9
    assert rows[-1]["evaluation/return"] > 0.9
