# %% [markdown]
# # My own loop
#
# Three steps make a training loop tune itself: one update as a pure function, a range for every number that is tuned,
# and a check. The learner here is a regression with AdamW; PPO and DQN are in `examples/`.

# %%
import jax
import jax.numpy as jnp
import optax

import gradweave as gw

# %% [markdown]
# ## 1. The update
#
# Whatever depends on `eta` is computed inside. `gw.tunable` makes hyper-parameters of an optax optimiser arguments, and
# its derivative is finite where Adam's is not.


# %%
def network(params, inputs):
    return jax.nn.relu(inputs @ params["w"]) @ params["v"]


def optimizer(eta):
    return gw.tunable(optax.adamw)(learning_rate=eta["rate"], weight_decay=eta["decay"])


def loss(params, batch):
    return jnp.mean((network(params, batch["inputs"]) - batch["answers"]) ** 2)


def update(state, eta, batch):
    params, memory = state
    change, memory = optimizer(eta).update(jax.grad(loss)(params, batch), memory, params)
    return (optax.apply_updates(params, change), memory), None


problem = gw.MetaProblem(update, lambda state, batch: (loss(state[0], batch), None))

# %% [markdown]
# ## 2. What is tuned

# %%
START = {"rate": 1e-4, "decay": 1e-3}  # a rate that is far too low
spec = {"rate": gw.Positive(), "decay": gw.Positive()}
raw = gw.unconstrain(START, spec)
keys = jax.random.split(jax.random.key(0), 4)
params = {"w": jax.random.normal(keys[0], (4, 16)) / 2, "v": jax.random.normal(keys[1], (16,)) / 4}
state = (params, optimizer(START).init(params))


def collect(key):
    inputs = jax.random.normal(key, (64, 4))
    noise = 0.3 * jax.random.normal(jax.random.fold_in(key, 1), (64,))
    return {"inputs": inputs, "answers": jnp.sin(inputs[:, 0]) + noise}


# %% [markdown]
# ## 3. The check
#
# Every derivative is compared with a difference quotient in float64, and everything that is known to break one is
# named with its line and a remedy.

# %%
report = gw.check_learner(problem, raw, spec, state, jax.vmap(collect)(jax.random.split(keys[2], 3)))
print(report)
assert report.ok

# %% [markdown]
# ## The loop

# %%
mix = gw.HorizonMix(gw.uniform_weights(5))
meta_optimizer = gw.guarded(optax.adam(0.1))


@jax.jit
def window(state, raw, meta_state, key):
    batches = jax.vmap(collect)(jax.random.split(key, 6))
    result = gw.meta_gradient(problem, raw, spec, state, batches, None, estimator=mix)
    change, meta_state = meta_optimizer.update(result.grad, meta_state, raw)
    return result.state, optax.apply_updates(raw, change), meta_state, result.outer_loss


meta_state, losses = meta_optimizer.init(raw), []
for key in jax.random.split(keys[3], 60):
    state, raw, meta_state, value = window(state, raw, meta_state, key)
    losses.append(float(value))
rate = float(gw.constrain(raw, spec)["rate"])
print(f"rate {START['rate']:.0e} -> {rate:.1e}, outer loss {losses[0]:.2f} -> {losses[-1]:.2f}")
assert rate > 10 * START["rate"] and losses[-1] < losses[0]
