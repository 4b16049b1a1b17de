"""A schedule that is itself learned: a small network reads how learning goes and moves the meta-parameters.

    raw eta = base + network(features),        eta = constrain(raw eta)

after Luketina et al. 2022 (arXiv 2209.06159), who let meta-parameters depend on context where the problem is not
stationary. The base is the raw eta without a network; the network's last layer starts at zero, so that a schedule
begins as the constant it replaces. Its input, the context, is data of earlier windows: running statistics of
learning, or the rewards of the last rollouts.
"""

from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from gradweave.agents.agent import SamplingTerms
from gradweave.agents.running import RunningMean
from gradweave.agents.state import CollectedWindow
from gradweave.core import AbstractBijector, Contextual, Fixed, Unbounded, constrain
from gradweave.core.bijectors import split_learned
from gradweave.rl import EpisodeTotals

__all__ = ["LearningStatistics", "RecentRewards", "ScheduleNetwork", "ScheduleWeights", "learning_features"]

_REMEMBERED = 10  # rollouts, as in Flennerhag et al. 2021 and Luketina et al. 2022
_FAST, _SLOW = 0.8, 0.98  # memories of 5 and 50 windows
_HALF_WAY = 1000.0  # windows after which the progress feature is at one half
_TINY = 1e-8


class LearningStatistics(NamedTuple):
    """Statistics of learning: means over the last few, and the last many, windows.

    Attributes:
        recent_return: of finished episodes, short memory.
        usual_return: long memory.
        squared_return: long memory, of the square of a window's mean return.
        recent_norm: of the logarithm of the inner gradient's norm, short memory.
        usual_norm: long memory.
        num_windows: windows so far.
    """

    recent_return: RunningMean
    usual_return: RunningMean
    squared_return: RunningMean
    recent_norm: RunningMean
    usual_norm: RunningMean
    num_windows: Float[Array, ""]

    @staticmethod
    def empty() -> "LearningStatistics":
        """Before the first window."""
        empty = RunningMean.empty
        return LearningStatistics(empty(), empty(), empty(), empty(), empty(), jnp.zeros(()))

    def observe(self, episodes: EpisodeTotals, gradient_norms: Float[Array, " inner_steps"]) -> "LearningStatistics":
        """With one window more; a window in which no episode ended says nothing of returns."""
        count = episodes.num_episodes.sum()
        mean_return = episodes.sum_returns.sum() / jnp.maximum(count, 1.0)
        norm = jnp.log(gradient_norms.mean() + _TINY)
        return LearningStatistics(
            self.recent_return.add(mean_return, _FAST, count),
            self.usual_return.add(mean_return, _SLOW, count),
            self.squared_return.add(mean_return**2, _SLOW, count),
            self.recent_norm.add(norm, _FAST),
            self.usual_norm.add(norm, _SLOW),
            self.num_windows + 1,
        )


class RecentRewards(NamedTuple):
    """Mean rewards of the last rollouts.

    Attributes:
        rewards: mean reward per step of the last ten rollouts, the newest last; 0 before the first.
    """

    rewards: Float[Array, " rollouts"]

    @staticmethod
    def empty() -> "RecentRewards":
        """Before the first window."""
        return RecentRewards(jnp.zeros(_REMEMBERED))

    def observe(self, rewards: Float[Array, " inner_steps"]) -> "RecentRewards":
        """With the rollouts of one window more."""
        return RecentRewards(jnp.concatenate([self.rewards, rewards])[-_REMEMBERED:])


Context: TypeAlias = LearningStatistics | RecentRewards


class ScheduleWeights(NamedTuple):
    """Learned weights of a schedule.

    Attributes:
        base: unconstrained meta-parameters, to which the network's output is added.
        layers: the network's (weights, biases), a tuple of pairs.
    """

    base: PyTree
    layers: PyTree


class ScheduleNetwork(eqx.Module):
    """A small perceptron from a context to changes of the learned meta-parameters. An option of self-tuning agents.

    Not for forward mode, whose cost grows with the number of weights (some dozens). Nor for short runs: every weight's
    meta-gradient is as noisy as a constant's, and there are many more of them.

    Attributes:
        hidden: units of each hidden layer; may be empty, for a linear schedule.
        reads: the context. "learning": `learning_features`, which needs a `GradientLearner`. "rewards": the mean
            rewards of the last ten rollouts (Flennerhag et al. 2021, arXiv 2109.04504), which needs `Agent.sampling`.
    """

    hidden: tuple[int, ...] = eqx.field(static=True, default=(8,))
    reads: str = eqx.field(static=True, default="learning")

    def __check_init__(self) -> None:
        if self.reads not in ("learning", "rewards"):
            raise ValueError(f'ScheduleNetwork(reads={self.reads!r}): give "learning" or "rewards".')
        if any(size < 1 for size in self.hidden):
            raise ValueError(f"ScheduleNetwork(hidden={self.hidden}): layers need at least one unit each.")

    def init(self, raw: PyTree, spec: PyTree, *, key: Key[Array, ""]) -> Contextual:
        """Raw meta-parameters of an agent with this schedule: base values `raw`, a fresh network, an empty context."""
        context = (LearningStatistics if self.reads == "learning" else RecentRewards).empty()
        num_learned = ravel_pytree(split_learned(raw, spec)[0])[0].size
        sizes = (_features(context).size, *self.hidden, num_learned)
        keys = jax.random.split(key, len(sizes))
        layers = [
            (jax.random.normal(one, (fan_out, fan_in)) / jnp.sqrt(float(fan_in)), jnp.zeros(fan_out))
            for one, fan_in, fan_out in zip(keys[:-1], sizes[:-1], sizes[1:], strict=True)
        ]
        layers[-1] = (jnp.zeros_like(layers[-1][0]), layers[-1][1])
        return Contextual(ScheduleWeights(raw, tuple(layers)), context)

    def spec(self, spec: PyTree) -> Contextual:
        """Bijectors of the output of `init`: the network unbounded, context and unlearned values fixed."""
        # The sum of the base and the network's output is constrained, so that the base is not.
        base = jax.tree.map(
            lambda bijector: bijector if isinstance(bijector, Fixed) else Unbounded(), spec, is_leaf=_is_bijector
        )
        return Contextual(ScheduleWeights(base, Unbounded()), Fixed())

    def raw_eta(self, weights: ScheduleWeights, context: Context, spec: PyTree) -> PyTree:
        """Unconstrained meta-parameters in this context, shaped like the base."""
        learned, fixed = split_learned(weights.base, spec)
        flat, unravel = ravel_pytree(learned)
        hidden = _features(context)
        for weight, bias in weights.layers[:-1]:
            hidden = jnp.tanh(weight @ hidden + bias)
        weight, bias = weights.layers[-1]
        return eqx.combine(unravel(flat + (weight @ hidden + bias).astype(flat.dtype)), fixed)

    def eta(self, weights: ScheduleWeights, context: Context, spec: PyTree) -> PyTree:
        """Natural meta-parameters in this context."""
        return constrain(self.raw_eta(weights, context, spec), spec)

    def observe(self, context: Context, window: CollectedWindow, terms: SamplingTerms | None) -> Context:
        """The context after one window more.

        Args:
            context: before.
            window: its rollouts are read from the second one on: the first belongs to the window before.
            terms: of the agent; None will do for "learning".
        """
        if isinstance(context, LearningStatistics):
            return context.observe(window.episodes, window.aux["gradient_norm"])
        assert terms is not None
        length = window.episodes.num_episodes.shape[0]
        later = jax.vmap(terms.mean_reward)(jax.tree.map(lambda leaf: leaf[1:length], window.batches))
        return context.observe(jnp.append(later, terms.mean_reward(window.batch)))


def learning_features(statistics: LearningStatistics) -> Float[Array, " features"]:
    """Inputs of the network, each within about [-1, 1] or growing with a logarithm:

    1. the trend of returns, tanh((recent - usual) / their standard deviation);
    2. their level, sign(usual) log(1 + |usual|);
    3. the trend of gradient norms, tanh(log recent - log usual);
    4. progress, n / (n + 1000) after n windows.
    """
    usual = statistics.usual_return.mean(0.0)
    variance = statistics.squared_return.mean(0.0) - usual**2
    std = jnp.sqrt(jnp.maximum(variance, _TINY))
    trend = jnp.tanh((statistics.recent_return.mean(0.0) - usual) / std)
    level = jnp.sign(usual) * jnp.log1p(jnp.abs(usual))
    norms = jnp.tanh(statistics.recent_norm.mean(0.0) - statistics.usual_norm.mean(0.0))
    progress = statistics.num_windows / (statistics.num_windows + _HALF_WAY)
    return jnp.stack([trend, level, norms, progress])


def _features(context: Context) -> Float[Array, " features"]:
    """Inputs of the network."""
    return context.rewards if isinstance(context, RecentRewards) else learning_features(context)


def _is_bijector(node: Any) -> bool:
    return isinstance(node, AbstractBijector)
