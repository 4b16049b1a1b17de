"""`measure`: bias, variance and signal-to-noise of a trained agent's meta-gradient, by estimator."""

import typing
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradweave.api.run import Run
from gradweave.config.checks import flag
from gradweave.config.schema import RunConfig
from gradweave.config.toml_file import as_typed
from gradweave.measurement.of_run import measure_run
from gradweave.measurement.options import MeasureOptions, check_options

if TYPE_CHECKING:  # imports JAX
    from gradweave.measurement.result import Measurement

__all__ = ["measure"]


def measure(run: Run | str | Path, **options: Any) -> "Measurement":
    """Sample the meta-gradient of a trained agent and compare estimators on the same samples.

    Of a run with a folder this is `gradweave measure`, files included: it goes on with an unfinished measurement, and
    measures the newest checkpoint. An agent that was trained without a folder is measured as `run` has it, with 128
    samples unless told otherwise, and nothing is written.

    Args:
        run: a run, or the path of its folder.
        **options: the fields of `gradweave.measurement.options.MeasureOptions`: samples, burn_in, horizons, output,
            estimators, reference, batch_sizes, seed, step. One estimator or batch size needs no tuple, and output may
            be text.

    Raises:
        ConfigError: a bad option, no run, or one whose meta-gradient cannot be measured.
        CheckpointError: there is no such checkpoint.
        ValueError: an agent without a folder that learns nothing or corrects for sampling, or options that need one.

    Example:
        >>> run = load_run(folder)
        >>> found = measure(run, samples=8, burn_in=1, estimators=("unrolled", "truncated:1"))
        >>> list(found.estimators), found.samples.num_samples
        (['unrolled', 'truncated:1'], 8)
        >>> bool(found.estimators["unrolled"].snr.value[0] >= 0)
        True
    """
    asked = MeasureOptions(**{name: _as_declared(name, value) for name, value in options.items()})
    if isinstance(run, Run) and run.path is None:
        return _measure_agent(run, asked)
    return measure_run(run.path if isinstance(run, Run) and run.path else Path(str(run)), asked)


def _as_declared(name: str, value: Any) -> Any:
    """An option as `MeasureOptions` declares it: also one string or number for several, and text for a path.

    Raises:
        ConfigError: it is of another type.
    """
    hint = typing.get_type_hints(MeasureOptions).get(name, Any)
    if hint is Any:  # an unknown name, which the constructor refuses
        return value
    if typing.get_origin(hint) is tuple and not isinstance(value, list | tuple):
        value = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    if name == "output" and isinstance(value, str):
        value = Path(value)
    return as_typed(flag(name), value, hint)


def _measure_agent(run: Run, options: MeasureOptions) -> "Measurement":
    """Of an agent in memory."""
    import jax

    from gradweave.measurement.result import measured
    from gradweave.measurement.sampling import episode_rollouts, measure_agent

    if options.step is not None or options.output is not None or options.batch_sizes:
        raise ValueError(
            "step, output and batch_sizes need a run with a folder; this agent was trained without one: leave them out."
        )
    length = run.agent.num_inner_steps if options.horizons is None else options.horizons
    num_samples = RunConfig.measure_samples if options.samples is None else options.samples
    reference = check_options(options, num_samples, length)
    burn_in = options.burn_in
    if burn_in is None:
        burn_in = episode_rollouts(run.metrics.rows, run.agent.num_steps, run.step)
    samples = measure_agent(
        run.agent,
        run.state,
        key=jax.random.key(options.seed),
        num_samples=num_samples,
        burn_in_rollouts=burn_in,
        horizons=reference,
    )
    return measured(samples, run.agent, run.state, options, step=run.step, length=length, burn_in=burn_in)
