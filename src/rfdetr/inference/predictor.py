"""Images in any form -> detections, in batches."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from rfdetr.classes import ClassTable
from rfdetr.data.preprocess import for_prediction
from rfdetr.errors import ConfigError, ImageError
from rfdetr.inference.detections import Detections, to_supervision
from rfdetr.inference.sources import ImageSource, load
from rfdetr.models.detector import Detector
from rfdetr.models.postprocess import postprocess

# The detector's input on its device, and (height, width) of the original.
Prepared: TypeAlias = tuple[Float[Tensor, "N R R"], tuple[int, int]]


@overload
def predict(  # type: ignore[overload-overlap]  # a str is an Iterable[str] too, but means one path
    detector: Detector, images: ImageSource, classes: ClassTable, threshold: float = 0.5, batch_size: int = 4
) -> Detections: ...
@overload
def predict(
    detector: Detector, images: Iterable[ImageSource], classes: ClassTable, threshold: float = 0.5, batch_size: int = 4
) -> list[Detections]: ...
def predict(
    detector: Detector,
    images: ImageSource | Iterable[ImageSource],
    classes: ClassTable,
    threshold: float = 0.5,
    batch_size: int = 4,
) -> Detections | list[Detections]:
    """What is on one image, or on each of many, scored above `threshold`; boxes and masks in pixels of the original.

    Raises:
        ImageError: an input is not an image, or cannot be read; names it.
        ConfigError: the threshold or the batch size is out of range.
    """
    if isinstance(images, (str, bytes, Path, Image.Image, np.ndarray, Tensor)) or not isinstance(images, Iterable):
        _check_settings(threshold, batch_size)
        return next(_detect(detector, [_prepare(images, detector)], classes, threshold))
    return list(predict_each(detector, images, classes, threshold, batch_size))


def predict_each(
    detector: Detector, images: Iterable[ImageSource], classes: ClassTable, threshold: float = 0.5, batch_size: int = 4
) -> Iterator[Detections]:
    """`predict` for any number of images: holds one of them and its masks at full size, `batch_size` at the model's."""
    _check_settings(threshold, batch_size)
    prepared = (_prepare(source, detector, f"images[{index}]: ") for index, source in enumerate(images))
    while batch := list(islice(prepared, batch_size)):
        yield from _detect(detector, batch, classes, threshold)


def _check_settings(threshold: float, batch_size: int) -> None:
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: must be a number between 0 and 1, got {threshold!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size: must be a whole number from 1 on, got {batch_size!r}")


def _prepare(source: ImageSource, detector: Detector, name: str = "") -> Prepared:
    try:
        image = load(source, detector.config.num_channels)
    except ImageError as error:
        raise ImageError(f"{name}{error}") from None
    device = next(detector.parameters()).device
    height, width = image.shape[1:]
    return for_prediction(image.to(device), detector.config.resolution), (height, width)


def _detect(detector: Detector, batch: list[Prepared], classes: ClassTable, threshold: float) -> Iterator[Detections]:
    images, sizes_hw = zip(*batch, strict=True)
    with torch.inference_mode(), evaluating(detector):
        outputs = detector(torch.stack(images))
        found = postprocess(outputs, torch.tensor(sizes_hw), detector.config.num_select, threshold)
    del outputs  # large, and unused while the caller looks at what is found
    for predictions, size_hw in zip(found, sizes_hw, strict=True):
        yield to_supervision(predictions, classes, size_hw)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards each part is in the mode it was in."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
