"""The table of the estimators that are no fixed weighting: each one, by every mode that serves, on every problem.

A row says how an estimator is built for a problem and what it must give along a direction: a number from central
differences of plain loops, or from plain loops alone. Two windows follow each other, so that what is carried from one
to the next is tested. Adding an estimator is adding a row.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradweave as gw
from gradweave.core.bijectors import split_learned

from ..more_problems import TABLE
from ..problems import along, compiled, direction_of, dot, full_spec, horizon_losses, window_losses

L = 3
DECAY, PROBABILITY, SIGMA, NUM_PAIRS, TARGET_STEPS, TARGET_RATE = 0.6, 0.7, 0.05, 3, 2, 0.1


@pytest.fixture(autouse=True)
def _the_same_memory_more_than_once():
    """All modes, and the truth, are given one memory and thus one key: that is the comparison."""
    with jax.debug_key_reuse(False):
        yield


class Setting(NamedTuple):
    """What a truth is computed from: window `index` of two, which begins at `case.state`, and the memory before it."""

    case: Any
    functions: Any
    index: int
    windows: tuple[Any, Any]
    start: Any
    memory: Any
    direction: Any


def at(tree: Any, k: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[k], tree)


def differences(losses: Callable[[float], list[Any]], step: float = 1e-5) -> np.ndarray:
    ahead, behind = (np.array([float(x) for x in losses(distance)]) for distance in (step, -step))
    return (ahead - behind) / (2 * step)


def trace_truth(setting: Setting) -> float:
    """Geometric weights over the truncations of the two windows as one."""
    case, functions = setting.case, setting.functions
    taken = setting.windows[: setting.index + 1]
    batches, outer_batches = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *taken)

    def losses(distance: float) -> list[Any]:
        return window_losses(case, functions, along(case, setting.direction, distance), batches, outer_batches)

    weights = np.asarray(gw.geometric_weights(L * len(taken), DECAY))
    return float(weights @ differences(losses))


def truncation_truth(setting: Setting) -> float:
    """Every step's contribution is the difference of two truncations."""
    case, functions = setting.case._replace(state=setting.start), setting.functions

    def losses(distance: float) -> list[Any]:
        return window_losses(case, functions, along(case, setting.direction, distance), *setting.windows[setting.index])

    contributions = np.diff(differences(losses), prepend=0.0)
    depth = float(jax.random.uniform(jax.random.split(setting.memory.key)[1], ()))
    return sum(c / PROBABILITY**j for j, c in enumerate(contributions) if depth < PROBABILITY**j)


def bootstrap_truth(setting: Setting) -> float:
    """Half the squared distance to where T - 1 further updates and one step down the outer loss lead."""
    case, functions = setting.case, setting.functions
    batches, outer_batches = setting.windows[setting.index]

    def run(x: Any, raw: Any, first: int, last: int) -> Any:
        for k in range(first, last):
            x = functions.update(x, raw, at(batches, k))
        return x

    differentiated = L - TARGET_STEPS + 1
    further = run(setting.start, case.raw, 0, L)
    target = jax.jit(lambda state, batch: outer_step(case, state, batch))(further, at(outer_batches, L - 1))

    def losses(distance: float) -> list[Any]:
        x = run(setting.start, along(case, setting.direction, distance), 0, differentiated)
        return [0.5 * sum(((a - b) ** 2).sum() for a, b in zip(weights_of(x), weights_of(target), strict=True))]

    return float(differences(losses)[0])


def weights_of(state: Any) -> list[Any]:
    counted = state.params if isinstance(state, gw.LearnerState) else state
    return [leaf for leaf in jax.tree.leaves(counted) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def outer_step(case: Any, state: Any, batch: Any) -> Any:
    """One step down the outer loss: the learner's own, or a plain one for a problem without parts."""
    problem = case.problem
    if isinstance(problem, gw.GradientLearner):
        slope = jax.grad(lambda params: problem.outer_loss(state._replace(params=params), batch)[0])(state.params)
        with jax.numpy_dtype_promotion("standard"):
            change, _ = problem.optimizer.update(slope, state.optimizer_state, state.params)
        rates = problem.learning_rate(gw.constrain(case.raw, case.spec))
        if not isinstance(rates, dict):
            return state._replace(params=jax.tree.map(lambda leaf, move: leaf - rates * move, state.params, change))
        moved = {
            group: jax.tree.map(lambda leaf, move: leaf - rates[group] * move, state.params[group], change[group])  # noqa: B023
            for group in rates
        }
        return state._replace(params=moved)
    slope = jax.grad(lambda leaves: problem.outer_loss(leaves, batch)[0], allow_int=True)(state)

    def move(leaf: Any, slope: Any) -> Any:
        return leaf - TARGET_RATE * slope if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(move, state, slope)


def adaptive_truth(setting: Setting) -> float:
    """The weights in memory over the horizons, one set for each learned number."""
    case, functions = setting.case._replace(state=setting.start), setting.functions
    weights = np.asarray(setting.memory.weights)
    flat, unravel = ravel_pytree(learned_of(case))
    along_flat, _ = ravel_pytree(split_learned(setting.direction, case.spec)[0])
    total = 0.0
    for index in range(flat.size):
        axis = unravel(jnp.zeros_like(flat).at[index].set(1.0))
        axis = jax.tree.map(lambda leaf, one: one if one is not None else jnp.zeros_like(leaf), case.raw, axis)

        def losses(distance: float, axis: Any = axis) -> list[Any]:
            return horizon_losses(case, functions, along(case, axis, distance), *setting.windows[setting.index])

        total += float(along_flat[index]) * float(weights[index] @ differences(losses))
    return total


def learned_of(case: Any) -> Any:
    return split_learned(jax.tree.map(jnp.asarray, case.raw), case.spec)[0]


def noise_of(setting: Setting) -> tuple[Any, Callable[[Any], Any]]:
    flat, unravel = ravel_pytree(learned_of(setting.case))
    noise = jax.random.normal(jax.random.split(setting.memory.key)[1], (NUM_PAIRS, flat.size))

    def moved(offset: Any) -> Any:
        learned = unravel(flat + offset)
        return jax.tree.map(lambda leaf, one: leaf if one is None else one, setting.case.raw, learned)

    return noise, moved


def evolution_truth(setting: Setting) -> float:
    """The formula in a loop over particles, each with a learner of its own (persistent) or the window's."""
    case, functions = setting.case, setting.functions
    persistent = hasattr(setting.memory, "states")
    noise, moved = noise_of(setting)
    batches, outer_batches = setting.windows[setting.index]
    along_flat, _ = ravel_pytree(split_learned(setting.direction, case.spec)[0])
    total = 0.0
    for pair in range(NUM_PAIRS):
        lived = noise[pair] + (setting.memory.perturbations[pair] if persistent else 0.0)
        for side, sign in enumerate((1, -1)):
            x = at(at(setting.memory.states, side), pair) if persistent else setting.start
            for k in range(L):
                x = functions.update(x, moved(sign * SIGMA * noise[pair]), at(batches, k))
            loss = functions.outer_loss(x, at(outer_batches, L - 1))
            total += sign * float(loss) * float(lived @ along_flat) / (2 * SIGMA * NUM_PAIRS)
    return total


class Row(NamedTuple):
    """An estimator: how it is built, the modes that serve, and the truth."""

    build: Callable[[Any], Any]
    modes: dict[str, Any]
    truth: Callable[[Setting], float]
    tolerance: float = 1e-6


ALL = {
    "reverse": gw.ReverseMode(),
    "remat": gw.ReverseMode("step"),
    "forward": gw.ForwardMode(),
    "mixed": gw.MixedMode(),
}
FORWARD, NONE = {"default": None, "forward": gw.ForwardMode()}, {"default": None}


def bootstrapped_for(case: Any) -> gw.Bootstrapped:
    rate = None if isinstance(case.problem, gw.GradientLearner) else TARGET_RATE
    return gw.Bootstrapped(TARGET_STEPS, target_learning_rate=rate)


ROWS = {
    "trace": Row(lambda case: gw.Trace(DECAY), FORWARD, trace_truth),
    "random_truncation": Row(lambda case: gw.RandomTruncation(PROBABILITY), ALL, truncation_truth),
    "bootstrapped": Row(bootstrapped_for, ALL, bootstrap_truth),
    "adaptive_snr": Row(lambda case: gw.AdaptiveMix(L, decay=0.5, warmup=2), FORWARD, adaptive_truth),
    "adaptive_error": Row(
        lambda case: gw.AdaptiveMix(L, gw.LeastError(), decay=0.5, warmup=2), FORWARD, adaptive_truth
    ),
    "evolution": Row(lambda case: gw.EvolutionStrategies(SIGMA, num_pairs=NUM_PAIRS), NONE, evolution_truth, 1e-9),
    "persistent": Row(
        lambda case: gw.PersistentEvolutionStrategies(SIGMA, num_pairs=NUM_PAIRS), NONE, evolution_truth, 1e-9
    ),
}


# Every estimator in every mode, on three problems; the others are left to the whole run.
PROBLEMS = [
    name if name in ("quadratic", "td_adam", "counter") else pytest.param(name, marks=pytest.mark.slow)
    for name in TABLE
]


@functools.cache
def problem_of(name: str) -> Any:
    """(case, its functions, compiled): every row has the same, so that nothing is compiled for each."""
    case = TABLE[name]()
    return case, compiled(case)


@functools.cache
def two_windows(row: str, problem: str) -> Any:
    """(case, windows, [(start, memory before, {mode: result})] of both windows)."""
    (case, _), (build, modes, _, _) = problem_of(problem), ROWS[row]
    if not isinstance(case.problem, gw.GradientLearner):
        modes = {name: mode for name, mode in modes.items() if name != "mixed"}
    batches, outer_batches = case.data(2 * L, online=False)
    windows = tuple(jax.tree.map(lambda leaf: leaf[i * L : (i + 1) * L], (batches, outer_batches)) for i in (0, 1))  # noqa: B023
    estimator = build(case)

    @jax.jit
    def by_all_modes(state: Any, memory: Any, window: Any) -> Any:
        def estimate(mode: Any) -> Any:
            return gw.meta_gradient(
                case.problem,
                case.raw,
                case.spec,
                state,
                *window,
                estimator=estimator,
                mode=mode,
                estimator_state=memory,
            )

        return {name: estimate(mode) for name, mode in modes.items()}

    state, memory = case.state, estimator.init(case.raw, case.spec, case.state, key=jax.random.key(11))
    steps = []
    for window in windows:
        results = by_all_modes(state, memory, window)
        steps.append((state, memory, results))
        last = next(iter(results.values()))
        state, memory = last.state, last.estimator_state
    return case, windows, steps


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("row", ROWS)
def test_every_mode_gives_the_number_of_a_plain_loop(row, problem):
    case, windows, steps = two_windows(row, problem)
    direction = direction_of(case)
    for index, (start, memory, results) in enumerate(steps):
        truth = ROWS[row].truth(Setting(case, problem_of(problem)[1], index, windows, start, memory, direction))
        assert abs(truth) > 1e-7
        for name, result in results.items():
            np.testing.assert_allclose(
                dot(result.grad, direction), truth, rtol=ROWS[row].tolerance, atol=1e-9, err_msg=f"{name} {index}"
            )


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("row", ROWS)
def test_the_learner_goes_on_and_fixed_leaves_have_no_gradient(row, problem):
    case, windows, steps = two_windows(row, problem)
    functions = problem_of(problem)[1]
    for (start, _, results), (batches, outer_batches) in zip(steps, windows, strict=True):
        x = start
        for k in range(L):
            x = functions.update(x, case.raw, at(batches, k))
        for result in results.values():
            assert jax.tree.structure(result.grad) == jax.tree.structure(case.raw)
            for leaf, bijector in zip(jax.tree.leaves(result.grad), full_spec(case), strict=True):
                if isinstance(bijector, gw.Fixed):
                    assert (np.asarray(leaf) == 0).all()
                else:
                    assert np.isfinite(leaf).all() and np.any(np.asarray(leaf) != 0)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), result.state, x)
            np.testing.assert_allclose(
                result.aux.outer_losses[-1], functions.outer_loss(x, at(outer_batches, L - 1)), rtol=1e-9
            )
            assert jnp.shape(result.outer_loss) == ()


@pytest.mark.parametrize("row", ROWS)
def test_modes_that_cannot_serve_are_refused_with_one_that_can(row):
    case = TABLE["td_adam"]()
    estimator, modes = ROWS[row].build(case), ROWS[row].modes
    window = (case.state, *case.data(L, online=False))
    memory = estimator.init(case.raw, case.spec, case.state)
    for name, mode in ALL.items():
        if name in modes or (name == "remat" and "reverse" in modes):
            continue
        with pytest.raises(TypeError, match="ForwardMode" if modes is FORWARD else "leave out mode="):
            gw.meta_gradient(
                case.problem, case.raw, case.spec, *window, estimator=estimator, mode=mode, estimator_state=memory
            )


@pytest.mark.parametrize("row", [name for name in ROWS if name != "bootstrapped"])
def test_a_missing_memory_is_an_error_that_says_where_to_get_it(row):
    case = TABLE["td_adam"]()
    with pytest.raises(ValueError, match=r"estimator\.init\(raw, spec, state\)"):
        gw.meta_gradient(
            case.problem, case.raw, case.spec, case.state, *case.data(L, False), estimator=ROWS[row].build(case)
        )


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_seeds_as_a_batch_axis_equal_a_loop(row):
    case = TABLE["td_adam"]()
    estimator = ROWS[row].build(case)

    @jax.jit
    def run(key: Any, windows: Any) -> Any:
        memory = estimator.init(case.raw, case.spec, case.state, key=key)

        def window(carry: Any, data: Any) -> Any:
            state, memory = carry
            result = gw.meta_gradient(
                case.problem, case.raw, case.spec, state, *data, estimator=estimator, estimator_state=memory
            )
            return (result.state, result.estimator_state), result.grad

        return jax.lax.scan(window, (case.state, memory), windows)[1]

    seeds = range(3)
    data = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *(case.data(L, False, 10 * s + i) for i in range(4)))
        for s in seeds
    ]
    keys = jax.random.split(jax.random.key(4), len(seeds))
    together = jax.jit(jax.vmap(run))(keys, jax.tree.map(lambda *leaves: jnp.stack(leaves), *data))
    for seed in seeds:
        alone = run(keys[seed], data[seed])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[seed], b, rtol=1e-9, atol=1e-12), together, alone)  # noqa: B023
