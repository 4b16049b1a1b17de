"""Training an agent that was put together by hand: the same compiled chunks as a run's, without a folder."""

import contextlib
from typing import Any

import jax
from jaxtyping import Array, Key, PyTree

from gradweave.agents import MetaStepMetrics, SelfTuning, SelfTuningState
from gradweave.agents.state import named_numbers
from gradweave.core.bijectors import split_learned
from gradweave.runs.progress import Progress
from gradweave.training.log import meta_step_row
from gradweave.training.nonfinite import check_finite

__all__ = ["train_agent"]


def train_agent(
    agent: SelfTuning,
    params: PyTree,
    *,
    total_steps: int,
    key: Key[Array, ""],
    chunk_size: int = 20,
    quiet: bool = False,
) -> tuple[SelfTuningState, list[dict[str, Any]]]:
    """Train an agent for `total_steps` environment steps, rounded up to whole chunks.

    Args:
        agent: on one device.
        params: the network's initial parameters.
        total_steps: at least 1.
        key: for the environments and all randomness after.
        chunk_size: meta-steps computed between two returns to the host, at least 1.
        quiet: show no table on standard error.

    Returns:
        The state, and a row of metrics for each meta-step.

    Raises:
        ValueError: a number is out of range.
        NonFiniteError: parameters, meta-parameters or meta-gradient stopped being finite.
    """
    if total_steps < 1 or chunk_size < 1:
        raise ValueError(f"total_steps={total_steps} and chunk_size={chunk_size} must both be at least 1.")

    def chunk(state: SelfTuningState) -> tuple[SelfTuningState, MetaStepMetrics]:
        return jax.lax.scan(lambda carry, _: agent.step(carry), state, length=chunk_size)

    learned = tuple(named_numbers(split_learned(agent.initial_raw, agent.spec)[0]))
    progress, rows, done = Progress(learned, total_steps), [], 0
    run_chunk = jax.jit(chunk, donate_argnums=0)
    state = jax.jit(lambda params, key: agent.init(params, key=key))(params, key)
    window_steps = agent.environment_steps(1) - agent.environment_steps(0)
    with contextlib.nullcontext() if quiet else progress:
        while done * window_steps < total_steps:
            state, metrics = run_chunk(state)
            metrics = jax.device_get(metrics)
            check_finite(agent.environment_steps, metrics, done, state)
            for index in range(chunk_size):
                one = jax.tree.map(lambda leaf, index=index: leaf[index], metrics)
                done += 1
                rows.append(meta_step_row(agent.environment_steps(done), done, one.episodes, one, learned))
            progress.update(rows[-1])
    return state, rows
