"""The loss terms against the formulas, and what their gradients are."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gradweave.rl import entropy_bonus, log_prob, policy_gradient_loss, value_loss


def test_policy_gradient_loss_by_hand():
    np.testing.assert_allclose(policy_gradient_loss(jnp.asarray([-1.0, -2.0]), jnp.asarray([3.0, -0.5])), 1.0)


def test_its_gradient_is_minus_the_exact_policy_gradient():
    """A bandit: averaged over all actions, the loss has the gradient of minus the expected reward."""
    rewards = jnp.asarray([1.0, 0.0, 3.0])
    mask = jnp.ones(3, bool)
    logits = jnp.asarray([0.2, -0.4, 0.1])

    def expected_reward(logits):
        return jnp.sum(jax.nn.softmax(logits) * rewards)

    weights = 3 * jax.nn.softmax(logits)  # the mean over three equally frequent steps becomes the expectation

    def loss(logits):
        taken = jax.vmap(lambda action: log_prob(logits, mask, action))(jnp.arange(3))
        return policy_gradient_loss(taken, weights * rewards)

    expected = -jax.grad(expected_reward)(logits)
    assert jnp.all(jnp.abs(expected) > 0.05)
    np.testing.assert_allclose(jax.grad(loss)(logits), expected, rtol=1e-12)


def test_value_loss_has_no_half():
    values, targets = jnp.asarray([1.0, 2.0]), jnp.asarray([2.0, 5.0])
    np.testing.assert_allclose(value_loss(values, targets), (1.0 + 9.0) / 2)
    by_values, by_targets = jax.grad(value_loss, (0, 1))(values, targets)
    np.testing.assert_allclose(by_values, [-1.0, -3.0])
    np.testing.assert_allclose(by_targets, [1.0, 3.0])


def test_advantages_are_differentiated():
    """What a stop_gradient would remove, and the meta-gradient needs."""
    log_probs = jnp.asarray([-1.0, -2.0])
    np.testing.assert_allclose(jax.grad(policy_gradient_loss, 1)(log_probs, jnp.ones(2)), -log_probs / 2)


def test_entropy_bonus_is_the_mean_over_steps_of_allowed_actions():
    logits = jnp.zeros((2, 4))
    mask = jnp.asarray([[True, True, True, True], [True, False, True, False]])
    np.testing.assert_allclose(entropy_bonus(logits, mask), (math.log(4) + math.log(2)) / 2)


def test_any_batch_axes_give_the_mean_over_all_steps():
    x, y = jnp.arange(6.0).reshape(3, 2), jnp.ones((3, 2)) / 2
    np.testing.assert_allclose(value_loss(x, y), jnp.mean(jax.vmap(value_loss, 1)(x, y)))
    np.testing.assert_allclose(policy_gradient_loss(x, y), jnp.mean(jax.vmap(policy_gradient_loss, 1)(x, y)))
