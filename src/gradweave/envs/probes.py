"""Probes of one step each: value head, observation, policy, both together, action mask, continuous actions.

| probe | what is new in it | known answer |
|---|---|---|
| `ConstantReward` | nothing to see or to choose | value 1 |
| `ObservedReward` | the reward is seen beforehand | value of the observation |
| `ChosenReward` | the reward depends on the action | the policy chooses action 1; value 1 |
| `MatchedReward` | ... and on what is seen | the policy chooses what it sees; value 1 |
| `MaskedAction` | all actions but one are forbidden, and cost 1 | value 1, from the first step on, without learning |
| `AimedReward` | the action is a number | the policy aims at what it sees; value 1 |

An agent that fails at one and passes those above it has its fault where the new thing is handled.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gradweave.envs.environment import Step
from gradweave.envs.observation import Observation
from gradweave.envs.probe import AbstractProbe, OptimalValues, ProbeState, observation_of

__all__ = ["AimedReward", "ChosenReward", "ConstantReward", "MaskedAction", "MatchedReward", "ObservedReward"]


class ConstantReward(AbstractProbe[ProbeState]):
    """One step, one action, reward 1. The value is 1: anything else is a fault of value head, loss or optimiser."""

    num_actions: int = eqx.field(static=True, default=1)
    can_truncate: bool = eqx.field(static=True, default=False)
    optimal_return: float = eqx.field(static=True, default=1.0)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Begin an episode."""
        del key
        return _state(jnp.zeros((), jnp.int32)), self._observe()

    def step(self, state: ProbeState, action: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """Reward 1, and the end."""
        del action, key
        return _end(state, self._observe(), jnp.ones((), jnp.result_type(float)))

    def optimal_values(self, discount: float) -> OptimalValues:
        """One observation, worth 1."""
        return _cases([self._observe()], [1.0])

    def _observe(self) -> Observation:
        return observation_of([1.0], jnp.ones(1, bool))


class ObservedReward(AbstractProbe[ProbeState]):
    """One step, one action; the reward is -1 or 1, equally likely, and is seen beforehand. The value is what is seen.

    A value of 0 for both means that the observation does not reach the value head.
    """

    num_actions: int = eqx.field(static=True, default=1)
    can_truncate: bool = eqx.field(static=True, default=False)
    optimal_return: float = eqx.field(static=True, default=0.0)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Draw the reward."""
        state = _state(_coin(key))
        return state, self._observe(state.context)

    def step(self, state: ProbeState, action: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """The reward that was seen, and the end."""
        del action, key
        return _end(state, self._observe(state.context), _sign(state.context))

    def optimal_values(self, discount: float) -> OptimalValues:
        """Two observations, -1 and 1, worth as much."""
        return _cases([self._observe(jnp.asarray(context, jnp.int32)) for context in (0, 1)], [-1.0, 1.0])

    def _observe(self, context: Int[Array, ""]) -> Observation:
        return observation_of(_sign(context)[None], jnp.ones(1, bool))


class ChosenReward(AbstractProbe[ProbeState]):
    """One step, two actions with rewards -1 and 1. The best policy always takes action 1, and the value is 1.

    A policy that stays even means that the policy's gradient is lost; one that takes action 0 means a wrong sign.
    """

    num_actions: int = eqx.field(static=True, default=2)
    can_truncate: bool = eqx.field(static=True, default=False)
    optimal_return: float = eqx.field(static=True, default=1.0)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Begin an episode."""
        del key
        return _state(jnp.zeros((), jnp.int32)), self._observe()

    def step(self, state: ProbeState, action: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """Reward 1 for action 1, -1 for action 0, and the end."""
        del key
        return _end(state, self._observe(), _sign(action))

    def optimal_values(self, discount: float) -> OptimalValues:
        """One observation, worth 1."""
        return _cases([self._observe()], [1.0])

    def _observe(self) -> Observation:
        return observation_of([1.0], jnp.ones(2, bool))


class MatchedReward(AbstractProbe[ProbeState]):
    """One step, two actions; reward 1 for the action whose sign is seen (-1: action 0; 1: action 1), -1 for the other.

    The best policy does as it sees, and the value is 1. A policy that stays even though `ChosenReward` is learned means
    that advantages and observations are not lined up.
    """

    num_actions: int = eqx.field(static=True, default=2)
    can_truncate: bool = eqx.field(static=True, default=False)
    optimal_return: float = eqx.field(static=True, default=1.0)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Draw the right action."""
        state = _state(_coin(key))
        return state, self._observe(state.context)

    def step(self, state: ProbeState, action: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """Reward 1 for the right action, -1 for the wrong one, and the end."""
        del key
        return _end(state, self._observe(state.context), _sign(action) * _sign(state.context))

    def optimal_values(self, discount: float) -> OptimalValues:
        """Two observations, worth 1 each."""
        return _cases([self._observe(jnp.asarray(context, jnp.int32)) for context in (0, 1)], [1.0, 1.0])

    def _observe(self, context: Int[Array, ""]) -> Observation:
        return observation_of(_sign(context)[None], jnp.ones(2, bool))


class MaskedAction(AbstractProbe[ProbeState]):
    """One step; of `num_actions` actions one alone, drawn in each episode, is allowed: reward 1, for others -1.

    The mask alone says which one it is, so no policy can do anything but right, and the value is 1 from the start. Any
    episode that does not return 1 means that the mask is not applied, or not the one that belongs to the observation.
    """

    num_actions: int = eqx.field(static=True, default=4)
    can_truncate: bool = eqx.field(static=True, default=False)
    optimal_return: float = eqx.field(static=True, default=1.0)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Draw the allowed action."""
        state = _state(jax.random.randint(key, (), 0, self.num_actions, jnp.int32))
        return state, self._observe(state.context)

    def step(self, state: ProbeState, action: Int[Array, ""], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """Reward 1 for the allowed action, -1 for the others, and the end."""
        del key
        reward = _sign((action.astype(jnp.int32) == state.context).astype(jnp.int32))
        return _end(state, self._observe(state.context), reward)

    def optimal_values(self, discount: float) -> OptimalValues:
        """One view with `num_actions` masks, each worth 1."""
        masks = [self._observe(jnp.asarray(context, jnp.int32)) for context in range(self.num_actions)]
        return _cases(masks, [1.0] * self.num_actions)

    def _observe(self, context: Int[Array, ""]) -> Observation:
        return observation_of([1.0], jnp.arange(self.num_actions, dtype=jnp.int32) == context)


class AimedReward(AbstractProbe[ProbeState]):
    """One step; the action is a number, and the reward 1 - (action - target)^2; the target, -0.5 or 0.5, is seen.

    The best policy does what it sees, without spread, and the value is 1. A policy whose mean stays at 0 means that the
    gradient by the mean is lost, one whose spread stays that the gradient by the scale is.
    """

    num_actions: int = eqx.field(static=True, default=1)
    can_truncate: bool = eqx.field(static=True, default=False)
    continuous: bool = eqx.field(static=True, default=True)
    optimal_return: float = eqx.field(static=True, default=1.0)

    def reset(self, *, key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        """Draw the target."""
        state = _state(_coin(key))
        return state, self._observe(state.context)

    def step(self, state: ProbeState, action: Float[Array, " 1"], *, key: Key[Array, ""]) -> tuple[ProbeState, Step]:
        """The better the aim the more, and the end."""
        del key
        miss = action[0].astype(jnp.result_type(float)) - _sign(state.context) / 2
        return _end(state, self._observe(state.context), 1 - miss**2)

    def optimal_values(self, discount: float) -> OptimalValues:
        """Two observations, worth 1 each."""
        return _cases([self._observe(jnp.asarray(context, jnp.int32)) for context in (0, 1)], [1.0, 1.0])

    def _observe(self, context: Int[Array, ""]) -> Observation:
        return observation_of(_sign(context)[None] / 2, jnp.ones(1, bool))


def _state(context: Int[Array, ""]) -> ProbeState:
    """The first state of an episode."""
    return ProbeState(context, jnp.zeros((), jnp.int32))


def _end(state: ProbeState, observation: Observation, reward: Float[Array, ""]) -> tuple[ProbeState, Step]:
    """The only step of an episode: it terminates."""
    step = Step(observation, reward, terminated=jnp.ones((), bool), truncated=jnp.zeros((), bool))
    return state._replace(step_count=state.step_count + 1), step


def _coin(key: Key[Array, ""]) -> Int[Array, ""]:
    """0 or 1, equally likely."""
    return jax.random.bernoulli(key).astype(jnp.int32)


def _sign(choice: Int[Array, ""]) -> Float[Array, ""]:
    """-1 for 0 and 1 for 1."""
    return 2 * choice.astype(jnp.result_type(float)) - 1


def _cases(observations: list[Observation], values: list[float]) -> OptimalValues:
    """Observations stacked, beside their values."""
    return OptimalValues(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *observations), jnp.asarray(values, jnp.result_type(float))
    )
