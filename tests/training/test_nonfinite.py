"""Values that are not finite never become part of a kept state: training stops at them, or skips their windows."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.agents import MetaStepMetrics, SelfTuning, SelfTuningState, learning_part
from gradweave.config.schema import Config
from gradweave.envs.discounting_chain import DiscountingChain
from gradweave.errors import CheckpointError, NonFiniteError
from gradweave.rl import EpisodeTotals
from gradweave.runs.checkpoints import list_checkpoints
from gradweave.runs.metrics import read_metrics
from gradweave.runs.progress import Progress
from gradweave.runs.run_folder import RunFolder
from gradweave.runs.trackers import Tracker
from gradweave.training.checkpoints import Checkpoint, load_newest, named_arrays
from gradweave.training.log import Log
from gradweave.training.loop import load_agent
from gradweave.training.nonfinite import check_checkpoint, check_finite, skipping

from .material import CHUNK, NUM_ENVS, NUM_STEPS, WINDOW, leaves, run, small


def steps_of(num_meta_steps: int) -> int:
    return 20 + 10 * num_meta_steps


def state_of(value: float, count: int = 0) -> SelfTuningState:
    rest: dict[str, Any] = dict.fromkeys(("fixed", "estimator_state"))
    return SelfTuningState(
        learner={"params": jnp.array(1.0), "second_moment": jnp.array([1.0, value])},
        learned=jnp.array(0.5),
        meta_optimizer_state=jnp.array(3, jnp.int32),
        rollout=jnp.array([jnp.inf]),  # what environments hold is theirs
        batch=jnp.array([value]),
        key=jax.random.key(count),
        num_meta_steps=jnp.array(count, jnp.int32),
        **rest,
    )


def metrics_of(finite: list[bool], **inner: Any) -> MetaStepMetrics:
    zeros = np.zeros(len(finite))
    episodes = EpisodeTotals(zeros, zeros, zeros)
    shown = {name: np.asarray(value) for name, value in inner.items()}
    return MetaStepMetrics(
        episodes, {"discount": zeros}, {"discount": zeros}, {"discount": zeros}, zeros, shown, {}, np.array(finite)
    )


def test_what_learning_carries_on_leaves_the_environments_out() -> None:
    found = jax.tree.leaves(learning_part(state_of(2.0)))
    assert len(found) == 5 and all(np.isfinite(leaf).all() for leaf in found)


@pytest.mark.parametrize("value", [jnp.inf, jnp.nan])
def test_an_infinite_second_moment_is_named_and_its_step(value: float) -> None:
    with pytest.raises(NonFiniteError, match=r"second_moment.* is not finite at environment step 90") as raised:
        check_finite(steps_of, metrics_of([True, False, False]), 5, state_of(value))
    assert "--on-nonfinite skip" in str(raised.value) and raised.value.exit_code == 4


def test_a_norm_that_is_reported_is_named() -> None:
    with pytest.raises(NonFiniteError, match="gradient_norm is not finite"):
        check_finite(steps_of, metrics_of([True, False], gradient_norm=[1.0, np.inf]), 0, state_of(1.0))


def test_skipping_stops_only_where_a_whole_chunk_is_skipped() -> None:
    check_finite(steps_of, metrics_of([True, False]), 0, state_of(1.0), skips=True)
    with pytest.raises(NonFiniteError):
        check_finite(steps_of, metrics_of([False, False]), 0, state_of(1.0), skips=True)


def test_a_row_counts_the_windows_that_were_skipped(tmp_path: Path) -> None:
    config = small(tmp_path)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, log_every=4, chunk_size=4))
    written: list[dict[str, Any]] = []
    agent = mock.Mock(spec=SelfTuning, environment_steps=steps_of)
    folder = mock.Mock(spec=RunFolder, metrics=mock.Mock(write=written.append))
    with Log(agent, config, folder, mock.Mock(spec=Progress), mock.Mock(spec=Tracker), done=0) as rows:
        for finite in ([True, False, False, False], [True] * 4, [False, True, True, True]):
            rows.chunk(metrics_of(finite), None)
    assert [row.get("skipped") for row in written] == [3, None, 1]


@pytest.mark.parametrize("value", [2.0, np.inf])
def test_a_window_that_is_skipped_changes_nothing_but_the_key_and_the_count(value: float) -> None:
    def step(state: SelfTuningState) -> tuple[SelfTuningState, MetaStepMetrics]:
        finite = jnp.isfinite(jnp.array(value))
        metrics = jax.tree.map(jnp.asarray, metrics_of([True]))
        return state_of(value, 7), metrics._replace(finite=finite, restored=jnp.ones((), bool))

    before = state_of(1.0)
    after, metrics = jax.jit(skipping(step))(before)
    assert bool(metrics.restored) == np.isfinite(value)  # what a guard put back in a skipped window is gone
    expected = state_of(value, 7) if np.isfinite(value) else before
    expected = expected._replace(key=jax.random.key(7), num_meta_steps=jnp.array(7, jnp.int32))
    for one, other in zip(leaves(after), leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (Checkpoint(state_of(1.0, 3), 50, {}), None),
        (Checkpoint(state_of(1.0, 3), 60, {}), "3 meta-steps, which take 50 steps"),
        (Checkpoint(state_of(jnp.nan, 3), 50, {}), "not finite: .*second_moment"),
    ],
)
def test_a_checkpoint_that_no_run_can_have_come_to(checkpoint: Checkpoint, said: str | None) -> None:
    if said is None:
        return check_checkpoint(steps_of, checkpoint)
    with pytest.raises(CheckpointError, match=said):
        check_checkpoint(steps_of, checkpoint)


def test_an_older_checkpoint_is_taken_where_the_newest_is_not_finite(tmp_path: Path) -> None:
    said: list[str] = []
    with RunFolder.create(small(tmp_path)) as folder:
        for count, value in ((3, 1.0), (4, jnp.inf)):
            folder.save_checkpoint(named_arrays(state_of(value, count)), 20 + 10 * count)
        like = jax.eval_shape(lambda: state_of(1.0))
        found = load_newest(folder, like, said.append, lambda found: check_checkpoint(steps_of, found))
        assert found.step == 50 and len(said) == 1 and "not finite" in said[0]
        assert [path.stem for path in list_checkpoints(folder.checkpoints)] == [f"{50:012}"]


@pytest.fixture
def absurd_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in a while a reward whose square is no number any more, as a broken simulator gives it."""
    step = DiscountingChain.step

    def absurd(self: Any, state: Any, action: Any, *, key: Any) -> Any:
        state, outcome = step(self, state, action, key=key)
        hit = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.005)
        return state, outcome._replace(reward=jnp.where(hit, 1e200, outcome.reward))

    monkeypatch.setattr(DiscountingChain, "step", absurd)


def configured(tmp_path: Path, choice: str) -> Config:
    config = small(tmp_path, num_chunks=8)
    return dataclasses.replace(config, run=dataclasses.replace(config.run, on_nonfinite=choice, keep_checkpoints=99))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_no_kept_checkpoint_is_of_a_state_that_is_not_finite(tmp_path: Path, absurd_rewards: None) -> None:
    config = configured(tmp_path, "stop")
    with RunFolder.create(config) as folder, pytest.raises(NonFiniteError):
        run(config, folder)
    with RunFolder.view(folder.path) as viewed:
        agent, state = load_agent(viewed, pytest.fail)
    last = list(read_metrics(folder.path / "metrics.jsonl"))[-1:]
    assert int(list_checkpoints(folder.checkpoints)[0].stem) == NUM_ENVS * NUM_STEPS, "before the first meta-step"
    assert agent.environment_steps(int(state.num_meta_steps)) == (last[0]["step"] if last else NUM_ENVS * NUM_STEPS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_windows_that_are_not_finite_are_skipped(tmp_path: Path, absurd_rewards: None) -> None:
    config = configured(tmp_path, "skip")
    with RunFolder.create(config) as folder:
        summary = run(config, folder)
    rows = list(read_metrics(folder.path / "metrics.jsonl"))
    skipped = [row for row in rows if row.get("skipped")]
    assert 0 < len(skipped) < len(rows) == 8 * CHUNK
    assert summary.environment_steps == NUM_ENVS * NUM_STEPS + 8 * CHUNK * WINDOW
    assert all(np.isfinite(leaf).all() for leaf in leaves_of_learning(summary.state))
    # A row that stands for several windows counts them.
    seldom = dataclasses.replace(
        config, run=dataclasses.replace(config.run, log_every=CHUNK, runs_dir=str(tmp_path / "b"))
    )
    with RunFolder.create(seldom) as folder:
        run(seldom, folder)
    of_chunks = [row.get("skipped", 0) for row in read_metrics(folder.path / "metrics.jsonl")]
    counted = [sum(row.get("skipped", 0) for row in rows[i : i + CHUNK]) for i in range(0, len(rows), CHUNK)]
    assert of_chunks == counted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_a_scale_of_rewards_that_is_infinite_is_not_kept(tmp_path: Path, absurd_rewards: None, choice: str) -> None:
    """Divided by it every later reward is 0: nothing is learned any more, and every parameter looks well."""
    config = configured(tmp_path, choice)
    config = dataclasses.replace(config, inner=dataclasses.replace(config.inner, scale_rewards="on"))
    with RunFolder.create(config) as folder:
        if choice == "skip":
            summary = run(config, folder)
            assert np.isfinite(summary.state.rollout.reward_scale.sum_squares).all()
        else:
            with pytest.raises(NonFiniteError, match="reward_scale"):
                run(config, folder)
    with RunFolder.view(folder.path) as viewed:
        _, state = load_agent(viewed, pytest.fail)
    assert np.isfinite(state.rollout.reward_scale.sum_squares).all()
    assert any(row.get("skipped") for row in read_metrics(folder.path / "metrics.jsonl")) == (choice == "skip")


def leaves_of_learning(state: SelfTuningState) -> list[Any]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(learning_part(state))]
