"""A weight for each training example, learned: wrongly labelled ones are found and ignored.

Four in ten labels of the training set are wrong. A weight between 0 and 1 for each of its 1000 examples is a
meta-parameter, and the outer loss is taken on 50 examples that are known to be right. A thousand meta-parameters are
the case for reverse mode: it costs the same whatever their number. Plain learning gets four times the updates for what
self-tuning costs, and two further comparisons say what the 50 clean examples are worth by themselves.

    python examples/data_weights.py [--quick]
"""

import sys

import jax
import jax.numpy as jnp
import optax

import gradweave as gw

NUM_INNER_STEPS, NUM_EXAMPLES, NUM_CLEAN, NUM_INPUTS, WRONG, RATE = 5, 1000, 50, 50, 0.4, 0.3
SPEC = {"weights": gw.Interval(0.0, 1.0)}
problem_key = jax.random.key(0)


def make_data(key, truth, number, wrong=0.0):
    """(inputs, labels, whether the label is wrong)."""
    input_key, flip_key = jax.random.split(key)
    inputs = jax.random.normal(input_key, (number, NUM_INPUTS))
    flipped = jax.random.uniform(flip_key, (number,)) < wrong
    labels = (inputs @ truth > 0) ^ flipped
    return inputs, labels.astype(inputs.dtype), flipped


def network(params, inputs):
    return jnp.tanh(inputs @ params["w"] + params["b"]) @ params["v"]


def losses(params, inputs, labels):
    return optax.sigmoid_binary_cross_entropy(network(params, inputs), labels)


def update(params, eta, batch):
    """One step of gradient descent on the weighted training set, all of it."""

    def loss(params):
        return jnp.mean(eta["weights"] * losses(params, *batch["train"])) / jnp.mean(eta["weights"])

    gradient = jax.grad(loss)(params)
    return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), None


problem = gw.MetaProblem(update, lambda params, batch: (losses(params, *batch["clean"]).mean(), None))
meta_optimizer = gw.guarded(optax.adam(0.1))


def main(quick: bool = False) -> dict[str, float]:
    num_windows = 20 if quick else 150
    keys = jax.random.split(problem_key, 7)
    truth = jax.random.normal(keys[0], (NUM_INPUTS,))
    *train, wrong = make_data(keys[2], truth, NUM_EXAMPLES, WRONG)
    *clean, _ = make_data(keys[3], truth, NUM_CLEAN)
    *test, _ = make_data(keys[4], truth, 5000)
    start = {
        "w": jax.random.normal(keys[5], (NUM_INPUTS, 20)) / NUM_INPUTS**0.5,
        "b": jnp.zeros(20),
        "v": jax.random.normal(keys[6], (20,)) / 20**0.5,
    }
    batch = {"train": tuple(train), "clean": tuple(clean)}
    batches = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (NUM_INNER_STEPS + 1, *leaf.shape)), batch)
    raw = gw.unconstrain({"weights": jnp.full(NUM_EXAMPLES, 0.5)}, SPEC)

    report = gw.check_learner(problem, raw, SPEC, start, jax.tree.map(lambda leaf: leaf[:3], batches))
    print(report)
    assert report.ok

    def window(carry, _):
        params, raw, meta_state = carry
        result = gw.meta_gradient(problem, raw, SPEC, params, batches, None, estimator=gw.Unrolled())
        change, meta_state = meta_optimizer.update(result.grad, meta_state, raw)
        return (result.state, optax.apply_updates(raw, change), meta_state), None

    def plain(inputs, labels, times=4):
        weights, both = {"weights": jnp.ones(len(labels))}, {"train": (inputs, labels)}
        number = times * num_windows * NUM_INNER_STEPS
        return jax.lax.scan(lambda params, _: update(params, weights, both), start, length=number)[0]

    def accuracy(params):
        return float(((network(params, test[0]) > 0) == test[1]).mean())

    carry = (start, raw, meta_optimizer.init(raw))
    params, raw, _ = jax.jit(lambda carry: jax.lax.scan(window, carry, length=num_windows)[0])(carry)
    weights = gw.constrain(raw, SPEC)["weights"]
    right, bad = weights[~wrong], weights[wrong]
    together = [jnp.concatenate(pair) for pair in zip(train, clean, strict=True)]
    results = {
        "tuned": accuracy(params),
        "plain, as many updates": accuracy(jax.jit(lambda: plain(*train, times=1))()),
        "plain, four times the updates": accuracy(jax.jit(plain)(*train)),
        "plain, with the clean examples too": accuracy(jax.jit(plain)(*together)),
        "plain, the clean examples alone": accuracy(jax.jit(plain)(*clean)),
        "mean weight of right labels": float(right.mean()),
        "mean weight of wrong labels": float(bad.mean()),
        "wrong labels found (chance 0.5)": float((right[:, None] > bad[None, :]).mean()),
    }
    for name, value in results.items():
        print(f"{name}: {value:.4f}")
    return results


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
