"""Curves, rows and bars lie where the numbers say, and a picture shows no more than had happened."""

import numpy as np
import pytest

from gradweave.reports.board import BACKGROUND, CHANNELS, FRUIT, HEAD
from gradweave.reports.series import series_frames

STEPS = np.arange(10.0)


def area(frame, colour):
    """(x, y) of the pixels of a colour."""
    return np.argwhere((np.asarray(frame) == colour).all(-1))[:, ::-1]


def test_curves_rise_and_fall_as_the_numbers_do():
    views = np.stack([STEPS, -STEPS], axis=1)
    last = series_frames(views, np.zeros(10))[-1]
    rising, falling = area(last, CHANNELS[0]), area(last, CHANNELS[1])
    for curve, sign in ((rising, -1), (falling, 1)):  # rows of a picture are counted from above
        assert np.corrcoef(curve.T)[0, 1] * sign > 0.95
    assert rising[:, 1].max() < falling[:, 1].min(), "one above the other"


def test_rewards_are_bars_from_zero():
    rewards = np.array([0.0] * 3 + [2.0] * 2 + [-1.0] * 5)
    last = series_frames(STEPS[:, None] * 0, rewards)[-1]
    up, down = (area(last.crop((0, 234, 360, 284)), colour) for colour in (HEAD, FRUIT))
    up = up[(up[:, 0] >= 108) & (up[:, 0] < 180)]
    heights = [np.ptp(bars[:, 1]) for bars in (up, down)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=3)
    assert up[:, 1].max() <= down[:, 1].min() + 1
    assert (down[:, 0].min(), down[:, 0].max()) == (180, 359)


def test_a_picture_shows_what_had_happened():
    frames = series_frames(STEPS[:, None], np.ones(10))
    assert len(frames) == 10
    for step, frame in enumerate(frames):
        shown = np.asarray(frame)[24:] != np.array(BACKGROUND)
        assert shown.any(-1).any(0).nonzero()[0].max() == 36 * (step + 1) - 1


def test_many_numbers_are_rows_that_brighten():
    views = np.zeros((10, 40))
    views[:, 7] = STEPS
    last = np.asarray(series_frames(views, np.zeros(10))[-1], int)[24:234]
    row = last[round(210 / 40 * 7.5)].sum(-1)
    assert (np.diff(row[18::36]) > 0).all()
    assert len({tuple(pixel) for pixel in last[round(210 / 40 * 20.5)]}) == 1


def test_a_long_episode_is_shown_to_its_end_in_strides():
    frames = series_frames(np.zeros((1000, 2)), np.ones(1000), max_frames=20)
    assert len(frames) == 20 and len({frame.size for frame in frames}) == 1
    with pytest.raises(ValueError, match="no series"):
        series_frames(np.zeros((3, 2)), np.ones(4))
