"""The loop: reproducible to the bit, resumable to the bit, and stopped only after a checkpoint."""

import dataclasses
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.config.schema import Config
from gradweave.config.toml_file import write_config
from gradweave.errors import NonFiniteError, Stopped
from gradweave.runs.run_folder import RunFolder
from gradweave.training.checkpoints import load
from gradweave.training.evaluation import evaluate, play_episode
from gradweave.training.hosts import agreed_signal
from gradweave.training.loop import Summary, load_agent

from .material import CHUNK, NUM_ENVS, NUM_STEPS, WINDOW, leaves, run, small

CARRIED: Any = {"tuners": ("learning_rate=return-choice:1e-3,3e-3",), "guard": True, "normalize_observations": True}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, Summary]:
    config = small(tmp_path_factory.mktemp("finished"), **CARRIED)
    with RunFolder.create(config) as folder:
        return config, folder.path, run(config, folder)


@pytest.mark.slow
def test_a_run_logs_every_meta_step_and_counts_every_environment_step(finished: tuple[Config, Path, Summary]) -> None:
    _, path, summary = finished
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["meta_step"] for row in rows] == list(range(1, 4 * CHUNK + 1))
    # The first rollout comes before the first update and counts too.
    assert [row["step"] for row in rows] == [NUM_ENVS * NUM_STEPS + n * WINDOW for n in range(1, 4 * CHUNK + 1)]
    assert summary.environment_steps == rows[-1]["step"]
    assert all(row["meta_gradient/discount"] != 0 for row in rows)
    assert rows[-1]["eta/discount"] != rows[0]["eta/discount"]
    assert rows[-1]["eta/entropy_cost"] == rows[0]["eta/entropy_cost"]
    assert "evaluation/return" in rows[-1]
    assert all("steps_per_second" not in row for row in rows)  # the clock would differ from run to run


@pytest.mark.slow
def test_same_seed_same_bits(finished: tuple[Config, Path, Summary], tmp_path: Path) -> None:
    config, path, summary = finished
    with RunFolder.create(
        dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(tmp_path)))
    ) as f:
        again = run(config, f)
        assert (f.path / "metrics.jsonl").read_bytes() == (path / "metrics.jsonl").read_bytes()
    for first, second in zip(leaves(summary.state), leaves(again.state), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_another_seed_other_numbers(finished: tuple[Config, Path, Summary], tmp_path: Path) -> None:
    config, path, _ = finished
    other = dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(tmp_path), seed=1))
    with RunFolder.create(other) as folder:
        run(other, folder)
        assert (folder.path / "metrics.jsonl").read_bytes() != (path / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_never_stopped(finished: tuple[Config, Path, Summary], tmp_path: Path) -> None:
    config, path, summary = finished
    half = small(tmp_path, num_chunks=2, **CARRIED)
    with RunFolder.create(half) as folder:
        run(half, folder)
        # What a crash leaves: rows of meta-steps after the last checkpoint.
        folder.metrics.write({"step": 10**9, "return": 1.0})
    whole = dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(tmp_path)))
    with RunFolder.open(folder.path) as folder:
        resumed = run(whole, folder, resume=True)
        (entry,) = json.loads((folder.path / "provenance.json").read_text())["continued"]
        assert entry["from_step"] == NUM_ENVS * NUM_STEPS + 2 * CHUNK * WINDOW
        mine, theirs = (
            [
                {name: value for name, value in json.loads(line).items() if not name.startswith("evaluation")}
                for line in (place / "metrics.jsonl").read_text().splitlines()
            ]
            for place in (folder.path, path)
        )
    assert mine == theirs
    for first, second in zip(leaves(summary.state), leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_what_was_edited_before_a_run_goes_on_counts_where_nothing_moves_it(
    finished: tuple[Config, Path, Summary], tmp_path: Path
) -> None:
    half = small(tmp_path, num_chunks=2, **CARRIED)
    with RunFolder.create(half) as folder:
        run(half, folder)
        then = rows_of(folder)[-1]
    whole, _, _ = finished
    # Of these the meta-gradient moves the discount, a tuner the learning rate, and nothing the entropy cost.
    inner = dataclasses.replace(half.inner, discount=0.5, learning_rate=0.1, entropy_cost=0.3)
    edited = dataclasses.replace(
        half, inner=inner, run=dataclasses.replace(half.run, total_steps=whole.run.total_steps)
    )
    write_config(edited, folder.path / "config.toml")
    with RunFolder.open(folder.path, accept_changes=True) as folder:
        resumed = run(edited, folder, resume=True)
        now = rows_of(folder)[2 * CHUNK]
    assert now["eta/entropy_cost"] == pytest.approx(0.3) != then["eta/entropy_cost"]
    assert now["eta/discount"] == pytest.approx(then["eta/discount"], abs=0.05)
    assert now["eta/learning_rate"] in (pytest.approx(1e-3), pytest.approx(3e-3))
    assert resumed.state.guard.saved.fixed.entropy_cost == pytest.approx(0.3)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_again(
    finished: tuple[Config, Path, Summary], tmp_path: Path
) -> None:
    config, path, _ = finished
    again = dataclasses.replace(config, run=dataclasses.replace(config.run, runs_dir=str(tmp_path)))
    with RunFolder.create(again) as folder:
        folder.metrics.write({"step": 10**9, "return": 1.0})  # logged by the process that was killed
        run(again, folder)
        assert (folder.path / "metrics.jsonl").read_bytes() == (path / "metrics.jsonl").read_bytes()


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def evaluating(tmp_path: Path, **changes: Any) -> Config:
    """A run of four chunks with an evaluation at the end of each, and a checkpoint at the end of all."""
    config = small(tmp_path)
    every = {"evaluate_every": CHUNK * WINDOW, "checkpoint_every": 100 * CHUNK * WINDOW}
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **every | changes))


@pytest.mark.slow
def test_training_goes_on_during_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation that ends only when the next chunk has been trained is one that training does not wait for."""
    config, num_chunks, begun = evaluating(tmp_path, evaluate_every=2 * CHUNK * WINDOW), [], []
    next_chunk = threading.Event()
    rows_before: list[dict[str, Any]] = []

    def check(*_: Any, **__: Any) -> None:
        num_chunks.append(True)
        if len(num_chunks) == 3:
            rows_before.extend(rows_of(folder))
            next_chunk.set()

    def evaluation(*_: Any) -> dict[str, float]:
        begun.append(True)
        assert next_chunk.wait(timeout=60), "training waits for the evaluation"
        return {"evaluation/return": float(len(begun))}

    monkeypatch.setattr("gradweave.training.loop.check_finite", check)
    monkeypatch.setattr("gradweave.training.loop._evaluation_row", evaluation)
    with RunFolder.create(config) as folder:
        run(config, folder)
    rows = rows_of(folder)
    assert [row["meta_step"] for row in rows] == list(range(1, 4 * CHUNK + 1))  # in order, none lost
    noted = {row["meta_step"]: row["evaluation/return"] for row in rows if "evaluation/return" in row}
    assert noted == {2 * CHUNK: 1.0, 4 * CHUNK: 2.0}
    assert len(rows_before) == 2 * CHUNK - 1  # the row that waits for its evaluation is held back


@pytest.mark.slow
def test_a_checkpoint_comes_after_the_row_of_an_evaluation_and_training_waits_for_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both fall on the end of the second chunk; the checkpoint is of that moment, although training has gone on."""
    config = evaluating(tmp_path, evaluate_every=2 * CHUNK * WINDOW, checkpoint_every=2 * CHUNK * WINDOW)
    num_chunks, begun, events = [], threading.Event(), []
    next_chunk = threading.Event()

    def check(*_: Any, **__: Any) -> None:
        num_chunks.append(True)
        if len(num_chunks) == 3:
            assert len(events) == 2 * CHUNK - 1  # neither the row of the evaluation nor the checkpoint
            next_chunk.set()

    def evaluation(*_: Any) -> dict[str, float]:
        assert begun.is_set() or next_chunk.wait(timeout=60)
        begun.set()
        return {"evaluation/return": 1.0}

    monkeypatch.setattr("gradweave.training.loop.check_finite", check)
    monkeypatch.setattr("gradweave.training.loop._evaluation_row", evaluation)
    with RunFolder.create(config) as folder:
        save, write, first = folder.save_checkpoint, folder.metrics.write, NUM_ENVS * NUM_STEPS

        def saved(state: Any, step: int) -> Path:
            if step > first:  # not the checkpoint before the first meta-step
                events.append(("saved", step))
            return save(state, step)

        monkeypatch.setattr(folder, "save_checkpoint", saved)
        monkeypatch.setattr(folder.metrics, "write", lambda row: (events.append(("row", row["step"])), write(row)))
        run(config, folder)
    half, end = (NUM_ENVS * NUM_STEPS + count * CHUNK * WINDOW for count in (2, 4))
    written = [step for _, step in events[2 * CHUNK - 1 : 2 * CHUNK + 1]]
    assert written == [half, half] and events[2 * CHUNK] == ("saved", half) and events[-1] == ("saved", end)
    assert [step for kind, step in events if kind == "row"] == [row["step"] for row in rows_of(folder)]
    (tmp_path / "short").mkdir()
    short = small(tmp_path / "short", num_chunks=2)
    with RunFolder.create(short) as other:
        stopped = run(short, other)
    like = jax.eval_shape(lambda: stopped.state)
    then = load(folder.checkpoints / f"{half:012}.safetensors", like).tree
    for first, second in zip(leaves(then), leaves(stopped.state), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_every_evaluation_is_of_the_agent_at_its_row(tmp_path: Path) -> None:
    """Also while training, which donates its state to the next chunk, goes on: runs that end there agree."""
    config = evaluating(tmp_path / "long")
    with RunFolder.create(config) as folder:
        run(config, folder)
    rows = rows_of(folder)
    for num_chunks in (1, 2, 3):
        short = evaluating(tmp_path / str(num_chunks), total_steps=num_chunks * CHUNK * WINDOW, evaluate_every=0)
        with RunFolder.create(short) as other:
            run(short, other)
        last = json.loads((other.path / "metrics.jsonl").read_text().splitlines()[-1])
        assert rows[num_chunks * CHUNK - 1] == last


@pytest.mark.slow
def test_rows_that_wait_for_an_evaluation_outlive_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, release = evaluating(tmp_path), threading.Event()

    def evaluation(*_: Any) -> dict[str, float]:
        assert release.wait(timeout=60)
        return {"evaluation/return": 1.0}

    def check(agent: Any, metrics: Any, done: int, state: Any, **_: Any) -> None:
        if done == CHUNK:
            release.set()
            raise NonFiniteError("policy", 1)

    monkeypatch.setattr("gradweave.training.loop.check_finite", check)
    monkeypatch.setattr("gradweave.training.loop._evaluation_row", evaluation)
    with RunFolder.create(config) as folder, pytest.raises(NonFiniteError):
        run(config, folder)
    rows = rows_of(folder)
    assert len(rows) == CHUNK and rows[-1]["evaluation/return"] == 1.0


@pytest.mark.slow
def test_an_evaluation_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluation(*_: Any) -> dict[str, float]:
        raise RuntimeError("no evaluation today")

    monkeypatch.setattr("gradweave.training.loop._evaluation_row", evaluation)
    config = evaluating(tmp_path)
    with RunFolder.create(config) as folder, pytest.raises(RuntimeError, match="no evaluation today"):
        run(config, folder)
    assert len((folder.path / "metrics.jsonl").read_text().splitlines()) >= CHUNK  # the row itself is kept


@pytest.mark.slow
def test_sigterm_stops_after_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(tmp_path)
    with RunFolder.create(config) as folder:
        write = folder.metrics.write

        def written(row: dict[str, Any]) -> None:
            write(row)
            if row["meta_step"] == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(folder.metrics, "write", written)
        with pytest.raises(Stopped, match="gradweave resume"):
            run(config, folder)
        agent, state = load_agent(folder, warn=pytest.fail)
        assert int(state.num_meta_steps) == CHUNK
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert agent.environment_steps(CHUNK) == NUM_ENVS * NUM_STEPS + CHUNK * WINDOW


@pytest.mark.slow
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_during_the_last_evaluation_stops_after_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: type[BaseException]
) -> None:
    config, looks = small(tmp_path, num_chunks=2), threading.Semaphore(0)

    def look(received: list[int]) -> int | None:
        found = agreed_signal(received)
        looks.release()
        return found

    def evaluation(*_: Any) -> dict[str, float]:
        assert all(looks.acquire(timeout=60) for _ in range(2))  # after each chunk
        os.kill(os.getpid(), number)
        return {"evaluation/return": 1.0}

    monkeypatch.setattr("gradweave.training.loop.agreed_signal", look)
    monkeypatch.setattr("gradweave.training.loop._evaluation_row", evaluation)
    with RunFolder.create(config) as folder:
        with pytest.raises(raised):
            run(config, folder)
        assert rows_of(folder)[-1]["evaluation/return"] == 1.0
        assert int(load_agent(folder, warn=pytest.fail)[1].num_meta_steps) == 2 * CHUNK


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_non_finite_value_is_named(tmp_path: Path) -> None:
    config = small(tmp_path)
    config = dataclasses.replace(
        config, inner=dataclasses.replace(config.inner, learning_rate=1e300, optimizer="sgd"), meta=config.meta
    )
    with RunFolder.create(config) as folder, pytest.raises(NonFiniteError, match="not finite at environment step"):
        run(config, folder)


@pytest.mark.slow
def test_plain_learning_moves_no_meta_parameter(tmp_path: Path) -> None:
    config = small(tmp_path, num_chunks=1, learned=())
    with RunFolder.create(config) as folder:
        run(config, folder)
        rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert len({row["eta/discount"] for row in rows}) == 1
    assert not any(name.startswith("meta_gradient") for row in rows for name in row)


@pytest.mark.slow
def test_evaluation_plays_whole_episodes(finished: tuple[Config, Path, Summary]) -> None:
    """On the chain every episode takes the same number of steps and pays 1 or 1.1 once, whatever the policy."""
    _, _, summary = finished
    result = evaluate(
        summary.agent,
        summary.state.learner.params,
        summary.state.raw,
        key=jax.random.key(0),
        greedy=jnp.array(False),
        num_episodes=5,
        max_steps=1000,
    )
    assert len(set(np.asarray(result.lengths).tolist())) == 1
    assert all(any(abs(value - pay) < 1e-6 for pay in (1.0, 1.1)) for value in np.asarray(result.returns).tolist())
    observations, rewards = play_episode(
        summary.agent,
        summary.state.learner.params,
        summary.state.raw,
        key=jax.random.key(1),
        greedy=True,
        max_steps=1000,
    )
    assert len(rewards) == result.lengths[0] == len(observations.view)
    assert rewards.sum() == pytest.approx(1.0) or rewards.sum() == pytest.approx(1.1)
