"""Images in any form -> detections, in batches."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import overload

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
from rfdetr.types import Predictions


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
    """What is on one image, or on each of many, scored above `threshold`; boxes in pixels of the original image.

    Raises:
        ImageError: an input is not an image, or cannot be read; names it.
        ConfigError: the threshold or the batch size is out of range.
    """
    if isinstance(images, (str, bytes, Path, Image.Image, np.ndarray, Tensor)) or not isinstance(images, Iterable):
        _check_settings(threshold, batch_size)
        return to_supervision(_detect(detector, [_prepare(images, detector)])[0], classes, threshold)
    return list(predict_each(detector, images, classes, threshold, batch_size))


def predict_each(
    detector: Detector, images: Iterable[ImageSource], classes: ClassTable, threshold: float = 0.5, batch_size: int = 4
) -> Iterator[Detections]:
    """`predict` for any number of images: holds one of them at full size, and `batch_size` at the model's."""
    _check_settings(threshold, batch_size)
    prepared = (_prepare(source, detector, f"images[{index}]: ") for index, source in enumerate(images))
    while batch := list(islice(prepared, batch_size)):
        for predictions in _detect(detector, batch):
            yield to_supervision(predictions, classes, threshold)


def _check_settings(threshold: float, batch_size: int) -> None:
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: must be a number between 0 and 1, got {threshold!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size: must be a whole number from 1 on, got {batch_size!r}")


def _prepare(source: ImageSource, detector: Detector, name: str = "") -> tuple[Float[Tensor, "3 R R"], tuple[int, int]]:
    """The detector's input on its device, and (height, width) of the original."""
    try:
        image = load(source)
    except ImageError as error:
        raise ImageError(f"{name}{error}") from None
    device = next(detector.parameters()).device
    height, width = image.shape[1:]
    return for_prediction(image.to(device), detector.config.resolution), (height, width)


@torch.inference_mode()
def _detect(detector: Detector, batch: list[tuple[Float[Tensor, "3 R R"], tuple[int, int]]]) -> list[Predictions]:
    images, sizes_hw = zip(*batch, strict=True)
    with evaluating(detector):
        outputs = detector(torch.stack(images))
    return postprocess(outputs, torch.tensor(sizes_hw), detector.config.num_select)


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
