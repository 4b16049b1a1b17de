"""The configuration of a run: frozen dataclasses, pure Python, checked before JAX is imported.

Defaults are a plain learner's, which learns no meta-parameter; presets have the values of a demonstration or a paper.
Where a default comes from a publication or another code base the comment beside it says so: [B21] Bonnet et al. 2021
(arXiv 2111.00206), [B22] Bonnet et al. 2022 (arXiv 2211.10550), [X18] Xu et al. 2018 (arXiv 1805.09801), [J] Jumanji's
own A2C configuration for Snake (n_steps 20, batch 128, discount .997, lambda .95, value cost 1, entropy cost .01,
learning rate 3e-4). Everything else was chosen here.

"Environment steps" counts every step of every environment, also those whose batch is for the outer loss alone.
"""

import dataclasses
import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, TypeAlias

import tyro

from gradweave.config.hyperparameters import Range
from gradweave.config.learners import LEARNERS
from gradweave.config.learners.sections import InnerSection, NetworkSection, OuterSection
from gradweave.config.specs import Spec
from gradweave.config.tuners import TunerRow, parse_tuners
from gradweave.errors import ConfigError, nearest_name

__all__ = [
    "DEFAULT_LEARNER",
    "Config",
    "EnvironmentConfig",
    "EnvironmentOption",
    "MetaConfig",
    "NumDevices",
    "RunConfig",
    "Tracker",
]

Optimizer: TypeAlias = Literal["adam", "rmsprop", "sgd"]
Schedule: TypeAlias = Literal["none", "network", "rewards"]
Tracker: TypeAlias = Literal["none", "tensorboard", "wandb", "trackio"]
OnNonFinite: TypeAlias = Literal["stop", "skip"]
EnvironmentOption: TypeAlias = bool | int | float | str
Finish: TypeAlias = Literal["all", "none"]
MetaPreset: TypeAlias = Literal["none", "auto"]
NumDevices: TypeAlias = int | Literal["all"]

_NAMES: Final = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[NAME [NAME ...]]",
    instance_from_str=tuple,
    is_instance=lambda names: isinstance(names, tuple),
    str_from_instance=lambda names: [name.rstrip("_") for name in names],
)
"""Names as users write them: lambda, not lambda_."""

DEFAULT_LEARNER: Final = "actor-critic"


@dataclass(frozen=True)
class EnvironmentConfig:
    """The environment and its options."""

    name: str = "snake"
    """One of `gradweave environments`, or package.module:Class of your own. Its options are flags of their own, such as
    --environment.options.num-rows 6; every environment has --environment.options.action-mask False, which hides the
    action mask from the agent."""
    options: Annotated[Mapping[str, EnvironmentOption], tyro.conf.Suppress] = field(default_factory=dict)
    """Options for `make_environment(name, **options)`; those left out have the environment's own defaults."""


@dataclass(frozen=True)
class MetaConfig:
    """Meta-parameters, and how they are tuned."""

    learned: Annotated[tuple[str, ...], _NAMES] = ()
    """Meta-parameters to tune, of: discount lambda entropy_cost value_cost learning_rate; of V-trace also
    alpha policy_cost auxiliary_discount auxiliary_lambda auxiliary_cost. None: plain learning."""
    max_discount: float | None = None
    """Upper end of the learned discount's range, above inner.discount and at most 1; None: 1."""
    max_learning_rate: float | None = None
    """Upper end of the learned learning rate's range, which it approaches and can come back from; above
    inner.learning_rate. None: no end."""
    num_inner_steps: int = 1
    """Inner updates in one window (L); the meta-parameters move once per window."""
    estimator: str = "unrolled"
    """The meta-gradient: unrolled, truncated:M, horizon:K, horizon-mix[:WEIGHTS], truncation-mix[:WEIGHTS],
    adaptive-mix[:CRITERION], trace[:DECAY], bootstrapped[:STEPS] or random-truncation[:PROBABILITY]. WEIGHTS: uniform,
    geometric:RATIO, or one number for each inner step, as in 0.5,0.3,0.2. See the page Choosing an estimator."""
    mode: str = "auto"
    """Mode of differentiation: auto, mixed, reverse[:REMAT] or forward; every mode gives the same gradient, at another
    cost. Auto: forward for a single number over several updates, otherwise mixed, where they serve. REMAT, to compute
    activations again: step, or the updates of a segment."""
    optimizer: Optimizer = "adam"
    """Meta-optimiser."""
    learning_rate: float = 1e-2
    """Step size of the meta-optimiser, on the unconstrained meta-parameters."""
    eps_root: float = 0.0  # [B22] 1e-8
    """Added inside the root of the meta-optimiser's second moment; not needed, but some published code has it."""
    max_grad_norm: float | None = None  # [B22] clips at .1
    """Clip the meta-gradient's global norm; None does not clip."""
    sampling_correction: float = 0.0
    """Weight of the meta-parameters' influence on the data, 0 (none) to 1 (full, with more variance)."""
    schedule: Schedule = "none"
    """A small network moves the meta-parameters, and is itself learned. Network: by statistics of learning; rewards: by
    the mean rewards of the last ten rollouts."""
    tuners: tuple[str, ...] = ()
    """Rules that move a meta-parameter each without a gradient: learning_rate=kl[:TARGET[,MOST]],
    learning_rate=kl-anneal[:GOAL], entropy_cost=target-entropy[:NATS],
    entropy_cost=entropy-share[:SHARE[,LOWEST,HIGHEST]], NAME=evolution[:SIGMA], NAME=return-choice:V1,V2,...,
    value_clip_range=error-scale[:SCALE], NAME=bounds:LOWEST,HIGHEST, or NAME=package.module:Class[:NUMBERS] of your
    own. See the page Tuners."""
    guard: bool = False
    """Go back to the learner and the meta-parameters of the best returns when they have been lost for long."""
    trust_region: float | None = None
    """Cut a move of the learned meta-parameters after which the next update would move the policy by more than this, in
    nats; None does not."""
    preset: MetaPreset = "none"
    """Auto: tune the meta-parameters for which tuning was found to pay, each by a method that can see its effect (page
    Tuners), in the place of the tuning of a preset or a file; flags change it further. None: the preset's tuning, or
    no tuning if that is auto."""

    def __post_init__(self) -> None:
        """Call the meta-parameters as the fields are called, where a word of Python's has an underscore."""
        learned = tuple(f"{name}_" if keyword.iskeyword(name) else name for name in self.learned)
        object.__setattr__(self, "learned", learned)


@dataclass(frozen=True)
class RunConfig:
    """Length, intervals and output of a run."""

    total_steps: int = 2_000_000
    """Environment steps of the whole run, rounded up to whole chunks of meta-steps."""
    seed: int = 0
    """Seed of all randomness, 0 to 2**32 - 1."""
    devices: NumDevices = 1
    """Devices of each process over which the environments are split; all: as many as there are."""
    runs_dir: str = "runs"
    """Folder in which the run's own folder is made."""
    track: Tracker = "none"
    """Also send metrics to tensorboard, wandb or trackio (each from the extra of that name)."""
    log_every: int = 1
    """Meta-steps between two lines of metrics.jsonl; every chunk ends with one as well."""
    chunk_size: int = 20
    """Meta-steps computed on the device between two returns to the host."""
    on_nonfinite: OnNonFinite = "stop"
    """Action at a value that is not finite: stop, or skip the window that it comes from, whose steps count."""
    checkpoint_every: int = 200_000
    """Environment steps between two checkpoints; 0: only at the end and when stopped."""
    keep_checkpoints: int = 3
    """Newest checkpoints kept."""
    evaluate_every: int = 200_000
    """Environment steps between two evaluations; 0: only at the end."""
    evaluation_episodes: int = 32
    """Episodes of one evaluation."""
    max_episode_steps: int = 4000
    """Steps after which an evaluation episode is cut off."""
    measure_samples: int = 128
    """Samples of the meta-gradient when its bias and variance are measured."""
    finish: Finish = "all"
    """Results made after training: all (an animation, a measurement, figures and a report) or none."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a run. The sections network, inner and outer are of the classes that the learner has."""

    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    network: NetworkSection = field(default_factory=lambda: LEARNERS[DEFAULT_LEARNER].network())
    inner: InnerSection = field(default_factory=lambda: LEARNERS[DEFAULT_LEARNER].inner())
    meta: MetaConfig = field(default_factory=MetaConfig)
    outer: OuterSection = field(default_factory=lambda: LEARNERS[DEFAULT_LEARNER].outer())
    run: RunConfig = field(default_factory=RunConfig)
    preset: str = "quick"
    learner: str = DEFAULT_LEARNER

    @property
    def window_steps(self) -> int:
        """Environment steps of one meta-step: num_envs x num_steps x num_inner_steps, twice that with outer rollouts of
        their own.
        """
        rollouts = self.meta.num_inner_steps * (2 if self.own_outer_rollouts else 1)
        return self.inner.num_envs * self.inner.num_steps * rollouts

    @property
    def own_outer_rollouts(self) -> bool:
        """Whether rollouts are collected for the outer loss alone; plain learning has no use for them."""
        return self.outer.rollout == "own" and bool(self.meta.learned)

    @property
    def num_meta_steps(self) -> int:
        """Meta-steps of the whole run: total_steps in windows, rounded up."""
        return -(-self.run.total_steps // self.window_steps)

    @property
    def planned_windows(self) -> int:
        """Meta-steps of the whole run in whole chunks."""
        return -(-self.num_meta_steps // self.run.chunk_size) * self.run.chunk_size

    @property
    def planned_steps(self) -> int:
        """Environment steps that the whole run takes: the first rollout, and total_steps in whole chunks."""
        return self.inner.num_envs * self.inner.num_steps + self.planned_windows * self.window_steps

    @property
    def twice_as_long(self) -> int:
        """The `total_steps` of a run of twice as many whole chunks; the first rollout comes on top of them."""
        return 2 * (self.planned_steps - self.inner.num_envs * self.inner.num_steps)

    @property
    def learned_names(self) -> tuple[str, ...]:
        """Names of the numbers that are tuned, as in the metrics."""
        return LEARNERS[self.learner].names(self.inner, self.meta.learned)

    @property
    def moving_names(self) -> tuple[str, ...]:
        """Names of the numbers that the meta-gradient or a tuner moves."""
        return (*self.learned_names, *self.tuners)

    @property
    def hyperparameters(self) -> Mapping[str, Range]:
        """Those of its learner that have an effect under its options, with their ranges."""
        return LEARNERS[self.learner].active(self.inner)

    @property
    def tuners(self) -> dict[str, Spec[TunerRow]]:
        """The tuners by the names of their hyper-parameters; under `auto` without those that would have no effect.

        Raises:
            ConfigError: as `parse_tuners`.
        """
        learner, texts = LEARNERS[self.learner], self.meta.tuners
        if self.meta.preset == "auto":
            idle = learner.idle(self.inner)
            texts = tuple(text for text in texts if text.partition("=")[0] not in idle)
        return parse_tuners(texts, self.meta.learned, learner.hyperparameters)

    def with_learner(self, name: str) -> "Config":
        """The same with another learner, whose own sections have their defaults.

        Raises:
            ConfigError: there is no such learner.
        """
        if name == self.learner:
            return self
        if name not in LEARNERS:
            near = nearest_name(name, LEARNERS)
            remedy = f"did you mean {near!r}?" if near else "use one of these"
            raise ConfigError("learner", name, ", ".join(LEARNERS), remedy)
        row = LEARNERS[name]
        return dataclasses.replace(self, learner=name, network=row.network(), inner=row.inner(), outer=row.outer())

    def untuned(self) -> "Config":
        """The same without the options that only tuning reads."""
        nothing = MetaConfig()
        bounds = ("max_discount", "max_learning_rate", "trust_region")
        tuned = ("learned", "schedule", *bounds, "tuners", "guard", "preset")
        meta = dataclasses.replace(self.meta, **{name: getattr(nothing, name) for name in tuned})
        return dataclasses.replace(self, meta=meta, inner=LEARNERS[self.learner].untuned(self.inner))
