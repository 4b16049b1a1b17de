"""Estimators' statistics: values against the core's, resamples against resampling, intervals against their promise."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gradweave.core import estimator_statistics
from gradweave.measurement.figures import draw_estimators
from gradweave.measurement.output import format_table, measurement_rows, write_measurement
from gradweave.measurement.sampling import GradientSamples, single_estimates
from gradweave.measurement.summary import EstimatorSummary, OverallSummary, _folded, _statistics, summarize
from gradweave.statistics.bootstrap import Estimate

FIELDS = ("mean", "variance", "standard_error", "bias")


def draws(count=40, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((count, 3))
    return {
        "long": common + np.array([1.0, -0.5, 0.0]),
        "short": 0.3 * common + 0.1 * rng.standard_normal((count, 3)) + 0.2,
    }


@pytest.mark.parametrize("reference", [None, "short"])
def test_values_are_the_cores(reference):
    estimates = draws()
    true = jnp.asarray(estimates[reference or "long"].mean(0))
    for name, summary in summarize(estimates, reference=reference, num_resamples=20).items():
        expected = estimator_statistics(jnp.asarray(estimates[name]), true)
        for field in FIELDS:
            np.testing.assert_allclose(getattr(summary, field).value, getattr(expected, field), atol=1e-12)
        np.testing.assert_allclose(summary.snr.value, expected.snr)
        away = estimates[name] - estimates[reference or "long"]
        squared_bias = np.maximum(expected.bias**2 - away.var(0, ddof=1) / 40, 0)
        np.testing.assert_allclose(summary.mse.value, expected.variance + squared_bias, atol=1e-12)
        cosine, signs = agreement(estimates[name], estimates[reference or "long"], np.arange(40))
        assert summary.cosine.value == pytest.approx(cosine)
        np.testing.assert_allclose(summary.sign_agreement.value, signs)


def agreement(samples, reference, rows):
    """Means of cosine and agreement in sign over the drawn rows, each with the mean of all rows of other draws."""
    cosines, signs = [], []
    for row in rows:
        true = reference[rows[rows != row]].mean(0)
        cosines.append(samples[row] @ true / np.linalg.norm(samples[row]) / np.linalg.norm(true))
        signs.append(np.sign(samples[row]) == np.sign(true))
    return np.mean(cosines), np.mean(signs, axis=0)


def test_a_resample_is_what_drawing_its_rows_would_give(monkeypatch):
    stacked = np.stack(list(draws(count=12).values()), axis=1)
    rows = np.random.default_rng(3).integers(12, size=(3, 12))
    counts = np.stack([np.bincount(row, minlength=12) for row in rows]).astype(float)
    monkeypatch.setattr("gradweave.measurement.summary._MAX_ELEMENTS", 80)  # two resamples at a time
    found = _statistics(stacked, 0, counts)
    for place, index in np.ndindex(3, 2):
        drawn = stacked[rows[place]]
        expected = estimator_statistics(jnp.asarray(drawn[:, index]), jnp.asarray(drawn[:, 0].mean(0)))
        for field in FIELDS:
            np.testing.assert_allclose(found[field][place, index], getattr(expected, field), atol=1e-12)
        cosine, signs = agreement(stacked[:, index], stacked[:, 0], rows[place])
        assert found["cosine"][place, index] == pytest.approx(cosine)
        np.testing.assert_allclose(found["sign_agreement"][place, index], signs)


@pytest.mark.slow
def test_pure_noise_agrees_with_nothing():
    rng = np.random.default_rng(8)
    cosines, held, above, signs, overall = [], [], [], [], []
    for seed in range(250):
        found = summarize({"noise": rng.standard_normal((64, 4))}, num_resamples=100, seed=seed)["noise"]
        value, low, high = found.cosine
        cosines.append(value)
        held.append(low <= 0 <= high)
        above.append(low > 0)
        signs += list((found.sign_agreement.low <= 0.5) & (found.sign_agreement.high >= 0.5))
        overall.append(found.overall.sign_agreement.low <= 0.5 <= found.overall.sign_agreement.high)
    assert abs(np.mean(cosines)) < 4 * np.std(cosines) / 250**0.5
    assert np.mean(held) > 0.94
    assert np.mean(above) < 0.05
    assert np.mean(signs) > 0.94
    assert np.mean(overall) > 0.94


def test_a_known_direction_is_found():
    direction = np.array([0.6, -0.8])
    estimates = {"a": np.random.default_rng(9).standard_normal((200, 2)) + direction}
    found = summarize(estimates, num_resamples=200)["a"]
    assert found.cosine.low > 0.3
    assert (found.sign_agreement.low > 0.55).all()
    exact = summarize({"a": np.tile(direction, (5, 1))}, num_resamples=20)["a"]
    assert exact.cosine == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert (exact.sign_agreement.value == 1).all()


def test_two_samples_are_enough():
    found = summarize({name: samples[:2] for name, samples in draws().items()}, num_resamples=50)
    for summary in found.values():
        for field in (*FIELDS, "cosine", "sign_agreement"):
            value, low, high = getattr(summary, field)
            assert np.isfinite([value, low, high]).all(), field
            assert (low <= high).all(), field


def test_a_signal_without_noise_has_an_interval():
    found = summarize({"long": draws()["long"], "constant": np.ones((40, 3))}, num_resamples=20)["constant"]
    assert np.isinf(found.snr.value).all()
    assert np.isinf(found.snr.low).all()


@pytest.mark.slow
def test_intervals_cover_the_truth():
    # 500 meta-parameters are 500 repetitions
    rng = np.random.default_rng(5)
    long = rng.standard_normal((100, 500)) + 0.1
    short = 0.5 * long + 0.1 * rng.standard_normal((100, 500))
    found = summarize({"long": long, "short": short}, confidence=0.9, num_resamples=400)["short"]
    truth = {"mean": 0.05, "variance": 0.26, "bias": -0.05, "standard_error": 0.26**0.5 / 10}
    for field, value in truth.items():
        _, low, high = getattr(found, field)
        assert abs(((low <= value) & (value <= high)).mean() - 0.9) < 0.045, field


@pytest.mark.slow
def test_intervals_against_the_reference_cover_the_truth():
    rng = np.random.default_rng(6)
    long = rng.standard_normal((100, 500)) + 0.3
    short = 0.5 * long + 0.1 * rng.standard_normal((100, 500))
    found = summarize({"long": long, "short": short}, confidence=0.9, num_resamples=400)["short"]
    ratio = 0.15 / 0.26**0.5
    truth = {"snr": (ratio, 0.9), "mse": (0.26 + 0.15**2, 0.9), "sign_agreement": (norm.cdf(ratio), 0.89)}
    for field, (value, expected) in truth.items():
        _, low, high = getattr(found, field)
        assert abs(((low <= value) & (value <= high)).mean() - expected) < 0.045, field


@pytest.mark.slow
@pytest.mark.parametrize("bias", [0.0, 0.03, 0.3])
def test_the_error_of_a_quiet_estimator_is_not_that_of_its_loud_reference(bias):
    rng = np.random.default_rng(11)
    long, short = rng.standard_normal((320, 100)), 0.02 * rng.standard_normal((320, 100)) + bias
    found = summarize({"long": long, "short": short}, num_resamples=400)["short"]
    truth = 0.02**2 + bias**2
    assert ((found.mse.low <= truth) & (found.mse.high >= truth)).mean() > 0.92
    assert (found.mse.value >= found.variance.value).all()
    _, low, high = found.overall.mse
    assert low <= 100 * truth <= high
    assert found.overall.bias.low <= 100**0.5 * bias <= found.overall.bias.high


def test_overall_statistics_by_hand():
    estimates = draws()
    for name, summary in summarize(estimates, num_resamples=20).items():
        samples = estimates[name]
        variance = samples.var(0, ddof=1).sum()
        mean = np.sqrt((samples.mean(0) ** 2).sum() - variance / 40)
        away = samples - estimates["long"]
        squared_bias = (away.mean(0) ** 2).sum() - away.var(0, ddof=1).sum() / 40
        expected = {"mean": mean, "variance": variance, "snr": mean / np.sqrt(variance)}
        expected |= {"bias": np.sqrt(squared_bias), "mse": variance + squared_bias}
        expected["sign_agreement"] = summary.sign_agreement.value.mean()
        for field, value in expected.items():
            estimate = getattr(summary.overall, field)
            assert estimate.value == pytest.approx(value), field
            assert estimate.low <= estimate.high, field


@pytest.mark.slow
def test_overall_statistics_cover_the_truth():
    rng = np.random.default_rng(12)
    hits = {"mean": [], "variance": [], "snr": [], "mse": []}
    for seed in range(250):
        long = rng.standard_normal((200, 4)) + 0.15
        short = 0.5 * long + 0.1 * rng.standard_normal((200, 4))
        found = summarize({"long": long, "short": short}, confidence=0.9, num_resamples=200, seed=seed)["short"].overall
        truth = {"mean": 0.15, "variance": 1.04, "snr": 0.15 / 1.04**0.5, "mse": 1.04 + 0.15**2}
        for field, value in truth.items():
            estimate = getattr(found, field)
            hits[field].append(estimate.low <= value <= estimate.high)
    for field, held in hits.items():
        assert np.mean(held) > 0.84, field


@pytest.mark.slow
def test_so_few_samples_that_resamples_have_no_noise_leave_no_end_unknown():
    for seed in range(100):
        samples = np.random.default_rng(seed).standard_normal((3, 2))
        found = summarize({"few": samples}, num_resamples=200, seed=seed)["few"]
        for estimate in (found.snr, found.overall.snr):
            assert not np.isnan(estimate).any()
            assert (estimate.low <= estimate.high).all()


def test_a_tie_in_sign_counts_half():
    estimates = {"long": np.array([[1.0], [2.0], [1.0]]), "some": np.array([[0.0], [3.0], [-1.0]])}
    assert summarize(estimates, num_resamples=5)["some"].sign_agreement.value == pytest.approx(0.5)


@pytest.mark.slow
def test_interval_of_a_cosine_covers_the_truth():
    rng = np.random.default_rng(7)
    direction = np.array([1.0, -0.5, 0.5])
    many = rng.standard_normal((200_000, 3)) + direction
    truth = (many / np.linalg.norm(many, axis=1, keepdims=True) @ direction).mean() / np.linalg.norm(direction)
    hits = []
    for seed in range(200):
        estimates = {"a": rng.standard_normal((80, 3)) + direction}
        _, low, high = summarize(estimates, confidence=0.9, num_resamples=200, seed=seed)["a"].cosine
        hits.append(low <= truth <= high)
    assert abs(np.mean(hits) - 0.88) < 0.06


def test_variances_may_be_compared_with_another_one_than_the_reference():
    estimates = draws()
    found = summarize(estimates, reference="long", baseline="short", num_resamples=20)
    assert found["short"].variance_ratio.total.value == 1
    assert found["long"].bias.value == pytest.approx(0)
    expected = estimates["long"].var(0, ddof=1).sum() / estimates["short"].var(0, ddof=1).sum()
    assert found["long"].variance_ratio.total.value == pytest.approx(expected)


def test_an_uncertain_sign_reaches_down_to_zero():
    signed = Estimate(*(np.array(ends) for ends in ([-0.2, 0.4, -0.5], [-0.5, 0.1, -0.7], [0.3, 0.6, -0.4])))
    value, low, high = _folded(signed)
    np.testing.assert_allclose(value, [0.2, 0.4, 0.5])
    np.testing.assert_allclose(low, [0, 0.1, 0.4])
    np.testing.assert_allclose(high, [0.5, 0.6, 0.7])


def test_silent_estimators_have_no_noise_and_no_signal():
    found = summarize({"long": draws()["long"], "silent": np.zeros((40, 3))}, num_resamples=20)["silent"]
    assert (found.snr.value == 0).all()
    assert (found.variance.high == 0).all()
    assert found.cosine.value == 0
    assert (found.variance_ratio.leaves.value == 0).all()


def test_large_means_do_not_swallow_the_variance():
    estimates = {"far": 1e8 + draws()["long"]}
    np.testing.assert_allclose(
        summarize(estimates, num_resamples=5)["far"].variance.value, draws()["long"].var(0, ddof=1), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("estimates", "reference", "match"),
    [
        ({}, None, "at least one estimator"),
        ({"a": np.ones((4, 2)), "b": np.ones((5, 2))}, None, "the same samples"),
        ({"a": np.ones((1, 2))}, None, "2 samples or more"),
        ({"a": np.ones((4, 2))}, "b", "accepted are a"),
    ],
)
def test_bad_input_is_explained(estimates, reference, match):
    with pytest.raises(ValueError, match=match):
        summarize(estimates, reference=reference)


@pytest.fixture(name="measured")
def make_measured():
    contributions = np.random.default_rng(1).standard_normal((10, 3, 3, 2)) * np.tri(3)[..., None]
    samples = GradientSamples(("discount", "lambda_"), contributions)
    single = summarize(single_estimates(samples), reference="horizon 3", num_resamples=30)
    first, second = samples.horizons[:, 2], samples.horizons[:, 0]
    return samples, summarize({"unrolled": first, "constant": 0 * second}, num_resamples=30), single


def test_horizons_and_windows_are_sums(measured):
    samples, _, _ = measured
    table = samples.contributions
    np.testing.assert_allclose(samples.horizons[:, 1], table[:, 1, 0] + table[:, 1, 1])
    np.testing.assert_allclose(samples.truncations[:, 1], table[:, 2, 2] + table[:, 2, 1])
    np.testing.assert_allclose(samples.truncations[:, 2], samples.horizons[:, 2])
    assert list(single_estimates(samples)) == [
        f"{family} {k}" for family in ("horizon", "truncation") for k in (1, 2, 3)
    ]


@pytest.mark.slow
def test_files_hold_the_measurement(measured, tmp_path):
    samples, summaries, single = measured
    files = write_measurement(tmp_path / "new", samples, summaries, single, {"step": 7})
    assert [file.name for file in files] == [
        "estimators.csv",
        "summary.json",
        "samples.npz",
        "horizons.png",
        "estimators.png",
    ]
    with files[0].open(newline="") as file:
        rows = {(row["estimator"], row["meta_parameter"], row["statistic"]): row for row in csv.DictReader(file)}
    assert len(rows) == 8 * (9 + 2 * 9)  # estimators x (all together + meta-parameters x statistics)
    snr = rows["unrolled", "lambda_", "snr"]
    assert [float(snr[name]) for name in ("value", "low", "high")] == [float(e[1]) for e in summaries["unrolled"].snr]
    content = json.loads(files[1].read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (content["step"], content["num_samples"], content["num_inner_steps"]) == (7, 10, 3)
    assert content["estimators"]["unrolled"]["lambda_"]["snr"]["low"] == summaries["unrolled"].snr.low[1]
    assert content["estimators"]["constant"]["all"]["variance_ratio_scale_free"]["value"] is None
    with np.load(files[2], allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["contributions"], samples.contributions)
        assert saved["names"].tolist() == ["discount", "lambda_"]
    for figure in files[3:]:
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert figure.stat().st_size > 10_000


def test_rows_name_every_statistic(measured):
    _, summaries, _ = measured
    statistics = {row.statistic for row in measurement_rows(("discount", "lambda_"), summaries)}
    assert statistics == {*EstimatorSummary._fields, "variance_ratio_scale_free"} - {"overall"}
    overall = {row.statistic for row in measurement_rows(("discount", "lambda_"), summaries) if row[1] == "all"}
    assert overall == {*OverallSummary._fields, "cosine", "variance_ratio", "variance_ratio_scale_free"}


def test_the_table_is_aligned(measured):
    _, summaries, _ = measured
    blocks = format_table(("discount", "lambda_"), summaries).split("\n\n")
    assert len(blocks) == 6
    for block in blocks:
        _, heading, *lines = block.split("\n")
        assert [line.split("  ")[0].strip() for line in lines] == ["unrolled", "constant"]
        column = heading.index("lambda")
        assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    low, high = (float(end[0]) for end in summaries["unrolled"].snr[1:])
    assert f"[{low:.2g}, {high:.2g}]" in blocks[0]


def test_in_a_narrow_terminal_columns_go_below_the_first_ones(measured):
    _, summaries, _ = measured
    wide, narrow = (format_table(("discount", "lambda_"), summaries, width=width) for width in (0, 60))
    assert max(map(len, narrow.splitlines())) <= 60 < max(map(len, wide.splitlines()))
    assert set(wide.split()) == set(narrow.split())  # nothing is lost
    assert narrow.count("\nunrolled") > wide.count("\nunrolled")  # before each group of columns
    assert format_table(("discount", "lambda_"), summaries, width=1)  # narrower than any column: one below the other


def test_open_ratios_are_drawn_to_the_ends_of_the_axis():
    rng = np.random.default_rng(13)
    noise = rng.standard_normal((60, 1))
    noise -= noise.mean(0)
    found = summarize({"seen": noise + 1, "half": 0.5 * noise + 0.4, "unseen": noise}, num_resamples=50)
    figure = draw_estimators(("discount",), found)
    axis = figure.axes[-1]
    (lines,) = axis.collections
    ends = [path.vertices[:, 0] for path in lines.get_paths()]
    left, right = axis.get_xlim()
    assert left <= 0.5 and right >= 2
    assert ends[-1][1] == right
    assert len(axis.lines[0].get_xdata()) == 2  # of three estimators one ratio is infinite


@pytest.mark.slow
def test_of_noise_the_snr_of_one_number_is_what_its_mean_is_by_chance_and_that_of_all_is_freed_of_it():
    count, runs = 100, 20
    rng = np.random.default_rng(3)
    found = [summarize({"noise": rng.standard_normal((count, 4))}, num_resamples=20)["noise"] for _ in range(runs)]
    single = np.mean([one.snr.value for one in found])
    np.testing.assert_allclose(single, np.sqrt(2 / (np.pi * count)), rtol=0.35)
    assert np.mean([float(one.overall.snr.value) ** 2 for one in found]) < 0.5 / count  # else about 1 / count
