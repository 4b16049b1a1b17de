"""Networks that remember: acting and learning see the same, meta-gradients are right, and the rest of the program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradweave as gw
from gradweave.agents import ActorCriticEta, SelfTuning, actor_critic_agent, bundled_apply, inner_optimizer
from gradweave.agents.actor_critic.experience import evaluate_network
from gradweave.agents.ppo import PPOEta, PPOOptions, ppo_agent
from gradweave.api.run import Run
from gradweave.cli.train import parse_config
from gradweave.config.toml_file import config_from_dict
from gradweave.config.validation import find_problems
from gradweave.envs import VectorEnvironment
from gradweave.errors import ConfigError
from gradweave.rl import Categorical
from gradweave.training.build import build_agent, init_state
from gradweave.training.checkpoints import load, save
from gradweave.training.evaluation import evaluate, play_episode

from .differences import slopes_times_differences
from .material import quick_jit
from .memory_probe import Cue, remembering

NUM_ENVS, NUM_STEPS = 4, 4
FIXED = ActorCriticEta(*[gw.Fixed()] * 5)
OPTIONS = PPOOptions(num_epochs=2, num_minibatches=2)


def self_tuning(
    learner, network, environment, *, length=1, mode=None, spec=None, rate=0.03, optimizer="adam", **changes
):
    memory = network.initial_memory()
    eta = ActorCriticEta(*(jnp.asarray(value) for value in (0.9, 0.8, 0.02, 0.4, rate)))
    spec = ActorCriticEta(gw.Interval(), gw.Interval(), *[gw.Positive()] * 3) if spec is None else spec
    if learner == "ppo":
        agent = ppo_agent(options=changes.pop("options", OPTIONS), memory=memory)
        eta = PPOEta(*eta, clip_range=jnp.asarray(changes.pop("clip_range", 0.05)))
        spec = PPOEta(*spec, clip_range=gw.Fixed())
    else:
        agent = actor_critic_agent(bundled_apply, inner_optimizer(optimizer), memory=memory)
    fields = {
        "agent": agent,
        "environment": VectorEnvironment(environment, NUM_ENVS),
        "initial_raw": gw.unconstrain(eta, spec),
        "spec": spec,
        "estimator": gw.HorizonMix(gw.uniform_weights(length)),
        "mode": gw.ReverseMode("step") if mode is None else mode,
        "meta_optimizer": optax.adam(0.02),
        "num_inner_steps": length,
        "num_steps": NUM_STEPS,
    }
    return SelfTuning(**(fields | changes))


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "truncates"), [("gru", True), ("s5", False), ("s5", True)])
def test_a_batch_replayed_says_what_acting_said(memory, truncates):
    """Episodes of three steps in windows of four: the second window begins within episodes and has ends in it."""
    network = remembering(memory, policy_scale=1.0)
    agent = self_tuning("ppo", network, Cue(can_truncate=truncates))

    def two_rollouts(key):
        keys = jax.random.split(key, 3)
        running = agent.init(network, key=keys[0]).rollout
        for each in keys[1:]:
            running, batch, _ = agent.collect(network, agent.initial_raw, running, key=each)
        outputs = evaluate_network(bundled_apply, network, batch.experience, agent.agent.memory)
        return running, batch.experience.trajectory, outputs

    running, trajectory, outputs = quick_jit(two_rollouts)(jax.random.key(2))
    ended = np.asarray(trajectory.terminations | trajectory.truncations)
    (began,), (ends,) = trajectory.memory, running.memory
    assert ended[:-1].any(0).all() and (truncates == bool(trajectory.truncations.any()))
    assert (np.abs(began).reshape(NUM_ENVS, -1).max(1) > 0).all(), "carried across rollouts"
    said = Categorical(2).log_prob(outputs.steps.logits, trajectory.observations.action_mask[:-1], trajectory.actions)
    np.testing.assert_allclose(said, trajectory.record, rtol=1e-12)
    assert np.ptp(said) > 0.01

    # By a slow loop: values, those of observations that a cut episode led to, and the memory that acting ended with.
    one = quick_jit(lambda seen, memory: network(seen, None, memory))
    for env in range(NUM_ENVS):
        memory = (began[env],)
        for t in range(NUM_STEPS):
            seen, final = (
                None if tree is None else jax.tree.map(lambda leaf, t=t, env=env: leaf[t, env], tree)
                for tree in (trajectory.observations, trajectory.final_observations)
            )
            found = one(seen, memory)
            np.testing.assert_allclose(outputs.steps.value[t, env], found.value, rtol=1e-10)
            if final is not None:
                np.testing.assert_allclose(outputs.final.value[t, env], one(final, found.memory).value, rtol=1e-10)
            memory = network.initial_memory() if ended[t, env] else found.memory
        np.testing.assert_allclose(ends[env], memory[0], rtol=1e-10, atol=1e-14)
        last = jax.tree.map(lambda leaf, env=env: leaf[-1, env], trajectory.observations)
        np.testing.assert_allclose(outputs.last.value[0, env], one(last, memory).value, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "memory", "length"),
    [
        ("actor-critic", "gru", 2),
        ("actor-critic", "gru", 5),
        ("actor-critic", "s5", 1),
        ("ppo", "gru", 1),
        ("ppo", "gru", 5),
        ("ppo", "s5", 2),
    ],
)
def test_the_meta_gradient_is_that_of_differences(learner, memory, length):
    network = remembering(memory, policy_scale=1.0, outer_critic=True, outer_torso="own")
    modes = [gw.ReverseMode("step"), gw.ForwardMode(), gw.MixedMode()]
    options = {"length": length, "optimizer": "sgd"}  # Adam's first step does not depend on the size of its gradient
    agents = [self_tuning(learner, network, Cue(can_truncate=True), mode=mode, **options) for mode in modes]
    state = quick_jit(lambda key: agents[0].init(network, key=key))(jax.random.key(3))
    window = quick_jit(lambda state: agents[0].collect_window(state, key=jax.random.key(4)))(state)
    batches = getattr(window.batches, "experience", window.batches)
    assert batches.trajectory.terminations[:, :-1].any() and batches.trajectory.truncations.any()
    expected = slopes_times_differences(agents[0], state, window, length)
    assert (np.abs(expected[:5]) > 1e-7).all(), "the value's weight, too: it moves the memory that the policy reads"
    for agent in agents:
        grad = quick_jit(lambda *args, agent=agent: agent.window_gradient(*args).grad)(state, window)
        np.testing.assert_allclose(np.array(jax.tree.leaves(grad)), expected, rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_ppo_keeps_environments_whole():
    """With one minibatch the order does not matter; each environment is in one minibatch of each epoch."""
    network = remembering("gru")
    agent = self_tuning("ppo", network, Cue(), options=OPTIONS._replace(num_epochs=1, num_minibatches=1))
    state = quick_jit(lambda key: agent.init(network, key=key))(jax.random.key(3))
    assert sorted(np.asarray(state.batch.orders[0])) == list(range(NUM_ENVS))
    update, eta = quick_jit(agent.problem.update), agent.eta(state.raw)
    one, other = (
        update(state.learner, eta, state.batch._replace(orders=state.batch.orders[:, list(order)]))[0]
        for order in (range(NUM_ENVS), reversed(range(NUM_ENVS)))
    )
    for left, right in zip(*(jax.tree.leaves(each.params) for each in (one, other)), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)
    uneven = self_tuning("ppo", network, Cue(), options=OPTIONS._replace(num_minibatches=3))
    with pytest.raises(ValueError, match="4 environments, which a memory keeps whole"):
        jax.eval_shape(uneven.problem.update, state.learner, eta, state.batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "memory", "count"),
    [("actor-critic", "gru", 250), ("actor-critic", "none", 250), ("ppo", "s5", 40)],
)
def test_a_network_that_remembers_solves_what_one_without_memory_cannot(learner, memory, count):
    network = remembering(memory, policy_layers=(16,), value_layers=(16,), memory_size=16 if memory != "none" else 64)
    options = {"options": PPOOptions(), "clip_range": 0.2} if learner == "ppo" else {}
    agent = self_tuning(learner, network, Cue(), spec=FIXED, rate=0.01, num_steps=6, **options)
    agent = dataclasses.replace(agent, environment=VectorEnvironment(Cue(), 16))
    state = jax.jit(lambda key: agent.init(network, key=key))(jax.random.key(3))
    run = jax.jit(lambda state: jax.lax.scan(lambda carry, _: agent.step(carry), state, length=count))
    state, metrics = run(state)
    assert metrics.finite.all()
    params, raw = state.learner.params, state.raw
    played = evaluate(agent, params, raw, key=jax.random.key(4), greedy=True, num_episodes=200, max_steps=4)
    reached = float(played.returns.mean())
    assert 0.35 < reached < 0.65 if memory == "none" else reached > 0.98
    if memory != "none":  # the memory begins anew in the second episode, or its cue would be that of the first
        _, rewards = play_episode(agent, params, raw, key=jax.random.key(6), greedy=True, max_steps=3)
        assert rewards.sum() == 1


@pytest.mark.slow
def test_a_checkpoint_has_the_memory(tmp_path):
    """Going on from a file is going on, to the bit."""
    network = remembering("s5")
    agent = self_tuning("actor-critic", network, Cue(), spec=FIXED)
    step = quick_jit(lambda state: agent.step(state)[0])
    state = step(quick_jit(lambda key: agent.init(network, key=key))(jax.random.key(3)))
    assert float(jnp.abs(state.rollout.memory[0]).max()) > 0 < float(jnp.abs(state.batch.trajectory.memory[0]).max())
    save(tmp_path / "a.safetensors", state, 8)
    read = load(tmp_path / "a.safetensors", jax.eval_shape(lambda: state)).tree
    bare = lambda state: jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))  # noqa: E731
    for one, other in zip(bare(step(state)), bare(step(read)), strict=True):
        np.testing.assert_array_equal(one, other)


def configured(*flags):
    return parse_config(["discounting-chain", "--network.policy-layers", "4", "--network.value-layers", "4", *flags])


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["actor-critic", "ppo"])
def test_a_configuration_gives_a_memory_and_the_policy_hands_it_on(learner):
    config = configured("--learner", learner, "--network.memory", "s5", "--network.memory-size", "3")
    config = dataclasses.replace(config, inner=dataclasses.replace(config.inner, num_envs=4, num_steps=3))
    assert find_problems(config) == []
    agent = build_agent(config)
    state = quick_jit(lambda key: init_state(agent, config, key=key))(jax.random.key(0))
    (remembered,) = state.rollout.memory[:1]
    assert remembered.shape == (4, 2, 3) and np.abs(remembered).max() > 0

    run = Run(agent, state, 0, {}, config)
    _, observation = run.environment.reset(key=jax.random.key(1))
    observation = observation._replace(view=jnp.ones_like(observation.view))
    memory, network = None, state.learner.params
    expected = network.initial_memory()
    for _ in range(3):
        action, memory = run.policy(observation, memory)
        said = network(observation, agent.conditioning(state.raw), expected)
        expected = said.memory
        assert action == said.logits.argmax()
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), memory, expected)
    action, again = run.policy(observation, key=jax.random.key(2))
    assert not np.allclose(again[0], memory[0]), "without a memory an episode begins"


@pytest.mark.slow
def test_a_policy_without_memory_refuses_one():
    config = configured("--inner.num-envs", "2")
    agent = build_agent(config)
    state = jax.eval_shape(lambda: init_state(agent, config, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="remembers nothing"):
        Run(agent, state, 0, {}, config).policy(None, (jnp.zeros(3),))


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--network.memory", "gru", "--network.memory-size", "0"], "network.memory_size"),
        (["--network.memory-size", "8"], "network.memory_size"),
        (["--network.memory", "s5", "--inner.num-steps", "1"], "inner.num_steps"),
        (["--learner", "ppo", "--network.memory", "s5", "--inner.num-envs", "6"], "inner.num_minibatches"),
    ],
)
def test_what_a_memory_cannot_do_is_named(flags, field):
    assert [problem.field for problem in find_problems(configured(*flags))] == [field]


def test_an_unknown_memory_is_named():
    with pytest.raises(ConfigError, match="gru"):
        config_from_dict({"network": {"memory": "lstm"}})
