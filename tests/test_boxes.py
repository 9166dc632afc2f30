import pytest
import torch
from torch import Tensor

from rfdetr.boxes import (
    apply_deltas,
    area,
    cxcywh_to_xyxy,
    giou,
    iou,
    to_normalized,
    to_pixels,
)


def boxes(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        pytest.param([0.5, 0.5, 0.2, 0.4], [0.4, 0.3, 0.6, 0.7], id="around its centre"),
        pytest.param([0.5, 0.5, -0.2, 0.4], [0.5, 0.3, 0.5, 0.7], id="negative width counts as 0"),
        pytest.param([1.0, 0.0, 0.4, 0.2], [0.8, -0.1, 1.2, 0.1], id="may leave the image"),
    ],
)
def test_cxcywh_to_xyxy(box: list[float], corners: list[float]) -> None:
    assert cxcywh_to_xyxy(boxes(box))[0].tolist() == pytest.approx(corners)


def test_pixels_and_back() -> None:
    inside = boxes([0.5, 0.5, 0.5, 0.25], [0.1, 0.2, 0.1, 0.3])
    sizes = torch.tensor([[480.0, 640.0]])
    assert torch.allclose(to_normalized(to_pixels(inside, sizes), (480, 640)), inside, atol=1e-6)


def test_pixels_are_cut_off_at_the_border_of_each_image() -> None:
    whole = boxes([0.5, 0.5, 2, 2], [0.5, 0.5, 2, 2])
    assert to_pixels(whole, boxes([480, 640], [333, 500])[:, :2]).tolist() == [[0, 0, 640, 480], [0, 0, 500, 333]]


def test_area() -> None:
    assert area(boxes([1, 2, 4, 4], [5, 5, 5, 9])).tolist() == [6, 0]


OVERLAPS = [
    pytest.param([0, 0, 2, 2], [0, 0, 2, 2], 1, 1, id="equal"),
    pytest.param([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3, 1 / 3, id="half each, the hull is the union"),
    pytest.param([0, 0, 1, 1], [1, 1, 2, 2], 0, -0.5, id="touching at a corner"),
    pytest.param([0, 0, 1, 1], [3, 0, 4, 1], 0, -0.5, id="apart"),
    pytest.param([0, 0, 4, 4], [1, 1, 2, 2], 1 / 16, 1 / 16, id="inside"),
    pytest.param([0, 0, 0, 0], [0, 0, 0, 0], 0, 0, id="two points in one place"),
    pytest.param([1, 1, 1, 1], [0, 0, 2, 2], 0, 0, id="a point inside"),
]


@pytest.mark.parametrize(("a", "b", "expected_iou", "expected_giou"), OVERLAPS)
def test_overlap(a: list[float], b: list[float], expected_iou: float, expected_giou: float) -> None:
    assert iou(boxes(a), boxes(b)).item() == pytest.approx(expected_iou)
    assert giou(boxes(a), boxes(b)).item() == pytest.approx(expected_giou)
    assert giou(boxes(b), boxes(a)).item() == pytest.approx(expected_giou)


def test_overlaps_broadcast_to_all_pairs() -> None:
    a, b = boxes([0, 0, 2, 2], [1, 0, 3, 2]), boxes([0, 0, 2, 2], [5, 5, 6, 6], [1, 0, 3, 2])
    table = iou(a.unsqueeze(1), b)
    assert table.shape == (2, 3)
    assert table[0].tolist() == pytest.approx([1, 0, 1 / 3])


def test_zero_deltas_are_the_reference() -> None:
    reference = boxes([0.3, 0.4, 0.2, 0.1])
    assert torch.equal(apply_deltas(torch.zeros(1, 4), reference), reference)


def test_deltas_shift_by_the_size_of_the_reference_and_scale_it_exponentially() -> None:
    moved = apply_deltas(boxes([1, -0.5, 0, 0.6931472]), boxes([0.3, 0.4, 0.2, 0.1]))
    assert moved[0].tolist() == pytest.approx([0.5, 0.35, 0.2, 0.2])
