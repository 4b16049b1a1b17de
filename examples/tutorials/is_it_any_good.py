# %% [markdown]
# # Is my meta-gradient any good?
#
# A meta-gradient is estimated from a few rollouts, and the estimate can be mostly noise. The same window of learning is
# differentiated many times over with fresh data here, and the estimators are compared on the same samples.

# %%
import jax
import jax.numpy as jnp

import gradweave as gw

# %% [markdown]
# ## By hand, for any learner
#
# Draw data, differentiate, repeat. `estimator_statistics` has the mean, its standard error, and the signal-to-noise
# ratio of one sample.

# %%
problem = gw.MetaProblem(
    update=lambda x, eta, noise: (x - eta * (x + noise), None),
    outer_loss=lambda x, noise: (0.5 * (x + noise) ** 2, None),
)
spec, x, num_inner_steps = gw.Interval(), jnp.asarray(1.0), 6
raw = gw.unconstrain(0.2, spec)
weights = gw.uniform_weights(num_inner_steps)
estimators = {"unrolled": gw.Unrolled(), "truncated": gw.Truncated(2), "horizon mix": gw.HorizonMix(weights)}


def sample(key):
    batches = jax.random.normal(key, (num_inner_steps + 1,))
    return {
        name: gw.meta_gradient(problem, raw, spec, x, batches, None, estimator=estimator).grad
        for name, estimator in estimators.items()
    }


samples = jax.jit(lambda keys: gw.gradient_samples(sample, keys))(jax.random.split(jax.random.key(0), 2_000))
for name, found in samples.items():
    statistics = gw.estimator_statistics(found)
    print(f"{name:<12} mean {statistics.mean:+.3f} ± {statistics.standard_error:.3f}, snr {statistics.snr:.2f}")

# %% [markdown]
# The unrolled gradient is the unbiased one, truncation has a bias, and mixing horizons trades one for the other. How
# much of each depends on the learner, which is why it is measured.

# %%
exact = gw.estimator_statistics(samples["unrolled"])
cut = gw.estimator_statistics(samples["truncated"], reference=exact.mean)
assert abs(float(cut.bias)) > 3 * float(exact.standard_error)

# %% [markdown]
# ## Of a training run
#
# `gw.measure(run)` does the same for an agent at any checkpoint, per meta-parameter and horizon, with intervals:
# `gradweave measure RUN` from the command line. See the page on choosing an estimator for what to do about it.
