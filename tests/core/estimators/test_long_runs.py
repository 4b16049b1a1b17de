"""Ten thousand meta-steps in float32: nothing becomes infinite, for any estimator, problem or inner optimiser.

Every estimator meets every problem, and every optimiser some; all pairs of these would be three times the work.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw

from ..more_problems import LEARNERS, OPTIMIZERS

L, NUM_WINDOWS = 2, 10_000
ESTIMATORS = {
    "unrolled": gw.Unrolled(),
    "trace": gw.Trace(0.9),
    "random_truncation": gw.RandomTruncation(0.5),
    "bootstrapped": gw.Bootstrapped(2),
    "adaptive_snr": gw.AdaptiveMix(L),
    "adaptive_error": gw.AdaptiveMix(L, gw.LeastError()),
    "evolution": gw.EvolutionStrategies(0.05, num_pairs=2),
    "persistent": gw.PersistentEvolutionStrategies(0.05, 2, num_windows=100),
}


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "optimizer"), [*zip(LEARNERS, itertools.cycle(OPTIMIZERS), strict=False)])
def test_float32_stays_finite(problem, optimizer):
    with jax.enable_x64(False):
        case = LEARNERS[problem](OPTIMIZERS[optimizer]())
        assert {leaf.dtype for leaf in jax.tree.leaves((case.raw, case.state.params))} == {jnp.dtype("float32")}
        meta_optimizer = optax.adam(1e-3)

        def start(estimator, key):
            return (
                case.state,
                case.raw,
                estimator.init(case.raw, case.spec, case.state, key=key),
                meta_optimizer.init(case.raw),
            )

        def meta_step(estimator, carry, data):
            state, raw, memory, meta_state = carry
            result = gw.meta_gradient(
                case.problem, raw, case.spec, state, *data, estimator=estimator, estimator_state=memory
            )
            with jax.numpy_dtype_promotion("standard"):
                updates, meta_state = meta_optimizer.update(result.grad, meta_state)
            return result.state, jax.tree.map(jnp.add, raw, updates), result.estimator_state, meta_state

        def window(carries, key):
            data = [jax.vmap(case.draw)(jax.random.split(k, L)) for k in jax.random.split(key)]
            carries = {name: meta_step(ESTIMATORS[name], carry, data) for name, carry in carries.items()}
            return carries, None

        @jax.jit
        def run(key):
            first, second = jax.random.split(key)
            keys = jax.random.split(first, len(ESTIMATORS))
            carries = {name: start(estimator, keys[i]) for i, (name, estimator) in enumerate(ESTIMATORS.items())}
            return jax.lax.scan(window, carries, jax.random.split(second, NUM_WINDOWS))[0]

        for name, (state, raw, memory, _) in run(jax.random.key(0)).items():
            floats = [
                leaf for leaf in jax.tree.leaves((state, raw, memory)) if jnp.issubdtype(leaf.dtype, jnp.floating)
            ]
            assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}, name
            assert all(np.isfinite(leaf).all() for leaf in floats), name
            moved = [
                float(abs(a - b).max()) for a, b in zip(jax.tree.leaves(raw), jax.tree.leaves(case.raw), strict=True)
            ]
            assert max(moved) > 1e-3, name  # it did tune
