"""A rate and a weight decay for each layer of a small image classifier, learned while it learns to classify.

The images are made here: ten random 8 x 8 patterns, shifted, faded and under noise. Half of the labelled ones train,
the others are the outer loss; a thousand more, seen by neither, are the test. The cost of self-tuning beside plain
learning is paid back: plain learning gets four times the updates (a reverse-mode meta-gradient costs less than that),
and a search over six rates six times four.

    python examples/supervised.py [--quick]
"""

import sys

import jax
import jax.numpy as jnp
import optax

import gradweave as gw

NUM_INNER_STEPS, BATCH, LAYERS = 5, 64, ("first", "second", "last")
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
START = {"rate": dict.fromkeys(LAYERS, 0.01), "decay": dict.fromkeys(LAYERS, 1e-3)}
SPEC = {"rate": dict.fromkeys(LAYERS, gw.Interval(0.0, 2.0)), "decay": dict.fromkeys(LAYERS, gw.Positive())}


def make_images(key, patterns, number):
    """(images, labels): each image is one of the patterns, moved by up to a pixel, faded, and under noise."""
    label_key, shift_key, fade_key, noise_key = jax.random.split(key, 4)
    labels = jax.random.randint(label_key, (number,), 0, 10)
    shifts = jax.random.randint(shift_key, (number, 2), -1, 2)
    moved = jax.vmap(lambda label, shift: jnp.roll(patterns[label], shift, (0, 1)))(labels, shifts)
    fade = jax.random.uniform(fade_key, (number, 1, 1), minval=0.5, maxval=1.5)
    return (fade * moved + 0.8 * jax.random.normal(noise_key, moved.shape)).reshape(number, 64), labels


def network(params, images):
    hidden = jax.nn.relu(images @ params["first"]["w"] + params["first"]["b"])
    hidden = jax.nn.relu(hidden @ params["second"]["w"] + params["second"]["b"])
    return hidden @ params["last"]["w"] + params["last"]["b"]


def make_params(key):
    sizes = (64, 64, 32, 10)
    return {
        name: {"w": jax.random.normal(key, (rows, columns)) * (2 / rows) ** 0.5, "b": jnp.zeros(columns)}
        for name, key, rows, columns in zip(LAYERS, jax.random.split(key, 3), sizes[:3], sizes[1:], strict=True)
    }


def loss(params, batch):
    images, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(network(params, images), labels).mean()


def update(state, eta, batch):
    """One step of gradient descent with momentum, each layer at its own rate and with its own decay."""
    params, momentum = state
    gradient = jax.grad(loss)(params, batch["train"])
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
    moved = {
        name: jax.tree.map(
            lambda p, m, name=name: p - eta["rate"][name] * (m + eta["decay"][name] * p), params[name], momentum[name]
        )
        for name in LAYERS
    }
    return (moved, momentum), None


problem = gw.MetaProblem(update, lambda state, batch: (loss(state[0], batch["held out"]), None))
meta_optimizer = gw.guarded(optax.adam(0.05))


def draw(key, train, held_out, size):
    """A minibatch of each half for every one of `size` updates."""
    keys = jax.random.split(key)
    halves = {"train": (keys[0], train), "held out": (keys[1], held_out)}
    places = {name: jax.random.randint(key, (size, BATCH), 0, len(data[1])) for name, (key, data) in halves.items()}
    return {name: jax.tree.map(lambda leaf, name=name: leaf[places[name]], data) for name, (_, data) in halves.items()}


def accuracy(params, data):
    return float((network(params, data[0]).argmax(-1) == data[1]).mean())


def main(quick: bool = False) -> dict[str, float]:
    num_windows = 30 if quick else 400
    keys = jax.random.split(jax.random.key(0), 6)
    patterns = jax.random.normal(keys[0], (10, 8, 8))
    train, held_out, test = (
        make_images(key, patterns, size) for key, size in zip(keys[1:4], (400, 400, 1000), strict=True)
    )
    params = make_params(keys[4])
    start = (params, jax.tree.map(jnp.zeros_like, params))
    raw = gw.unconstrain(START, SPEC)

    batches = draw(keys[5], train, held_out, 3)
    report = gw.check_learner(problem, raw, SPEC, start, batches)
    print(report)
    assert report.ok

    def window(carry, key):
        state, raw, meta_state = carry
        batches = draw(key, train, held_out, NUM_INNER_STEPS + 1)
        mix = gw.HorizonMix(gw.uniform_weights(NUM_INNER_STEPS))
        result = gw.meta_gradient(problem, raw, SPEC, state, batches, None, estimator=mix)
        change, meta_state = meta_optimizer.update(result.grad, meta_state, raw)
        return (result.state, optax.apply_updates(raw, change), meta_state), None

    def plain(eta, key):
        def one(state, key):
            return update(state, eta, jax.tree.map(lambda leaf: leaf[0], draw(key, train, held_out, 1)))

        keys = jax.random.split(key, 4 * num_windows * NUM_INNER_STEPS)
        return jax.lax.scan(one, start, keys)[0][0]

    run = jax.jit(lambda carry, keys: jax.lax.scan(window, carry, keys)[0])
    carry = (start, raw, meta_optimizer.init(raw))
    (state, raw, _) = run(carry, jax.random.split(keys[5], num_windows))
    eta = gw.constrain(raw, SPEC)
    results = {"tuned": accuracy(state[0], test)}
    run_plain = jax.jit(plain)
    results["plain, four times the updates"] = accuracy(run_plain(START, keys[5]), test)
    swept = {rate: run_plain({**START, "rate": dict.fromkeys(LAYERS, rate)}, keys[5]) for rate in RATES}
    best = max(swept, key=lambda rate: accuracy(swept[rate], held_out))
    results["plain, best of six rates"] = accuracy(swept[best], test)
    results |= {f"rate of the {name} layer": float(eta["rate"][name]) for name in LAYERS}
    results |= {f"decay of the {name} layer": float(eta["decay"][name]) for name in LAYERS}
    for name, value in results.items():
        print(f"{name}: {value:.4f}")
    return results


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
