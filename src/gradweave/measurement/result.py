"""A measurement in memory: samples, statistics of each estimator, and the table that is read first."""

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from gradweave.agents import SelfTuning, SelfTuningState
from gradweave.agents.state import named_numbers
from gradweave.measurement.estimates import compare
from gradweave.measurement.options import MeasureOptions
from gradweave.measurement.output import Row, format_table, measurement_rows, write_measurement
from gradweave.measurement.sampling import GradientSamples
from gradweave.measurement.summary import EstimatorSummary
from gradweave.measurement.verdict import Verdict, sampled_verdict
from gradweave.statistics.bootstrap import LEAST_SAMPLES

__all__ = ["Measurement", "measured"]


@dataclass(frozen=True)
class Measurement:
    """Result of a measurement; printed, it is the table of `gradweave measure`.

    Attributes:
        step: environment steps of the agent that was measured.
        length: L, inner updates in the windows of the estimators.
        samples: independent samples of every contribution to every meta-gradient.
        estimators: statistics with 95 % intervals by the name of the estimator; the first is the baseline of variances.
        single: the same of every "horizon k" and "truncation m" by itself.
        batch_sizes: `estimators` for each other number of environments that was asked for.
        details: settings of the measurement; see summary.json.
        files: the written ones, the table first.
        verdict: in words, whether the means of the estimator that the agent trains with are told from noise; None
            where the samples do not have that estimator.
    """

    step: int
    length: int
    samples: GradientSamples
    estimators: Mapping[str, EstimatorSummary]
    single: Mapping[str, EstimatorSummary]
    details: Mapping[str, Any]
    batch_sizes: Mapping[int, Mapping[str, EstimatorSummary]] = dataclasses.field(default_factory=dict)
    files: tuple[Path, ...] = ()
    verdict: Verdict | None = None

    @property
    def rows(self) -> list[Row]:
        """One row for each estimator, meta-parameter and statistic, as in estimators.csv."""
        return list(measurement_rows(self.samples.names, self.estimators))

    def written(self, folder: Path, **changes: Any) -> "Measurement":
        """Write the measurement to `folder`; returns it with other `details` and its files."""
        details = {**self.details, **changes}
        files = write_measurement(folder, self.samples, self.estimators, self.single, details, length=self.length)
        return dataclasses.replace(self, details=details, files=tuple(files))

    def __str__(self) -> str:
        few = self.samples.num_samples < LEAST_SAMPLES
        intervals = f"too few for intervals, which need {LEAST_SAMPLES}" if few else "95 % intervals"
        heading = (
            f"{self.samples.num_samples} samples of windows of {self.length} updates at step {self.step:,}; "
            f"{intervals}; reference: horizon {self.samples.num_inner_steps}"
        )
        width = shutil.get_terminal_size((0, 0)).columns  # 0 where the output is no terminal: no limit
        table = format_table(self.samples.names, self.estimators, width=width)
        words = f"\n\n{self.verdict.text(width)}" if self.verdict else ""
        return f"{fill(heading, width) if width else heading}\n\n{table}{words}"


def measured(
    samples: GradientSamples,
    agent: SelfTuning,
    state: SelfTuningState,
    options: MeasureOptions,
    *,
    step: int,
    length: int,
    burn_in: int,
) -> Measurement:
    """The measurement of the requested estimators from samples of an agent.

    Args:
        samples: from `measure_agent`.
        agent: that was measured.
        state: at which.
        options: which estimators to compare, and the seed.
        step: environment steps of `state`.
        length: L of the estimators.
        burn_in: rollouts before each window.

    Raises:
        ConfigError: an estimator that is unknown or does not fit.
    """
    estimators, single = compare(samples, length, options.estimators, seed=options.seed)
    words = sampled_verdict(agent.estimator, agent.num_inner_steps, samples, seed=options.seed)
    details = {
        "step": step,
        "eta": {name: float(value) for name, value in named_numbers(agent.eta(state.raw)).items()},
        "meta_parameters": list(samples.names),
        "reference": f"horizon {samples.num_inner_steps}",
        "num_envs": agent.environment.num_envs,
        "burn_in_rollouts": burn_in,
        "seed": options.seed,
        "confidence": 0.95,
        "verdict": words._asdict() if words else None,
    }
    return Measurement(step, length, samples, estimators, single, details, verdict=words)
