"""A meta-step against slow loops: what is collected, learned and counted, and that nothing compiles twice."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import (
    ActorCriticEta,
    Experience,
    OuterObjective,
    SelfTuning,
    actor_critic_agent,
    bundled_apply,
    inner_optimizer,
)
from gradweave.envs import VectorEnvironment
from gradweave.rl import Acted, init_rollout, rollout, sample

from .material import (
    ENDLESS,
    ETA,
    LEARNED,
    NUM_ENVS,
    NUM_STEPS,
    Ladder,
    evaluate,
    looped_returns,
    network,
    quick_jit,
    surrogate,
)

PLAIN = ActorCriticEta(*[gw.Fixed()] * 5)
NUM_INNER = 3
OBJECTIVE = OuterObjective(value_cost=0.5, entropy_cost=0.01)


def make(
    spec=LEARNED,
    *,
    environment=None,
    optimizer="sgd",
    mode=None,
    estimator=None,
    meta_optimizer=None,
    condition=False,
    **options,
):
    """(agent, parameters)."""
    num_learned = sum(not isinstance(bijector, gw.Fixed) for bijector in spec)
    params = network(
        jax.random.key(1),
        outer_critic=options.pop("outer_critic", False),
        conditioning_size=num_learned if condition else 0,
    )
    agent = SelfTuning(
        agent=actor_critic_agent(bundled_apply, inner_optimizer(optimizer, **options), OBJECTIVE),
        environment=VectorEnvironment(Ladder() if environment is None else environment, NUM_ENVS),
        initial_raw=gw.unconstrain(ETA, spec),
        spec=spec,
        estimator=gw.Unrolled() if estimator is None else estimator,
        mode=gw.MixedMode() if mode is None else mode,
        meta_optimizer=optax.adam(0.05) if meta_optimizer is None else meta_optimizer,
        num_inner_steps=NUM_INNER,
        num_steps=NUM_STEPS,
        condition_on_eta=condition,
    )
    return agent, params


def stepper(agent):
    return quick_jit(lambda state: agent.step(state))


def same(one, other, rtol=1e-9):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


def differs(one, other):
    return any(bool((a != b).any()) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def slow_policy(params, conditioning=None):
    def act(observations, memory, key):
        assert memory is None
        logits = jax.vmap(lambda observation: params(observation, conditioning))(observations).logits
        return Acted(sample(logits, observations.action_mask, key=key))

    return act


def slow_windows(agent, params, key, num_meta_steps, *, conditioned=False):
    """Meta-steps as a Python loop: rollouts, updates, a reverse-mode meta-gradient, the meta-optimiser."""
    key, reset_key, rollout_key = jax.random.split(key, 3)
    raw, learner = agent.initial_raw, agent.problem.init(params)
    meta_state = agent.meta_optimizer.init(raw)
    collect = quick_jit(
        lambda params, raw, running, key: rollout(
            slow_policy(params, jnp.stack(raw) if conditioned else None), agent.environment, running, NUM_STEPS, key=key
        )
    )
    update = quick_jit(agent.problem.update)
    gradient = quick_jit(
        lambda raw, learner, batches: gw.meta_gradient(
            agent.problem, raw, agent.spec, learner, batches, None, estimator=agent.estimator, mode=gw.ReverseMode()
        )
    )

    def experience(params, raw, running, key):
        running, trajectory, totals = collect(params, raw, running, key)
        return running, Experience(trajectory, jnp.stack(raw) if conditioned else None), totals

    running, batch, _ = experience(params, raw, init_rollout(agent.environment, key=reset_key), rollout_key)
    for _ in range(num_meta_steps):
        key, window_key = jax.random.split(key)
        start, batches, episodes, losses = learner, [batch], [], []
        for inner_key in jax.random.split(window_key, NUM_INNER):
            learner, aux = update(learner, gw.constrain(raw, agent.spec), batch)
            running, batch, totals = experience(learner.params, raw, running, inner_key)
            batches.append(batch)
            episodes.append(totals)
            losses.append(aux["policy_loss"])
        result = gradient(raw, start, jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches))
        with jax.numpy_dtype_promotion("standard"):
            updates, meta_state = agent.meta_optimizer.update(result.grad, meta_state, raw)
        used, raw = raw, optax.apply_updates(raw, updates)
        yield {
            "learner": learner,
            "raw": raw,
            "batch": batch,
            "used": used,
            "grad": result.grad,
            "outer_loss": result.outer_loss,
            "episodes": jax.tree.map(lambda *leaves: sum(leaves), *episodes),
            "policy_loss": np.mean(losses),
        }


SETTINGS = {
    "mixed, truncating": {},
    "reverse, adam": {"mode": gw.ReverseMode("step"), "optimizer": "adam", "eps": 1e-4},
    "forward, horizons, endless": {
        "mode": gw.ForwardMode(),
        "estimator": gw.HorizonMix(gw.uniform_weights(NUM_INNER)),
        "environment": ENDLESS,
    },
    "mixed, windows, outer critic, clipped": {
        "estimator": gw.TruncationMix(gw.geometric_weights(NUM_INNER, 0.5)),
        "outer_critic": True,
        "max_grad_norm": 0.5,
    },
    "mixed, conditioned": {"condition": True, "estimator": gw.HorizonMix(gw.uniform_weights(NUM_INNER))},
}


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_meta_steps_equal_a_slow_loop(setting):
    agent, params = make(**SETTINGS[setting])
    traces = []

    @quick_jit
    def step(state):
        traces.append(1)
        return agent.step(state)

    state = agent.init(params, key=jax.random.key(2))
    conditioned = "condition" in SETTINGS[setting]
    for number, slow in enumerate(slow_windows(agent, params, jax.random.key(2), 3, conditioned=conditioned), start=1):
        state, metrics = step(state)
        same(state.learner, slow["learner"])
        same(state.raw, slow["raw"])
        same(state.batch, slow["batch"])  # the last rollout of a window is the first batch of the next
        same(metrics.grad, slow["grad"], 1e-7)
        same(metrics.raw, slow["used"])
        same(metrics.eta, gw.constrain(slow["used"], agent.spec))
        same(metrics.outer_loss, slow["outer_loss"])
        same(metrics.episodes, slow["episodes"])
        np.testing.assert_allclose(metrics.inner["policy_loss"], slow["policy_loss"], rtol=1e-9)
        assert int(state.num_meta_steps) == number and bool(metrics.finite)
        assert all(float(leaf) != 0 for leaf in metrics.grad)
        if number == 1 and agent.environment.environment.can_truncate:
            assert float(metrics.episodes.num_episodes) > 0
    assert len(traces) == 1, "the second meta-step compiled again"


@pytest.mark.slow
def test_a_truncating_environment_keeps_final_observations_and_others_do_not():
    for environment, keeps in ((Ladder(), True), (ENDLESS, False)):
        agent, params = make(PLAIN, environment=environment)
        trajectory = agent.init(params, key=jax.random.key(0)).batch.trajectory
        assert (trajectory.final_observations is not None) == keeps
    agent, params = make(PLAIN)
    state, _ = jax.lax.scan(lambda state, _: agent.step(state), agent.init(params, key=jax.random.key(0)), length=3)
    assert state.batch.trajectory.truncations.any()


@quick_jit
def a2c_numbers(params, batch):
    return evaluate(params, batch, "value")


@quick_jit
def a2c_slope(params, batch, returns, advantages):
    costs = (float(ETA.value_cost), float(ETA.entropy_cost))
    return jax.grad(lambda p: surrogate(evaluate(p, batch, "value"), batch.trajectory, returns, advantages, costs))(
        params
    )


def slow_a2c(params, batch, adam_state):
    """One update of plain A2C by hand: the gradient of a surrogate at constant targets, then Adam written out."""
    numbers = a2c_numbers(params, batch)
    returns = jnp.asarray(looped_returns(numbers, batch.trajectory, float(ETA.discount), float(ETA.lambda_)))
    gradient = a2c_slope(params, batch, returns, returns - numbers.values[:-1])
    rate, (first, second, count) = float(ETA.learning_rate), adam_state
    count += 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradient)
    params = jax.tree.map(
        lambda p, m, v: p - rate * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count) + 1e-16) + 1e-4),
        params,
        first,
        second,
    )
    return params, (first, second, count)


@pytest.mark.slow
def test_with_everything_fixed_it_is_plain_a2c():
    agent, params = make(PLAIN, optimizer="adam", eps=1e-4)
    assert not agent.learns
    state = agent.init(params, key=jax.random.key(3))
    zeros = jax.tree.map(jnp.zeros_like, params)
    slow, memory = params, (zeros, zeros, 0)
    step = stepper(agent)
    window = quick_jit(lambda state, key: agent.collect_window(state, key=jax.random.split(key)[1]))
    for _ in range(2):
        key = jax.random.clone(state.key)  # the same window twice: once to look at, once within the meta-step
        batches = window(state, key).batches
        state, metrics = step(state)
        for k in range(NUM_INNER):
            slow, memory = slow_a2c(slow, jax.tree.map(lambda leaf: leaf[k], batches), memory)  # noqa: B023
        same(state.learner.params, slow, 1e-7)
        same(state.raw, agent.initial_raw)
        assert all((leaf == 0).all() for leaf in metrics.grad) and metrics.outer_loss == 0 and metrics.outer == {}
        assert bool(metrics.finite)
    assert differs(slow, params)


@pytest.mark.slow
def test_fixed_meta_parameters_stay_whatever_the_meta_optimiser():
    """Weight decay moves what has no gradient; what is Fixed must not reach it."""
    spec = LEARNED._replace(lambda_=gw.Fixed(), value_cost=gw.Fixed())
    agent, params = make(spec, meta_optimizer=optax.adamw(0.05, weight_decay=0.5))
    state, metrics = stepper(agent)(agent.init(params, key=jax.random.key(3)))
    for name in ActorCriticEta._fields:
        moved = float(getattr(state.raw, name)) != float(getattr(agent.initial_raw, name))
        learned = name not in ("lambda_", "value_cost")
        assert moved == learned, name
        assert (float(getattr(metrics.grad, name)) != 0) == learned, name


@pytest.mark.slow
def test_a_large_meta_update_leaves_the_discount_where_it_can_still_be_tuned():
    agent, params = make(meta_optimizer=optax.adam(1e4))  # at a raw value of 1e4 a sigmoid has a derivative of 0
    stepped, _ = stepper(agent)(agent.init(params, key=jax.random.key(2)))
    assert jnp.abs(stepped.raw.discount) > 30
    assert jax.grad(LEARNED.discount.forward)(stepped.raw.discount) > 0


@pytest.mark.slow
def test_every_environment_step_is_counted():
    """In an environment that never stops, the states themselves count the steps."""
    for spec in (PLAIN, LEARNED):
        agent, params = make(spec, environment=ENDLESS)
        state = agent.init(params, key=jax.random.key(4))
        step = stepper(agent)
        for number in range(3):
            assert agent.environment_steps(number) == int(state.rollout.env_state[:, 1].sum()) > 0
            state, _ = step(state)


@pytest.mark.slow
def test_conditioning_feeds_the_learned_raw_values_and_changes_the_outputs():
    spec = LEARNED._replace(value_cost=gw.Fixed())
    agent, params = make(spec, condition=True)
    state = agent.init(params, key=jax.random.key(5))
    expected = [leaf for name, leaf in state.raw._asdict().items() if name != "value_cost"]
    np.testing.assert_array_equal(agent.conditioning(state.raw), jnp.stack(expected))
    np.testing.assert_array_equal(state.batch.conditioning, jnp.stack(expected))
    step = stepper(agent)
    after, metrics = step(state)
    assert bool(metrics.finite)
    observation = jax.tree.map(lambda leaf: leaf[0], state.rollout.observation)
    outputs = [params(observation, agent.conditioning(raw)) for raw in (state.raw, after.raw)]
    assert differs(*outputs)
    # The window after next is collected, and the network fed, with what the meta-optimiser has made of it.
    np.testing.assert_array_equal(after.batch.conditioning, state.batch.conditioning)
    np.testing.assert_array_equal(step(after)[0].batch.conditioning, agent.conditioning(after.raw))
    assert make(spec)[0].conditioning(state.raw) is None
    # With nothing learned there is nothing to feed.
    plain, params = make(PLAIN, condition=True)
    assert plain.conditioning(plain.initial_raw) is None
    assert bool(stepper(plain)(plain.init(params, key=jax.random.key(5)))[1].finite)


@pytest.mark.slow
def test_greedy_and_sampled_policies_respect_the_mask():
    agent, params = make(PLAIN)
    state = agent.init(params, key=jax.random.key(6))
    seen = state.rollout.observation
    greedy = agent.policy(params, None, greedy=True)(seen, None, jax.random.key(0)).actions
    logits = jax.vmap(params)(seen).logits
    np.testing.assert_array_equal(greedy, jnp.argmax(jnp.where(seen.action_mask, logits, -jnp.inf), -1))
    act = quick_jit(agent.policy(params, None))
    draws = np.stack([act(seen, None, key).actions for key in jax.random.split(jax.random.key(1), 200)])
    assert seen.action_mask[np.arange(NUM_ENVS), draws].all() and len(np.unique(draws)) == 4 - int(
        (~seen.action_mask[:, 3]).all()
    )


def test_wrong_sizes_are_refused():
    agent, _ = make()
    fields = {name: getattr(agent, name) for name in SelfTuning.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"num_inner_steps=0 .*num_steps=5 .*at least 1"):
        SelfTuning(**(fields | {"num_inner_steps": 0}))
    with pytest.raises(ValueError, match="num_inner_steps=3 and num_steps=0"):
        SelfTuning(**(fields | {"num_steps": 0}))
    with pytest.raises(ValueError, match="reaches back further"):
        SelfTuning(**(fields | {"estimator": gw.Truncated(NUM_INNER + 1)}))
    SelfTuning(**(fields | {"estimator": gw.Truncated(NUM_INNER + 1), "spec": PLAIN}))  # never used, so never refused


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_two_hundred_meta_steps_in_float32_stay_finite(optimizer):
    # A meta-rate of 0.05 would raise the learned rate to 1,500 and the second moments past the largest float32.
    agent, params = make(optimizer=optimizer, outer_critic=True, max_grad_norm=0.5, meta_optimizer=optax.adam(0.01))
    raw = gw.unconstrain(ETA._replace(learning_rate=jnp.array(3e-3)), LEARNED)
    raw, params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (raw, params))
    agent = SelfTuning(
        **{name: getattr(agent, name) for name in SelfTuning.__dataclass_fields__} | {"initial_raw": raw}
    )
    with jax.enable_x64(False):
        state = agent.init(params, key=jax.random.key(7))
        end, metrics = jax.jit(lambda state: jax.lax.scan(lambda s, _: agent.step(s), state, length=200))(state)
    assert bool(metrics.finite.all())
    for leaf in (*jax.tree.leaves(end.learner.params), *end.raw):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()
    for name in ActorCriticEta._fields:
        assert (np.asarray(getattr(metrics.grad, name)) != 0).mean() > 0.9, name
        assert float(getattr(end.raw, name)) != float(getattr(agent.initial_raw, name)), name
