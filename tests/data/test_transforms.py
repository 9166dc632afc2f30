from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from PIL import Image

from rfdetr.boxes import cxcywh_to_xyxy
from rfdetr.data.annotations import Objects
from rfdetr.data.preprocess import squeezed
from rfdetr.data.transforms import Geometry, apply, sample_geometry, whole_image
from rfdetr.masks import Segmentation, decode, to_rle


def objects(boxes: ArrayLike, labels: list[int], segmentations: list[Segmentation] | None = None) -> Objects:
    return Objects(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), segmentations)


@pytest.mark.parametrize("seed", range(60))
def test_boxes_stay_on_their_pixels(seed: int) -> None:
    """A white rectangle on black is found again where its box went."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(100, 900, 2))
    x1, y1 = rng.integers(0, width - 20), rng.integers(0, height - 20)
    x2, y2 = rng.integers(x1 + 20, width, endpoint=True), rng.integers(y1 + 20, height, endpoint=True)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y1:y2, x1:x2] = 255
    size = 256

    geometry = sample_geometry(rng, (height, width))
    seen, boxes, labels, _ = apply(Image.fromarray(pixels), objects([[x1, y1, x2, y2]], [5]), geometry, size)

    middle = 127
    rows, columns = (seen > middle).all(dim=0).nonzero(as_tuple=True)
    if len(labels) == 0:
        assert len(rows) == 0
        return
    corners = cxcywh_to_xyxy(boxes)[0] * size
    if (corners[2:] - corners[:2]).min() < 1:  # a sliver: too thin to be seen
        return
    found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    # A scaled edge is where brightness crosses one half, to within a pixel of the result or half one of the original.
    torch.testing.assert_close(corners, found.float(), rtol=0, atol=1 + size / min(height, width) / 2)
    assert labels.tolist() == [5]


@pytest.mark.parametrize("form", ["polygons", "code"])
@pytest.mark.parametrize("seed", range(15))
def test_masks_stay_on_their_pixels(seed: int, form: str) -> None:
    """A white blob on black is seen where its mask says, and within its box."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(100, 900, 2))
    angles = np.arange(12) * np.pi / 6
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.6, 1, (12, 1))
    polygon = (unit + 1.1) * [width / 2.2, height / 2.2]
    code = to_rle([polygon], (height, width))
    pixels = np.repeat(decode(code)[..., None], 3, axis=2).astype(np.uint8) * 255
    box = np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])
    size = 256

    geometry = sample_geometry(rng, (height, width))
    there = objects(box, [5], [[polygon] if form == "polygons" else code])
    seen, boxes, _, masks = apply(Image.fromarray(pixels), there, geometry, size)

    assert masks is not None
    white = (seen > 127).all(dim=0)
    assert (white & masks[0]).sum() > 0.98 * (white | masks[0]).sum()
    rows, columns = masks[0].nonzero(as_tuple=True)
    x1, y1, x2, y2 = (cxcywh_to_xyxy(boxes)[0] * size).tolist()
    pixel = size / min(height, width) + 1  # of the image, which may be half outside the box, or of the input
    assert x1 - pixel < columns.min() <= columns.max() < x2 + pixel
    assert y1 - pixel < rows.min() <= rows.max() < y2 + pixel


def test_masks_go_with_their_boxes_which_stay_where_only_a_corner_of_them_is_seen() -> None:
    triangles: list[Segmentation] = [[np.array([[x, x], [x, x + 40.0], [x + 40, x + 40]])] for x in (0, 20, 60)]
    boxes = [[0, 0, 40, 40], [20, 20, 60, 60], [60, 60, 100, 100]]
    there = objects(boxes, [1, 2, 3], triangles)
    _, _, labels, masks = apply(Image.new("RGB", (100, 100)), there, Geometry((45.0, 20.0, 85.0, 60.0)), 40)
    assert masks is not None
    assert labels.tolist() == [2]
    assert masks.shape == (1, 40, 40)
    assert not masks[0, :24].any()
    _, _, labels, masks = apply(Image.new("RGB", (100, 100)), there, Geometry((45.0, 20.0, 65.0, 40.0)), 40)
    assert masks is not None
    assert labels.tolist() == [2]
    assert not masks.any()


def test_the_whole_image_is_what_evaluation_sees() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    seen, boxes, _, masks = apply(image, objects([[30, 45, 60, 90]], [1]), whole_image((90, 120)), 64)
    assert seen.equal(squeezed(image, 64))
    assert boxes.tolist() == [[0.375, 0.75, 0.25, 0.5]]
    assert masks is None


def test_a_flip_mirrors_pixels_boxes_and_masks() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    triangle = np.array([[30.0, 45], [60, 50], [50, 90]])
    there, whole = objects([[30, 45, 60, 90]], [1], [[triangle]]), whole_image((90, 120)).crop_xyxy
    plain = apply(image, there, Geometry(whole), 64)
    mirrored = apply(image, there, Geometry(whole, flip=True), 64)
    assert mirrored[0].equal(plain[0].flip(-1))
    assert mirrored[1].tolist() == [[0.625, 0.75, 0.25, 0.5]]
    assert mirrored[3] is not None
    assert plain[3] is not None
    assert mirrored[3].equal(plain[3].flip(-1))


def test_boxes_are_cut_at_the_crop_and_those_outside_go_with_their_labels() -> None:
    there = objects([[0, 0, 20, 20], [0, 0, 10, 10], [60, 60, 90, 90], [12, 12, 14, 14]], [1, 2, 3, 4])
    _, seen, labels, _ = apply(Image.new("RGB", (100, 100)), there, Geometry((10.0, 10.0, 50.0, 50.0)), 32)
    assert labels.tolist() == [1, 4]
    torch.testing.assert_close(cxcywh_to_xyxy(seen), torch.tensor([[0, 0, 0.25, 0.25], [0.05, 0.05, 0.1, 0.1]]))


def test_an_image_without_objects() -> None:
    seen, boxes, labels, masks = apply(Image.new("RGB", (9, 9)), objects([], [], []), whole_image((9, 9)), 32)
    assert seen.shape == (3, 32, 32)
    assert boxes.shape == (0, 4)
    assert len(labels) == 0
    assert masks is not None
    assert masks.shape == (0, 32, 32)


@pytest.mark.parametrize(
    "size_hw",
    [(480, 640), (640, 480), (500, 500), (1, 1), (1, 3000), (777, 1333)],
    ids=lambda size_hw: f"{size_hw[0]}x{size_hw[1]}",
)
def test_a_crop_is_a_square_in_the_image_of_64_to_100_percent_of_its_shorter_side(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    height, width = size_hw
    sides = []
    for _ in range(400):
        x1, y1, x2, y2 = sample_geometry(rng, size_hw).crop_xyxy
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        if (x1, y1, x2, y2) != (0, 0, width, height):
            assert x2 - x1 == pytest.approx(y2 - y1)
            sides.append((x2 - x1) / min(size_hw))
    if size_hw == (480, 640):
        assert min(sides) == pytest.approx(384 / 600, abs=0.03)
        assert max(sides) == pytest.approx(1, abs=0.03)


def test_half_of_the_samples_are_cropped_and_half_mirrored() -> None:
    rng = np.random.default_rng(0)
    drawn = Counter(
        (geometry.crop_xyxy == (0, 0, 640, 480), geometry.flip)
        for geometry in (sample_geometry(rng, (480, 640)) for _ in range(2000))
    )
    assert len(drawn) == 4
    assert all(count == pytest.approx(500, abs=80) for count in drawn.values())
