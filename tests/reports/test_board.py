"""Pictures: pixels at known cells, and GIFs that read back as they were written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gradweave.reports import board
from gradweave.reports.board import board_frames, paint_channels, paint_snake, save_gif

CELL = 20


def snake_view(body, fruit, size=6):
    """Jumanji's five channels; `body` runs from the tail to the head."""
    view = np.zeros((size, size, 5))
    for index, place in enumerate(body):
        view[place][0] = 1
        view[place][4] = (index + 1) / len(body)
    view[body[-1]][1] = 1
    view[body[0]][2] = 1
    view[fruit][3] = 1
    return view


def pixel(frame, row, col):
    """The colour in the middle of a cell: the board lies at the lower edge, with a margin on three sides."""
    margin = max(4, CELL // 3)
    top = frame.height - margin - 6 * CELL
    return frame.getpixel((margin + int((col + 0.5) * CELL), top + int((row + 0.5) * CELL)))


def test_words_above_a_single_cell_stand_side_by_side():
    (frame,) = board_frames(np.ones((1, 1, 1, 1)), rewards=[-12.345])
    row = np.asarray(frame, int)[: frame.height - 48 - 16].sum((0, 2))  # above the cell
    row = row - row.min()
    written = np.flatnonzero(row > 0)
    assert np.diff(written).max() > 8, "a gap between return and step"
    assert frame.getpixel((frame.width // 2, frame.height - 16 - 24)) == board.HEAD


def test_a_snake_lies_where_the_channels_say():
    body = [(1, 1), (1, 2), (2, 2), (3, 2)]
    (frame,) = board_frames([snake_view(body, (4, 4))], paint=paint_snake, cell=CELL)
    assert pixel(frame, 3, 2) == pytest.approx(board.HEAD, abs=2)
    assert pixel(frame, 1, 1) == pytest.approx(board.TAIL, abs=2)
    between = [pixel(frame, *place)[1] for place in body]
    assert between == sorted(between), "from the tail to the head it only gets brighter"
    assert pixel(frame, 4, 4) == pytest.approx(board.FRUIT, abs=2)
    others = [(row, col) for row in range(6) for col in range(6) if (row, col) not in [*body, (4, 4)]]
    assert {pixel(frame, *place) for place in others} == set(board.CELLS)


def test_the_body_is_joined_only_where_it_is_connected():
    def colour_between(first, second):
        (frame,) = board_frames([snake_view([first, second], (5, 5))], paint=paint_snake, cell=CELL)
        margin = max(4, CELL // 3)
        row, col = (sum(pair) / 2 for pair in zip(first, second, strict=True))
        top = frame.height - margin - 6 * CELL
        return frame.getpixel((margin + int((col + 0.5) * CELL), top + int((row + 0.5) * CELL)))

    assert colour_between((0, 1), (0, 2)) not in board.CELLS
    assert colour_between((0, 1), (0, 3)) in board.CELLS


def test_a_snake_of_one_cell_is_all_head():
    (frame,) = board_frames([snake_view([(2, 2)], (0, 0))], paint=paint_snake, cell=CELL)
    assert pixel(frame, 2, 2) == pytest.approx(board.HEAD, abs=2)


def test_any_board_shows_its_strongest_channel():
    views = np.zeros((2, 6, 6, 2))
    views[0, 1, 1] = (0.0, 4.0)
    views[0, 2, 2] = (7.0, 1.0)
    views[1, 3, 3] = (0.0, 2.0)  # half of what this channel reaches
    first, second = board_frames(views, cell=CELL)
    assert pixel(first, 1, 1) == board.CHANNELS[1]
    assert pixel(first, 2, 2) == board.CHANNELS[0]
    assert pixel(first, 4, 4) in board.CELLS
    half = [(a + b) / 2 for a, b in zip(board.CELLS[0], board.CHANNELS[1], strict=True)]
    assert pixel(second, 3, 3) == pytest.approx(half, abs=1)


def test_five_channels_need_not_be_a_snake():
    view = np.zeros((6, 6, 5))
    view[2, 2, 2] = 1
    (frame,) = board_frames([view], paint=paint_channels, cell=CELL)
    assert pixel(frame, 2, 2) == board.CHANNELS[2]


def test_a_vector_is_a_row_of_cells_and_negative_ones_are_hollow():
    (frame,) = board_frames([[1.0, -1.0, 0.0]], cell=CELL)
    middle = frame.height - max(4, CELL // 3) - CELL // 2
    left = (frame.width - 3 * CELL) // 2
    colours = [frame.getpixel((left + int((col + 0.5) * CELL), middle)) for col in range(3)]
    assert colours[0] == board.CHANNELS[0]
    assert colours[1] in board.CELLS
    assert colours[2] in board.CELLS
    ring = frame.getpixel((left + CELL + 3, middle))
    assert ring[1] > 100


def test_the_score_is_what_was_collected_before_and_in_the_end_the_return(monkeypatch):
    texts = []
    draw_text = ImageDraw.ImageDraw.text

    def note(self, place, text, *args, **kwargs):
        texts.append(text)
        draw_text(self, place, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    board_frames(np.zeros((4, 6, 6, 1)), rewards=[1, 0, 2, 0.5], max_frames=3)
    assert texts == ["step 1", "return 1", "step 2", "return 1", "step 3", "return 3.50"]


def test_a_long_episode_is_cut_to_its_end():
    views = [snake_view([(0, step % 6)], (5, 5)) for step in range(9)]
    cut, whole = board_frames(views, paint=paint_snake, max_frames=4), board_frames(views, paint=paint_snake)
    assert len(cut) == 4
    assert len(whole) == 9
    assert [np.array_equal(a, b) for a, b in zip(cut, whole[5:], strict=True)] == [True] * 4


def test_a_gif_reads_back(tmp_path: Path):
    views = [snake_view([(0, 0), (0, 1), (step % 5 + 1, 1)], (5, 5)) for step in range(7)]
    frames = board_frames(views, rewards=np.ones(7), paint=paint_snake, cell=CELL)
    path = tmp_path / "episode.gif"
    save_gif(path, frames, fps=10.0)
    with Image.open(path) as gif:
        assert gif.n_frames == 7
        assert gif.size == frames[0].size
        assert gif.info["loop"] == 0
        assert gif.info["duration"] == 100
        for index, frame in enumerate(frames):
            gif.seek(index)
            read = np.asarray(gif.convert("RGB"), int)
            wrong = np.abs(read - np.asarray(frame, int)).max(-1) > 48
            assert wrong.mean() < 0.01
            assert pixel(gif.convert("RGB"), 5, 5) == pytest.approx(board.FRUIT, abs=8)
        assert gif.info["duration"] == 1500


@pytest.mark.slow
def test_a_full_length_gif_stays_small(tmp_path: Path):
    path = tmp_path / "episode.gif"
    lane = [(row, col if row % 2 == 0 else 11 - col) for row in range(12) for col in range(12)]
    views = [snake_view(lane[step : step + 40], (11, 11), size=12) for step in range(100)]
    save_gif(path, board_frames(views, rewards=np.zeros(100), paint=paint_snake))
    assert path.stat().st_size / 100 < 3750  # 400 frames: 1.5 MB


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: board_frames(np.zeros((0, 6, 6, 5))), "at least one step"),
        (lambda: board_frames(np.zeros((6, 6, 5))), "cannot be drawn"),
        (lambda: board_frames(np.zeros((2, 6, 6, 5)), rewards=[1.0]), "one for each view"),
        (lambda: save_gif(Path("x.gif"), []), "no frames"),
        (lambda: save_gif(Path("x.gif"), board_frames(np.zeros((1, 6, 6, 5))), fps=0.0), "fps=0.0"),
        (lambda: save_gif(Path("x.gif"), board_frames(np.zeros((1, 6, 6, 5))), num_colours=1), "num_colours=1"),
    ],
)
def test_bad_input_is_explained(call, match):
    with pytest.raises(ValueError, match=match):
        call()
