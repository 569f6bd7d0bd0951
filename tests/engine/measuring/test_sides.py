"""Left or right of the middle of a head that is shifted and turned."""

from __future__ import annotations

import numpy as np
import pytest

from napari_braintumor.engine.measuring.sides import center_line, find_midline


@pytest.mark.parametrize("turn", [-0.15, 0.0, 0.1])
@pytest.mark.parametrize("shift", [-9.0, 0.0, 6.0])
def test_a_shifted_and_turned_head_is_halved(shift: float, turn: float) -> None:
    z, y, x = np.ogrid[:40, :90, :90]
    middle = 44.5 + shift + turn * (y - 45)
    head = ((z - 20) / 19) ** 2 + ((y - 45) / 40) ** 2 + ((x - middle) / 30) ** 2 <= 1
    head[18:22, 40:44, 70:] = True  # a tube beside the head
    line = find_midline(head)
    assert line.x0 + line.dz * 20 + line.dy * 45 == pytest.approx(44.5 + shift, abs=0.5)
    assert line.dy == pytest.approx(turn, abs=0.02)
    beside = int(44.5 + shift)
    assert line.find_side(np.array([[20, 45, beside + 4], [20, 46, beside + 5]])) == "left"
    assert line.find_side(np.array([[20, 45, beside - 4], [20, 46, beside - 5]])) == "right"
    assert line.find_side(np.array([[20, 45, beside - 4], [20, 45, beside + 5]])) == "both"


def test_a_little_beyond_the_midline_does_not_count() -> None:
    line = center_line((1, 1, 101))
    voxels = np.zeros((100, 3), np.intp)
    voxels[:, 2] = np.r_[np.full(96, 80), np.full(4, 20)]
    assert line.find_side(voxels) == "left"
    voxels[:7, 2] = 20
    assert line.find_side(voxels) == "both"


def test_without_a_head_the_middle_of_the_image_counts() -> None:
    assert find_midline(np.zeros((4, 5, 9), np.bool_)) == center_line((4, 5, 9))
    assert center_line((4, 5, 9)).x0 == 4
