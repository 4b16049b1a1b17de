"""λ-returns and generalised advantages of one trajectory, differentiable in everything.

There is no `stop_gradient` in this file: a learner that must not differentiate its targets evaluates them outside the
function it differentiates, and a meta-learner then still sees how they move with the discount, with λ and with the
parameters behind the values.

Sutton & Barto 2018, chapter 12 (λ-returns with a discount and a λ for every step); Schulman et al. 2015 (arXiv
1506.02438, generalised advantage estimation).

All arrays are (time,), entry t belonging to step t: `rewards[t]` and `discounts[t]` are those of step t, `values[t]`
is the value before it and `next_values[t]` the value after it (`gradweave.rl.next_values`). Batches go through
`jax.vmap`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

__all__ = ["generalized_advantages", "lambda_returns", "trajectory_discounts", "trajectory_lambda"]

ScalarOrPerStep = float | Float[Array, ""] | Float[Array, " time"]

# Short scans are unrolled whole: XLA then fuses them into one loop over the batch. Beyond this many steps that costs
# more compile time than it saves, and on CPU the derivative even gets slower (measured for 5 and 20 steps).
_LONGEST_UNROLLED = 8


def trajectory_discounts(discount: ScalarOrPerStep, terminations: Bool[Array, " time"]) -> Float[Array, " time"]:
    """Discount of every step: γ_t = 0 where the episode ended, γ elsewhere, also where it was only cut off.

    Args:
        discount: γ in [0, 1], one number or one for each step.
        terminations: True where step t really ended the episode.

    Returns:
        γ_t, differentiable in γ, of γ's dtype.
    """
    return _zero_where(terminations, discount)


def trajectory_lambda(lambda_: ScalarOrPerStep, truncations: Bool[Array, " time"]) -> Float[Array, " time"]:
    """λ of every step: λ_t = 0 where the episode was cut off, so that the return bootstraps there from v'_t alone.

    Without it the return would run on into the next episode, whose rewards have nothing to do with this one.

    Args:
        lambda_: λ in [0, 1], one number or one for each step.
        truncations: True where the episode was cut off after step t.

    Returns:
        λ_t, differentiable in λ, of λ's dtype.
    """
    return _zero_where(truncations, lambda_)


def lambda_returns(
    rewards: Num[Array, " time"],
    discounts: Float[Array, " time"],
    next_values: Num[Array, " time"],
    lambda_: ScalarOrPerStep,
) -> Float[Array, " time"]:
    """Return of every step, a mixture of all its n-step returns.

    G_t = r_t + γ_t ((1 - λ_t) v'_t + λ_t G_{t+1}),   G_T = v'_{T-1}

    λ = 0 is the one-step target r_t + γ_t v'_t; λ = 1 is the discounted sum of rewards, bootstrapped after the last
    step only.

    Args:
        rewards: r_t.
        discounts: γ_t in [0, 1]; 0 where the episode ended (`trajectory_discounts`).
        next_values: v'_t, the value of the observation after step t.
        lambda_: λ in [0, 1], one number or one for each step; 0 where the episode was cut off (`trajectory_lambda`).

    Returns:
        G_t, differentiable in all four arguments.
    """
    targets = rewards + discounts * (1 - lambda_) * next_values
    return linear_recurrence(targets, discounts * lambda_, next_values[-1])


def generalized_advantages(
    rewards: Num[Array, " time"],
    discounts: Float[Array, " time"],
    values: Num[Array, " time"],
    next_values: Num[Array, " time"],
    lambda_: ScalarOrPerStep,
) -> Float[Array, " time"]:
    """Advantage of every action, the exponentially weighted sum of temporal-difference errors.

    A_t = δ_t + γ_t λ_t A_{t+1},   δ_t = r_t + γ_t v'_t - v_t,   A_T = 0

    Where v'_t = v_{t+1} at every step that neither ends nor cuts an episode, A_t = G_t - v_t with G_t of
    `lambda_returns`. λ = 0 is the temporal-difference error itself.

    Args:
        rewards: r_t.
        discounts: γ_t in [0, 1]; 0 where the episode ended (`trajectory_discounts`).
        values: v_t, the value of `observations[t]`: time entries, without the one after the last step.
        next_values: v'_t, the value of the observation after step t.
        lambda_: λ in [0, 1], one number or one for each step; 0 where the episode was cut off (`trajectory_lambda`).

    Returns:
        A_t, differentiable in all five arguments.
    """
    errors = rewards + discounts * next_values - values
    return linear_recurrence(errors, discounts * lambda_, jnp.zeros_like(errors[-1]))


def _zero_where(stopped: Bool[Array, " time"], number: ScalarOrPerStep) -> Float[Array, " time"]:
    """0 where `stopped`, `number` elsewhere."""
    number = jnp.asarray(number)
    return jnp.where(stopped, jnp.zeros_like(number), number)


def linear_recurrence(
    terms: Float[Array, " time"], factors: Float[Array, " time"], last: Num[Array, ""]
) -> Float[Array, " time"]:
    """x_t = terms_t + factors_t x_{t+1} for t = T-1..0, with x_T = last; of the dtype that the three promote to."""
    # A scan refuses a state whose dtype the first step would change.
    dtype = jnp.result_type(terms, factors, last)
    terms, factors, last = (each if each.dtype == dtype else each.astype(dtype) for each in (terms, factors, last))

    def body(x: Float[Array, ""], step: tuple[Array, Array]) -> tuple[Array, Array]:
        term, factor = step
        x = term + factor * x
        return x, x

    num_steps = terms.shape[0]
    unroll = num_steps if num_steps <= _LONGEST_UNROLLED else 1
    return jax.lax.scan(body, last, (terms, factors), reverse=True, unroll=unroll)[1]
