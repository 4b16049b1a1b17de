"""Checks a configuration before JAX is imported: every bad value with its field, what is accepted and a remedy.

`find_problems` looks at everything and returns what it finds; `validate` raises it. Flags are named in the remedies as
the command line spells them.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gradweave.config.estimators import ESTIMATORS, parse_estimator
from gradweave.config.modes import parse_mode
from gradweave.training.config import LEARNABLE, Config, NetworkConfig
from gradweave.training.errors import ConfigError, nearest_name
from gradweave.training.presets import PRESETS

__all__ = ["find_problems", "indivisible", "validate"]

_DEFAULTS = Config()


def validate(config: Config, *, num_processes: int = 1) -> None:
    """Raise when `config` cannot be run.

    Args:
        config: what to check.
        num_processes: how many processes share the environments, each with `run.devices` devices.

    Raises:
        ConfigError: the first bad value; the others are in its `others` and in its message.
    """
    problems = find_problems(config, num_processes=num_processes)
    if problems:
        first = problems[0]
        raise ConfigError(first.field, first.value, first.accepted, first.remedy, others=problems[1:])


def find_problems(config: Config, *, num_processes: int = 1) -> list[ConfigError]:
    """Every bad value of `config`, in the order of its fields; empty when it can be run."""
    checks = (_preset, _environment, _network, _inner, _learned, _meta, _meta_options, _outer, _run)
    problems = [problem for check in checks for problem in check(config)]
    named = {problem.field for problem in problems}
    problems += [problem for problem in _without_effect(config) if problem.field not in named]
    devices = config.run.devices
    if devices == "all" or devices > 0:  # how many "all" are is known once JAX is there
        problem = indivisible(config, num_processes * (1 if devices == "all" else devices))
        problems += [] if problem is None else [problem]
    return problems


def indivisible(config: Config, num_devices: int) -> ConfigError | None:
    """The problem, if the environments cannot be split evenly over so many devices."""
    num_envs = config.inner.num_envs
    if num_envs < 1 or num_envs % num_devices == 0:
        return None
    accepted = f"a multiple of the number of devices ({num_devices})"
    return ConfigError(
        "inner.num_envs", num_envs, accepted, f"--inner.num-envs {-(-num_envs // num_devices) * num_devices}"
    )


def _flag(field: str) -> str:
    name = field.removeprefix("run.")
    return "--" + name.rstrip("_").replace("_", "-") + "_" * name.endswith("_")


def _in_range(field: str, value: int | float, text: str, accepted: bool) -> Iterator[ConfigError]:
    """One problem unless `accepted`; a NaN or infinity is never accepted."""
    if not (accepted and math.isfinite(value)):
        yield ConfigError(field, value, text, f"set {_flag(field)} to such a value")


def _at_least(section: str, values: Mapping[str, int | float | None], lowest: int | float) -> Iterator[ConfigError]:
    for name, value in values.items():
        if value is not None:
            yield from _in_range(f"{section}.{name}", value, f"at least {lowest}", value >= lowest)


def _positive(section: str, values: Mapping[str, int | float | None]) -> Iterator[ConfigError]:
    for name, value in values.items():
        if value is not None:
            yield from _in_range(f"{section}.{name}", value, "a finite number above 0", value > 0)


def _choice(field: str, value: str, names: tuple[str, ...]) -> Iterator[ConfigError]:
    if value not in names:
        near = nearest_name(value, names)
        remedy = f"did you mean {near!r}?" if near else f"set {_flag(field)} to one of these"
        yield ConfigError(field, value, ", ".join(names), remedy)


def _preset(config: Config) -> Iterator[ConfigError]:
    yield from _choice("preset", config.preset, tuple(PRESETS))


def _environment(config: Config) -> Iterator[ConfigError]:
    from gradweave.envs.registry import ENVIRONMENTS, validate_environment

    name, options = config.environment.name, config.environment.options()
    unknown = list(_choice("environment.name", name, tuple(ENVIRONMENTS)))
    yield from unknown
    if unknown:
        return
    known = ENVIRONMENTS[name]
    for option, value in options.items():
        flag = _flag(f"environment.{option}")
        if option not in known:
            accepted = f"{name} takes {', '.join(known) if known else 'no options'}"
            yield ConfigError(f"environment.{option}", value, accepted, f"leave {flag} out, or set it to None")
        elif not known[option].accepts(value):
            yield ConfigError(f"environment.{option}", value, str(known[option]), f"set {flag} to such a value")
    try:
        validate_environment(name, {})
    except ValueError as error:  # the suite is not installed
        yield ConfigError("environment.name", name, "environments whose package is installed", str(error))


def _network(config: Config) -> Iterator[ConfigError]:
    network = config.network
    yield from _at_least("network", {"kernel_size": network.kernel_size}, 1)
    yield from _positive("network", {"policy_scale": network.policy_scale})
    for name in ("channels", "strides", "policy_layers", "value_layers"):
        sizes = getattr(network, name)
        if any(size < 1 for size in sizes):
            yield ConfigError(f"network.{name}", sizes, "numbers of at least 1", f"set {_flag('network.' + name)}")
    if len(network.channels) != len(network.strides):
        yield ConfigError(
            "network.strides",
            network.strides,
            f"one stride for each convolution: {len(network.channels)} numbers",
            f"{_flag('network.strides')} {_repeat_last(network)}",
        )


def _repeat_last(network: NetworkConfig) -> str:
    count = len(network.channels)
    padded = (*network.strides, *([network.strides[-1] if network.strides else 1] * count))[:count]
    return " ".join(str(stride) for stride in padded)


def _inner(config: Config) -> Iterator[ConfigError]:
    inner = config.inner
    yield from _at_least("inner", {"num_envs": inner.num_envs, "num_steps": inner.num_steps}, 1)
    yield from _in_range("inner.discount", inner.discount, "a number in (0, 1)", 0 < inner.discount < 1)
    if "lambda_" in config.meta.learned:
        text = "a number in (0, 1), because it is learned"
        yield from _in_range("inner.lambda_", inner.lambda_, text, 0 < inner.lambda_ < 1)
    else:
        yield from _in_range("inner.lambda_", inner.lambda_, "a number in [0, 1]", 0 <= inner.lambda_ <= 1)
    for name in ("entropy_cost", "value_cost"):
        if name in config.meta.learned:
            yield from _positive("inner", {name: getattr(inner, name)})
        else:
            yield from _at_least("inner", {name: getattr(inner, name)}, 0)
    yield from _positive("inner", {"learning_rate": inner.learning_rate, "max_grad_norm": inner.max_grad_norm})
    yield from _choice("inner.optimizer", inner.optimizer, ("adam", "rmsprop", "sgd"))
    yield from _at_least("inner", {"eps": inner.eps}, 0)
    # Without what is added inside the root its second derivative at zero is infinite.
    if inner.optimizer == "rmsprop":
        yield from _positive("inner", {"eps": inner.eps})
    if inner.optimizer == "adam":
        yield from _positive("inner", {"eps_root": inner.eps_root})
    yield from _at_least("inner", {"microbatches": inner.microbatches}, 0)
    if inner.microbatches > 1 and inner.num_envs % inner.microbatches:
        yield ConfigError(
            "inner.microbatches",
            inner.microbatches,
            f"a divisor of inner.num_envs ({inner.num_envs})",
            "leave --inner.microbatches out",
        )
    yield from _choice("inner.targets", inner.targets, ("differentiated", "stopped"))
    yield from _choice("inner.learning_rate_groups", inner.learning_rate_groups, ("all", "parts"))
    if inner.learning_rate_groups == "parts" and "learning_rate" not in config.meta.learned:
        yield ConfigError(
            "inner.learning_rate_groups",
            "parts",
            "'all', unless the learning rate is learned",
            "add learning_rate to --meta.learned, or leave --inner.learning-rate-groups out",
        )
    decay = inner.rmsprop_decay
    yield from _in_range("inner.rmsprop_decay", decay, "a number in [0, 1)", 0 <= decay < 1)


def _learned(config: Config) -> Iterator[ConfigError]:
    learned = config.meta.learned
    for name in dict.fromkeys(learned):
        yield from _choice("meta.learned", name, LEARNABLE)
    if len(set(learned)) != len(learned):
        unique = " ".join(dict.fromkeys(learned))
        yield ConfigError("meta.learned", learned, "each name once", f"--meta.learned {unique}")
    bound, start = config.meta.max_discount, config.inner.discount
    if bound is not None and "discount" in learned and not start < bound <= 1:
        accepted = f"a number above inner.discount ({start:g}), where it starts, and at most 1"
        remedy = "set --meta.max-discount to such a value, or --inner.discount to a lower one"
        yield ConfigError("meta.max_discount", bound, accepted, remedy)


def _meta(config: Config) -> Iterator[ConfigError]:
    meta = config.meta
    num_inner_steps = meta.num_inner_steps
    yield from _at_least("meta", {"num_inner_steps": num_inner_steps}, 1)
    yield from _estimator_and_mode(config)
    yield from _choice("meta.optimizer", meta.optimizer, ("adam", "rmsprop", "sgd"))
    yield from _positive("meta", {"learning_rate": meta.learning_rate, "max_grad_norm": meta.max_grad_norm})
    yield from _at_least("meta", {"eps_root": meta.eps_root}, 0)
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
        parse_mode(meta.mode, row, meta.num_inner_steps)
    except ConfigError as problem:
        yield problem


def _meta_options(config: Config) -> Iterator[ConfigError]:
    meta = config.meta
    rho = meta.sampling_correction
    yield from _in_range("meta.sampling_correction", rho, "a number in [0, 1]", 0 <= rho <= 1)
    if rho > 0 and config.outer.standardize_advantages:
        yield ConfigError(
            "meta.sampling_correction",
            rho,
            "0 with standardised advantages: it weighs rewards in their own units",
            "leave --outer.standardize-advantages or --meta.sampling-correction out",
        )
    if rho > 0 and config.outer.rollout == "own":
        yield ConfigError(
            "meta.sampling_correction",
            rho,
            "0 with outer rollouts of their own: it corrects batches that update and evaluate",
            "leave --outer.rollout or --meta.sampling-correction out",
        )
    yield from _choice("meta.schedule", meta.schedule, ("none", "network"))
    if any(size < 1 for size in meta.schedule_layers):
        yield ConfigError(
            "meta.schedule_layers", meta.schedule_layers, "numbers of at least 1", "set --meta.schedule-layers 8"
        )
    if meta.schedule == "network" and not meta.learned:
        yield ConfigError(
            "meta.schedule",
            "network",
            "'none' when no meta-parameter is learned",
            "name some in --meta.learned, or leave --meta.schedule out",
        )


def _without_effect(config: Config) -> Iterator[ConfigError]:
    """Values that somebody chose and nothing reads."""
    inner, meta = config.inner, config.meta
    readers = (
        ("meta.max_discount", "discount" in meta.learned, "add discount to --meta.learned"),
        ("meta.schedule_layers", meta.schedule == "network", "--meta.schedule network"),
        ("inner.rmsprop_decay", inner.optimizer == "rmsprop", "--inner.optimizer rmsprop"),
        ("inner.eps_root", inner.optimizer != "rmsprop", "--inner.optimizer adam"),
    )
    for field, is_read, reader in readers:
        section, name = field.split(".")
        value, default = (getattr(getattr(whole, section), name) for whole in (config, _DEFAULTS))
        if not is_read and value != default:
            accepted = f"{default!r}, the default: nothing reads another value here"
            yield ConfigError(field, value, accepted, f"{reader}, or leave {_flag(field)} out")


def _outer(config: Config) -> Iterator[ConfigError]:
    outer = config.outer
    yield from _in_range("outer.discount", outer.discount, "a number in (0, 1]", 0 < outer.discount <= 1)
    yield from _in_range("outer.lambda_", outer.lambda_, "a number in [0, 1]", 0 <= outer.lambda_ <= 1)
    yield from _at_least("outer", _fields(outer, "value_cost", "entropy_cost", "kl_cost"), 0)
    yield from _positive("outer", {"critic_cost": outer.critic_cost})
    yield from _choice("outer.critic", outer.critic, ("auto", "on", "off"))
    yield from _choice("outer.rollout", outer.rollout, ("next", "own"))
    yield from _choice("network.outer_torso", config.network.outer_torso, ("detached", "own", "shared"))
    differentiated = {"outer.value_cost": outer.value_cost, "inner.max_grad_norm": config.inner.max_grad_norm or 0.0}
    reasons = [name for name, value in differentiated.items() if value > 0]
    if config.outer_critic and config.network.outer_torso == "detached" and reasons:
        accepted = f"own or shared, because with {reasons[0]} the outer critic is more than a supplier of numbers"
        yield ConfigError("network.outer_torso", "detached", accepted, "--network.outer-torso own")


def _run(config: Config) -> Iterator[ConfigError]:
    run = config.run
    counts = ("log_every", "chunk_size", "keep_checkpoints", "evaluation_episodes", "max_episode_steps")
    yield from _at_least("run", _fields(run, *counts), 1)
    yield from _at_least("run", {"measure_samples": run.measure_samples}, 2)
    if run.devices != "all":
        yield from _at_least("run", {"devices": run.devices}, 1)
    yield from _at_least("run", _fields(run, "checkpoint_every", "evaluate_every"), 0)
    yield from _choice("run.track", run.track, ("none", "tensorboard", "wandb", "trackio"))
    yield from _in_range("run.seed", run.seed, "a whole number from 0 to 2**32 - 1", 0 <= run.seed < 2**32)
    if not run.runs_dir:
        yield ConfigError("run.runs_dir", run.runs_dir, "the name of a folder", "--runs-dir runs")
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


def _fields(section: object, *names: str) -> dict[str, Any]:
    return {name: getattr(section, name) for name in names}
