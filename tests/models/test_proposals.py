import pytest
import torch

from rfdetr.models.memory import Memory
from rfdetr.models.proposals import propose_boxes


def memory_of(*sizes: tuple[int, int], padding_mask: torch.Tensor | None = None) -> Memory:
    images = 1 if padding_mask is None else len(padding_mask)
    return Memory.from_levels([torch.zeros(images, 1, *size) for size in sizes], padding_mask)


def test_a_box_around_the_centre_of_each_cell() -> None:
    boxes, valid = propose_boxes(memory_of((2, 4)))
    assert valid.all()
    assert boxes[0, :5, :2].tolist() == [[0.125, 0.25], [0.375, 0.25], [0.625, 0.25], [0.875, 0.25], [0.125, 0.75]]
    assert torch.equal(boxes[..., 2:], torch.full((1, 8, 2), 0.05))


def test_boxes_double_from_level_to_level() -> None:
    boxes, _ = propose_boxes(memory_of((2, 2), (1, 1)))
    assert boxes[0, :, 2].tolist() == pytest.approx([0.05] * 4 + [0.1])


# 0.5 / 50 is not above 0.01: from 50 cells on, the cells at the border propose nothing.
@pytest.mark.parametrize(
    ("height", "width", "invalid"),
    [
        pytest.param(49, 49, 0, id="49 x 49: all"),
        pytest.param(50, 50, 196, id="50 x 50: not the ring"),
        pytest.param(56, 56, 220, id="56 x 56: not the ring"),
        pytest.param(10, 50, 20, id="long in one direction: not its ends"),
    ],
)
def test_cells_at_the_border_of_a_fine_grid_are_invalid(height: int, width: int, invalid: int) -> None:
    boxes, valid = propose_boxes(memory_of((height, width)))
    assert (~valid).sum() == invalid
    assert (boxes[~valid] == 0).all()
    assert valid.view(height, width)[1:-1, 1:-1].all()


def test_padding_proposes_nothing_and_the_rest_is_relative_to_the_unpadded_image() -> None:
    mask = torch.zeros(2, 40, 40, dtype=torch.bool)
    mask[0, 20:] = True
    mask[0, :, 30:] = True
    boxes, valid = propose_boxes(memory_of((4, 4), padding_mask=mask))
    assert valid[0].view(4, 4).tolist() == [[True, True, True, False]] * 2 + [[False] * 4] * 2
    assert torch.allclose(boxes[0, 0, :2], torch.tensor([0.5 / 3, 0.5 / 2]))
    assert (boxes[0][~valid[0]] == 0).all()
    assert valid[1].all()
