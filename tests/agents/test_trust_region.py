"""A learner whose updates move its policy by half its squared learning rate, so that the share is known."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

import gradweave as gw
from gradweave.agents import actor_critic_agent, bundled_apply, inner_optimizer
from gradweave.agents.trust_region import cut_to_trust_region

from .material import ETA, network, quick_jit, small_agent


def known_agent():
    problem = gw.MetaProblem(
        update=lambda x, rate, batch: (jnp.where(rate > 0.5, jnp.nan, x - rate), None),
        outer_loss=lambda x, batch: (x, None),
    )
    agent = actor_critic_agent(bundled_apply, inner_optimizer("sgd"))
    return dataclasses.replace(
        agent, problem=problem, init=lambda params: params, divergence=lambda x, new, batch: (new - x) ** 2 / 2
    )


@pytest.mark.parametrize(
    ("limit", "share"),
    # rates up to 0.63, but never above 0.5; up to 0.2; up to 0.108; none
    [(0.2, 0.5), (0.02, 0.25), (0.0058, 2.0**-5), (0.001, 0.0)],
)
def test_the_move_is_halved_until_the_next_update_is_within(limit, share) -> None:
    before, after = jnp.log(0.1), jnp.log(0.8)
    found, kept = jax.jit(
        lambda: cut_to_trust_region(known_agent(), jnp.zeros(()), jnp.zeros(()), jnp.exp, before, after, limit)
    )()
    assert float(kept) == share
    assert float(found) == pytest.approx(float(before + share * (after - before)), rel=1e-12)


def test_a_move_that_is_allowed_is_made_to_the_bit() -> None:
    before, after = jnp.log(0.1), jnp.log(0.3)
    found, kept = cut_to_trust_region(known_agent(), jnp.zeros(()), jnp.zeros(()), jnp.exp, before, after, 1.0)
    assert (float(found), float(kept)) == (float(after), 1.0)


SPEC = gw.ActorCriticEta(gw.Interval(), gw.Fixed(), gw.Fixed(), gw.Fixed(), gw.Positive())


@pytest.mark.slow
def test_an_agent_makes_the_part_of_a_move_that_is_reported() -> None:
    free = small_agent(SPEC, optax.sgd(100.0))
    state = free.init(network(jax.random.key(1), outer_critic=False), key=jax.random.key(3))
    found = {}
    for limit in (None, 1e6, 1e-4):
        agent = dataclasses.replace(free, trust_region=limit)
        found[limit] = quick_jit(lambda state, agent=agent: agent.step(state))(
            state._replace(key=jax.random.clone(state.key))
        )
    (moved, metrics), (whole, all_of_it), (part, cut) = found.values()
    assert metrics.kept is None
    assert float(all_of_it.kept) == 1.0
    assert 0.0 <= float(cut.kept) < 1.0
    states = (state, moved, whole, part)
    for before, far, same, near in zip(*(jax.tree.leaves(each.learned) for each in states), strict=True):
        assert float(same) == float(far)
        assert float(near) == pytest.approx(float(before + cut.kept * (far - before)), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"trust_region": 0.0}, "above 0"),
        ({"trust_region": 0.1, "spec": jax.tree.map(lambda _: gw.Fixed(), ETA)}, "let one be learned"),
        ({"trust_region": 0.1, "agent": known_agent()}, "updates"),
    ],
)
def test_what_cannot_be_cut_is_refused(changes, remedy) -> None:
    if remedy == "updates":
        changes = {**changes, "agent": dataclasses.replace(small_agent(SPEC, optax.sgd(0.05)).agent, divergence=None)}
        remedy = "Agent.divergence"
    with pytest.raises(ValueError, match=remedy):
        small_agent(**{"spec": SPEC, "meta_optimizer": optax.sgd(0.05), **changes})
