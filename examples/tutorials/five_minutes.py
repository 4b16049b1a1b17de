# %% [markdown]
# # Five minutes
#
# A meta-gradient is the derivative of how well a learner does *after* some updates, by the numbers that its updates
# use. Here the learner descends a noisy slope, and its step size is tuned.

# %%
import jax
import jax.numpy as jnp
import optax

import gradweave as gw

# %% [markdown]
# ## A learner is two pure functions
#
# `update` makes one step, with whatever is tuned read from `eta`. `outer_loss` says how good the state is.


# %%
def update(x, eta, noise):
    gradient = x + noise
    return x - eta["step_size"] * gradient, None


def outer_loss(x, noise):
    return 0.5 * jnp.sum(x**2), None


problem = gw.MetaProblem(update, outer_loss)

# %% [markdown]
# ## Tune it
#
# `raw` is unconstrained, `spec` maps it to the range in which it makes sense. A window is five updates on recorded
# data, and the meta-gradient goes back through all of them.

# %%
spec = {"step_size": gw.Interval(0.0, 1.0)}
raw = gw.unconstrain({"step_size": 0.9}, spec)  # far too large for this much noise
meta_optimizer = optax.adam(0.05)


@jax.jit
def window(x, raw, meta_state, key):
    noise = jax.random.normal(key, (6, 20))  # five updates, and one batch more to evaluate the last
    result = gw.meta_gradient(problem, raw, spec, x, noise, None)
    change, meta_state = meta_optimizer.update(result.grad, meta_state)
    return result.state, optax.apply_updates(raw, change), meta_state, result.outer_loss


x, meta_state, losses, sizes = jnp.ones(20), meta_optimizer.init(raw), [], []
for key in jax.random.split(jax.random.key(0), 200):
    x, raw, meta_state, loss = window(x, raw, meta_state, key)
    losses.append(float(loss))
    sizes.append(float(gw.constrain(raw, spec)["step_size"]))

# %% [markdown]
# The step size falls, as it should near an optimum under noise, and the loss with it.

# %%
for step in (0, 20, 50, 199):
    print(f"window {step:3d}: step size {sizes[step]:.3f}, loss {losses[step]:.2f}")
assert sizes[-1] < 0.1 < sizes[0] and losses[-1] < losses[0]
