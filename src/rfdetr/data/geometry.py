"""Where a picture and its objects go: drawn first, composed into one map, applied to the pixels in one resize.

Only rotation and shear need more: there the resize is followed by one affine warp at about the same scale.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped
from PIL import Image

from rfdetr import masks as mask_ops
from rfdetr.config.recipes import Recipe
from rfdetr.data.annotations import Objects
from rfdetr.data.channels import Pixels
from rfdetr.data.resampling import nearest_region, resample
from rfdetr.data.scenes import Scene, Source, bounds
from rfdetr.data.vector_resampling import resample_region

# A crop is a square of at least MIN_CROP pixels in the image with its shorter side scaled to one of these (DETR).
SHORT_SIDES = (400, 500, 600)
MIN_CROP = 384
# Of an object that a map other than crop, flip and quarter turn has cut off, so much must be seen (as in YOLOv5).
MIN_VISIBLE = 0.1

Matrix = Float64[np.ndarray, "3 3"]
Linear = tuple[float, float, float, float]
"""Row by row, of a 2 x 2 matrix."""
IDENTITY: Linear = (1.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Geometry:
    """What fills the input: the image, `turned` about the middle of a region, cut at the region, then folded."""

    crop_xyxy: tuple[float, float, float, float]
    """The region: pixels of the image, not rounded. It may reach beyond the image."""
    flip: bool = False
    """Mirrored left to right."""
    flip_vertical: bool = False
    """Mirrored top to bottom."""
    transpose: bool = False
    """Rows become columns, before it is mirrored."""
    turned: Linear = IDENTITY
    """Rotation and shear in pixels of the image, so that circles are only squeezed as they are without."""
    is_moved: bool = False
    """Whether more than crop, flip and quarter turn was drawn."""

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of the region."""
        x1, y1, x2, y2 = self.crop_xyxy
        return x2 - x1, y2 - y1

    def to_pixels(self, size_hw: tuple[int, int]) -> Matrix:
        """Pixels of the image -> those of the region at this size, not folded."""
        x1, y1, x2, y2 = self.crop_xyxy
        height, width = size_hw
        a, b, c, d = self.turned
        middle = _shift((x1 + x2) / 2, (y1 + y2) / 2)
        turn = middle @ np.array([[a, b, 0], [c, d, 0], [0, 0, 1]]) @ np.linalg.inv(middle)
        scale = np.diag([width / (x2 - x1), height / (y2 - y1), 1.0])
        matrix: Matrix = scale @ _shift(-x1, -y1) @ turn
        return matrix

    def is_within(self, size_hw: tuple[int, int]) -> bool:
        """Whether the region lies inside an image of this size."""
        x1, y1, x2, y2 = self.crop_xyxy
        return x1 >= 0 and y1 >= 0 and x2 <= size_hw[1] and y2 <= size_hw[0]

    def part(self, width: float, height: float, x: float, y: float) -> "Geometry":
        """A part of the region: fractions of its width and height as they are seen, `x` and `y` of what is left."""
        if self.transpose:
            width, height, x, y = height, width, y, x
        x1, y1, _, _ = self.crop_xyxy
        whole_width, whole_height = self.extent
        left, top = x1 + x * (1 - width) * whole_width, y1 + y * (1 - height) * whole_height
        return replace(self, crop_xyxy=(left, top, left + width * whole_width, top + height * whole_height))


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _moved(points: Float64[np.ndarray, "N 2"], matrix: Matrix) -> Float64[np.ndarray, "N 2"]:
    moved: Float64[np.ndarray, "N 2"] = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved


def whole_image(size_hw: tuple[int, int]) -> Geometry:
    height, width = size_hw
    return Geometry((0.0, 0.0, float(width), float(height)))


def draw_geometry(rng: np.random.Generator, size_hw: tuple[int, int], recipe: Recipe) -> Geometry:
    """The whole image or a random square of it; mirrored, turned, scaled, shifted and sheared, or not."""
    geometry = _draw_crop_and_flip(rng, size_hw, recipe)
    is_moved = any((recipe.degrees, recipe.scale, recipe.translate, recipe.shear))
    if not (is_moved or recipe.vertical_flip or recipe.rotate90):
        return geometry
    # From other random numbers, so that these options do not change which crops are drawn.
    (further,) = rng.spawn(1)
    flip_vertical = bool(further.random() < recipe.vertical_flip)
    turns = int(further.integers(1, 4)) * bool(further.random() < recipe.rotate90)
    # A quarter turn is a transposition and a flip.
    geometry = replace(
        geometry,
        transpose=turns % 2 == 1,
        flip=geometry.flip ^ (turns in (1, 2)),
        flip_vertical=flip_vertical ^ (turns in (2, 3)),
    )
    return _draw_affine(further, geometry, recipe) if is_moved and further.random() < recipe.affine else geometry


def _draw_crop_and_flip(rng: np.random.Generator, size_hw: tuple[int, int], recipe: Recipe) -> Geometry:
    flip = bool(rng.random() < recipe.horizontal_flip)
    if rng.random() >= recipe.crop:
        return replace(whole_image(size_hw), flip=flip)
    height, width = size_hw
    short_side = int(rng.choice(SHORT_SIDES))
    side = int(rng.integers(MIN_CROP, short_side, endpoint=True)) / short_side * min(height, width)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    # The sums may round to just above the image's size, which PIL refuses.
    return Geometry((left, top, min(left + side, float(width)), min(top + side, float(height))), flip)


def _draw_affine(rng: np.random.Generator, geometry: Geometry, recipe: Recipe) -> Geometry:
    """The picture grows and shrinks with its region standing still, so the region does the opposite."""
    angle = math.radians(rng.uniform(-recipe.degrees, recipe.degrees))
    gain = rng.uniform(1 - recipe.scale, 1 + recipe.scale)
    right, down = rng.uniform(-recipe.translate, recipe.translate, 2).tolist()
    lean_x, lean_y = np.tan(np.radians(rng.uniform(-recipe.shear, recipe.shear, 2))).tolist()
    x1, y1, x2, y2 = geometry.crop_xyxy
    width, height = geometry.extent
    x, y = (x1 + x2) / 2 - right * width, (y1 + y2) / 2 - down * height
    half_width, half_height = width / gain / 2, height / gain / 2
    cos, sin = math.cos(angle), math.sin(angle)
    turned = (
        (cos - sin * lean_y, cos * lean_x - sin, sin + cos * lean_y, sin * lean_x + cos)
        if recipe.degrees or recipe.shear
        else IDENTITY
    )
    region = (x - half_width, y - half_height, x + half_width, y + half_height)
    return replace(geometry, crop_xyxy=region, turned=turned, is_moved=True)


def render(source: Source, geometry: Geometry, size_hw: tuple[int, int]) -> Scene:
    """What a geometry shows of a picture, and of which objects, at this size."""
    height, width = size_hw
    before = (width, height) if geometry.transpose else size_hw
    if geometry.turned != IDENTITY:
        pixels = _turn(source, geometry, before)
    elif geometry.is_within(source.size_hw):
        # Whole pixels are the fastest to cut out; boxes and masks go by the region that is shown.
        region, crop_xyxy = nearest_region(source.picture, source.size_hw, geometry.crop_xyxy)
        geometry = replace(geometry, crop_xyxy=crop_xyxy)
        pixels = resample_region(source.picture, region, before)
    else:
        pixels = _cut(source, geometry, before)
    return _folded(_placed(source, geometry, pixels), geometry)


def _cut(source: Source, geometry: Geometry, size_hw: tuple[int, int]) -> Pixels:
    """A region that has parts beyond the image, which are of the mean colour, in one resize."""
    (top, bottom), (left, right) = (_seen(geometry, source.size_hw, size_hw, axis) for axis in (0, 1))
    if bottom <= top or right <= left:
        return _blank(source, size_hw)
    x1, y1, _, _ = geometry.crop_xyxy
    step_x, step_y = geometry.extent[0] / size_hw[1], geometry.extent[1] / size_hw[0]
    box = np.array([x1 + left * step_x, y1 + top * step_y, x1 + right * step_x, y1 + bottom * step_y])
    x1, y1, x2, y2 = box.clip(0, np.array([*source.size_hw[::-1]] * 2)).tolist()
    part = resample(source.picture, source.size_hw, (x1, y1, x2, y2), (bottom - top, right - left))
    pixels = np.empty((*size_hw, part.shape[2]), dtype=part.dtype)
    pixels[:] = _mean_color(part)
    pixels[top:bottom, left:right] = part
    return pixels


def _seen(geometry: Geometry, image_hw: tuple[int, int], size_hw: tuple[int, int], axis: int) -> tuple[int, int]:
    """The first and last rows (0) or columns (1) of the region that lie wholly inside the image."""
    scale = size_hw[axis] / geometry.extent[1 - axis]
    start = geometry.crop_xyxy[1 - axis]
    first, last = -start * scale, (image_hw[axis] - start) * scale
    return max(0, math.ceil(first - 1e-6)), min(size_hw[axis], math.floor(last + 1e-6))


def _mean_color(pixels: Pixels) -> Shaped[np.ndarray, "1 1 channels"]:
    """The mean of every eighth pixel, one pixel large, in its own kind of numbers."""
    mean = pixels[::8, ::8].mean(axis=(0, 1), keepdims=True)
    color: Shaped[np.ndarray, "1 1 channels"] = (mean if pixels.dtype.kind == "f" else mean.round()).astype(
        pixels.dtype
    )
    return color


def _blank(source: Source, size_hw: tuple[int, int]) -> Pixels:
    """Where nothing of the image is seen: its mean colour."""
    whole = resample(source.picture, source.size_hw, whole_image(source.size_hw).crop_xyxy, size_hw)
    filled: Pixels = np.broadcast_to(_mean_color(whole), whole.shape).copy()
    return filled


def _turn(source: Source, geometry: Geometry, size_hw: tuple[int, int]) -> Pixels:
    """What the turned region shows of the image, resized to about the right scale; then turned."""
    height, width = size_hw
    back = np.linalg.inv(geometry.to_pixels(size_hw))
    corners = _moved(np.array([[-1.0, -1], [width + 1, -1], [width + 1, height + 1], [-1, height + 1]]), back)
    limits = np.array(source.size_hw[::-1], dtype=np.float64)
    (x1, y1), (x2, y2) = corners.min(axis=0).clip(0, limits), corners.max(axis=0).clip(0, limits)
    if x2 - x1 < 1 or y2 - y1 < 1:
        return _blank(source, size_hw)
    region, (x1, y1, x2, y2) = nearest_region(source.picture, source.size_hw, (x1, y1, x2, y2))
    near_wh = np.array([(x2 - x1) * width, (y2 - y1) * height]) / geometry.extent
    near_width, near_height = (max(1, math.ceil(side)) for side in near_wh)
    part = resample_region(source.picture, region, (near_height, near_width))
    to_part = np.diag([near_width / (x2 - x1), near_height / (y2 - y1), 1.0]) @ _shift(-x1, -y1)
    return _warp(part, to_part @ back, size_hw)


def _warp(pixels: Pixels, matrix: Matrix, size_hw: tuple[int, int]) -> Shaped[np.ndarray, "rows columns channels"]:
    """Bilinear; `matrix` leads from the result to the pixels. Beyond them is their mean colour."""
    size_wh, coefficients = size_hw[::-1], matrix[:2].ravel().tolist()
    mean = _mean_color(pixels).ravel()

    def warped(image: Image.Image, fill: float | tuple[int, ...]) -> Image.Image:
        return image.transform(size_wh, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=fill)

    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(warped(Image.fromarray(pixels), tuple(mean.tolist())))
    channels = [
        np.asarray(warped(Image.fromarray(np.ascontiguousarray(channel, dtype=np.float32)), float(fill)))
        for channel, fill in zip(np.moveaxis(pixels, 2, 0), mean, strict=True)
    ]
    stacked = np.stack(channels, axis=2)
    return stacked if pixels.dtype.kind == "f" else stacked.round().astype(pixels.dtype)


def _placed(source: Source, geometry: Geometry, pixels: Pixels) -> Scene:
    """The objects that are seen in the region, in fractions of it."""
    objects = source.objects
    corners = _to_region(objects, geometry)
    boxes = corners.clip(0, 1)
    kept = _areas(boxes) > (MIN_VISIBLE * _areas(corners) if geometry.is_moved else 0)
    boxes, labels = _center_and_size(boxes[kept]), objects.labels[kept]
    if objects.segmentations is None:
        return Scene(pixels, boxes, labels, None)
    height, width = pixels.shape[:2]
    outlines = [objects.segmentations[row] for row in np.flatnonzero(kept)]
    masks = draw_masks(outlines, source.size_hw, geometry, (height, width))
    if geometry.turned != IDENTITY:
        boxes, seen = _tight(boxes, outlines, masks, geometry)
        boxes, labels, masks = boxes[seen], labels[seen], masks[seen]
    return Scene(pixels, boxes, labels, masks)


def _to_region(objects: Objects, geometry: Geometry) -> Float32[np.ndarray, "T 4"]:
    """Boxes around the boxes, xyxy in fractions of the region."""
    x1, y1, x2, y2 = geometry.crop_xyxy
    if geometry.turned == IDENTITY:
        origin = np.array([x1, y1, x1, y1], dtype=np.float32)
        extent = np.array([x2 - x1, y2 - y1, x2 - x1, y2 - y1], dtype=np.float32)
        straight: Float32[np.ndarray, "T 4"] = (objects.boxes - origin) / extent
        return straight
    corners = objects.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].astype(np.float64).reshape(-1, 2)
    moved = _moved(corners, geometry.to_pixels((1, 1))).reshape(-1, 4, 2)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1).astype(np.float32)


def _areas(boxes: Float32[np.ndarray, "T 4"]) -> Float32[np.ndarray, "T"]:
    areas: Float32[np.ndarray, "T"] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def _center_and_size(boxes: Float32[np.ndarray, "T 4"]) -> Float32[np.ndarray, "T 4"]:
    starts, ends = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(starts + ends) / 2, ends - starts], axis=1)


def _tight(
    boxes: Float32[np.ndarray, "T 4"],
    outlines: list[mask_ops.Segmentation],
    masks: Bool[np.ndarray, "T height width"],
    geometry: Geometry,
) -> tuple[Float32[np.ndarray, "T 4"], Bool[np.ndarray, "T"]]:
    """Boxes around turned outlines, where there are some: those around turned boxes are too large.

    And whether anything of the outline is seen.
    """
    boxes, is_seen = boxes.copy(), np.ones(len(outlines), dtype=np.bool_)
    for row, (outline, mask) in enumerate(zip(outlines, masks, strict=True)):
        if isinstance(outline, list):
            if not outline:
                continue
            points = _moved(np.concatenate(outline), geometry.to_pixels((1, 1)))
            corners = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float32)
            if corners.min() >= 0 and corners.max() <= 1:
                boxes[row] = _center_and_size(corners[None])[0]
                continue
        is_seen[row] = mask.any()
        if is_seen[row]:
            boxes[row] = bounds(mask)
    return boxes, is_seen


def draw_masks(
    outlines: list[mask_ops.Segmentation], image_hw: tuple[int, int], geometry: Geometry, size_hw: tuple[int, int]
) -> Bool[np.ndarray, "T height width"]:
    """What the region, not folded, shows of each object: nothing, where only a corner of its box is seen."""
    masks = np.empty((len(outlines), *size_hw), dtype=np.bool_)
    is_plain = geometry.turned == IDENTITY and geometry.is_within(image_hw)
    matrix = geometry.to_pixels(size_hw)
    for mask, outline in zip(masks, outlines, strict=True):
        if is_plain:
            mask[:] = mask_ops.seen(outline, image_hw, geometry.crop_xyxy, size_hw)
        elif isinstance(outline, list):
            moved = [_moved(polygon, matrix) for polygon in outline]
            mask[:] = mask_ops.decode(mask_ops.to_rle(moved, size_hw))
        else:
            mask[:] = _sampled(mask_ops.decode(outline), np.linalg.inv(matrix), size_hw)
    return masks


def _sampled(mask: Bool[np.ndarray, "height width"], back: Matrix, size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """A mask seen at the centres of the result's pixels; `back` leads from there to it."""
    coefficients, size_wh = back[:2].ravel().tolist(), size_hw[::-1]
    image = Image.fromarray(mask.view(np.uint8))
    moved = image.transform(size_wh, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST, fillcolor=0)
    return np.asarray(moved).view(np.bool_)


def _folded(scene: Scene, geometry: Geometry) -> Scene:
    """Transposed and mirrored."""
    pixels, boxes, masks = scene.pixels, scene.boxes.copy(), scene.masks
    rows, columns = (slice(None, None, -1 if flip else 1) for flip in (geometry.flip_vertical, geometry.flip))
    if geometry.transpose:
        pixels, boxes = pixels.swapaxes(0, 1), boxes[:, [1, 0, 3, 2]]
        masks = None if masks is None else masks.swapaxes(1, 2)
    if geometry.flip:
        boxes[:, 0] = 1 - boxes[:, 0]
    if geometry.flip_vertical:
        boxes[:, 1] = 1 - boxes[:, 1]
    if masks is not None:
        masks = np.ascontiguousarray(masks[:, rows, columns])  # torch wants it so
    return Scene(pixels[rows, columns], boxes, scene.labels, masks)
