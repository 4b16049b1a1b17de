# %% [markdown]
# # Add an estimator
#
# The choice of estimate is an *estimator*, the way to differentiate it a *mode*, and they do not know of each other: an
# estimator that you add works in every mode, and can be measured like those that come with the library.

# %%
import jax
import jax.numpy as jnp

import gradweave as gw

# %% [markdown]
# ## Weights are enough
#
# With g_k the gradient of the outer loss after k updates, this one is the mean of g_k over the later half of the
# window: long horizons, without the noise of relying on the longest alone.


# %%
class LateHorizons(gw.AbstractLinearEstimator):
    """The mean of g_k over k > L / 2."""

    def check(self, num_inner_steps):
        """Every length will do."""

    def kernel_weights(self, num_inner_steps):
        later = jnp.arange(1, num_inner_steps + 1) > num_inner_steps / 2
        return gw.KernelWeights(horizons=later / later.sum())


# %% [markdown]
# ## In every mode it is the same number

# %%
learner = gw.GradientLearner(
    targets=lambda params, eta, batch: batch + eta["bonus"] * params,
    loss=lambda params, targets, eta, batch: (0.5 * jnp.sum((params - targets) ** 2), None),
    optimizer=gw.inner_optimizer("sgd"),
    learning_rate=lambda eta: eta["rate"],
    outer_loss=lambda state, batch: (0.5 * jnp.sum((state.params - batch) ** 2), None),
)
spec = {"rate": gw.Positive(), "bonus": gw.Interval()}
raw = gw.unconstrain({"rate": 0.2, "bonus": 0.1}, spec)
state = learner.init(jnp.ones(3))
batches = jax.random.normal(jax.random.key(0), (7, 3))
found = {}
for mode in (gw.ReverseMode(), gw.ForwardMode(), gw.MixedMode()):
    found[type(mode).__name__] = gw.meta_gradient(
        learner, raw, spec, state, batches, None, estimator=LateHorizons(), mode=mode
    ).grad
    print(
        f"{type(mode).__name__:<12}",
        {name: round(float(value), 5) for name, value in found[type(mode).__name__].items()},
    )
values = [jnp.stack(list(grad.values())) for grad in found.values()]
assert all(jnp.allclose(value, values[0], rtol=1e-4) for value in values)

# %% [markdown]
# ## It is what it says
#
# `horizon_gradients` has every g_k; the estimator is their mean over the later half.

# %%
every = gw.horizon_gradients(learner, raw, spec, state, batches, None)
expected = jax.tree.map(lambda leaf: leaf[3:].mean(0), every)
assert all(jnp.allclose(expected[name], found["MixedMode"][name], rtol=1e-4) for name in expected)

# %% [markdown]
# ## Measured against the others
#
# As on the page before last: fresh data, many samples, the signal-to-noise ratio of one.


# %%
def sample(key):
    fresh = jax.random.normal(key, (7, 3))
    return {
        type(estimator).__name__: gw.meta_gradient(learner, raw, spec, state, fresh, None, estimator=estimator).grad[
            "rate"
        ]
        for estimator in (gw.Unrolled(), LateHorizons())
    }


samples = jax.jit(lambda keys: gw.gradient_samples(sample, keys))(jax.random.split(jax.random.key(1), 1_000))
for name, values in samples.items():
    print(f"{name:<14} signal-to-noise {gw.estimator_statistics(values).snr:.2f}")
