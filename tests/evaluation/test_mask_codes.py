"""The code that is computed from coarse masks is that of the bitmaps drawn from them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rfdetr.evaluation.mask_codes import full_size_codes
from rfdetr.masks import decode, encode
from rfdetr.models.postprocess import full_size_masks

SIZES_HW = [(480, 640), (75, 110), (24, 24), (11, 9), (3, 50), (1, 1)]


def noise(count: int) -> Tensor:
    return torch.randn(count, 24, 24, generator=torch.Generator().manual_seed(0))


def ellipses(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    center, radius = torch.rand(2, count, 1, generator=generator), torch.rand(2, count, 1, generator=generator) * 0.4
    x, y = ((torch.linspace(0, 1, 24) - center) / (radius + 0.05)) ** 2
    logits: Tensor = 1 - x.unsqueeze(1) - y.unsqueeze(2)
    return logits


def drawn(logits: Tensor, size_hw: tuple[int, int]) -> np.ndarray:
    return np.concatenate([part.numpy() for part in full_size_masks(logits, size_hw)])


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
@pytest.mark.parametrize("shapes", [noise, ellipses])
def test_pixels_are_those_of_the_drawn_mask_but_for_rounding(shapes: object, size_hw: tuple[int, int]) -> None:
    logits = shapes(50)  # type: ignore[operator]
    found = np.array([decode(code) for code in full_size_codes(logits, size_hw)])
    height, width = size_hw
    exact = torch.nn.functional.interpolate(logits.double().unsqueeze(1), (height, width), mode="bilinear").squeeze(1)
    is_clear = (exact.abs() > 1e-5).numpy()
    assert is_clear.mean() > 0.99
    np.testing.assert_array_equal(found[is_clear], drawn(logits, size_hw)[is_clear])


def test_code_is_written_as_the_encoder_writes_it() -> None:
    """Of lines that are far from rounding: whole numbers on the grid."""
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randint(0, 2, (40, 12, 12), generator=generator) * 2 - 1).float()
    for size_hw in [(12, 12), (36, 60)]:
        assert full_size_codes(logits, size_hw) == encode(drawn(logits, size_hw))


@pytest.mark.parametrize(
    ("corner", "pixels"),
    [
        pytest.param(torch.zeros(4, 4), 0, id="zero is outside"),
        pytest.param(torch.ones(4, 4), 64, id="all inside"),
        pytest.param(-torch.ones(4, 4), 0, id="all outside"),
        pytest.param(torch.full((4, 4), float("nan")), 0, id="not numbers"),
        pytest.param(torch.tensor([[float("inf"), -float("inf")]]).repeat(4, 2), 32, id="infinite"),
    ],
)
def test_special_values(corner: Tensor, pixels: int) -> None:
    """They are in the middle of others, that nothing of them may reach."""
    logits = torch.stack([torch.ones(4, 4), corner, -torch.ones(4, 4), torch.ones(4, 4)])
    areas = [int(decode(code).sum()) for code in full_size_codes(logits, (8, 8))]
    assert areas == [64, pixels, 0, 64]


def test_a_cell_among_what_is_not_a_number_is_the_pixels_at_its_centre() -> None:
    """The line to it is so steep that both zeros fall on the centre."""
    logits = torch.full((1, 4, 4), float("nan"))
    logits[0, 2, 1] = 1
    (code,) = full_size_codes(logits, (12, 12))
    assert np.argwhere(decode(code)).tolist() == [[7, 4]]


def test_no_masks_have_no_code() -> None:
    assert full_size_codes(torch.zeros(0, 4, 4), (8, 8)) == []
