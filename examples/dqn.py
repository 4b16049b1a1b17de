"""DQN of one's own that tunes its epsilon, its learning rate and how fast its target network follows, on CartPole.

The outer loss is made of returns: those of the behaviour on fresh rollouts, without a critic. (The Bellman error is
no outer loss: it is small for a network that predicts nothing, and drives the learning rate to its bound.) So that the
behaviour has a derivative by the learner's state it is a mixture of a softmax of the action values and, by epsilon, of
chance; `update` writes epsilon into the state, where the outer loss finds it.

    python examples/dqn.py [--quick]
"""

import itertools
import sys
import time

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradweave as gw

NUM_ENVS, NUM_STEPS, NUM_INNER_STEPS, NUM_MINIBATCHES, MINIBATCH, REPLAY = 32, 32, 3, 16, 64, 16_384
DISCOUNT, TEMPERATURE, HORIZON_DISCOUNT = 0.98, 1.0, 0.95
START = {"epsilon": 0.5, "rate": 1e-4, "target": 0.01}  # too much chance, too slow a learner
SENSIBLE = {"epsilon": 0.05, "rate": 1e-3, "target": 0.02}
SPEC = {"epsilon": gw.Interval(0.01, 0.9), "rate": gw.Interval(1e-6, 5e-3), "target": gw.Interval(1e-4, 0.5)}
env, env_params = gymnax.make("CartPole-v1")


def make_params(key):
    keys, sizes = jax.random.split(key, 3), (4, 64, 64, 2)
    shapes = list(itertools.pairwise(sizes))
    weights = [jax.random.normal(k, s) * (1 / s[0]) ** 0.5 for k, s in zip(keys, shapes, strict=True)]
    weights[-1] = 0.01 * weights[-1]  # at first all actions are alike
    return [{"w": w, "b": jnp.zeros(w.shape[1])} for w in weights]


def values(params, seen):
    """Q(s, a)."""
    first, second, last = params
    hidden = jax.nn.tanh(jax.nn.tanh(seen @ first["w"] + first["b"]) @ second["w"] + second["b"])
    return 10.0 * (hidden @ last["w"] + last["b"])


def behaviour(params, epsilon, seen):
    """Probabilities of the actions."""
    return (1 - epsilon) * jax.nn.softmax(values(params, seen) / TEMPERATURE) + epsilon / 2


def optimizer(rate):
    return gw.differentiable(optax.chain(optax.clip_by_global_norm(10.0), optax.adam(rate)))


def collect(state, running, key):
    """A rollout of all environments, and where they stand after it."""

    def step(running, key):
        env_state, seen, totals = running
        act_key, step_key = jax.random.split(key)
        probabilities = behaviour(state["params"], state["epsilon"], seen)
        actions = jax.random.categorical(act_key, jnp.log(probabilities))
        keys = jax.random.split(step_key, NUM_ENVS)
        stepped = jax.vmap(env.step, (0, 0, 0, None))(keys, env_state, actions, env_params)
        next_seen, env_state, rewards, terminated, truncated, _ = stepped
        ended, totals = terminated | truncated, totals + rewards
        record = {"seen": seen, "actions": actions, "rewards": rewards, "next": next_seen, "ended": ended}
        chosen = jnp.take_along_axis(probabilities, actions[:, None], -1)[:, 0]
        extra = {"chosen": chosen, "returns": jnp.where(ended, totals, jnp.nan)}
        return (env_state, next_seen, totals * ~ended), record | extra

    return jax.lax.scan(step, running, jax.random.split(key, NUM_STEPS))


def loss(params, target_params, part):
    """The Bellman error of double Q-learning."""
    best = values(params, part["next"]).argmax(-1, keepdims=True)
    ahead = jnp.take_along_axis(values(target_params, part["next"]), best, -1)[:, 0]
    aim = part["rewards"] + DISCOUNT * ~part["ended"] * ahead
    found = jnp.take_along_axis(values(params, part["seen"]), part["actions"][:, None], -1)[:, 0]
    return optax.losses.huber_loss(found, aim).mean()


def update(state, eta, batch):
    """Some minibatches of the replay, each followed by a step of the target network."""

    def step(carry, part):
        params, target_params, memory = carry
        gradient = jax.grad(loss)(params, target_params, part)
        change, memory = optimizer(eta["rate"]).update(gradient, memory, params)
        params = optax.apply_updates(params, change)
        target_params = optax.incremental_update(params, target_params, eta["target"])
        return (params, target_params, memory), None

    carry = (state["params"], state["target_params"], state["memory"])
    params, target_params, memory = jax.lax.scan(step, carry, batch["replay"])[0]
    new = {"params": params, "target_params": target_params, "memory": memory, "epsilon": eta["epsilon"]}
    return new, None


def advantages(batch):
    """Discounted rewards to come within the rollout, less their mean over the environments at the same time."""

    def back(total, now):
        total = now[0] + HORIZON_DISCOUNT * ~now[1] * total
        return total, total

    totals = jax.lax.scan(back, jnp.zeros(NUM_ENVS), (batch["rewards"], batch["ended"]), reverse=True)[1]
    found = totals - totals.mean(1, keepdims=True)
    return found / (found.std() + 1e-6)


def outer_loss(state, batch):
    """Policy gradient of the returns of a rollout that no update has seen."""
    fresh = batch["fresh"]
    probabilities = behaviour(state["params"], state["epsilon"], fresh["seen"])
    chosen = jnp.take_along_axis(probabilities, fresh["actions"][..., None], -1)[..., 0]
    return -(chosen / fresh["chosen"] * advantages(fresh)).mean(), None


problem = gw.MetaProblem(update, outer_loss)
meta_optimizer = gw.guarded(optax.adam(0.1))


def one(carry, key, eta):
    """Collect, remember, draw minibatches, update."""
    state, running, replay, count = carry
    keys = jax.random.split(key)
    running, fresh = collect(state, running, keys[0])
    new = {name: fresh[name].reshape(-1, *fresh[name].shape[2:]) for name in replay}
    replay = jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, count % REPLAY, 0), replay, new
    )
    count = count + NUM_ENVS * NUM_STEPS
    places = jax.random.randint(keys[1], (NUM_MINIBATCHES, MINIBATCH), 0, jnp.minimum(count, REPLAY))
    batch = {"replay": jax.tree.map(lambda leaf: leaf[places], replay), "fresh": fresh}
    return (update(state, eta, batch)[0], running, replay, count), batch


def window(carry, key, tunes):
    """Three times collect and update; to tune, collect once more and move the meta-parameters."""
    (state, running, replay, count), raw, meta_state = carry
    eta, keys = gw.constrain(raw, SPEC), jax.random.split(key, NUM_INNER_STEPS + 1)
    inner, batches = jax.lax.scan(lambda c, k: one(c, k, eta), (state, running, replay, count), keys[:-1])
    if tunes:  # rollouts for the outer loss go into the replay, too
        (_, running, replay, count), last = one(inner, keys[-1], eta)
        inner = (inner[0], running, replay, count)
        batches = jax.tree.map(lambda some, one: jnp.concatenate([some, one[None]]), batches, last)
        mix = gw.HorizonMix(gw.uniform_weights(NUM_INNER_STEPS))
        grad = gw.meta_gradient(problem, raw, SPEC, state, batches, None, estimator=mix).grad
        change, meta_state = meta_optimizer.update(grad, meta_state, raw)
        raw = optax.apply_updates(raw, change)
    return (inner, raw, meta_state), None


def begin(key, eta):
    """(state, environments, empty replay, its size), raw meta-parameters, memory of the meta-optimiser."""
    keys = jax.random.split(key)
    seen, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(keys[0], NUM_ENVS), env_params)
    params, raw = make_params(keys[1]), gw.unconstrain(eta, SPEC)
    state = {"params": params, "target_params": params, "memory": optimizer(0.0).init(params)}
    state["epsilon"] = jnp.asarray(eta["epsilon"], jnp.float32)
    running = (env_state, seen, jnp.zeros(NUM_ENVS))
    fresh = jax.eval_shape(lambda: collect(state, running, key)[1])
    names = ("seen", "actions", "rewards", "next", "ended")
    replay = {name: jnp.zeros((REPLAY, *fresh[name].shape[2:]), fresh[name].dtype) for name in names}
    return (state, running, replay, jnp.asarray(0)), raw, meta_optimizer.init(raw)


def greedy_return(params, key):
    """Mean over the environments of the first episode without chance."""
    seen, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(key, NUM_ENVS), env_params)

    def step(carry, key):
        env_state, seen, alive, total = carry
        keys = jax.random.split(key, NUM_ENVS)
        stepped = jax.vmap(env.step, (0, 0, 0, None))(keys, env_state, values(params, seen).argmax(-1), env_params)
        seen, env_state, rewards, terminated, truncated, _ = stepped
        return (env_state, seen, alive * ~(terminated | truncated), total + alive * rewards), None

    carry = (env_state, seen, jnp.ones(NUM_ENVS), jnp.zeros(NUM_ENVS))
    return jax.lax.scan(step, carry, jax.random.split(key, 500))[0][3].mean()


def train(eta, num_steps, num_seeds, *, tunes):
    """(greedy return of each seed, its meta-parameters, seconds) after about `num_steps` environment steps."""
    number = num_steps // (NUM_ENVS * NUM_STEPS * (NUM_INNER_STEPS + tunes))

    def run(key):
        keys = jax.random.split(key, 3)
        window_keys = jax.random.split(keys[1], number)
        carry, _ = jax.lax.scan(lambda c, k: window(c, k, tunes), begin(keys[0], eta), window_keys)
        return greedy_return(carry[0][0]["params"], keys[2]), gw.constrain(carry[1], SPEC)

    keys = jax.random.split(jax.random.key(1), num_seeds)  # the starting values were chosen with key 0
    program = jax.jit(jax.vmap(run)).lower(keys).compile()
    start = time.monotonic()
    returns, etas = jax.block_until_ready(program(keys))
    return np.asarray(returns), etas, time.monotonic() - start


def check():
    """Is the meta-gradient of this learner to be trusted?"""
    carry, raw, _ = begin(jax.random.key(1), SENSIBLE)
    steps = jax.jit(lambda carry, keys: jax.lax.scan(lambda c, k: one(c, k, SENSIBLE), carry, keys))
    batches = steps(carry, jax.random.split(jax.random.key(2), 3))[1]
    report = gw.check_learner(problem, raw, SPEC, carry[0], batches)
    print(report)
    assert report.ok


def main(quick: bool = False) -> dict[str, float]:
    check()
    num_steps, num_seeds = (20_000, 1) if quick else (400_000, 5)
    runs = {
        "tuned": (START, num_steps, True),
        "plain": (START, num_steps, False),
        "plain, five times the steps": (START, 5 * num_steps, False),
        "plain, sensible values": (SENSIBLE, num_steps, False),
    }
    results = {}
    for name, (eta, steps, tunes) in runs.items():
        if quick and name != "tuned":
            continue
        returns, etas, seconds = train(eta, steps, num_seeds, tunes=tunes)
        results |= {f"return, {name}": float(returns.mean()), f"least of the seeds, {name}": float(returns.min())}
        results[f"seconds, {name}"] = seconds
        if tunes:
            results |= {f"{key} at the end": float(jnp.mean(value)) for key, value in etas.items()}
    for name, value in results.items():
        print(f"{name}: {value:.5g}")
    return results


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
