"""The documented answers of the probes against exhaustive play, and the Discounting Chain against Gymnax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradweave.envs import (
    AbstractProbe,
    AimedReward,
    ChosenReward,
    ConstantReward,
    DelayedReward,
    DiscountingChain,
    MaskedAction,
    MatchedReward,
    Observation,
    ObservedReward,
    TerminatedReward,
    TruncatedReward,
)

SMALL = (
    ConstantReward(),
    ObservedReward(),
    ChosenReward(),
    MatchedReward(),
    MaskedAction(num_actions=3),
    DelayedReward(),
    TruncatedReward(num_steps=4),
    TerminatedReward(num_steps=4),
)
FAR = 400  # 0.9 ** 400 is 5e-19


def looks(observation: Observation) -> tuple:
    """An observation as something that can be looked up."""
    return tuple(np.concatenate([np.asarray(leaf, float).ravel() for leaf in observation]))


class Player:
    """Plays a probe in every possible way. A cut is played on through; what is seen is valued until the cut."""

    def __init__(self, probe: AbstractProbe, discount: float) -> None:
        self.step = jax.jit(probe.step)
        self.actions = [jnp.asarray(action, jnp.int32) for action in range(probe.num_actions)]
        self.discount = discount
        self.values: dict[tuple, float] = {}

    def value(self, state: tuple, observation: Observation, *, cut: bool = False, depth: int = 0) -> float:
        """The best discounted return, by trying everything that is allowed."""
        if depth == FAR:
            return 0.0
        best = -np.inf
        for action in self.actions:
            if not observation.action_mask[action]:
                continue
            next_state, step = self.step(state, action, key=jax.random.key(0))
            later = 0.0
            if not step.terminated:
                now_cut = cut or bool(step.truncated)
                later = self.value(next_state, step.observation, cut=now_cut, depth=depth + 1)
            best = max(best, float(step.reward) + self.discount * later)
        if not cut or looks(observation) not in self.values:
            self.values[looks(observation)] = best
        return best


@pytest.mark.parametrize("probe", SMALL, ids=lambda probe: type(probe).__name__)
@pytest.mark.parametrize("discount", [0.0, 0.7])
def test_values_are_those_of_exhaustive_play(probe: AbstractProbe, discount: float) -> None:
    player = Player(probe, discount)
    returns = {}
    for seed in range(20):
        state, observation = probe.reset(key=jax.random.key(seed))
        if looks(observation) not in returns:
            returns[looks(observation)] = player.value(state, observation)
    known = probe.optimal_values(discount)
    cases = [jax.tree.map(lambda leaf, i=i: leaf[i], known.observations) for i in range(len(known.values))]
    assert len({looks(case) for case in cases}) == len(cases)
    # Past the cut of TruncatedReward further views are met, of which the known answer says nothing.
    met = {looks(case): player.values[looks(case)] for case in cases}
    np.testing.assert_allclose(known.values, list(met.values()), rtol=1e-12)
    if not probe.can_truncate:
        assert len(met) == len(player.values)


@pytest.mark.parametrize("probe", SMALL, ids=lambda probe: type(probe).__name__)
def test_optimal_return_is_the_best_mean_sum_of_rewards(probe: AbstractProbe) -> None:
    step = jax.jit(probe.step)

    def best(state: tuple, mask: np.ndarray) -> float:
        totals = []
        for action in np.flatnonzero(mask):
            next_state, result = step(state, jnp.asarray(action, jnp.int32), key=jax.random.key(0))
            ended = result.terminated | result.truncated
            later = 0.0 if ended else best(next_state, result.observation.action_mask)
            totals.append(float(result.reward) + later)
        return max(totals)

    first = {}
    for seed in range(20):
        state, observation = probe.reset(key=jax.random.key(seed))
        if looks(observation) not in first:
            first[looks(observation)] = best(state, observation.action_mask)
    assert np.mean(list(first.values())) == probe.optimal_return


def test_the_documented_numbers() -> None:
    np.testing.assert_array_equal(ConstantReward().optimal_values(0.9).values, [1.0])
    np.testing.assert_array_equal(ObservedReward().optimal_values(0.9).values, [-1.0, 1.0])
    np.testing.assert_array_equal(DelayedReward().optimal_values(0.9).values, [0.9, 1.0])
    np.testing.assert_allclose(TruncatedReward(3).optimal_values(0.9).values, [10.0] * 4)
    np.testing.assert_allclose(TerminatedReward(3).optimal_values(0.9).values, [2.71, 1.9, 1.0])


def test_what_is_drawn_is_drawn_evenly() -> None:
    keys = jax.random.split(jax.random.key(0), 4000)
    for probe, num_contexts in ((ObservedReward(), 2), (MatchedReward(), 2), (MaskedAction(4), 4)):
        contexts = jax.vmap(lambda key, probe=probe: probe.reset(key=key)[0].context)(jax.random.clone(keys))
        share = np.bincount(contexts, minlength=num_contexts) / len(contexts)
        # Five standard deviations of a share of one half over 4000 draws.
        np.testing.assert_allclose(share, np.full(num_contexts, 1 / num_contexts), atol=0.04)


@pytest.mark.parametrize(("seen", "action", "reward"), [(-1, 0, 1), (-1, 1, -1), (1, 0, -1), (1, 1, 1)])
def test_matched_reward_pays_for_doing_as_one_sees(seen: int, action: int, reward: int) -> None:
    probe = MatchedReward()
    episodes = (probe.reset(key=jax.random.key(seed)) for seed in range(30))
    state, _ = next(episode for episode in episodes if episode[1].view[0] == seen)
    assert probe.step(state, jnp.asarray(action, jnp.int32), key=jax.random.key(0))[1].reward == reward


def test_a_forbidden_action_is_punished() -> None:
    probe = MaskedAction(4)
    state, observation = probe.reset(key=jax.random.key(0))
    assert observation.action_mask.sum() == 1
    for action in range(4):
        _, step = probe.step(state, jnp.asarray(action, jnp.int32), key=jax.random.key(0))
        assert step.reward == (1.0 if observation.action_mask[action] else -1.0)


def test_twins_differ_in_their_flags_alone() -> None:
    cut, end = TruncatedReward(2), TerminatedReward(2)
    cut_state, cut_seen = cut.reset(key=jax.random.key(0))
    end_state, end_seen = end.reset(key=jax.random.key(0))
    for flags in ((False, False), (True, False)):
        jax.tree.map(np.testing.assert_array_equal, cut_seen, end_seen)
        cut_state, cut_step = cut.step(cut_state, jnp.zeros((), jnp.int32), key=jax.random.key(0))
        end_state, end_step = end.step(end_state, jnp.zeros((), jnp.int32), key=jax.random.key(0))
        assert cut_step.reward == end_step.reward == 1
        assert (bool(cut_step.truncated), bool(cut_step.terminated)) == flags
        assert (bool(end_step.terminated), bool(end_step.truncated)) == flags
        cut_seen, end_seen = cut_step.observation, end_step.observation


@pytest.mark.parametrize("probe", [TruncatedReward, TerminatedReward])
def test_an_episode_without_a_step_is_refused(probe: type) -> None:
    with pytest.raises(ValueError, match="num_steps = 0"):
        probe(0)


def episode(chain: DiscountingChain, first: int) -> tuple[np.ndarray, Observation, np.ndarray]:
    """Rewards, what was seen before each step, and terminations, when `first` is chosen and later actions vary."""
    state, observation = chain.reset(key=jax.random.key(0))
    actions = jnp.concatenate([jnp.full(1, first, jnp.int32), jnp.arange(chain.num_steps - 1, dtype=jnp.int32) % 5])

    def body(carry, action):
        state, observation = carry
        state, step = chain.step(state, action, key=jax.random.key(0))
        return (state, step.observation), (step.reward, observation, step.terminated)

    _, outcome = jax.lax.scan(body, (state, observation), actions)
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("best_chain", [0, 3])
def test_the_chains_values_are_those_of_playing_them(best_chain: int) -> None:
    chain, discount = DiscountingChain(best_chain), 0.97
    known = jax.device_get(chain.optimal_values(discount))
    table = {
        looks(jax.tree.map(lambda leaf, i=i: leaf[i], known.observations)): value
        for i, value in enumerate(np.asarray(known.values))
    }
    assert len(table) == 1 + 5 * 99
    starts = []
    for first in range(5):
        rewards, observations, terminated = jax.device_get(episode(chain, first))
        np.testing.assert_array_equal(np.flatnonzero(terminated), [99])
        value = 0.0
        for time in reversed(range(100)):
            value = rewards[time] + discount * value
            if time:
                seen = jax.tree.map(lambda leaf, t=time: leaf[t], observations)
                np.testing.assert_allclose(table[looks(seen)], value, atol=1e-12)
        starts.append(value)
    np.testing.assert_allclose(chain.chain_values(discount), starts, rtol=1e-12)
    np.testing.assert_allclose(known.values[0], max(starts), rtol=1e-12)


def test_which_chain_is_best_depends_on_the_discount() -> None:
    chain = DiscountingChain(best_chain=4)
    indifferent = 1.1 ** (-1 / 99)
    np.testing.assert_allclose(indifferent, 0.99904, atol=1e-5)
    assert chain.chain_values(indifferent - 1e-5).argmax() == 0
    assert chain.chain_values(indifferent + 1e-5).argmax() == 4


@pytest.mark.slow
def test_the_chain_pays_as_gymnaxs_does() -> None:
    from gradweave.envs import GymnaxEnvironment
    from gradweave.envs.foreign import foreign_code

    with foreign_code():
        from gymnax.environments.bsuite.discounting_chain import DiscountingChain as Theirs

        theirs = Theirs(mapping_seed=2)
        oracle = GymnaxEnvironment(theirs, theirs.default_params)
    # A lambda, because JAX hashes what it compiles, and these parameters hold an array.
    step = jax.jit(lambda state, action, key: oracle.step(state, action, key=key))
    for first in range(5):
        state, _ = oracle.reset(key=jax.random.key(0))
        expected = []
        for _ in range(100):
            state, result = step(state, jnp.asarray(first, jnp.int32), jax.random.key(0))
            expected.append(float(result.reward))
        assert np.count_nonzero(expected) == 1
        rewards, _, _ = episode(DiscountingChain(best_chain=2), first)
        np.testing.assert_allclose(rewards, expected, rtol=1e-7)


def test_impossible_chains_are_refused() -> None:
    with pytest.raises(ValueError, match=r"best_chain = 5 .* 0 to 4"):
        DiscountingChain(5)
    with pytest.raises(ValueError, match=r"delays = \(1, 7\).*num_steps = 6"):
        DiscountingChain(0, delays=(1, 7), num_steps=6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_aimed_reward_is_greatest_at_what_is_seen(seed: int) -> None:
    probe = AimedReward()
    state, seen = probe.reset(key=jax.random.key(seed))
    grid = np.linspace(-1.0, 1.0, 41)
    step = jax.vmap(lambda action: probe.step(state, action[None], key=jax.random.key(0))[1])(jnp.asarray(grid))
    np.testing.assert_allclose(grid[np.argmax(step.reward)], seen.view[0])
    np.testing.assert_allclose(step.reward, 1 - (grid - float(seen.view[0])) ** 2)
    assert step.terminated.all() and abs(float(seen.view[0])) == 0.5
    np.testing.assert_allclose(step.reward.max(), probe.optimal_values(0.9).values)
