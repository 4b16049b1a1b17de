"""What variance-snake's tables say of samples whose means and variances are known."""

import numpy as np
import pytest

from _study.jobs import Job
from gradweave.config.schema import Config
from gradweave.measurement.sampling import GradientSamples
from gradweave.runs.locks import lock_folder

NAMES = ("discount", "lambda_")
PLACE = {"seed": 0, "moment": 1, "step": 2}


@pytest.fixture(name="run")
def load_run(script):
    return script("variance-snake", "run")


def samples(num_samples=400, length=4):
    """Every horizon's gradient is one contribution, of mean (k, 1) and of independent noise with deviations (k, 10)."""
    noise = np.random.default_rng(1).standard_normal((num_samples, length, 2))
    steps = np.arange(1, length + 1)[:, None]
    contributions = np.zeros((num_samples, length, length, 2))
    contributions[:, :, 0] = np.concatenate([steps + steps * noise[..., :1], 1 + 10 * noise[..., 1:]], axis=-1)
    return GradientSamples(NAMES, contributions)


@pytest.mark.slow
def test_directions(run):
    rows = {(row["scale"], row["of"], row["steps"]): row for row in run.direction_rows(PLACE, samples())}
    assert len(rows) == 2 * 2 * 4
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows.values())
    for scale, units in (("raw", np.array([1.0, 1.0])), ("standardised", np.array([4.0, 10.0]))):
        means = np.array([[k, 1.0] for k in range(1, 5)]) / units
        for k in range(1, 5):
            truth = means[k - 1] @ means[-1] / np.linalg.norm(means[k - 1]) / np.linalg.norm(means[-1])
            found = rows[scale, "mean", k]
            assert found["low"] - 1e-9 <= truth <= found["high"] + 1e-9
            assert rows[scale, "one sample", k]["value"] < truth
    assert rows["standardised", "mean", 4]["value"] == pytest.approx(1)


@pytest.mark.slow
def test_mixes(run, monkeypatch):
    monkeypatch.setattr(run, "ESTIMATORS", ("unrolled", "horizon-mix:uniform"))
    rows = {(row["meta_parameter"], row["scale"]): row for row in run.mix_rows(PLACE, samples(4000), [4])}
    # the mix of four independent gradients with variances k^2 and 100 each
    truth = {"discount": 30 / 16 / 16, "lambda_": 1 / 4, "all": (30 / 16 + 25) / 116}
    truth["all, standardised"] = (truth["discount"] + truth["lambda_"]) / 2
    for name, ratio in truth.items():
        assert rows[name, "raw"]["ratio"] == pytest.approx(ratio, rel=0.1)
        assert rows[name, "raw"]["low"] < ratio < rows[name, "raw"]["high"]
    # of means 2.5 against 4, and 1 against 1
    assert rows["discount", "free of scale"]["ratio"] == pytest.approx(truth["discount"] * (4 / 2.5) ** 2, rel=0.1)
    assert rows["lambda_", "free of scale"]["low"] < 1 / 4 < rows["lambda_", "free of scale"]["high"]


@pytest.mark.slow
def test_horizons(run):
    rows = {
        (row["family"], row["steps"], row["meta_parameter"], row["statistic"]): row
        for row in run.horizon_rows(PLACE, samples(2000))
    }
    assert len(rows) == 2 * 4 * 2 * 6
    truth = {"mean": 2, "bias": -2, "variance": 4, "snr": 1, "mse": 8, "sign_agreement": 0.841}
    for statistic, value in truth.items():
        row = rows["horizon", 2, "discount", statistic]
        assert row["value"] == pytest.approx(value, rel=0.1), statistic
        assert row["low"] <= row["value"] <= row["high"], statistic


def test_a_run_that_another_process_measures_is_left_alone(run, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(run, "draw", lambda job, *_: drawn.append(job.name))
    job = Job("agent", 0, Config())
    run.measure(job, tmp_path, None, {})
    with lock_folder(tmp_path / "samples"):
        run.measure(job, tmp_path, None, {})
    assert drawn == ["agent-0"]
    assert "agent-0: not measured here" in capsys.readouterr().err
