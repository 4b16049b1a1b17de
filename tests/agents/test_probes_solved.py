"""Each learner solves each probe environment to its known value: rollouts, targets, loss and optimiser included."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax import sgd

from gradweave.agents import ActorCriticEta, Agent, SelfTuning, actor_critic_agent, bundled_apply, inner_optimizer
from gradweave.agents.ppo import PPOEta, PPOOptions, ppo_agent
from gradweave.agents.vtrace import VTraceEta, VTraceOptions, vtrace_agent
from gradweave.core import Fixed, ReverseMode, Unrolled, unconstrain
from gradweave.envs import AbstractProbe, VectorEnvironment, make_environment
from gradweave.envs.catalogue import CATALOGUE
from gradweave.rl import Categorical, Gaussian, NetworkOutput, actor_critic_network, probs
from gradweave.training.evaluation import Evaluation, evaluate

DISCOUNT, NUM_WINDOWS, NUM_EPISODES = 0.5, 100, 64
PROBES = [name for name, row in CATALOGUE.items() if row.place is not None and row.place[0].endswith("probes")]

# No entropy bonus, so that the best policy is the only fixed point.
COMMON = {"discount": DISCOUNT, "lambda_": 0.9, "entropy_cost": 0.0, "value_cost": 0.5, "learning_rate": 0.01}
ETAS = {
    "actor-critic": ActorCriticEta(**COMMON),
    "ppo": PPOEta(**COMMON),
    "vtrace": VTraceEta(**COMMON, alpha=0.9, policy_cost=1.0),
}


class Solved(NamedTuple):
    """What the network says of every observation of a probe before and after learning, and episodes played after."""

    before: NetworkOutput
    after: NetworkOutput
    played: Evaluation


def agent_of(learner: str, probe: AbstractProbe[Any]) -> Agent:
    """The learner, with a policy head for the probe's actions."""
    head = Gaussian(probe.num_actions) if probe.continuous else Categorical(probe.num_actions)
    optimizer = inner_optimizer("adam")
    if learner == "ppo":
        return ppo_agent(optimizer=optimizer, options=PPOOptions(num_epochs=2, num_minibatches=2), head=head)
    if learner == "vtrace":
        return vtrace_agent(optimizer=optimizer, options=VTraceOptions(), head=head)
    return actor_critic_agent(bundled_apply, optimizer, head=head)


def self_tuning(learner: str, probe: AbstractProbe[Any]) -> SelfTuning:
    """Plain learning: every hyper-parameter fixed."""
    eta = jax.tree.map(jnp.asarray, ETAS[learner])
    spec = jax.tree.map(lambda _: Fixed(), eta)
    return SelfTuning(
        agent=agent_of(learner, probe),
        environment=VectorEnvironment(probe, 8),
        initial_raw=unconstrain(eta, spec),
        spec=spec,
        estimator=Unrolled(),
        mode=ReverseMode(),
        meta_optimizer=sgd(0.0),
        num_inner_steps=5,
        num_steps=6,
    )


def solve(learner: str, probe: AbstractProbe[Any]) -> Solved:
    """Learn and play, in one compiled program."""
    agent = self_tuning(learner, probe)
    cases = probe.optimal_values(DISCOUNT).observations
    example = jax.tree.map(lambda leaf: leaf[0], cases)
    sizes: dict[str, Any] = {"policy_layers": (16,), "value_layers": (16,), "num_free_outputs": int(probe.continuous)}

    @jax.jit
    def learn_and_play() -> Solved:
        network = actor_critic_network(example, probe.num_actions, **sizes, key=jax.random.key(0))
        state = agent.init(network, key=jax.random.key(1))
        state, _ = jax.lax.scan(lambda state, _: (agent.step(state)[0], None), state, length=NUM_WINDOWS)
        learned = state.learner.params
        options: dict[str, Any] = {"greedy": True, "num_episodes": NUM_EPISODES, "max_steps": 20}
        played = evaluate(agent, learned, state.raw, key=jax.random.key(2), **options)
        return Solved(jax.vmap(network)(cases), jax.vmap(learned)(cases), played)

    return learn_and_play()


def check_policy(probe: AbstractProbe[Any], solved: Solved) -> None:
    """Check that the policy takes the best action, or aims at the target with little spread."""
    observations = probe.optimal_values(DISCOUNT).observations
    if probe.continuous:
        (first_mean, first_std), (mean, std) = (
            Gaussian(probe.num_actions).moments(outputs.logits) for outputs in (solved.before, solved.after)
        )
        assert np.abs(first_mean).max() < 0.1 and first_std.min() > 0.5
        np.testing.assert_allclose(mean, observations.view, atol=0.1)  # the target is what is seen
        assert std.max() < 0.2
    elif probe.num_actions > 1:
        chances = probs(solved.after.logits, observations.action_mask)
        assert float(chances.max(-1).min()) > 0.95


def test_there_are_nine_probes_and_no_other() -> None:
    assert len(PROBES) == 9
    assert all(isinstance(make_environment(name), AbstractProbe) for name in PROBES)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("learner", ETAS)
def test_the_probe_is_solved(learner: str, name: str) -> None:
    options = {"num_steps": 3} if "num_steps" in CATALOGUE[name].options else {}
    probe: Any = make_environment(name, **options)
    known = np.asarray(probe.optimal_values(DISCOUNT).values)
    solved = solve(learner, probe)
    before, after = (np.asarray(outputs.value) for outputs in (solved.before, solved.after))
    scale = np.abs(known).max()
    # A policy that still explores a little earns a little less than the best.
    assert after == pytest.approx(known, abs=0.05 * scale)
    assert np.abs(before - known).max() > 0.1 * scale  # it had to be learned
    check_policy(probe, solved)
    returns = solved.played.returns
    assert float(returns.mean()) == pytest.approx(probe.optimal_return, abs=3 / math.sqrt(NUM_EPISODES))
    if probe.num_actions > 1:
        assert float(returns.min()) == pytest.approx(probe.optimal_return)
    if probe.continuous:
        assert float(returns.min()) > probe.optimal_return - 0.01
