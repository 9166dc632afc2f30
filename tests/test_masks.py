import numpy as np
import pytest
from jaxtyping import Bool, Float64
from pycocotools import mask as pycocotools

from rfdetr.masks import Rle, Segmentation, decode, encode, from_runs, run_lengths, seen, to_rle

Region = tuple[float, float, float, float]  # xyxy in pixels of the image

SIZE_HW = (90, 120)
TRIANGLE = np.array([[10.3, 5.0], [100.7, 40.2], [30.1, 85.6]])
SQUARE = np.array([[20.0, 20.0], [60.0, 20.0], [60.0, 60.0], [20.0, 60.0]])
REGIONS: dict[str, Region] = {
    "whole image": (0.0, 0.0, 120.0, 90.0),
    "a part, not at whole pixels": (13.7, 20.2, 71.9, 78.4),
    "to the last pixel": (40.3, 10.3, 120.0, 90.0),
    "less than a pixel": (30.2, 40.1, 30.9, 40.8),
    "beside the object": (105.0, 0.0, 120.0, 15.0),
}


def random_masks(seed: int, number: int = 3) -> Bool[np.ndarray, "N height width"]:
    """Spots of all sizes, so that runs are long and short."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 200, 2))
    masks: Bool[np.ndarray, "N height width"] = rng.random((number, height, width)) < rng.choice(
        [0.001, 0.1, 0.5, 0.999]
    )
    return masks


def random_polygon(rng: np.random.Generator, size_hw: tuple[int, int]) -> Float64[np.ndarray, "V 2"]:
    """Of many sides that cross each other, in the image or far beyond it."""
    height, width = size_hw
    points = (rng.random((int(rng.integers(3, 40)), 2)) - 0.5) * rng.choice([1, 1.5, 5, 50]) + 0.5
    polygon: Float64[np.ndarray, "V 2"] = (points * [width, height]).round(int(rng.integers(0, 9)))
    return polygon


def nearest(mask: Bool[np.ndarray, "height width"], region: Region, size: int) -> Bool[np.ndarray, "size size"]:
    """The pixel of the mask under the centre of each pixel of the input."""
    x1, y1, x2, y2 = region
    centers = (np.arange(size) + 0.5) / size
    rows, columns = np.floor(y1 + centers * (y2 - y1)).astype(int), np.floor(x1 + centers * (x2 - x1)).astype(int)
    under: Bool[np.ndarray, "size size"] = mask[np.ix_(rows, columns)]
    return under


@pytest.mark.parametrize("seed", range(20))
def test_code_is_that_of_pycocotools(seed: int) -> None:
    masks = random_masks(seed)
    rles = encode(masks)
    assert rles == pycocotools.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))
    assert all(np.array_equal(decode(rle), mask) for rle, mask in zip(rles, masks, strict=True))


def test_no_masks_no_code() -> None:
    assert encode(np.zeros((0, 4, 5), dtype=np.bool_)) == []


@pytest.mark.parametrize("seed", range(60))
def test_polygons_cover_the_pixels_that_pycocotools_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size_hw = (int(rng.integers(1, 200)), int(rng.integers(1, 200)))
    polygons = [random_polygon(rng, size_hw) for _ in range(seed % 3 + 1)]
    parts = pycocotools.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size_hw)
    assert to_rle(polygons, size_hw) == pycocotools.merge(parts)


def test_where_polygons_of_an_object_overlap_is_object() -> None:
    assert decode(to_rle([SQUARE, SQUARE + 10], SIZE_HW)).sum() == 40 * 40 * 2 - 30 * 30


def test_an_object_without_polygons_is_an_empty_mask() -> None:
    mask = decode(to_rle([], SIZE_HW))
    assert mask.shape == SIZE_HW
    assert not mask.any()


def test_code_stays_as_it_is() -> None:
    (rle,) = encode(random_masks(0, 1))
    assert to_rle(rle, (rle["size"][0], rle["size"][1])) is rle


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_what_was_coded(seed: int) -> None:
    (mask,) = random_masks(seed, 1)
    (rle,) = encode(mask[None])
    runs = run_lengths(rle["counts"])
    assert np.array_equal(np.repeat(np.arange(len(runs)) % 2 == 1, runs), mask.ravel(order="F"))
    assert from_runs(runs.tolist(), mask.shape) == rle


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"11P", id="ends within a number"),
        pytest.param(b"1 1", id="a space"),
        pytest.param(b"1\xff1", id="beyond the alphabet"),
        pytest.param(b"1~1", id="just beyond the alphabet"),
        pytest.param(b"O", id="negative"),
        pytest.param(b"116K", id="a difference to less than nothing"),
        pytest.param(b"P" * 7 + b"1", id="too many digits"),
        pytest.param(b"P" * 6 + b"4", id="more than 32 bits"),
        pytest.param(b"o" * 100_000, id="no end"),
    ],
)
def test_what_is_no_code(counts: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a sequence of numbers|more than 32 bits"):
        run_lengths(counts)


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
@pytest.mark.parametrize("size", [64, 200])
def test_a_region_of_code_shows_the_pixel_under_each_center(region: Region, size: int) -> None:
    rle = to_rle([TRIANGLE], SIZE_HW)
    assert np.array_equal(seen(rle, SIZE_HW, region, (size, size)), nearest(decode(rle), region, size))


@pytest.mark.parametrize("seed", range(20))
def test_a_region_of_scattered_pixels_too(seed: int) -> None:
    (mask,) = random_masks(seed, 1)
    height, width = mask.shape
    (rle,) = encode(mask[None])
    region = (0.2 * width, 0.1 * height, 0.9 * width, 0.7 * height)
    assert np.array_equal(seen(rle, mask.shape, region, (99, 99)), nearest(mask, region, 99))


def test_polygons_on_the_whole_image_at_its_own_size_are_drawn_as_they_are() -> None:
    drawn = seen([TRIANGLE, SQUARE], (100, 100), (0.0, 0.0, 100.0, 100.0), (100, 100))
    assert np.array_equal(drawn, decode(to_rle([TRIANGLE, SQUARE], (100, 100))))


@pytest.mark.parametrize("region", REGIONS.values(), ids=REGIONS)
def test_a_region_of_polygons_shows_what_one_of_their_code_does(region: Region) -> None:
    """But for the edge, where code has the steps of its pixels."""
    size_hw = (90 * 40, 120 * 40)
    polygons = [TRIANGLE * 40]
    x1, y1, x2, y2 = (40 * side for side in region)
    forms: list[Segmentation] = [polygons, to_rle(polygons, size_hw)]
    a, b = (seen(form, size_hw, (x1, y1, x2, y2), (100, 100)) for form in forms)
    assert (a != b).sum() <= 0.02 * max(a.sum(), 100)


def test_the_size_of_the_image_costs_nothing() -> None:
    side = 60_000  # 3.6 GB as a bitmap
    rle = Rle(size=[side, side], counts=from_runs([30_000 * side, 30_000 * side], (side, side))["counts"])
    mask = seen(rle, (side, side), (0.0, 0.0, float(side), float(side)), (100, 100))
    assert mask[:, 50:].all()
    assert not mask[:, :50].any()
