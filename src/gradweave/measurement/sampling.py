"""The measuring instrument: independent samples of the meta-gradient of a trained agent, every horizon on the same
data.

The learner's state x_0 and the meta-parameters are held where training left them. Each sample lets the environments run
on under theta_0 with randomness of its own, until they have forgotten where they were, then collects one window exactly
as a meta-step does: a batch, an update, a rollout, an update, ... Of each window the whole table of contributions is
kept (`core.contributions`), so that all linear estimators are weighted sums over the same samples, and comparing them
is comparing pairs.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import jax
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Key

from gradweave.agents import SelfTuning, SelfTuningState, named_leaves
from gradweave.core import (
    AbstractLinearEstimator,
    GradientLearner,
    HorizonMix,
    MetaProblemLike,
    Truncated,
    TruncationMix,
    Unrolled,
    geometric_weights,
    gradient_samples,
    uniform_weights,
)
from gradweave.core.bijectors import split_learned
from gradweave.core.contributions import step_contributions
from gradweave.core.minibatches import MinibatchLearner
from gradweave.envs import VectorEnvironment
from gradweave.errors import NonFiniteError

__all__ = [
    "MOST_BURN_IN",
    "GradientSamples",
    "default_estimators",
    "episode_rollouts",
    "estimator_samples",
    "measure_agent",
    "single_estimates",
    "with_num_envs",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]

_MIX_LAMBDAS = (0.5, 0.8, 0.95)


MOST_BURN_IN: Final = 100
"""Rollouts; where episodes are longer, samples that follow each other are not wholly independent."""


class GradientSamples(NamedTuple):
    """Samples of every contribution to every meta-gradient, on the host.

    Attributes:
        names: of the P learned meta-parameters; gradients are with respect to their unconstrained values.
        contributions: (samples, L, L, P): of outer loss J(x_k), entry k - 1 of the second axis, through update j.
    """

    names: tuple[str, ...]
    contributions: FloatArray

    @property
    def num_samples(self) -> int:
        """Independent windows."""
        return len(self.contributions)

    @property
    def num_inner_steps(self) -> int:
        """L."""
        return self.contributions.shape[1]

    @property
    def horizons(self) -> FloatArray:
        """Horizon gradients g_1 .. g_L: (samples, L, P)."""
        return self.contributions.sum(2)

    @property
    def truncations(self) -> FloatArray:
        """Truncated gradients h_1 .. h_L: (samples, L, P)."""
        return self.contributions[:, -1, ::-1].cumsum(1)


def measure_agent(
    agent: SelfTuning,
    state: SelfTuningState,
    *,
    key: Key[Array, ""],
    num_samples: int,
    burn_in_rollouts: int,
    horizons: int | None = None,
    chunk_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    known: FloatArray | None = None,
    keep: Callable[[FloatArray], None] | None = None,
) -> GradientSamples:
    """Independent samples of the meta-gradient at one state of an agent.

    Args:
        agent: the agent; its own estimator and mode play no part. Without a sampling correction, which these samples
            would leave out.
        state: where to measure. Parameters, inner optimiser and meta-parameters stay as they are in it.
        key: for all randomness.
        num_samples: at least 2.
        burn_in_rollouts: at least 0. Before each window come at least this number of rollouts under the unchanged
            parameters, and at most twice as many: the number is random, so that episodes which all have the same length
            are not all met at the same point. Samples are independent as far as the environments have forgotten their
            common start: an episode's length or more is right (`episode_rollouts`).
        horizons: L; by default that of the agent. May be longer.
        chunk_size: samples computed between two returns to the host, one after another.
        progress: told (samples done, samples in all) after each chunk.
        known: contributions of the first samples, from an interrupted call with the same arguments (`num_samples`
            apart: sample i depends on the key and on i only, with partitionable random numbers, JAX's default); they
            are not computed again.
        keep: given all contributions so far after each chunk, to be handed in as `known` some other time.

    Returns:
        The samples.

    Raises:
        ValueError: the agent learns no meta-parameter or corrects for sampling, or a number is out of range.
        NonFiniteError: a sample is not finite.
    """
    _check(agent, num_samples, burn_in_rollouts, horizons, chunk_size)
    length = agent.num_inner_steps if horizons is None else horizons
    agent = dataclasses.replace(agent, num_inner_steps=length, estimator=Unrolled())  # which fits every length
    learned, _ = split_learned(agent.raw_eta(state.raw), agent.spec)
    names = tuple(named_leaves(learned))

    @jax.jit
    def chunk(state: SelfTuningState, keys: Key[Array, " samples"]) -> Array:
        return gradient_samples(lambda key: _sample(agent, state, key, burn_in_rollouts, names), keys)

    keys = jax.random.split(key, num_samples)
    shape = (length, length, len(names))
    parts = [np.zeros((0, *shape)) if known is None else known[:num_samples]]
    if parts[0].shape[1:] != shape:
        raise ValueError(f"known samples have shape {parts[0].shape}; (samples, {shape}) are expected: leave them out.")
    for start in range(len(parts[0]), num_samples, chunk_size):
        # The last chunk is filled up with samples that are thrown away, so that one program serves all.
        places = np.arange(start, start + min(chunk_size, num_samples)).clip(max=num_samples - 1)
        found = np.asarray(chunk(state, keys[places]), np.float64)[: num_samples - start]
        parts.append(found)
        _check_finite(found, names)
        if keep is not None:
            keep(np.concatenate(parts))
        if progress is not None:
            progress(min(start + chunk_size, num_samples), num_samples)
    return GradientSamples(names, np.concatenate(parts))


def with_num_envs(
    agent: SelfTuning, state: SelfTuningState, num_envs: int, *, problem: MetaProblemLike | None = None
) -> tuple[SelfTuning, SelfTuningState]:
    """The same agent in the same state, with batches of another number of environments, to measure what they change.

    Inner and outer batches change both: a smaller batch is a noisier learner with a noisier outer loss, not an average
    over fewer samples. Environments beyond those there are begin as copies; the burn-in has to take them apart.

    Args:
        agent: the agent.
        state: of it.
        num_envs: at least 1.
        problem: the agent's for batches of this size; by default its own, whose parts of a batch must divide the size.

    Raises:
        ValueError: `num_envs` is below 1, or cannot be split into the parts.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs} must be at least 1.")
    problem = agent.problem if problem is None else problem
    if not isinstance(problem, GradientLearner | MinibatchLearner):
        accepted = "a GradientLearner or MinibatchLearner is measured"
        raise TypeError(f"the agent's learner is a {type(problem).__name__}; only {accepted}.")
    if (
        isinstance(problem, GradientLearner)
        and problem.microbatches is not None
        and num_envs % problem.microbatches.num_parts
    ):
        raise ValueError(
            f"num_envs={num_envs} cannot be split into {problem.microbatches.num_parts} equal parts, as the agent's "
            "problem does; give a problem that is built for this number."
        )
    places = np.arange(num_envs) % agent.environment.num_envs
    rollout = jax.tree.map(lambda leaf: leaf[places], state.rollout)
    environment: VectorEnvironment[Any] = VectorEnvironment(agent.environment.environment, num_envs)
    return dataclasses.replace(
        agent, agent=dataclasses.replace(agent.agent, problem=problem), environment=environment
    ), state._replace(rollout=rollout)


def estimator_samples(
    samples: GradientSamples, estimators: Mapping[str, AbstractLinearEstimator]
) -> dict[str, FloatArray]:
    """Estimates of each estimator on the windows of `samples`: (samples, P) for each name.

    Args:
        samples: from `measure_agent`.
        estimators: by name; they must fit windows of `samples.num_inner_steps`.

    Raises:
        ValueError: an estimator does not fit.
    """
    length = samples.num_inner_steps
    results = {}
    for name, estimator in estimators.items():
        estimator.check(length)
        weights = estimator.kernel_weights(length)
        steps = np.ones(length) if weights.steps is None else np.asarray(weights.steps, np.float64)
        horizons = np.eye(length)[-1] if weights.horizons is None else np.asarray(weights.horizons, np.float64)
        results[name] = np.einsum("k,j,nkjp->np", horizons, steps, samples.contributions)
    return results


def single_estimates(samples: GradientSamples) -> dict[str, FloatArray]:
    """Every g_k as "horizon k" and every h_m as "truncation m": (samples, P) each."""
    families = {"horizon": samples.horizons, "truncation": samples.truncations}
    return {
        f"{family} {index + 1}": gradients[:, index]
        for family, gradients in families.items()
        for index in range(samples.num_inner_steps)
    }


def episode_rollouts(rows: Iterable[Mapping[str, Any]], num_steps: int, step: int) -> int:
    """How many rollouts an episode took lately, from 20 to `MOST_BURN_IN`: a burn-in for `measure_agent`. Longer ones
    take longer than the windows.

    Args:
        rows: a run's metrics.
        num_steps: steps of each environment in a rollout.
        step: environment steps; of rows up to there the last hundred that saw an episode end count.
    """
    ended = [row for row in rows if row["step"] <= step and row.get("episode_length") is not None][-100:]
    steps = sum(row["episode_length"] * row["num_episodes"] for row in ended)
    mean = steps / max(1, sum(row["num_episodes"] for row in ended))
    return min(max(20, math.ceil(mean / num_steps)), MOST_BURN_IN)


def default_estimators(num_inner_steps: int) -> dict[str, AbstractLinearEstimator]:
    """The estimators that are compared unless others are asked for, the reference ("unrolled") first."""
    estimators: dict[str, AbstractLinearEstimator] = {"unrolled": Unrolled(), "truncated 1": Truncated(1)}
    for family, mix in (("horizon-mix", HorizonMix), ("truncation-mix", TruncationMix)):
        estimators[f"{family} uniform"] = mix(uniform_weights(num_inner_steps))
        for lambda_ in _MIX_LAMBDAS:
            estimators[f"{family} {lambda_}"] = mix(geometric_weights(num_inner_steps, lambda_))
    return estimators


def _sample(
    agent: SelfTuning, state: SelfTuningState, key: Key[Array, ""], burn_in_rollouts: int, names: tuple[str, ...]
) -> Array:
    """One table of contributions, (L, L, P)."""
    count_key, burn_key, batch_key, window_key = jax.random.split(key, 4)
    params = state.learner.params

    def run_on(index: Array, running: Any) -> Any:
        return agent.collect(params, state.raw, running, key=jax.random.fold_in(burn_key, index))[0]

    count = jax.random.randint(count_key, (), burn_in_rollouts, 2 * burn_in_rollouts + 1)
    running = jax.lax.fori_loop(0, count, run_on, state.rollout)
    running, batch, _ = agent.collect(params, state.raw, running, key=batch_key)
    window = agent.collect_window(state._replace(rollout=running, batch=batch), key=window_key)
    # Of a schedule, what it says now is measured: it adds to its base, so that the derivative is that by the base.
    raw = agent.raw_eta(state.raw)
    table = step_contributions(
        agent.problem,
        raw,
        agent.spec,
        state.learner,
        window.batches,
        window.outer_batches,
        recording=window.recording,
    )
    leaves = named_leaves(table)
    return jax.numpy.stack([leaves[name] for name in names], axis=-1)


def _check(agent: SelfTuning, num_samples: int, burn_in_rollouts: int, horizons: int | None, chunk_size: int) -> None:
    if not agent.learns:
        raise ValueError(
            "this agent learns no meta-parameter, so that it has no meta-gradient to measure; train one with "
            "--meta.learned discount, say."
        )
    if agent.sampling_correction is not None:
        raise ValueError(
            "this agent corrects for sampling, and the correction's share of the meta-gradient would not be measured; "
            "measure one without --meta.sampling-correction, or take samples of agent.window_gradient."
        )
    learned = named_leaves(split_learned(agent.initial_raw, agent.spec)[0])
    if arrays := [name for name, leaf in learned.items() if np.ndim(leaf)]:
        raise ValueError(
            f"only single numbers are measured, and {', '.join(arrays)} is an array; gw.gradient_samples of "
            "agent.window_gradient and gw.told_from_noise take arrays."
        )
    if num_samples < 2 or burn_in_rollouts < 0 or chunk_size < 1 or (horizons is not None and horizons < 1):
        raise ValueError(
            f"num_samples={num_samples} must be at least 2, burn_in_rollouts={burn_in_rollouts} at least 0, "
            f"horizons={horizons} and chunk_size={chunk_size} at least 1."
        )


def _check_finite(found: FloatArray, names: tuple[str, ...]) -> None:
    bad = ~np.isfinite(found).all((0, 1, 2))
    if bad.any():
        where = f"in a sampled window of {found.shape[1]} updates"
        remedy = "a shorter one (--horizons) or an earlier checkpoint (--step) may do"
        raise NonFiniteError(f"meta_gradient/{names[int(bad.argmax())]}", where, remedy)
