"""Environments split over two devices: every derivative is that of the whole batch, every draw that of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import gradweave as gw
from gradweave.agents import (
    AdvantageMoments,
    Experience,
    OuterObjective,
    actor_critic,
    inner_optimizer,
    policy_distance,
)
from gradweave.agents import bundled_apply as apply
from gradweave.agents.actor_critic.outer_loss import log_likelihood, mean_reward
from gradweave.core import SamplingCorrection, corrected_meta_gradient
from gradweave.envs import ONE_DEVICE, DeviceAxis, VectorEnvironment
from gradweave.rl import Acted, RolloutState, Trajectory, init_rollout, rollout, sample

from .material import ETA, LEARNED, NUM_ACTIONS, NUM_STEPS, Ladder, experience, network, quick_jit

LENGTH, NUM_ENVS = 3, 4
OBJECTIVE = OuterObjective(value_cost=0.5, entropy_cost=0.1, kl_cost=0.3, standardize_advantages=True)
WEIGHTS = jnp.array([0.2, 0.3, 0.5])
TWO = DeviceAxis("envs", 2)
SAME, BATCHES = PartitionSpec(), PartitionSpec(None, None, "envs")


@pytest.fixture(autouse=True)
def _the_same_key_more_than_once():
    """One and two devices are given the same keys: that is the comparison."""
    with jax.debug_key_reuse(False):
        yield


def on_two_devices(function, in_specs, out_specs=SAME):
    mesh = Mesh(np.array(jax.devices()[:2]), ("envs",))
    return quick_jit(jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs))


def window() -> Experience:
    keys = jax.random.split(jax.random.key(1), LENGTH + 1)
    batches = [experience(key, truncates=True, num_envs=NUM_ENVS) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    logits = jax.random.normal(jax.random.key(2), (LENGTH + 1, NUM_STEPS, NUM_ENVS, NUM_ACTIONS))
    moments = AdvantageMoments(jnp.full(LENGTH + 1, 0.1), jnp.full(LENGTH + 1, 1.7))
    return stacked._replace(anchor_logits=logits, advantage_moments=moments)


SERVED = {
    # `Unrolled`, `Truncated` and `RandomTruncation` are `TruncationMix` with other numbers in the same program.
    "mixed": (gw.MixedMode(), ("window mix", "horizon mix", "bootstrapped", "corrected")),
    "reverse": (gw.ReverseMode(), ("window mix", "horizon mix")),
    "forward": (gw.ForwardMode(), ("horizon mix", "trace", "adaptive mix")),
}


def gradients(axis, mode, names):
    """`(raw, state, batches) -> {estimator: meta-gradient}`."""
    learner = actor_critic(apply, inner_optimizer("adam", max_grad_norm=0.5), OBJECTIVE, axis=axis)
    estimators = {
        "window mix": gw.TruncationMix(WEIGHTS),
        "horizon mix": gw.HorizonMix(WEIGHTS),
        "bootstrapped": gw.Bootstrapped(2, policy_distance(apply, axis=axis)),
        "trace": gw.Trace(0.7),
        "adaptive mix": gw.AdaptiveMix(LENGTH),
    }

    def gradient(name, raw, state, batches):
        if name == "corrected":
            return corrected_meta_gradient(
                learner,
                raw,
                LEARNED,
                state,
                batches,
                correction=SamplingCorrection(0.5),
                log_prob=lambda state, batch: log_likelihood(state, batch, axis),
                reward=lambda batch: mean_reward(batch, axis),
                estimator=gw.HorizonMix(WEIGHTS),
                mode=mode,
            )
        estimator = estimators[name]
        options = {"estimator": estimator, "estimator_state": estimator.init(raw, LEARNED, state), "mode": mode}
        return gw.meta_gradient(learner, raw, LEARNED, state, batches, None, **options)

    return lambda *given: {name: gradient(name, *given).grad for name in names}


@pytest.fixture(scope="module")
def whole():
    """What one device says, and what it was given."""
    params = network(jax.random.key(4), outer_critic=True)
    given = (
        gw.unconstrain(ETA, LEARNED),
        actor_critic(apply, inner_optimizer("adam", max_grad_norm=0.5)).init(params),
        window(),
    )
    with jax.debug_key_reuse(False):
        mixed = quick_jit(gradients(ONE_DEVICE, *SERVED["mixed"]))(*given)
        forward = quick_jit(gradients(ONE_DEVICE, gw.ForwardMode(), ("trace", "adaptive mix")))(*given)
    return given, mixed | forward


@pytest.mark.slow
@pytest.mark.parametrize("mode", SERVED)
def test_two_devices_give_the_meta_gradient_of_one(whole, mode) -> None:
    given, expected = whole
    specs = Experience(BATCHES, SAME, BATCHES, SAME)
    found = on_two_devices(gradients(TWO, *SERVED[mode]), (SAME, SAME, specs))(*given)
    for name, grad in found.items():
        for one, other in zip(jax.tree.leaves(grad), jax.tree.leaves(expected[name]), strict=True):
            assert np.abs(np.asarray(other)).max() > 0, name
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-18, err_msg=name)


def test_experience_does_not_depend_on_the_number_of_devices() -> None:
    """Actions, slips, resets and totals, over several episodes; the same to the bit."""
    logits = jnp.array([0.3, 1.0, -0.5, 0.2])

    def collect(axis):
        environment = VectorEnvironment(Ladder(), 6, axis)

        def act(observations, memory, key):
            batch = observations.view.shape[0]
            return Acted(sample(jnp.tile(logits, (batch, 1)), observations.action_mask, key=key, axis=axis), memory)

        def run(key):
            reset_key, key = jax.random.split(key)
            return rollout(act, environment, init_rollout(environment, key=reset_key), 20, key=key)

        return run

    time_first = PartitionSpec(None, "envs")
    specs = (RolloutState(*[PartitionSpec("envs")] * 5), Trajectory(*[time_first] * 8), SAME)
    one = quick_jit(collect(ONE_DEVICE))(jax.random.key(3))
    two = on_two_devices(collect(TWO), SAME, specs)(jax.random.key(3))
    assert one[2].num_episodes > 6
    assert one[1].truncations.any() and one[1].terminations.any()
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-15)


def test_an_uneven_split_is_refused() -> None:
    with pytest.raises(ValueError, match="a multiple of 2"):
        VectorEnvironment(Ladder(), 5, TWO)
