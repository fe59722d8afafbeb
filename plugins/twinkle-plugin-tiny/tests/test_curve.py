"""The loss curve, as text and as a picture."""

import pytest

from twinkle_plugin_tiny.curve import draw_curve, save_curve

FALLING = [6.0 / (step + 1) for step in range(50)]


@pytest.mark.parametrize("losses", [FALLING, [1.0], [2.0, 2.0]], ids=["many", "one", "equal"])
@pytest.mark.parametrize("width", [40, 80])
def test_the_text_fits_its_width_and_holds_no_control_characters(losses, width):
    lines = draw_curve(losses, width=width).splitlines()
    assert 0 < max(map(len, lines)) <= width
    assert all(line.isprintable() for line in lines)


def test_the_text_marks_the_first_and_the_last_step():
    marks = draw_curve(FALLING, width=80).splitlines()[-1].split()
    assert marks[0] == "1"
    assert marks[-1] == "50"


def test_a_falling_curve_begins_at_the_top_and_ends_at_the_bottom():
    rows = [line for line in draw_curve(FALLING, width=80).splitlines() if line.endswith("│") and not line.strip(" ┤│").isspace()]
    middle = len(rows[0]) // 2
    filled = [index for index, row in enumerate(rows) if row[middle:].strip(" │")]
    assert filled == [len(rows) - 1]
    assert rows[0][:middle].strip(" │┤.0123456789")


def test_drawing_one_curve_leaves_nothing_behind_for_the_next():
    first = draw_curve(FALLING, width=60)
    draw_curve([1.0, 9.0], width=40)
    assert draw_curve(FALLING, width=60) == first


def test_the_picture_replaces_the_one_that_was_there(tmp_path):
    picture = tmp_path / "loss.png"
    picture.write_bytes(b"old")
    save_curve(FALLING, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [picture]
