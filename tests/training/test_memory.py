"""The forecast of memory: what it adds up to, what its advice is worth, and what happens when memory runs out."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from _study.jobs import with_changes
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.toml_file import read_config
from gradweave.errors import OutOfMemory
from gradweave.machine.host_memory import HostMemory, host_memory
from gradweave.runs.run_folder import RunFolder
from gradweave.training.build import build_agent, init_state
from gradweave.training.memory import Forecast, Sizes, explaining, forecast_memory

from .material import run, small

MIB = 2**20
SIZES = Sizes(
    learner=10 * MIB,
    gradient=5 * MIB,
    batch=20 * MIB,
    num_steps=MIB // 64,
    num_inner_steps=4,
    keeps_batches=True,
    records_states=True,
    keeps_activations=False,
    in_parts=False,
    num_tangents=0,
)


def forecast(*, limit: int = 1000, available: int = 900, **changes: Any) -> Forecast:
    memory = HostMemory(limit * MIB, available * MIB, "RAM")
    parts = Forecast(100 * MIB, 101 * MIB, 300 * MIB, 9 * MIB, 100 * MIB, 1, memory, SIZES)
    return parts._replace(**changes)


def compiled_forecast(config: Config) -> Forecast:
    agent = build_agent(config)
    shapes = jax.eval_shape(lambda key: init_state(agent, config, key=key), jax.random.key(0))
    chunk = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=2), donate_argnums=0)
    found = forecast_memory(chunk.lower(shapes).compile(), agent, shapes)
    assert found is not None
    return found


def test_outputs_in_the_place_of_arguments_count_once() -> None:
    assert forecast().total == (100 + 101 + 300 + 9 - 100) * MIB
    assert forecast(num_devices=2).total == (2 * (100 + 101 + 300 - 100) + 9) * MIB


def test_advice_is_worked_out() -> None:
    found = forecast()
    # 4 x (10 + 5) recorded and 2 x 10 of the learner's do not grow with the batch: 330 of 410 do.
    assert found.halved("num_envs") == found.halved("num_steps") == (410 - 165) * MIB
    assert found.halved("num_inner_steps") == (410 - 2 * (20 + 15)) * MIB
    assert "half of --inner.num-envs" in found.advice() and "245 MiB" in found.advice()
    kept = forecast(sizes=SIZES._replace(keeps_activations=True))
    assert kept.halved("num_inner_steps") < found.halved("num_inner_steps")
    parts = forecast(sizes=SIZES._replace(in_parts=True))
    # The batches of four updates, four more at hand, and 256 bytes a step.
    assert parts.halved("num_envs") == (410 - (8 * 20 + 4) // 2) * MIB
    assert forecast(sizes=SIZES._replace(in_parts=True, keeps_activations=True)).halved("num_envs") == (410 - 165) * MIB
    plain = forecast(sizes=SIZES._replace(keeps_batches=False, records_states=False))
    assert plain.halved("num_inner_steps") == plain.total
    tracked = forecast(sizes=SIZES._replace(keeps_batches=False, records_states=False, num_tangents=3))
    assert tracked.halved("num_envs") == (410 - (410 - 2 * 4 * 10) // 2) * MIB  # two states and twice three tangents
    assert forecast(sizes=SIZES._replace(batch=1000 * MIB)).halved("num_inner_steps") == 0
    single = forecast(sizes=SIZES._replace(num_inner_steps=1))
    assert "num-inner-steps" not in single.advice()


def test_near_and_beyond() -> None:
    assert forecast().fits and not forecast().near
    assert forecast(available=500).near
    assert not forecast(limit=400).fits
    assert "410 MiB" in forecast().describe() and "1000 MiB in all (RAM)" in forecast().describe()


def test_this_machine_has_memory() -> None:
    memory = host_memory()
    assert 0 < memory.available <= memory.limit


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mixed", "forward"])
def test_predictions_agree_with_what_is_compiled_then(tmp_path: Path, mode: str) -> None:
    config = small(tmp_path, learned=("discount",))
    config = dataclasses.replace(
        config,
        inner=dataclasses.replace(config.inner, num_envs=256, num_steps=8),
        meta=dataclasses.replace(config.meta, num_inner_steps=8, mode=mode),
        network=dataclasses.replace(config.network, policy_layers=(64, 64), value_layers=(64, 64)),
    )
    whole = compiled_forecast(config)
    assert whole.sizes.records_states == (mode == "mixed") and whole.sizes.num_tangents == (mode == "forward")
    fewer = dataclasses.replace(config, inner=dataclasses.replace(config.inner, num_envs=128))
    assert whole.halved("num_envs") == pytest.approx(compiled_forecast(fewer).total, rel=0.15)
    shorter = dataclasses.replace(config, meta=dataclasses.replace(config.meta, num_inner_steps=4))
    assert whole.halved("num_inner_steps") == pytest.approx(compiled_forecast(shorter).total, rel=0.15)


@pytest.mark.slow
def test_a_short_window_copies_no_batch() -> None:
    """Mixed mode takes plain learning's temporary memory and, for each update, a state, a gradient and a batch."""

    def compiled(*learned: str) -> Forecast:
        board = {"environment.options.num_rows": 6, "environment.options.num_cols": 6, "inner.num_envs": 256}
        return compiled_forecast(
            with_changes(preset("quick"), {**board, "meta.num_inner_steps": 2, "meta.learned": learned})
        )

    plain, mixed = compiled(), compiled("discount", "lambda_", "entropy_cost", "learning_rate")
    parts = mixed.sizes
    assert parts.records_states and parts.batch > 2 * parts.learner
    counted = plain.temporaries + parts.num_inner_steps * (parts.learner + parts.gradient + parts.batch)
    assert mixed.temporaries <= 1.2 * counted


def test_what_jax_says_becomes_a_prediction_and_advice() -> None:
    with (
        pytest.raises(OutOfMemory, match=r"predicted peak 410 MiB.*half of --inner\.num-envs") as caught,
        explaining() as known,
    ):
        known.forecast = forecast()
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    assert caught.value.exit_code == 5 and caught.value.predicted_bytes == forecast().total
    with pytest.raises(OutOfMemory, match="lower --inner"), explaining():
        raise MemoryError
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), explaining():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.slow
def test_what_cannot_fit_is_refused_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_machine = HostMemory(1000, 1000, "RAM of a very small machine")
    monkeypatch.setattr("gradweave.training.memory.host_memory", lambda: small_machine)
    config = small(tmp_path)
    with RunFolder.create(config) as folder:
        with pytest.raises(OutOfMemory, match="RAM of a very small machine"):
            run(config, folder)
        noted = json.loads((folder.path / "provenance.json").read_text())["memory_forecast"]
        assert noted["total"] > 1000 == noted["memory"]["limit"]
        assert (folder.path / "metrics.jsonl").read_text() == ""
    wanted = dataclasses.replace(config, run=dataclasses.replace(config.run, total_steps=10**6))
    with RunFolder.open(folder.path) as folder:
        (folder.path / "report.html").touch()
        folder.config = wanted
        with pytest.raises(OutOfMemory):
            run(wanted, folder, resume=True)
        assert read_config(folder.path / "config.toml") == config and (folder.path / "report.html").exists()


@pytest.mark.slow
def test_a_batch_that_no_machine_holds_ends_with_exit_code_5(tmp_path: Path) -> None:
    """A million environments of two thousand steps: terabytes, of which nothing is allocated."""
    command = [sys.executable, "-m", "gradweave", "train", "discounting-chain", "--inner.num-envs", "1000000"]
    command += ["--inner.num-steps", "2000", "--total-steps", str(5 * 10**11), "--runs-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 5, done.stderr
    assert "memory forecast:" in done.stderr
    assert "out of memory (predicted peak" in done.stderr
    assert "half of --inner.num-envs" in done.stderr
