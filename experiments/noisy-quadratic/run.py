"""Measures every horizon, truncation and mix on the noisy quadratic and writes them beside the closed form.

moments.csv    mean, variance, signal-to-noise and bias of each estimator: closed form, measured, 95 % interval
coverage.csv   how often the intervals of independent, smaller measurements hold the closed form
adaptive.csv   weights of the adaptive mix: from exact moments, from samples by cross-fitting, as a long run settles
evolution.csv  evolution strategies over one window and persistent ones over several, against the closed form
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from closed_form import Moments, horizon_moments, long_run
from sweep import (
    ADAPTIVE_DECAY,
    CURVATURE,
    EVOLUTION,
    MIX_LAMBDAS,
    OUTER_NOISE,
    RATE,
    SHIFT,
    SIZES,
    START,
    TARGET_NOISE,
    Size,
)

import gradweave as gw
from _study.jobs import Flags, folders
from _study.tables import machine, write_study
from gradweave.errors import ConfigError
from gradweave.measurement.cross_fitting import cross_fitted_mix
from gradweave.measurement.problems import measure_problem, sample_estimator
from gradweave.measurement.sampling import estimator_samples, single_estimates
from gradweave.measurement.summary import summarize

NAMES = ("rate", "shift")
STATISTICS = ("mean", "variance", "snr", "bias")
SPEC = {"rate": gw.Positive(), "shift": gw.Unbounded()}


def update(x: Any, eta: Any, batch: Any) -> tuple[Any, None]:
    return x - eta["rate"] * jnp.asarray(CURVATURE) * (x - batch - eta["shift"]), None


def outer_loss(x: Any, batch: Any) -> tuple[Any, None]:
    return 0.5 * jnp.sum(jnp.asarray(CURVATURE) * (x - batch) ** 2), None


def problem(length: int) -> tuple[Any, ...]:
    """(problem, raw, spec, state, draw), as the library's functions take it."""
    raw = gw.unconstrain({"rate": jnp.asarray(RATE, float), "shift": jnp.asarray(SHIFT, float)}, SPEC)

    def draw(key: Any) -> tuple[Any, Any]:
        inner, outer = jax.random.split(key)
        shape = (length, len(CURVATURE))
        return TARGET_NOISE * jax.random.normal(inner, shape), OUTER_NOISE * jax.random.normal(outer, shape)

    return gw.MetaProblem(update, outer_loss), raw, SPEC, jnp.asarray(START, float), draw


def linear_estimators(length: int) -> dict[str, gw.AbstractLinearEstimator]:
    found: dict[str, gw.AbstractLinearEstimator] = {"unrolled": gw.Unrolled()}
    for family, mix in (("horizon-mix", gw.HorizonMix), ("truncation-mix", gw.TruncationMix)):
        found[f"{family}:uniform"] = mix(gw.uniform_weights(length))
        found |= {f"{family}:{lambda_}": mix(gw.geometric_weights(length, lambda_)) for lambda_ in MIX_LAMBDAS}
    return found


def single_weights(length: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(step weights, horizon weights) of "horizon k" and "truncation m"."""
    one, all_steps = np.eye(length), np.ones(length)
    horizons = {f"horizon {k + 1}": (all_steps, one[k]) for k in range(length)}
    return horizons | {
        f"truncation {m}": (1.0 * (np.arange(length) >= length - m), one[-1]) for m in range(1, length + 1)
    }


def kernel(estimator: gw.AbstractLinearEstimator, length: int) -> tuple[np.ndarray, np.ndarray]:
    weights = estimator.kernel_weights(length)
    steps = np.ones(length) if weights.steps is None else np.asarray(weights.steps, float)
    return steps, np.eye(length)[-1] if weights.horizons is None else np.asarray(weights.horizons, float)


def exact(weights: dict[str, tuple[np.ndarray, np.ndarray]], length: int) -> dict[str, dict[str, dict[str, float]]]:
    """{estimator: {meta-parameter: {statistic: value}}} by the closed form; bias is against the longest horizon."""
    longest = horizon_moments(np.ones(length))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, (steps, horizons) in weights.items():
        for parameter, (mean, covariance) in horizon_moments(steps).items():
            centre, variance = float(horizons @ mean), float(horizons @ covariance @ horizons)
            found.setdefault(name, {})[parameter] = {
                "mean": centre,
                "variance": variance,
                "snr": abs(centre) / variance**0.5,
                "bias": centre - float(longest[parameter].mean[-1]),
            }
    return found


def measure(size: Size, key: Any, num_samples: int) -> dict[str, np.ndarray]:
    """Samples of every linear estimator on the same windows, the longest horizon first."""
    samples = measure_problem(*problem(size.num_inner_steps), key=key, num_samples=num_samples)
    return estimator_samples(samples, linear_estimators(size.num_inner_steps)) | single_estimates(samples)


def moment_rows(size: Size, truth: Any, key: Any) -> list[dict[str, Any]]:
    summaries = summarize(measure(size, key, size.num_samples))
    rows = []
    for estimator, summary in summaries.items():
        for index, parameter in enumerate(NAMES):
            for statistic in STATISTICS:
                value, low, high = (float(end[index]) for end in getattr(summary, statistic))
                known = {"estimator": estimator, "meta_parameter": parameter, "statistic": statistic}
                closed = truth[estimator][parameter][statistic]
                rows.append({**known, "closed_form": closed, "measured": value, "low": low, "high": high})
    return rows


def coverage_rows(size: Size, truth: Any, key: Any) -> list[dict[str, Any]]:
    """Shares of intervals that hold the closed form; the longest horizon's bias is 0 by definition and left out."""
    held: dict[str, list[bool]] = {statistic: [] for statistic in STATISTICS}
    for one in jax.random.split(key, size.num_repetitions):
        for estimator, summary in summarize(measure(size, one, size.num_samples // 8), num_resamples=400).items():
            for index, parameter in enumerate(NAMES):
                for statistic in STATISTICS:
                    _, low, high = (float(end[index]) for end in getattr(summary, statistic))
                    if high > low:
                        held[statistic].append(low <= truth[estimator][parameter][statistic] <= high)
    known = {"num_samples": size.num_samples // 8, "num_repetitions": size.num_repetitions}
    return [
        {"statistic": name, "nominal": 0.95, "covered": float(np.mean(each)), "num_intervals": len(each), **known}
        for name, each in held.items()
    ]


def adaptive_rows(size: Size, key: Any) -> list[dict[str, Any]]:
    """Weights and resulting moments of the adaptive mix, three ways."""
    length = size.num_inner_steps
    moments = horizon_moments(np.ones(length))
    sample_key, run_key = jax.random.split(key)
    samples = measure_problem(*problem(length), key=sample_key, num_samples=size.num_samples)
    settled = settled_weights(size, run_key)
    rows = []
    for label, criterion in (("signal to noise", gw.SignalToNoise()), ("least error, 100", gw.LeastError())):
        fitted = cross_fitted_mix(samples, criterion)
        for index, parameter in enumerate(NAMES):
            ways = {"closed form": exact_weights(moments[parameter], criterion, size.num_samples)}
            ways["cross-fitted"] = fitted.weights[index]
            if label == "signal to noise":
                ways["settled"] = settled[index]
            for way, weights in ways.items():
                mean = float(weights @ moments[parameter].mean)
                variance = float(weights @ moments[parameter].covariance @ weights)
                known = {"criterion": label, "meta_parameter": parameter, "weights_from": way, "mean": mean}
                known |= {"variance": variance, "snr": abs(mean) / variance**0.5}
                rows.append(known | {f"weight {k + 1}": float(weight) for k, weight in enumerate(weights)})
            own = fitted.estimates[:, index]
            known = {"criterion": label, "meta_parameter": parameter, "weights_from": "cross-fitted, as sampled"}
            ends = {"mean": own.mean(), "variance": own.var(ddof=1), "snr": abs(own.mean()) / own.std(ddof=1)}
            rows.append(known | {name: float(end) for name, end in ends.items()})
    return rows


def exact_weights(moments: Moments, criterion: Any, num_samples: int) -> np.ndarray:
    known = gw.HorizonMoments(*(jnp.asarray(part, float) for part in (moments.mean, moments.covariance, num_samples)))
    return np.asarray(criterion(known), float)


def settled_weights(size: Size, key: Any) -> np.ndarray:
    """(meta-parameters, L): the mean weights over the last half of many windows that all begin in the same state."""
    learner, raw, spec, state, draw = problem(size.num_inner_steps)
    estimator = gw.AdaptiveMix(size.num_inner_steps, decay=ADAPTIVE_DECAY)

    def window(memory: Any, key: Any) -> tuple[Any, Any]:
        options = {"estimator": estimator, "estimator_state": memory}
        memory = gw.meta_gradient(learner, raw, spec, state, *draw(key), **options).estimator_state
        return memory, memory.weights

    keys = jax.random.split(key, size.num_windows)
    weights = jax.jit(lambda keys: jax.lax.scan(window, estimator.init(raw, spec, state), keys)[1])(keys)
    return np.asarray(weights, float)[size.num_windows // 2 :].mean(0)


def evolution_rows(size: Size, key: Any) -> list[dict[str, Any]]:
    """Means of evolution strategies, which see the window's end only, and of persistent ones, which see them all."""
    length, windows = size.num_inner_steps, EVOLUTION["num_windows"]
    sigma, pairs = float(EVOLUTION["sigma"]), int(EVOLUTION["num_pairs"])
    longer = horizon_moments(np.ones(length * int(windows)))
    cases = {
        "one window": (gw.EvolutionStrategies(sigma, num_pairs=pairs), 1),
        f"persistent, {windows} windows": (gw.PersistentEvolutionStrategies(sigma, num_pairs=pairs), int(windows)),
    }
    rows = []
    for index, (name, (estimator, count)) in enumerate(cases.items()):
        options = {"key": jax.random.fold_in(key, index), "num_samples": size.num_samples, "num_windows": count}
        found = sample_estimator(*problem(length * count), estimator, **options)
        for place, parameter in enumerate(NAMES):
            mean, error = found[:, place].mean(), found[:, place].std(ddof=1) / len(found) ** 0.5
            closed = float(longer[parameter].mean[length * count - 1])
            known = {"estimator": name, "meta_parameter": parameter, "horizon": length * count, "closed_form": closed}
            rows.append({**known, "measured": float(mean), "standard_error": float(error)})
    return rows


def check(flags: Flags) -> None:
    """Refuse the flags of studies that have runs.

    Raises:
        ConfigError: one of them is given, or a size there is not.
    """
    if flags.size not in SIZES:
        raise ConfigError("--size", flags.size, ", ".join(SIZES), "choose one of these")
    if flags.stage != "all":
        raise ConfigError("--stage", flags.stage, "all: there are no runs to make tables of", "leave --stage out")
    for name in ("arms", "seeds", "runs"):
        if getattr(flags, name):
            accepted = f"nothing: this study has no {name}, it measures everything at once"
            raise ConfigError(f"--{name}", getattr(flags, name), accepted, f"leave --{name} out")


def main(flags: Flags) -> None:
    check(flags)
    here = machine()
    size = SIZES[flags.size]
    _, results = folders("noisy-quadratic", flags)
    weights = {name: kernel(one, size.num_inner_steps) for name, one in linear_estimators(size.num_inner_steps).items()}
    truth = exact(weights | single_weights(size.num_inner_steps), size.num_inner_steps)
    keys = jax.random.split(jax.random.key(0), 4)
    tables = {
        "moments": moment_rows(size, truth, keys[0]),
        "coverage": coverage_rows(size, truth, keys[1]),
        "adaptive": adaptive_rows(size, keys[2]),
        "evolution": evolution_rows(size, keys[3]),
        "long_run": [{"meta_parameter": name, "closed_form": value} for name, value in long_run().items()],
    }
    noise = {"target_noise": TARGET_NOISE, "outer_noise": OUTER_NOISE}
    configuration = {**size._asdict(), "curvature": CURVATURE, "start": START, "rate": RATE, "shift": SHIFT, **noise}
    configuration |= {"seed": 0, "adaptive_decay": ADAPTIVE_DECAY, "evolution": EVOLUTION}
    write_study(results, flags.size, tables, {"configuration": configuration, **here})


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
