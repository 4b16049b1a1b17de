"""PPO of one's own, in flax, that tunes its learning rate and entropy cost while it learns to balance CartPole.

The whole iteration, epochs and minibatches and all, is one `update`. Nothing in it knows of meta-gradients but the two
lines that read `eta`. Plain PPO from the same start takes as many environment steps, and then five times as many,
which costs more than tuning; the seconds of each are printed. The check that comes first is the one to run on a loop of
your own.

    python examples/ppo.py [--quick]
"""

import sys
import time

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

import gradweave as gw

NUM_ENVS, NUM_STEPS, NUM_EPOCHS, NUM_PARTS, NUM_INNER_STEPS = 16, 64, 2, 4, 3
DISCOUNT, LAMBDA, CLIP = 0.99, 0.95, 0.2
START = {"rate": 5e-5, "entropy": 0.01}  # a rate that is far too low
SPEC = {"rate": gw.Interval(1e-6, 3e-3), "entropy": gw.Interval(1e-4, 0.1)}
env, env_params = gymnax.make("CartPole-v1")


class Network(nn.Module):
    """Policy and value, apart."""

    @nn.compact
    def __call__(self, seen):
        policy, value = (nn.relu(nn.Dense(64)(nn.relu(nn.Dense(64)(seen)))) for _ in range(2))
        return nn.log_softmax(nn.Dense(2)(policy)), nn.Dense(1)(value)[..., 0]


network = Network()


def optimizer(rate):
    """Safe to differentiate where a ReLU unit is dead and where the norm is 0; its numbers are the same to the bit."""
    return gw.differentiable(optax.chain(optax.clip_by_global_norm(0.5), optax.adam(rate, eps=1e-5)))


def collect(params, running, key):
    """A rollout of all environments, and where they stand after it."""

    def step(running, key):
        state, seen, totals = running
        act_key, step_key = jax.random.split(key)
        log_probs, _ = network.apply(params, seen)
        actions = jax.random.categorical(act_key, log_probs)
        keys = jax.random.split(step_key, NUM_ENVS)
        stepped = jax.vmap(env.step, (0, 0, 0, None))(keys, state, actions, env_params)
        next_seen, state, rewards, terminated, truncated, _ = stepped
        ended = terminated | truncated
        totals = totals + rewards
        chosen = jnp.take_along_axis(log_probs, actions[:, None], -1)[:, 0]
        record = {
            "seen": seen,
            "actions": actions,
            "log_probs": chosen,
            "rewards": rewards,
            "ended": ended.astype(float),
        }
        return (state, next_seen, totals * ~ended), record | {"returns": jnp.where(ended, totals, jnp.nan)}

    running, batch = jax.lax.scan(step, running, jax.random.split(key, NUM_STEPS))
    return running, batch | {"last": running[1], "key": jax.random.key_data(jax.random.fold_in(key, 1))}


def advantages(params, batch):
    """Generalised advantages: data to the learner's own gradient, but not to the meta-gradient."""
    values, last = network.apply(params, batch["seen"])[1], network.apply(params, batch["last"])[1]

    def back(carry, now):
        advantage, next_value = carry
        value, reward, ended = now
        error = reward + DISCOUNT * (1 - ended) * next_value - value
        advantage = error + DISCOUNT * LAMBDA * (1 - ended) * advantage
        return (advantage, value), advantage

    steps = (values, batch["rewards"], batch["ended"])
    found = jax.lax.scan(back, (jnp.zeros_like(last), last), steps, reverse=True)[1]
    return found, found + values


def normalized(values):
    return (values - values.mean()) / (values.std() + 1e-6)


def loss(params, part, entropy_cost):
    log_probs, values = network.apply(params, part["seen"])
    chosen = jnp.take_along_axis(log_probs, part["actions"][:, None], -1)[:, 0]
    ratio, advantage = jnp.exp(chosen - part["log_probs"]), normalized(part["advantages"])
    policy = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage).mean()
    negative_entropy = (jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return policy + 0.5 * ((values - part["targets"]) ** 2).mean() + entropy_cost * negative_entropy


def update(state, eta, batch):
    """One iteration of PPO."""
    found, targets = advantages(state[0], batch)
    parts = {name: batch[name] for name in ("seen", "actions", "log_probs")} | {"advantages": found, "targets": targets}
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)

    def step(state, places):
        params, memory = state
        gradient = jax.grad(loss)(params, jax.tree.map(lambda leaf: leaf[places], parts), eta["entropy"])
        change, memory = optimizer(eta["rate"]).update(gradient, memory, params)
        return (optax.apply_updates(params, change), memory), None

    keys = jax.random.split(jax.random.wrap_key_data(batch["key"]), NUM_EPOCHS)
    orders = jax.vmap(lambda key: jax.random.permutation(key, NUM_ENVS * NUM_STEPS))(keys)
    return jax.lax.scan(step, state, orders.reshape(NUM_EPOCHS * NUM_PARTS, -1))


def outer_loss(state, batch):
    """The policy-gradient loss on data that the update has not seen."""
    log_probs, _ = network.apply(state[0], batch["seen"])
    chosen = jnp.take_along_axis(log_probs, batch["actions"][..., None], -1)[..., 0]
    advantage = jax.lax.stop_gradient(normalized(advantages(state[0], batch)[0]))
    return -(jnp.exp(chosen - batch["log_probs"]) * advantage).mean(), None


problem = gw.MetaProblem(update, outer_loss)
meta_optimizer = gw.guarded(optax.adam(0.1))


def window(carry, key, tunes):
    """Collect and update three times, collect once more, then move the meta-parameters."""
    state, raw, meta_state, running = carry
    eta, keys = gw.constrain(raw, SPEC), jax.random.split(key, NUM_INNER_STEPS + 1)

    def one(carry, key):
        state, running = carry
        running, batch = collect(state[0], running, key)
        return (update(state, eta, batch)[0], running), batch

    (end, running), batches = jax.lax.scan(one, (state, running), keys[:-1])
    after, last = collect(end[0], running, keys[-1])
    if tunes:  # the last batch evaluates, and is then thrown away; plain learning does not collect it
        running, batches = after, jax.tree.map(lambda some, one: jnp.concatenate([some, one[None]]), batches, last)
        mix = gw.HorizonMix(gw.uniform_weights(NUM_INNER_STEPS))
        grad = gw.meta_gradient(problem, raw, SPEC, state, batches, None, estimator=mix).grad
        change, meta_state = meta_optimizer.update(grad, meta_state, raw)
        raw = optax.apply_updates(raw, change)
    return (end, raw, meta_state, running), batches["returns"]


def train(tunes, num_steps, seed=0):
    """(mean return of the last tenth, meta-parameters, seconds) after about `num_steps` environment steps."""
    keys = jax.random.split(jax.random.key(seed), 4)
    seen, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(keys[0], NUM_ENVS), env_params)
    params, raw = network.init(keys[1], seen), gw.unconstrain(START, SPEC)
    state, running = (params, optimizer(START["rate"]).init(params)), (env_state, seen, jnp.zeros(NUM_ENVS))
    if tunes:
        batches = jax.vmap(lambda key: collect(params, running, key)[1])(jax.random.split(keys[2], NUM_INNER_STEPS + 1))
        report = gw.check_learner(problem, raw, SPEC, state, batches, num_inner_steps=NUM_INNER_STEPS)
        print(report)
        assert report.ok
    per_window = NUM_ENVS * NUM_STEPS * (NUM_INNER_STEPS + tunes)
    number = num_steps // per_window
    run = jax.jit(lambda carry, keys: jax.lax.scan(lambda carry, key: window(carry, key, tunes), carry, keys))
    carry = (state, raw, meta_optimizer.init(raw), running)
    run = run.lower(carry, jax.random.split(keys[3], number)).compile()
    start = time.monotonic()
    (_, raw, _, _), returns = jax.block_until_ready(run(carry, jax.random.split(keys[3], number)))
    return float(jnp.nanmean(returns[-max(1, number // 10) :])), gw.constrain(raw, SPEC), time.monotonic() - start


def main(quick: bool = False) -> dict[str, float]:
    num_steps = 20_000 if quick else 400_000
    results = {}
    runs = (
        ("tuned", True, num_steps),
        ("plain", False, num_steps),
        ("plain, five times the steps", False, 5 * num_steps),
    )
    for name, tunes, steps in runs:
        results[f"return, {name}"], eta, results[f"seconds, {name}"] = train(tunes, steps)
        results |= {f"{key} at the end": float(value) for key, value in eta.items()} if tunes else {}
    for name, value in results.items():
        print(f"{name}: {value:.5g}")
    return results


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
