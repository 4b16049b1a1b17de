"""Options of the actor-critic: its network, its inner and its outer loss.

A meta-parameter is one row here, a field of `InnerConfig` made by `hyperparameter`: the flag, the check, the range in
which it is learned and the name in the metrics follow from it. The loss has to read it, as a field of `ActorCriticEta`
of the same name.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

import tyro

from gradweave.config.checks import at_least, choice, fields, flag, in_range, positive, unused
from gradweave.config.hyperparameters import hyperparameter, hyperparameters_of
from gradweave.config.learners.sections import (
    InnerSection,
    NetworkSection,
    OptimizerSection,
    OuterSection,
    optimizer_problems,
)
from gradweave.errors import ConfigError

__all__ = [
    "HYPERPARAMETERS",
    "LEARNABLE",
    "PARTS",
    "InnerConfig",
    "NetworkConfig",
    "OuterConfig",
    "critic_apart",
    "has_outer_critic",
    "learned_names",
    "memory_problems",
    "network_problems",
    "outer_problems",
    "problems",
    "torso_problems",
    "untuned",
]

Critic: TypeAlias = Literal["auto", "on", "off"]
OuterTorso: TypeAlias = Literal["detached", "own", "shared"]
Targets: TypeAlias = Literal["differentiated", "stopped"]
Memory: TypeAlias = Literal["none", "gru", "s5"]
RateGroups: TypeAlias = Literal["all", "parts"]
Activation: TypeAlias = Literal["relu", "tanh", "swish"]
Distribution: TypeAlias = Literal["gaussian", "tanh-gaussian"]
ActionScale: TypeAlias = Literal["independent", "dependent"]

PARTS: Final = ("policy", "torso", "value")
"""The parts of the network, each with a learning rate of its own when `inner.learning_rate_groups` is "parts"."""


@dataclass(frozen=True)
class NetworkConfig(NetworkSection):
    """The actor-critic's network."""

    channels: tuple[int, ...] = (16, 16)
    """Channels of each convolution; ignored where observations are vectors."""
    strides: tuple[int, ...] = (2, 1)  # [B22]
    """Stride of each convolution."""
    kernel_size: int = 2  # [B22]
    """Height and width of each convolution's kernel, in cells."""
    policy_layers: tuple[int, ...] = (64, 64)  # [B22]
    """Units of each hidden layer of the policy head."""
    value_layers: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of the value head, and of the outer critic's."""
    policy_scale: float = 0.01  # Andrychowicz et al. 2020 (arXiv 2006.05990); [B22] and [J] 1
    """Factor on the initial weights of the last policy layer; small ones begin with a nearly uniform policy."""
    activation: Activation = "relu"
    """Between the layers; tanh explores further on small vectors."""
    action_distribution: Distribution = "gaussian"
    """Of continuous actions: normal and clipped by the environment, or squashed into its range by a tangent."""
    action_scale: ActionScale = "independent"
    """Standard deviations of continuous actions: the same whatever is seen, or put out by the network (dependent)."""
    shared_torso: bool = True
    """One torso for policy and value, or one each."""
    outer_torso: OuterTorso = "detached"
    """The outer critic's: the value's, which it reads and does not move; one of its own; or shared with the value."""
    memory: Memory = "none"
    """Memory between torso and heads: none, a gru or an s5 (linear) cell."""
    memory_size: int = 64
    """Numbers that the heads read of the memory."""


@dataclass(frozen=True)
class InnerConfig(OptimizerSection, InnerSection):
    """The learner; discount, lambda, costs and learning rate are where the meta-parameters start."""

    discount: float = hyperparameter(0.99, 0.0, 1.0)  # [J] .997
    """Discount, in (0, 1)."""
    lambda_: Annotated[float, tyro.conf.arg(name="lambda")] = hyperparameter(0.95, 0.0, 1.0, closed=True)  # [J]
    """Mixing of the lambda-return, in [0, 1]."""
    entropy_cost: float = hyperparameter(0.01, 0.0, closed=True)  # [J]
    """Weight of the entropy bonus, > 0 when learned."""
    value_cost: float = hyperparameter(0.5, 0.0, closed=True)  # [B22]; [J] 1
    """Weight of the value loss, > 0 when learned."""
    learning_rate: float = hyperparameter(1e-3, 0.0)  # [J] 3e-4
    """Step size of the inner optimiser, > 0."""
    learning_rate_groups: RateGroups = "all"
    """One learning rate for all parameters, or one for each part (torso, policy head, value heads); all start alike."""
    microbatches: int = 0
    """Parts into which a batch is split for gradients, which are averaged; 0: as suits the processor's cache."""
    targets: Targets = "differentiated"
    """Stopped: the usual code, whose meta-gradients are wrong from two inner updates on; for comparison only."""


HYPERPARAMETERS: Final = hyperparameters_of(InnerConfig)
"""The fields of `InnerConfig` that the meta-gradient may tune, with the ranges they are learned in."""

LEARNABLE: Final = tuple(HYPERPARAMETERS)
"""Their names."""


@dataclass(frozen=True)
class OuterConfig(OuterSection):
    """The outer loss, which the meta-parameters are tuned for."""

    discount: float = 0.997  # [J]
    """Discount of the outer returns, in (0, 1]."""
    lambda_: Annotated[float, tyro.conf.arg(name="lambda")] = 0.95  # [J]
    """Mixing of the outer lambda-return, in [0, 1]."""
    value_cost: float = 0.0  # [B22]
    """Weight of the value loss in the outer loss; 0 leaves the policy term only."""
    entropy_cost: float = 0.0
    """Weight of the entropy bonus in the outer loss."""
    kl_cost: float = 0.0  # Zahavy et al. 2020 (arXiv 2002.12928) use 1
    """Weight of the divergence from the policy before the window; 0 leaves it out."""
    standardize_advantages: bool = False
    """Standardise the outer advantages by their running mean and standard deviation."""
    critic_cost: float = 0.5
    """Weight of the outer critic's value loss in the inner loss; on a shared torso it competes with the policy."""
    critic: Critic = "auto"  # [B22]: on whenever the discount is learned
    """A second value head trained at the outer discount and lambda; auto: on when the discount is learned."""


def has_outer_critic(outer: OuterConfig, learned: tuple[str, ...]) -> bool:
    """Whether the outer loss has its own value head, with `auto` resolved."""
    return "discount" in learned if outer.critic == "auto" else outer.critic == "on"


def critic_apart(network: NetworkConfig, inner: InnerConfig, outer: OuterConfig, learned: tuple[str, ...]) -> bool:
    """Whether the outer critic supplies constants, so that the meta-gradient need not be taken through it."""
    attached = network.outer_torso == "shared" or outer.value_cost > 0
    return has_outer_critic(outer, learned) and not attached and inner.max_grad_norm is None


def learned_names(inner: InnerConfig, learned: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the numbers that are tuned, as in the metrics; learning rates of parts are apart."""
    names: list[str] = []
    for name in learned:
        parts = name == "learning_rate" and inner.learning_rate_groups == "parts"
        names += [f"{name}/{part}" for part in PARTS] if parts else [name]
    return tuple(names)


def untuned(inner: InnerConfig) -> InnerConfig:
    """The options of plain learning."""
    return dataclasses.replace(inner, learning_rate_groups="all")


def problems(network: NetworkConfig, inner: InnerConfig, outer: OuterConfig, meta: Any) -> Iterator[ConfigError]:
    """Errors in these options, given the section [meta]."""
    yield from network_problems(network)
    yield from memory_problems(network, inner)
    yield from torso_problems(network, inner, outer, has_outer_critic(outer, meta.learned))
    yield from _inner(inner, meta.learned)
    yield from outer_problems(outer)
    if meta.sampling_correction > 0 and outer.standardize_advantages:
        yield ConfigError(
            "meta.sampling_correction",
            meta.sampling_correction,
            "0 with standardised advantages: it weighs rewards in their own units",
            "leave --outer.standardize-advantages or --meta.sampling-correction out",
        )
    if meta.schedule == "rewards" and outer.standardize_advantages:
        accepted = "none or network with standardised advantages: it reads rewards in their own units"
        yield ConfigError("meta.schedule", "rewards", accepted, "leave --outer.standardize-advantages out")


def network_problems(network: NetworkConfig) -> Iterator[ConfigError]:
    """Errors in the options of a network."""
    yield from at_least("network", {"kernel_size": network.kernel_size}, 1)
    yield from positive("network", {"policy_scale": network.policy_scale})
    yield from choice("network.activation", network.activation, ("relu", "tanh", "swish"))
    yield from choice("network.action_distribution", network.action_distribution, ("gaussian", "tanh-gaussian"))
    yield from choice("network.action_scale", network.action_scale, ("independent", "dependent"))
    for name in ("channels", "strides", "policy_layers", "value_layers"):
        sizes = getattr(network, name)
        if any(size < 1 for size in sizes):
            yield ConfigError(f"network.{name}", sizes, "numbers of at least 1", f"set {flag('network.' + name)}")
    if len(network.channels) != len(network.strides):
        yield ConfigError(
            "network.strides",
            network.strides,
            f"one stride for each convolution: {len(network.channels)} numbers",
            f"{flag('network.strides')} {_repeat_last(network)}",
        )


def memory_problems(network: NetworkConfig, inner: InnerSection) -> Iterator[ConfigError]:
    """Errors in the options of a memory."""
    yield from choice("network.memory", network.memory, ("none", "gru", "s5"))
    yield from at_least("network", {"memory_size": network.memory_size}, 1)
    if network.memory == "none":
        default = NetworkConfig.memory_size
        yield from unused("network.memory_size", network.memory_size, default, "--network.memory gru")
    elif inner.num_steps == 1:
        accepted = "at least 2 with a memory, which is learned within a rollout"
        yield ConfigError("inner.num_steps", 1, accepted, "--inner.num-steps 20, or leave --network.memory out")


def _repeat_last(network: NetworkConfig) -> str:
    count = len(network.channels)
    padded = (*network.strides, *([network.strides[-1] if network.strides else 1] * count))[:count]
    return " ".join(str(stride) for stride in padded)


def _inner(inner: InnerConfig, learned: tuple[str, ...]) -> Iterator[ConfigError]:
    yield from optimizer_problems(inner)
    yield from at_least("inner", {"microbatches": inner.microbatches}, 0)
    if inner.microbatches > 1 and inner.num_envs % inner.microbatches:
        yield ConfigError(
            "inner.microbatches",
            inner.microbatches,
            f"a divisor of inner.num_envs ({inner.num_envs})",
            "leave --inner.microbatches out",
        )
    yield from choice("inner.targets", inner.targets, ("differentiated", "stopped"))
    yield from choice("inner.learning_rate_groups", inner.learning_rate_groups, ("all", "parts"))
    if inner.learning_rate_groups == "parts" and "learning_rate" not in learned:
        yield ConfigError(
            "inner.learning_rate_groups",
            "parts",
            "'all', unless the learning rate is learned",
            "add learning_rate to --meta.learned, or leave --inner.learning-rate-groups out",
        )


def outer_problems(outer: OuterConfig) -> Iterator[ConfigError]:
    """Errors in the options of an outer loss."""
    yield from in_range("outer.discount", outer.discount, "a number in (0, 1]", 0 < outer.discount <= 1)
    yield from in_range("outer.lambda_", outer.lambda_, "a number in [0, 1]", 0 <= outer.lambda_ <= 1)
    yield from at_least("outer", fields(outer, "value_cost", "entropy_cost", "kl_cost"), 0)
    yield from positive("outer", {"critic_cost": outer.critic_cost})
    yield from choice("outer.critic", outer.critic, ("auto", "on", "off"))


def torso_problems(
    network: NetworkConfig, inner: OptimizerSection, outer: OuterConfig, has_critic: bool
) -> Iterator[ConfigError]:
    """An outer critic on a detached torso whose derivative would be wanted."""
    yield from choice("network.outer_torso", network.outer_torso, ("detached", "own", "shared"))
    differentiated = {"outer.value_cost": outer.value_cost, "inner.max_grad_norm": inner.max_grad_norm or 0.0}
    reasons = [name for name, value in differentiated.items() if value > 0]
    if has_critic and network.outer_torso == "detached" and reasons:
        accepted = f"own or shared, because with {reasons[0]} the outer critic is differentiated"
        yield ConfigError("network.outer_torso", "detached", accepted, "--network.outer-torso own")
