import math

import pytest
import torch

from rfdetr.models.position_encoding import encode_boxes


def test_each_coordinate_is_a_row_of_sines_and_cosines_in_the_order_y_x_w_h() -> None:
    cx, cy, w, h = box = [0.1, 0.7, 0.3, 0.9]
    expected = []
    for coordinate in (cy, cx, w, h):
        for index in range(8):
            angle = coordinate * 2 * math.pi / 10000 ** (2 * (index // 2) / 8)
            expected.append(math.sin(angle) if index % 2 == 0 else math.cos(angle))
    assert encode_boxes(torch.tensor([box]), dim=8)[0].tolist() == pytest.approx(expected, abs=1e-6)
