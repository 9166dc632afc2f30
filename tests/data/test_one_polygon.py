import numpy as np
import pytest

from rfdetr.data.one_polygon import join, one_polygon, trace
from rfdetr.masks import decode, encode, to_rle


def blobs(seed: int) -> np.ndarray:
    """A mask with parts, holes, parts in holes, and pixels that meet at their corners."""
    rng = np.random.default_rng(seed)
    coarse = rng.random(rng.integers(2, 12, 2)) > 0.5
    mask = coarse.repeat(rng.integers(1, 5), axis=0).repeat(rng.integers(1, 5), axis=1)
    mask[0, 0] = True
    return mask


@pytest.mark.parametrize("seed", range(20))
def test_run_length_code_becomes_a_polygon_with_the_same_pixels(seed: int) -> None:
    mask = blobs(seed)
    polygon = one_polygon(encode(mask[None])[0], mask.shape)
    assert np.array_equal(decode(to_rle([polygon], mask.shape)), mask)


def test_a_border_has_a_corner_where_it_turns() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:4, 2:7] = True
    (border,) = trace(mask)
    assert border.tolist() == [[2, 1], [7, 1], [7, 4], [2, 4]]
    mask[2, 3:5] = False
    assert len(trace(mask)) == 2, "and one around the hole"
    assert trace(np.zeros((3, 3), np.bool_)) == []


def test_parts_are_joined_at_their_nearest_corners() -> None:
    parts = [np.array([[0.0, 0], [4, 0], [4, 4]]), np.array([[9.0, 9], [6, 5], [9, 5]])]
    assert join(parts).tolist() == [[0, 0], [4, 0], [4, 4], [6, 5], [9, 5], [9, 9], [6, 5], [4, 4]]


def test_a_single_polygon_stays_as_it_is() -> None:
    polygon = np.array([[0.1, 0.2], [4.5, 0], [3, 3.3]])
    assert one_polygon([polygon], (5, 5)) is polygon


def test_parts_that_overlap_are_their_union() -> None:
    parts = [np.array([[x, x], [x + 9.0, x], [x + 9.0, x + 9], [x, x + 9]]) for x in (1.0, 5.0)]
    polygon = one_polygon(parts, (20, 20))
    assert np.array_equal(decode(to_rle([polygon], (20, 20))), decode(to_rle(parts, (20, 20))))
