"""Your own learner in thirty lines: logistic regression that tunes its step size and weight decay while it learns.

A learner is two pure functions. No environment, no reinforcement learning, no class to inherit from.
"""

import jax
import jax.numpy as jnp
import optax

import gradweave as gw

NUM_META_STEPS, NUM_INNER_STEPS, BATCH = 300, 5, 32


def loss(weights, batch):
    inputs, labels = batch
    return jnp.mean(optax.sigmoid_binary_cross_entropy(inputs @ weights, labels))


def update(weights, eta, batch):
    gradient = jax.grad(loss)(weights, batch)
    return weights - eta["step_size"] * (gradient + eta["decay"] * weights), None


def draw(key, size=()):
    inputs_key, noise_key = jax.random.split(key)
    inputs = jax.random.normal(inputs_key, (*size, BATCH, 20))
    noise = jax.random.normal(noise_key, (*size, BATCH))
    return inputs, (inputs[..., :5].sum(-1) + noise > 0).astype(float)  # 15 of the 20 inputs mean nothing


problem = gw.MetaProblem(update, outer_loss=lambda weights, batch: (loss(weights, batch), None))
spec = {"step_size": gw.Positive(), "decay": gw.Positive()}
meta_optimizer = optax.adam(0.03)


@jax.jit
def meta_step(weights, raw, meta_state, key):
    batches = draw(key, (NUM_INNER_STEPS + 1,))  # batch k evaluates the weights after k updates, then drives the next
    mix = gw.HorizonMix(gw.uniform_weights(NUM_INNER_STEPS))
    result = gw.meta_gradient(problem, raw, spec, weights, batches, None, estimator=mix)
    changes, meta_state = meta_optimizer.update(result.grad, meta_state)
    return result.state, optax.apply_updates(raw, changes), meta_state, result.outer_loss


def main() -> dict[str, float]:
    raw = gw.unconstrain({"step_size": 0.001, "decay": 0.1}, spec)  # a poor start
    weights, meta_state = jnp.zeros(20), meta_optimizer.init(raw)
    for key in jax.random.split(jax.random.key(0), NUM_META_STEPS):
        weights, raw, meta_state, outer_loss = meta_step(weights, raw, meta_state, key)
    eta = gw.constrain(raw, spec)
    print(f"step size {eta['step_size']:.4f}, decay {eta['decay']:.4f}, loss on fresh data {outer_loss:.3f}")
    return {name: float(value) for name, value in eta.items()}


if __name__ == "__main__":
    main()
