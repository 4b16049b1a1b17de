"""Tune a learning-rate schedule by differentiating through whole trainings of a small network.

It knows no reinforcement learning. The schedule is a vector: one learning rate for each fifth of a training of 100
steps. A meta-gradient through all the steps of one training says how each of them should change so that the loss on
clean data at the end falls. The labels are noisy and the batches small, so a good schedule is large first and small
last; it has to be found from a poor constant.
"""

import jax
import jax.numpy as jnp
import optax

import gradweave as gw

NUM_STEPS, NUM_PHASES, BATCH, NUM_META_STEPS, NUM_TRAININGS = 100, 5, 8, 60, 6
START, RANGE = 0.1, gw.Interval(0.0, 2.0)  # beyond 2 the training diverges


def network(params, inputs):
    hidden = jnp.tanh(inputs @ params["in"] + params["bias"])
    return hidden @ params["out"] / 4


def loss(params, batch):
    return 0.5 * jnp.mean((network(params, batch["inputs"]) - batch["labels"]) ** 2)


def update(params, rates, batch):
    gradient = jax.grad(loss)(params, batch)
    rate = rates[batch["phase"]]  # a vector of meta-parameters: each step uses the entry of its phase
    return jax.tree.map(lambda leaf, slope: leaf - rate * slope, params, gradient), None


def draw(key, shape, noise):
    inputs_key, noise_key = jax.random.split(key)
    inputs = jax.random.normal(inputs_key, (*shape, 2))
    truth = jnp.sin(2 * inputs[..., 0]) + inputs[..., 1]
    return {"inputs": inputs, "labels": truth + noise * jax.random.normal(noise_key, shape)}


def training(key):
    """(parameters to begin with, noisy batches to learn from, clean batches to evaluate on)."""
    params_key, data_key, outer_key = jax.random.split(key, 3)
    first, second = jax.random.normal(params_key, (2, 16, 2))
    params = {"in": first.T, "bias": second[:, 0], "out": second[:, 1]}
    batches = draw(data_key, (NUM_STEPS, BATCH), noise=1.0)
    batches["phase"] = jnp.arange(NUM_STEPS) * NUM_PHASES // NUM_STEPS
    outer_batches = draw(outer_key, (NUM_STEPS, 64), noise=0.0)  # only the last one counts for `Unrolled`
    return params, batches, outer_batches


problem = gw.MetaProblem(update, outer_loss=lambda params, batch: (loss(params, batch), None))
meta_optimizer = optax.adam(0.1)


@jax.jit
def meta_step(raw, meta_state, key):
    def gradient(key):
        params, batches, outer_batches = training(key)
        return gw.meta_gradient(
            problem, raw, RANGE, params, batches, outer_batches, estimator=gw.Unrolled(), mode=gw.ReverseMode("step")
        ).grad

    # Several trainings at once; their mean gradient is less noisy.
    gradients = jax.vmap(gradient)(jax.random.split(key, NUM_TRAININGS)).mean(0)
    changes, meta_state = meta_optimizer.update(gradients, meta_state)
    return optax.apply_updates(raw, changes), meta_state


@jax.jit
def final_loss(rates, key):
    """Mean loss on clean data after whole trainings that the tuning never saw."""

    def one(key):
        params, batches, outer_batches = training(key)
        params, _ = gw.unroll(problem, rates, params, batches)
        return loss(params, jax.tree.map(lambda leaf: leaf[-1], outer_batches))

    return jax.vmap(one)(jax.random.split(key, 256)).mean()


def main() -> dict[str, float]:
    raw = gw.unconstrain(jnp.full(NUM_PHASES, START), RANGE)
    meta_state = meta_optimizer.init(raw)
    for key in jax.random.split(jax.random.key(0), NUM_META_STEPS):
        raw, meta_state = meta_step(raw, meta_state, key)
    rates = gw.constrain(raw, RANGE)
    fresh = jax.random.key(1)
    constants = {
        f"constant {rate}": float(final_loss(jnp.full(NUM_PHASES, rate), fresh))
        for rate in (0.05, START, 0.2, 0.4, 0.8, 1.2)
    }
    results = {"tuned": float(final_loss(rates, fresh)), **constants}
    print("rates by phase:", ", ".join(f"{rate:.3f}" for rate in rates))
    for name, value in results.items():
        print(f"{name:>15}: loss {value:.4f}")
    return {**results, "first rate": float(rates[0]), "last rate": float(rates[-1])}


if __name__ == "__main__":
    main()
