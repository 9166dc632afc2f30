"""The user's own augmentation: a Python callable, transforms of torchvision (v2), or a Compose of Albumentations.

Neither of these libraries is imported here. A pipeline comes with its library, which is recognised by its name.
"""

import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from rfdetr.classes import ClassTable
from rfdetr.config.values import name_of_callable
from rfdetr.data.annotations import Objects
from rfdetr.data.channels import Pixels
from rfdetr.data.resampling import picture_hw
from rfdetr.data.scenes import Source
from rfdetr.errors import TrainingError
from rfdetr.masks import decode, encode, to_rle

FORM = "(image, boxes, labels, masks), as it was given them"


@dataclass(frozen=True, eq=False)
class Parts:
    """What a pipeline is given and gives back; boxes are xyxy in pixels of the image."""

    image: Pixels
    boxes: Float32[np.ndarray, "T 4"]
    labels: Int64[np.ndarray, "T"]
    masks: Bool[np.ndarray, "T height width"] | None


class _Unusable(Exception):  # noqa: N818 - becomes the end of a message
    """What a pipeline has returned cannot be trained on."""


def run_pipeline(pipeline: Callable[..., Any], source: Source, seed: int, classes: ClassTable) -> Source:
    """The picture and its objects as a pipeline returns them, checked; boxes are clipped, empty ones go.

    The global random states (of `random`, numpy and torch) are set from the seed for its time, so that a sample is the
    same in whatever process and order it is made.

    Raises:
        TrainingError: the pipeline fails, or returns something else; names it.
    """
    given = _parts(source)
    try:
        with _seeded(seed):
            returned = _runner(pipeline)(pipeline, given, seed)
        return _checked(given, returned, classes)
    except _Unusable as problem:
        raise TrainingError(f"augment: {name_of_callable(pipeline)} returned {problem}") from None
    except Exception as error:  # the user's code may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise TrainingError(
            f"augment: {name_of_callable(pipeline)} failed with {type(error).__name__}: {error} "
            f"({frame.filename}, line {frame.lineno})"
        ) from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    own, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would change the state of GPUs, too
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(of_numpy)  # noqa: NPY002
        torch.set_rng_state(of_torch)


def _parts(source: Source) -> Parts:
    image = np.array(source.picture)  # a copy: pipelines may write into it
    objects, (height, width) = source.objects, picture_hw(source.picture)
    scale = np.array([width / source.size_hw[1], height / source.size_hw[0]] * 2, dtype=np.float32)
    masks = None
    if objects.segmentations is not None:
        masks = np.zeros((len(objects.labels), height, width), dtype=np.bool_)
        for mask, outline in zip(masks, objects.segmentations, strict=True):
            whole = decode(to_rle(outline, source.size_hw))
            mask[:] = whole if whole.shape == mask.shape else _shrunk(whole, mask.shape)
    return Parts(image, objects.boxes * scale, objects.labels.copy(), masks)


def _shrunk(mask: Bool[np.ndarray, "H W"], size_hw: tuple[int, ...]) -> Bool[np.ndarray, "height width"]:
    """A mask at the size of a picture that was decoded at reduced scale."""
    rows, columns = (
        np.minimum((np.arange(size) + 0.5) * (full / size), full - 1).astype(np.int64)
        for size, full in zip(size_hw, mask.shape, strict=True)
    )
    smaller: Bool[np.ndarray, "height width"] = mask[np.ix_(rows, columns)]
    return smaller


Runner = Callable[[Any, Parts, int], Parts]


def _runner(pipeline: Callable[..., Any]) -> Runner:
    module = type(pipeline).__module__
    if module.startswith("albumentations."):
        return _run_albumentations
    return _run_torchvision if module.startswith("torchvision.transforms.v2") else _run_plain


def _run_plain(pipeline: Any, given: Parts, _: int) -> Parts:
    returned = pipeline(given.image, given.boxes, given.labels, given.masks)
    if not isinstance(returned, tuple | list) or len(returned) != 4:
        raise _Unusable(f"{_kind(returned)}; it must return {FORM}")
    return Parts(*returned)


def _run_albumentations(pipeline: Any, given: Parts, seed: int) -> Parts:
    """It gets the numbers of the objects as their labels: it drops boxes, but never masks."""
    if hasattr(pipeline, "set_random_seed"):  # since 1.4.19 it no longer listens to the global states
        pipeline.set_random_seed(seed)
    params = pipeline.processors["bboxes"].params
    rows = np.arange(len(given.labels))
    fields = list(params.label_fields or ())
    boxes = _to_format(given.boxes, params.format, given.image.shape[:2])
    # Without a field for labels, they are a column of the boxes.
    data = dict.fromkeys(fields, rows) | {"bboxes": boxes if fields else np.column_stack([boxes, rows])}
    if given.masks is not None and len(rows):  # it cannot have an empty list of masks
        data["masks"] = given.masks.view(np.uint8)
    made = pipeline(image=given.image, **data)
    image, made_boxes = made["image"], np.asarray(made["bboxes"], dtype=np.float64)
    made_boxes = made_boxes.reshape(len(made_boxes), -1 if len(made_boxes) else 4 + (not fields))
    kept = np.asarray(made[fields[0]] if fields else made_boxes[:, 4]).astype(np.int64)
    masks = given.masks
    if masks is not None:
        masks = np.asarray(made["masks"])[kept] > 0 if len(rows) else np.zeros((0, *image.shape[:2]), dtype=np.bool_)
    corners = _from_format(made_boxes[:, :4], params.format, image.shape[:2])
    return Parts(image, corners, given.labels[kept], masks)


def _to_format(boxes: np.ndarray, name: str, size_hw: tuple[int, ...]) -> np.ndarray:
    """Xyxy in pixels in the words of Albumentations."""
    if name in ("albumentations", "yolo"):
        boxes = boxes / np.array([*size_hw[::-1]] * 2, dtype=np.float32)
    if name in ("coco", "yolo"):
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    if name == "yolo":
        boxes = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
    return boxes


def _from_format(boxes: np.ndarray, name: str, size_hw: tuple[int, ...]) -> np.ndarray:
    if name == "yolo":
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
    if name in ("coco", "yolo"):
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    if name in ("albumentations", "yolo"):
        boxes = boxes * np.array([*size_hw[::-1]] * 2)
    return boxes


def _run_torchvision(pipeline: Any, given: Parts, _: int) -> Parts:
    """It gets the numbers of the objects as their labels; `SanitizeBoundingBoxes` drops them with the boxes."""
    kinds = sys.modules["torchvision.tv_tensors"]  # there, since the pipeline is
    size_hw = given.image.shape[:2]
    rows = torch.arange(len(given.labels))
    target = {
        "boxes": kinds.BoundingBoxes(torch.from_numpy(given.boxes), format="XYXY", canvas_size=size_hw),
        "labels": rows,
    }
    if given.masks is not None:
        target["masks"] = kinds.Mask(torch.from_numpy(given.masks))
    made = pipeline(kinds.Image(torch.from_numpy(given.image).permute(2, 0, 1)), target)
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[1], dict):
        raise _Unusable(f"{_kind(made)}; it must return the image and the dict that it was given")
    image, target = made
    if not isinstance(image, torch.Tensor):
        raise _Unusable(f"{_kind(image)} as image; it must stay a tensor")
    kept = torch.as_tensor(target["labels"]).numpy()
    boxes = target["boxes"]
    if getattr(boxes, "format", None) not in (None, kinds.BoundingBoxFormat.XYXY):
        raise _Unusable(f"boxes as {boxes.format.value}; they must stay XYXY")
    masks = None if given.masks is None else np.asarray(target["masks"]) > 0
    pixels = torch.as_tensor(image).permute(1, 2, 0).numpy()
    return Parts(pixels, torch.as_tensor(boxes).numpy(), given.labels[kept], masks)


def _checked(given: Parts, made: Parts, classes: ClassTable) -> Source:
    image = made.image
    if not isinstance(image, np.ndarray) or image.ndim != 3 or 0 in image.shape:
        raise _Unusable(f"{_kind(image)} as image; it must be an array [height, width, channels] with pixels")
    if image.dtype != given.image.dtype or image.shape[2] != given.image.shape[2]:
        raise _Unusable(
            f"{_kind(image)} as image; it must stay {given.image.dtype} with {given.image.shape[2]} channels. "
            "Leave out what scales or normalises values and makes tensors: this is done afterwards"
        )
    height, width = image.shape[:2]
    boxes = _numbers(made.boxes, "boxes", "iuf", "numbers")
    labels = _numbers(made.labels, "labels", "iu", "whole numbers")
    boxes = boxes if boxes.size else np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise _Unusable(f"{_kind(made.boxes)} as boxes; they must have the shape [objects, 4]")
    if labels.shape != (len(boxes),):
        raise _Unusable(f"{len(boxes)} boxes, but labels of shape {list(labels.shape)}; each box needs one")
    unknown = sorted(set(labels.tolist()) - set(classes.class_ids))
    if unknown:
        raise _Unusable(f"the label {unknown[0]}, which is no class; allowed: {sorted(classes.class_ids)}")
    if not np.isfinite(boxes).all():
        raise _Unusable("boxes that are not finite")
    if (given.masks is None) != (made.masks is None):
        raise _Unusable("no masks, but was given some" if made.masks is None else "masks, but was given None")
    boxes = boxes.astype(np.float32).clip(0, np.array([width, height, width, height], dtype=np.float32))
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    outlines: Any = None
    if made.masks is not None:
        masks = np.asarray(made.masks)
        if masks.shape != (len(boxes), height, width):
            raise _Unusable(
                f"masks of shape {list(masks.shape)}; {len(boxes)} boxes and an image of {height} x {width} pixels "
                f"need [{len(boxes)}, {height}, {width}]"
            )
        outlines = encode(masks[kept] > 0) if kept.any() else []
    return Source(
        np.ascontiguousarray(image), Objects(boxes[kept], labels[kept].astype(np.int64), outlines), (height, width)
    )


def _numbers(values: Any, name: str, kinds: str, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # rows of different lengths, or a tensor of a GPU
        raise _Unusable(f"{_kind(values)} as {name}; they must be an array of {what}") from None
    if array.size and array.dtype.kind not in kinds:
        raise _Unusable(f"{_kind(values)} as {name}; they must be an array of {what}")
    return array


def _kind(value: Any) -> str:
    """`an array of uint8 [3, 4]`, or the name of the type."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {list(value.shape)}"
    if isinstance(value, torch.Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"
