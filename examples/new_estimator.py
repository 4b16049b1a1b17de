"""An estimator of your own, outside the package: the median of all horizon gradients, entry by entry.

A mean over horizons is ruined by one bad batch; a median is not. The estimator says *what* is estimated, in terms of a
kernel that every mode knows how to differentiate, so that it works in reverse, forward and mixed mode from the first
day. One that is only a weighting is shorter still: `DiscountedHorizons` below.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import gradweave as gw

NUM_INNER_STEPS, NUM_SAMPLES = 5, 400


class MedianOfHorizons(gw.AbstractEstimator):
    """The median of g_1 .. g_L. Costs L kernel evaluations; no unbiased estimate of anything, but a robust one."""

    def init(self, raw, spec, state, *, key=None):
        """No memory."""

    def check(self, num_inner_steps):
        """Every length will do."""

    def estimate(self, differentiand, mode, memory):
        one_hot = jnp.eye(differentiand.window.num_inner_steps)
        results = [mode.differentiate(differentiand, gw.KernelWeights(horizons=weights)) for weights in one_hot]
        grad = jax.tree.map(lambda *leaves: jnp.median(jnp.stack(leaves), axis=0), *(result.grad for result in results))
        return results[-1]._replace(grad=grad), memory


class DiscountedHorizons(gw.AbstractLinearEstimator):
    """sum_k w_k g_k with w_k proportional to discount^k: a linear estimator is its weights."""

    discount: float = eqx.field(static=True)

    def check(self, num_inner_steps):
        """Every length will do."""

    def kernel_weights(self, num_inner_steps):
        weights = self.discount ** jnp.arange(1.0, num_inner_steps + 1)
        return gw.KernelWeights(horizons=weights / weights.sum())


problem = gw.GradientLearner(
    targets=lambda x, eta, batch: batch["target"],
    loss=lambda x, target, eta, batch: (0.5 * jnp.sum((x - target) ** 2), None),
    optimizer=optax.identity(),
    learning_rate=lambda eta: eta,
    outer_loss=lambda state, batch: (0.5 * jnp.sum((state.params - batch["outer"]) ** 2), None),
)
state = problem.init(jnp.full(4, 2.0))
raw = gw.unconstrain(jnp.array(0.2), gw.Positive())


def draw(key):
    """Batches that now and then hold an outlier to evaluate on."""
    target_key, outer_key, outlier_key = jax.random.split(key, 3)
    shape = (NUM_INNER_STEPS, 4)
    outlier = jax.random.bernoulli(outlier_key, 0.1, (NUM_INNER_STEPS, 1))
    outer = jax.random.normal(outer_key, shape) * jnp.where(outlier, 30.0, 0.3)
    return {"target": 0.3 * jax.random.normal(target_key, shape), "outer": outer}


def gradient(batches, estimator, mode=None):
    return gw.meta_gradient(problem, raw, gw.Positive(), state, batches, batches, estimator=estimator, mode=mode).grad


def main() -> dict[str, float]:
    estimators = {
        "median of horizons": MedianOfHorizons(),
        "discounted horizons": DiscountedHorizons(0.8),
        "mean of horizons": gw.HorizonMix(gw.uniform_weights(NUM_INNER_STEPS)),
    }
    batches = draw(jax.random.key(0))
    modes = (gw.ReverseMode(), gw.ReverseMode("step"), gw.ForwardMode(), gw.MixedMode())
    result = {}
    for name, estimator in estimators.items():
        found = jnp.stack([gradient(batches, estimator, mode) for mode in modes])
        result[f"{name}: largest difference between modes"] = float(jnp.abs(found / found[0] - 1).max())
    keys = jax.random.split(jax.random.key(1), NUM_SAMPLES)
    sample = lambda key: {name: gradient(draw(key), estimator) for name, estimator in estimators.items()}  # noqa: E731
    statistics = gw.estimator_statistics(jax.jit(lambda keys: gw.gradient_samples(sample, keys, batch_size=50))(keys))
    for name in estimators:
        result[f"{name}: signal-to-noise"] = float(statistics.snr[name])
    for name, value in result.items():
        print(f"{name} {value:.2g}")
    return result


if __name__ == "__main__":
    main()
