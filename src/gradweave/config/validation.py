"""Checks a configuration before JAX is imported: every bad value with its field, accepted values and a remedy.

`find_problems` checks everything and returns the problems; `validate` raises them. Flags are named in the remedies as
the command line spells them.
"""

import dataclasses
from collections.abc import Iterator

from gradweave.config.checks import at_least, choice, fields, flag, in_range, positive, unused
from gradweave.config.estimators import ESTIMATORS, parse_estimator
from gradweave.config.hyperparameters import single
from gradweave.config.learners import LEARNERS
from gradweave.config.modes import parse_mode
from gradweave.config.numbers import unusable_numbers
from gradweave.config.presets import PRESETS
from gradweave.config.schema import Config
from gradweave.config.toml_file import mistyped
from gradweave.config.tuners import usual_choice
from gradweave.envs.catalogue import CATALOGUE
from gradweave.envs.registry import ENVIRONMENTS, explain_name, validate_environment
from gradweave.errors import ConfigError, nearest_name

__all__ = ["find_problems", "indivisible", "validate"]

_MOST_RAISED = 1e6  # further below its upper end a sigmoid's values are lost in single precision


def validate(config: Config, *, num_processes: int = 1) -> None:
    """Raise when `config` cannot be run.

    Args:
        config: the one to check.
        num_processes: processes that share the environments, each with `run.devices` devices.

    Raises:
        ConfigError: the first bad value; the others are in its `others` and in its message.
    """
    problems = find_problems(config, num_processes=num_processes)
    if problems:
        first = problems[0]
        raise ConfigError(first.field, first.value, first.accepted, first.remedy, others=problems[1:])


def find_problems(config: Config, *, num_processes: int = 1) -> list[ConfigError]:
    """Every bad value of `config`, in the order of its fields; empty when it can be run."""
    unusable = list(mistyped(config)) or list(unusable_numbers(config))
    if unusable:  # the other checks count with them
        return unusable
    checks = (_preset, _environment, _learner, _learned, _meta, _meta_options, _run)
    found = [problem for check in checks for problem in check(config)]
    order = ["preset", *(field.name for field in dataclasses.fields(config))]
    problems = sorted(found, key=lambda problem: order.index(problem.field.partition(".")[0]))
    devices = config.run.devices
    if devices == "all" or devices > 0:  # how many "all" are is known once JAX is there
        problem = indivisible(config, num_processes * (1 if devices == "all" else devices))
        problems += [] if problem is None else [problem]
    return problems


def indivisible(config: Config, num_devices: int) -> ConfigError | None:
    """The problem, if the environments cannot be split evenly over a number of devices."""
    num_envs = config.inner.num_envs
    if num_envs < 1 or num_envs % num_devices == 0:
        return None
    accepted = f"a multiple of the number of devices ({num_devices})"
    fewer = next(count for count in range(min(num_devices, num_envs), 0, -1) if num_envs % count == 0)
    remedy = f"--inner.num-envs {-(-num_envs // num_devices) * num_devices}, or {fewer} devices in all (--devices)"
    return ConfigError("inner.num_envs", num_envs, accepted, remedy)


def _preset(config: Config) -> Iterator[ConfigError]:
    yield from choice("preset", config.preset, tuple(PRESETS))


def _environment(config: Config) -> Iterator[ConfigError]:
    name = config.environment.name
    unknown = explain_name(name)
    if unknown is not None:
        yield ConfigError("environment.name", name, *unknown)
        return
    if name not in ENVIRONMENTS:  # a class of the user's, which checks its options when it is made
        return
    known = ENVIRONMENTS[name]
    for option, value in config.environment.options.items():
        field = f"environment.options.{option}"
        if option not in known:
            near = nearest_name(option, known)
            accepted = f"{name} takes {', '.join(known)}"
            remedy = f"did you mean {flag(f'environment.options.{near}')}?" if near else f"leave {flag(field)} out"
            yield ConfigError(field, value, accepted, remedy)
        elif not known[option].accepts(value):
            yield ConfigError(field, value, str(known[option]), f"set {flag(field)} to such a value")
    if not CATALOGUE[name].continuous:
        for field in sorted({"action_distribution", "action_scale"} & set(vars(config.network))):
            default = getattr(LEARNERS[config.learner].network(), field)
            reader = "choose an environment with continuous actions"
            yield from unused(f"network.{field}", getattr(config.network, field), default, reader)
    try:
        validate_environment(name, {})
    except ValueError as error:  # the suite is not installed
        yield ConfigError("environment.name", name, "environments whose package is installed", str(error))


def _learner(config: Config) -> Iterator[ConfigError]:
    learner, inner = LEARNERS[config.learner], config.inner
    yield from at_least("inner", fields(inner, "num_envs", "num_steps"), 1)
    for name, limits in config.hyperparameters.items():
        value, is_learned = getattr(inner, name), name in config.meta.learned
        accepted = limits.contains(value, learned=is_learned)
        yield from in_range(f"inner.{name}", value, limits.describe(learned=is_learned), accepted)
    for name, reader in learner.idle(inner).items():
        yield from unused(f"inner.{name}", getattr(inner, name), getattr(learner.inner(), name), reader)
    yield from choice("inner.scale_rewards", inner.scale_rewards, ("auto", "on", "off"))
    yield from choice("outer.rollout", config.outer.rollout, ("next", "own"))
    yield from learner.problems(config.network, inner, config.outer, config.meta)


def _learned(config: Config) -> Iterator[ConfigError]:
    learned = config.meta.learned
    known = LEARNERS[config.learner].hyperparameters
    learnable = tuple(name for name, limits in known.items() if limits.differentiable)
    for name in dict.fromkeys(learned):
        if name in known and name not in learnable:
            names = ", ".join(one.rstrip("_") for one in learnable)
            accepted = f"some of {names}; the derivative of an update by {name} is 0 almost everywhere"
            effective = LEARNERS[config.learner].idle(config.inner).get(name)
            first = f"{effective} " if effective else ""
            remedy = f"a tuner needs none: {first}--meta.tuners {name}={usual_choice(name, known[name])}"
            yield ConfigError("meta.learned", name, accepted, remedy)
        else:
            yield from choice("meta.learned", name, learnable)
    if len(set(learned)) != len(learned):
        unique = " ".join(dict.fromkeys(learned))
        yield ConfigError("meta.learned", learned, "each name once", f"--meta.learned {unique}")
    bound = config.meta.max_discount
    if "discount" not in learned:
        yield from unused("meta.max_discount", bound, None, "add discount to --meta.learned")
    elif bound is not None and not (
        single(start := getattr(config.inner, "discount", 0.0)) < single(bound) and bound <= 1
    ):
        accepted = f"a number above inner.discount ({start:g}), where it starts, and at most 1"
        remedy = "set --meta.max-discount to such a value, or --inner.discount to a lower one"
        yield ConfigError("meta.max_discount", bound, accepted, remedy)
    bound = config.meta.max_learning_rate
    if "learning_rate" not in learned:
        yield from unused("meta.max_learning_rate", bound, None, "add learning_rate to --meta.learned")
    elif bound is not None and not (
        single(start := getattr(config.inner, "learning_rate", 0.0)) < single(bound) <= _MOST_RAISED * start
    ):
        accepted = (
            f"a number above inner.learning_rate ({start:g}), where it starts, and at most {_MOST_RAISED:g} times it"
        )
        remedy = "set --meta.max-learning-rate to such a value, or --inner.learning-rate to another"
        yield ConfigError("meta.max_learning_rate", bound, accepted, remedy)


def _meta(config: Config) -> Iterator[ConfigError]:
    meta = config.meta
    num_inner_steps = meta.num_inner_steps
    yield from at_least("meta", {"num_inner_steps": num_inner_steps}, 1)
    yield from _estimator_and_mode(config)
    yield from _tuners(config)
    yield from choice("meta.optimizer", meta.optimizer, ("adam", "rmsprop", "sgd"))
    yield from positive("meta", {"learning_rate": meta.learning_rate, "max_grad_norm": meta.max_grad_norm})
    yield from at_least("meta", {"eps_root": meta.eps_root}, 0)
    if meta.eps_root > 0 and meta.optimizer != "adam":
        remedy = "--meta.optimizer adam, or leave --meta.eps-root out"
        yield ConfigError("meta.eps_root", meta.eps_root, f"0 for the meta-optimiser {meta.optimizer}", remedy)


def _estimator_and_mode(config: Config) -> Iterator[ConfigError]:
    meta = config.meta
    if meta.num_inner_steps < 1:  # which is a problem of its own, and bounds nothing
        return
    rho = meta.sampling_correction
    try:
        row = parse_estimator(meta.estimator, meta.num_inner_steps).row
        if rho > 0 and not row.linear:
            linear = [row.name for row in ESTIMATORS if row.linear]
            yield ConfigError(
                "meta.sampling_correction",
                rho,
                f"0 for the estimator {row.name}; it needs one of {', '.join(linear)}",
                f"--meta.estimator {linear[0]}, or leave --meta.sampling-correction out",
            )
        parse_mode(meta.mode, row, meta.num_inner_steps, learner=LEARNERS[config.learner].modes)
    except ConfigError as problem:
        yield problem


def _tuners(config: Config) -> Iterator[ConfigError]:
    meta = config.meta
    try:
        idle = LEARNERS[config.learner].idle(config.inner)
        for name in config.tuners:
            if name in idle:
                accepted = f"tuners of what has an effect, which {name} has only with {idle[name]}"
                yield ConfigError("meta.tuners", meta.tuners, accepted, f"{idle[name]}, or leave that tuner out")
    except ConfigError as problem:
        if meta.preset == "auto" and "not moved by" in problem.accepted:
            remedy = "--meta.preset none, which takes auto's tuners away, or leave one of the two out"
            problem = ConfigError(problem.field, problem.value, problem.accepted, remedy)
        yield problem
    if meta.tuners and meta.schedule != "none":
        accepted = "none with a schedule, which moves every meta-parameter by itself"
        yield ConfigError("meta.tuners", meta.tuners, accepted, "leave --meta.schedule or --meta.tuners out")


def _meta_options(config: Config) -> Iterator[ConfigError]:
    meta = config.meta
    rho = meta.sampling_correction
    yield from in_range("meta.sampling_correction", rho, "a number in [0, 1]", 0 <= rho <= 1)
    if rho > 0 and config.outer.rollout == "own":
        yield ConfigError(
            "meta.sampling_correction",
            rho,
            "0 with outer rollouts of their own: it corrects batches that update and evaluate",
            "leave --outer.rollout or --meta.sampling-correction out",
        )
    yield from choice("meta.schedule", meta.schedule, ("none", "network", "rewards"))
    yield from positive("meta", {"trust_region": meta.trust_region})
    if not meta.learned:
        yield from unused("meta.trust_region", meta.trust_region, None, "learn something: --meta.learned discount")
    yield from choice("meta.preset", meta.preset, ("none", "auto"))
    if meta.schedule != "none" and not meta.learned:
        yield ConfigError(
            "meta.schedule",
            meta.schedule,
            "'none' when no meta-parameter is learned",
            "name some in --meta.learned, or leave --meta.schedule out",
        )


def _run(config: Config) -> Iterator[ConfigError]:
    run = config.run
    counts = ("log_every", "chunk_size", "keep_checkpoints", "evaluation_episodes", "max_episode_steps")
    yield from at_least("run", fields(run, *counts), 1)
    yield from at_least("run", {"measure_samples": run.measure_samples}, 2)
    if run.devices != "all":
        yield from at_least("run", {"devices": run.devices}, 1)
    if run.devices != 1 and not LEARNERS[config.learner].splits:
        yield ConfigError("run.devices", run.devices, f"1 for the learner {config.learner}", "leave --devices out")
    yield from at_least("run", fields(run, "checkpoint_every", "evaluate_every"), 0)
    yield from choice("run.finish", run.finish, ("all", "none"))
    yield from choice("run.track", run.track, ("none", "tensorboard", "wandb", "trackio"))
    yield from choice("run.on_nonfinite", run.on_nonfinite, ("stop", "skip"))
    yield from in_range("run.seed", run.seed, "a whole number from 0 to 2**32 - 1", 0 <= run.seed < 2**32)
    if not run.runs_dir or "\0" in run.runs_dir or not _is_text(run.runs_dir):
        yield ConfigError("run.runs_dir", run.runs_dir, "the name of a folder, in UTF-8", "--runs-dir runs")
    window = config.window_steps
    if window > 0 and run.total_steps < window:
        yield ConfigError(
            "run.total_steps",
            run.total_steps,
            f"at least one window, {window} environment steps "
            f"({config.inner.num_envs} envs x {config.inner.num_steps} steps x {config.meta.num_inner_steps} updates"
            f"{', as many for the outer loss' if config.own_outer_rollouts else ''})",
            f"--total-steps {window}, or lower --inner.num-envs, --inner.num-steps or --meta.num-inner-steps",
        )


def _is_text(name: str) -> bool:
    """Whether a name can be written to a file; on the command line it may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
