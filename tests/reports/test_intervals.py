"""A handful of samples has values and no intervals, wherever numbers are shown."""

import numpy as np
import pytest

from gradweave.api.finish import _interval
from gradweave.measurement.estimates import compare
from gradweave.measurement.output import format_table, measurement_rows
from gradweave.measurement.sampling import GradientSamples
from gradweave.statistics.bootstrap import Estimate, without_intervals
from gradweave.statistics.paired import variance_ratio


@pytest.mark.parametrize(("count", "has"), [(2, False), (7, False), (8, True)])
def test_intervals_begin_with_eight_samples(count: int, has: bool) -> None:
    samples = GradientSamples(("discount",), np.random.default_rng(0).normal(size=(count, 2, 2, 1)))
    found, single = compare(samples, 2, ("unrolled", "truncated:1"))
    rows = [*measurement_rows(samples.names, found), *measurement_rows(samples.names, single)]
    means = [row for row in rows if row.statistic == "mean" and row.meta_parameter == "discount"]
    assert np.isfinite([row.value for row in means]).all()
    assert all(np.isfinite([row.low, row.high]).all() == has for row in means)
    assert ("[" in format_table(samples.names, found)) == has
    assert means[0].value == pytest.approx(samples.horizons[:, -1, 0].mean())


def test_values_stay_when_intervals_go() -> None:
    draws = np.random.default_rng(1).normal(size=(20, 2, 3))
    ratio = variance_ratio(draws[:, 0], draws[:, 1])
    bare = without_intervals(ratio)
    np.testing.assert_array_equal(bare.leaves.value, ratio.leaves.value)
    assert np.isnan([bare.leaves.low, bare.leaves.high, bare.leaves_scale_free.low]).all()
    assert _interval(Estimate(np.asarray(12.24), np.asarray(np.nan), np.asarray(np.nan))) == "12.24"
