"""The V-trace actor-critic against rlax, the actor-critic, finite differences and known values."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array

import gradweave as gw
from gradweave.agents import Experience, SelfTuning, bundled_apply
from gradweave.agents.actor_critic.experience import action_log_probs, evaluate_network
from gradweave.agents.vtrace import VTraceEta, VTraceOptions, vtrace_agent
from gradweave.cli.train import parse_config
from gradweave.config.presets import preset
from gradweave.config.schema import Config
from gradweave.config.validation import find_problems
from gradweave.envs import Observation, VectorEnvironment, make_environment
from gradweave.rl import Categorical, Gaussian, MultiDiscrete, TanhGaussian, Trajectory, actor_critic_network
from gradweave.rl.rollout import for_each
from gradweave.training.build import build_agent, init_state
from gradweave.training.memory import Sizes, num_bytes

from ..differences import AimTwice, begun, slopes_times_differences
from ..material import Fork, quick_jit
from ..memory_probe import Cue, remembering

NUM_ENVS, NUM_STEPS = 4, 5
ETA = VTraceEta(0.8, 0.7, 0.6, 1.2, 0.02, 0.4, 0.03)
SPEC = VTraceEta(*[gw.Interval()] * 3, *[gw.Positive()] * 4)
FIXED = VTraceEta(*[gw.Fixed()] * 7)
OPTIONS = VTraceOptions(num_epochs=2, num_minibatches=2, clip_rho=1.02, clip_c=0.97)


def self_tuning(environment: Any, agent: Any, length: int, spec: Any = SPEC, mode: Any = None) -> SelfTuning:
    return SelfTuning(
        agent=agent,
        environment=VectorEnvironment(environment, NUM_ENVS),
        initial_raw=gw.unconstrain(jax.tree.map(jnp.asarray, ETA), spec),
        spec=spec,
        estimator=gw.HorizonMix(gw.uniform_weights(length)),
        mode=gw.ReverseMode("step") if mode is None else mode,
        meta_optimizer=optax.adam(0.02),
        num_inner_steps=length,
        num_steps=NUM_STEPS,
    )


def rlax_loss(params: Any, fixed: Any, eta: Any, trajectory: Any, options: VTraceOptions) -> Array:
    """The loss of one step on some environments, by rlax, a piece at a time between the places where it was cut.

    Args:
        params: to be differentiated.
        fixed: the same parameters, from which the targets are.
        eta: all of the meta-parameters.
        trajectory: of these environments.
        options: the clips.
    """
    import rlax

    envs = trajectory.rewards.shape[1]
    seen = lambda tree, e: jax.tree.map(lambda leaf: leaf[:, e], tree)  # noqa: E731
    policy = value = entropy = 0.0
    for e in range(envs):
        before, after = (jax.vmap(each)(seen(trajectory.observations, e)) for each in (params, fixed))
        led_to = jax.vmap(fixed)(seen(trajectory.final_observations, e)).value
        mask = trajectory.observations.action_mask[:-1, e]
        logits, old = (jnp.where(mask, out.logits[:-1], -1e9) for out in (before, after))
        actions, ones = trajectory.actions[:, e], jnp.ones(NUM_STEPS)
        log_probs = jax.vmap(lambda row, action: jax.nn.log_softmax(row)[action])(old, actions)
        ratios = jnp.exp(log_probs - trajectory.record[:, e])
        advantages, errors = [], []
        cuts = np.flatnonzero(trajectory.truncations[:, e]) + 1
        for start, end in zip([0, *cuts], [*cuts, NUM_STEPS], strict=True):
            if start == end:
                continue
            bootstrap = led_to[end - 1] if trajectory.truncations[end - 1, e] else after.value[end]
            discounts = eta.discount * (1.0 - trajectory.terminations[start:end, e].astype(float))
            found = rlax.leaky_vtrace_td_error_and_advantage(
                after.value[start:end],
                jnp.append(after.value[start + 1 : end], bootstrap),
                trajectory.rewards[start:end, e],
                discounts,
                ratios[start:end],
                alpha=eta.alpha,
                lambda_=eta.lambda_,
                clip_rho_threshold=options.clip_rho,
                clip_pg_rho_threshold=options.clip_rho,
            )
            advantages.append(found.pg_advantage)
            errors.append(found.errors)
        returns = after.value[:-1] + jnp.concatenate(errors)
        policy += rlax.policy_gradient_loss(logits, actions, jnp.concatenate(advantages), ones) / envs
        entropy -= rlax.entropy_loss(logits, ones) / envs
        value += 2 * rlax.l2_loss(before.value[:-1], returns).mean() / envs
    return eta.policy_cost * policy + eta.value_cost * value - eta.entropy_cost * entropy


@pytest.mark.filterwarnings("ignore")  # rlax and its dependencies use what has been deprecated
@pytest.mark.slow
def test_an_update_is_that_of_rlax() -> None:
    """Everything fixed: four steps, on halves of the environments, with masks, ends and cuts."""
    environment, options = Fork(), OPTIONS._replace(clip_c=1.0)  # rlax has no other clip of traces
    eta = ETA._replace(learning_rate=0.2)  # far from the policy that collected, so that weights are clipped
    agent = self_tuning(environment, vtrace_agent(optimizer=optax.identity(), options=options), 1, FIXED)
    state = begun(agent, environment)
    trajectory = state.batch.trajectory
    assert trajectory.truncations[:-1].any() and trajectory.terminations[:-1].any()
    after, aux = quick_jit(agent.problem.update)(state.learner, jax.tree.map(jnp.asarray, eta), state.batch)
    assert 0 < float(aux["clip_fraction"]) < 1

    def half(part: int) -> Any:
        some = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 2 * part : 2 * part + 2], trajectory)
        return quick_jit(lambda params: jax.grad(rlax_loss)(params, params, eta, some, options))

    with jax.numpy_dtype_promotion("standard"):  # rlax multiplies by its mask
        gradients = [half(0), half(1)]
        params = state.learner.params
        for step in range(4):
            slopes = gradients[step % 2](params)
            params = jax.tree.map(lambda leaf, slope: leaf - eta.learning_rate * slope, params, slopes)
    for found, expected in zip(jax.tree.leaves(after.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_one_step_a_rollout_is_the_actor_critic() -> None:
    """Whatever is clipped: the policy that learns is the one that collected. And so is the meta-gradient."""
    environment = Fork()
    options = OPTIONS._replace(num_epochs=1, num_minibatches=1, clip_rho=1.0, clip_c=1.0)
    agent = self_tuning(environment, vtrace_agent(optimizer=optax.identity(), options=options), 2, mode=gw.MixedMode())
    state = begun(agent, environment)
    window = quick_jit(lambda state: agent.collect_window(state, key=jax.random.key(3)))(state)
    ours = jax.tree.map(jnp.asarray, ETA._replace(policy_cost=1.0))
    theirs = gw.ActorCriticEta(**{name: getattr(ours, name) for name in gw.ActorCriticEta._fields})

    def outer_loss(problem: Any, eta: Any) -> Any:
        learner, batch = state.learner, lambda k: jax.tree.map(lambda leaf: leaf[k], window.batches)
        for k in range(2):
            learner, _ = problem.update(learner, eta, batch(k))
        return problem.outer_loss(learner, batch(2))[0]

    plain = gw.actor_critic(bundled_apply, optax.identity())
    of_vtrace, of_actor_critic = quick_jit(
        lambda: [
            jax.value_and_grad(lambda eta, problem=problem: outer_loss(problem, eta))(eta)
            for problem, eta in ((agent.problem, ours), (plain, theirs))
        ]
    )()
    np.testing.assert_allclose(of_vtrace[0], of_actor_critic[0], rtol=1e-12)
    for name, slope in of_actor_critic[1]._asdict().items():
        np.testing.assert_allclose(getattr(of_vtrace[1], name), slope, rtol=1e-9, atol=1e-14)
    assert of_vtrace[1].alpha == 0 and of_vtrace[1].discount != 0


def synthetic(head: Any, network: Any) -> Experience:
    """A batch whose observations and rewards are random, acted by the network."""
    keys = iter(jax.random.split(jax.random.key(4), 5))
    shape, num_actions = (NUM_STEPS, NUM_ENVS), getattr(head, "size", head.num_outputs)
    seen, memory = (NUM_STEPS + 1, NUM_ENVS), network.initial_memory()
    observations = Observation(
        jax.random.normal(next(keys), (*seen, 2)), jnp.zeros((*seen, 0)), jnp.ones((*seen, num_actions), bool)
    )
    trajectory = Trajectory(
        observations,
        jnp.zeros(shape),
        jax.random.normal(next(keys), shape),
        jax.random.bernoulli(next(keys), 0.2, shape),
        jnp.zeros(shape, bool),
        None,
        memory=None if memory is None else for_each(memory, NUM_ENVS),
    )
    said = evaluate_network(bundled_apply, network, Experience(trajectory), memory).steps.logits
    mask = observations.action_mask[:-1]
    actions = head.sample(said, mask, key=next(keys))
    return Experience(trajectory._replace(actions=actions, record=head.log_prob(said, mask, actions)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "memory"),
    [(MultiDiscrete((2, 3)), "none"), (Gaussian(1), "none"), (TanhGaussian(2), "none"), (Categorical(3), "s5")],
    ids=["multi-discrete", "gaussian", "tanh-gaussian", "s5"],
)
def test_every_policy_serves(head: Any, memory: str) -> None:
    """One step on a rollout is the actor-critic's; the second's ratios are between the policies before and after it."""
    eta = jax.tree.map(jnp.asarray, ETA._replace(policy_cost=1.0, learning_rate=0.2))
    options = VTraceOptions(num_minibatches=1)
    example = Observation(jnp.zeros(2), jnp.zeros(0), jnp.ones(head.num_outputs, bool))
    sizes: dict[str, Any] = {"policy_layers": (4,), "value_layers": (4,), "policy_scale": 1.0, "memory": memory}

    @quick_jit
    def updates(key: Any) -> Any:
        network = actor_critic_network(example, head.num_outputs, **sizes, memory_size=4, key=key)
        given = {"head": head, "memory": network.initial_memory()}
        batch = synthetic(head, network)
        once, twice = (
            vtrace_agent(optimizer=optax.identity(), options=options._replace(num_epochs=count), **given).problem
            for count in (1, 2)
        )
        plain = gw.actor_critic(bundled_apply, optax.identity(), **given)
        theirs = gw.ActorCriticEta(**{name: getattr(eta, name) for name in gw.ActorCriticEta._fields})
        expected, _ = plain.update(plain.init(network), theirs, batch)
        said = evaluate_network(bundled_apply, expected.params, batch, given["memory"])
        ratios = jnp.exp(action_log_probs(said, batch.trajectory, head) - batch.trajectory.record)
        return (
            (expected.params, ratios),
            once.update(once.init(network), eta, batch),
            twice.update(twice.init(network), eta, batch)[1],
        )

    (expected, ratios), (first, first_aux), second_aux = updates(jax.random.key(1))
    for found, other in zip(jax.tree.leaves(first.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, other, rtol=1e-9, atol=1e-13)
    assert first_aux["kl"] == first_aux["clip_fraction"] == 0, "exactly, whatever the rounding"
    np.testing.assert_allclose(second_aux["kl"], np.mean(ratios - 1 - np.log(ratios)) / 2, rtol=1e-8)
    np.testing.assert_allclose(second_aux["clip_fraction"], np.mean(ratios > 1) / 2, rtol=1e-6)
    assert 1e-4 < float(second_aux["kl"]) < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "outer_critic", "kind"),
    [(1, False, "masks"), (2, True, "masks"), (5, False, "masks"), (2, True, "continuous"), (1, True, "memory")],
)
def test_the_meta_gradient_is_that_of_differences(length: int, outer_critic: bool, kind: str) -> None:
    environments: dict[str, Any] = {"masks": Fork(), "continuous": AimTwice(), "memory": Cue(can_truncate=True)}
    environment, given = environments[kind], {}
    network = None
    if kind == "continuous":
        given = {"head": Gaussian(1), "reward_discount": 0.9}
    if kind == "memory":
        network = remembering("gru", policy_scale=1.0, outer_critic=outer_critic, outer_torso="own")
        given = {"memory": network.initial_memory()}
    agents = [
        self_tuning(environment, vtrace_agent(options=OPTIONS, **given), length, mode=mode)
        for mode in (gw.MixedMode(), gw.ReverseMode("step"), gw.ForwardMode())
    ]
    if network is None:
        free = int(kind == "continuous")
        state = begun(agents[0], environment, outer_critic=outer_critic, outer_torso="own", num_free_outputs=free)
    else:
        state = quick_jit(lambda key: agents[0].init(network, key=key))(jax.random.key(1))
    window = quick_jit(lambda state: agents[0].collect_window(state, key=jax.random.key(3)))(state)
    trajectory = window.batches.trajectory
    assert trajectory.terminations[:, :-1].any() and trajectory.truncations[:, :-1].any()
    recorded = (window.recording.gradients.states, window.recording.gradients.gradients)
    assert num_bytes(recorded) == Sizes.of(agents[0], state).recorded, "as is forecast"
    expected = slopes_times_differences(agents[0], state, window, length)
    matter = np.abs(expected) > 1e-8
    assert np.delete(matter, VTraceEta._fields.index("value_cost")).all()  # its weight reaches the policy late
    for agent in agents:
        grad = quick_jit(lambda *args, agent=agent: agent.window_gradient(*args).grad)(state, window)
        np.testing.assert_allclose(np.array(jax.tree.leaves(grad)), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 0}, "epoch"),
        ({"num_minibatches": 0}, "minibatch"),
        ({"clip_rho": 0.0}, "above 0"),
        ({"clip_c": float("nan")}, "above 0"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vtrace_agent(options=VTraceOptions(**options))


def configured(**inner: Any) -> Config:
    config = preset("vtrace")
    return dataclasses.replace(config, inner=dataclasses.replace(config.inner, **inner))


def changed(**meta: Any) -> Config:
    return dataclasses.replace(preset("vtrace"), meta=dataclasses.replace(preset("vtrace").meta, **meta))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (configured(num_minibatches=3), "inner.num_minibatches"),
        (configured(num_epochs=0), "inner.num_epochs"),
        (configured(clip_rho=0.0), "inner.clip_rho"),
        (configured(clip_c=-1.0), "inner.clip_c"),
        (configured(alpha=1.0), "inner.alpha"),  # learned: strictly inside
        (configured(policy_cost=-1.0), "inner.policy_cost"),
        (changed(schedule="network"), "meta.schedule"),
        (changed(sampling_correction=0.5), "meta.sampling_correction"),
    ],
)
def test_what_vtrace_cannot_do_is_named(config: Config, field: str) -> None:
    assert field in [problem.field for problem in find_problems(config)]


def test_any_preset_can_be_learned_by_vtrace() -> None:
    for name in ("quick", "discounting-chain", "ppo", "vtrace"):
        assert find_problems(parse_config([name, "--learner", "vtrace"])) == []
    assert find_problems(configured(alpha=1.0)) and not find_problems(changed(learned=("discount", "policy_cost")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate", "count"),
    [("matched-reward", 0.02, 60), ("delayed-reward", 0.01, 100), ("truncated-reward", 0.01, 100)],
)
def test_a_probe_is_solved_from_a_configuration(name: str, rate: float, count: int) -> None:
    """The policy finds the best reward, and its value is that."""
    config = configured(
        num_envs=16, num_steps=4, discount=0.5, learning_rate=rate, entropy_cost=1e-3, scale_rewards="off"
    )
    config = dataclasses.replace(config, environment=dataclasses.replace(config.environment, name=name, options={}))
    assert find_problems(config) == []
    agent = build_agent(config)
    run = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=count))
    state, metrics = run(init_state(agent, config, key=jax.random.key(0)))
    assert metrics.finite.all()
    alone = name in ("delayed-reward", "truncated-reward")  # one action, whose ratio is always 1
    assert (metrics.eta.alpha[0] == metrics.eta.alpha[-1]) == alone
    known = make_environment(name).optimal_values(0.5)
    said = jax.vmap(state.learner.params)(known.observations)
    np.testing.assert_allclose(said.value, known.values, atol=0.1)
