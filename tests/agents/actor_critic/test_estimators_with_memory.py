"""Estimators with a memory on the actor-critic, against weighted gradients in another mode and one long window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradweave as gw
from gradweave.agents import actor_critic, bundled_apply, inner_optimizer

from ..material import ETA, LEARNED, experience, network, quick_jit

LENGTH, DECAY = 2, 0.7
WEIGHTS = jnp.array([0.25, 0.75])


def close(one, other):
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-18)
        assert np.abs(np.asarray(first)).max() > 0


@pytest.mark.slow
def test_memories_agree_with_weighted_gradients() -> None:
    learner = actor_critic(bundled_apply, inner_optimizer("adam"))
    start = learner.init(network(jax.random.key(4), outer_critic=True))
    keys = jax.random.split(jax.random.key(1), 2 * LENGTH + 1)
    whole = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[experience(key, truncates=True) for key in keys])
    first, second = (jax.tree.map(lambda leaf, at=at: leaf[at : at + LENGTH + 1], whole) for at in (0, LENGTH))
    raw = gw.unconstrain(ETA, LEARNED)

    def gradient(estimator, batches=first, state=start, memory=None, **options):
        options = {"estimator": estimator, "estimator_state": memory} | options
        return gw.meta_gradient(learner, raw, LEARNED, state, batches, None, **options)

    @quick_jit
    def with_memory(raw):
        trace, endless = gw.Trace(DECAY), gw.Trace(1.0)
        one = gradient(endless, memory=endless.init(raw, LEARNED, start))
        adaptive = gw.AdaptiveMix(LENGTH)
        memory = adaptive.init(raw, LEARNED, start)
        chosen = memory._replace(weights=jnp.broadcast_to(WEIGHTS, memory.weights.shape))
        certain = gw.RandomTruncation(1.0)
        return {
            "trace": gradient(trace, memory=trace.init(raw, LEARNED, start)).grad,
            "endless trace": gradient(endless, second, one.state, one.estimator_state).grad,
            "adaptive": gradient(adaptive, memory=memory).grad,
            "adaptive, chosen": gradient(adaptive, memory=chosen).grad,
            "certain": gradient(certain, memory=certain.init(raw, LEARNED, start), mode=gw.MixedMode()).grad,
        }

    @quick_jit
    def without(raw):
        mixed = {"mode": gw.MixedMode()}
        return {
            "trace": gradient(gw.TruncationMix(gw.geometric_weights(LENGTH, DECAY)), **mixed).grad,
            "endless trace": gradient(gw.Unrolled(), whole, **mixed).grad,
            "adaptive": gradient(gw.HorizonMix(gw.uniform_weights(LENGTH)), **mixed).grad,
            "adaptive, chosen": gradient(gw.HorizonMix(WEIGHTS), **mixed).grad,
            "certain": gradient(gw.Unrolled(), mode=gw.ReverseMode()).grad,
        }

    close(with_memory(raw), without(raw))
