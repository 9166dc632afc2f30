"""Images in any form -> detections, in batches."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import groupby
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from rfdetr.classes import ClassTable
from rfdetr.config.model import ModelConfig
from rfdetr.errors import ConfigError, ImageError
from rfdetr.inference.ahead import map_ahead
from rfdetr.inference.detections import to_supervision
from rfdetr.inference.mixed_precision import MixedPrecisionDetector
from rfdetr.inference.optimized import OptimizedDetector
from rfdetr.inference.resizing import for_prediction
from rfdetr.inference.sources import ImageSource, load
from rfdetr.models.detector import Detector
from rfdetr.models.postprocess import postprocess
from rfdetr.types import LayerOutputs

if TYPE_CHECKING:
    from supervision import Detections

Network: TypeAlias = Detector | OptimizedDetector | MixedPrecisionDetector
# The detector's input, and (height, width) of the original.
Prepared: TypeAlias = tuple[Float[Tensor, "N R R"], tuple[int, int]]
T = TypeVar("T")


@overload
def predict(  # type: ignore[overload-overlap]  # a str is an Iterable[str] too, but means one path
    network: Network, images: ImageSource, classes: ClassTable, threshold: float = 0.5, batch_size: int = 4
) -> Detections: ...
@overload
def predict(
    network: Network, images: Iterable[ImageSource], classes: ClassTable, threshold: float = 0.5, batch_size: int = 4
) -> list[Detections]: ...
def predict(
    network: Network,
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
        threshold, _ = _checked(threshold, batch_size)
        return next(_detect(network, [_prepare((images, ""), network.config)], classes, threshold))
    return list(predict_each(network, images, classes, threshold, batch_size))


def predict_each(
    network: Network, images: Iterable[ImageSource], classes: ClassTable, threshold: float = 0.5, batch_size: int = 4
) -> Iterator[Detections]:
    """`predict` for any number of images: at full size it holds one and its masks, and of files those being read.

    Settings are checked at once. An error of an image, or of `images`, comes after the results of those before it.
    """
    return _detect_each(network, images, classes, *_checked(threshold, batch_size))


def _checked(threshold: object, batch_size: object) -> tuple[float, int]:
    """As plain numbers: those of other libraries, like numpy's, are numbers too."""
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 <= float(threshold) <= 1:
        raise ConfigError(f"threshold: must be a number between 0 and 1, got {threshold!r}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or int(batch_size) < 1:
        raise ConfigError(f"batch_size: must be a whole number from 1 on, got {batch_size!r}")
    return float(threshold), int(batch_size)


def _detect_each(
    network: Network, images: Iterable[ImageSource], classes: ClassTable, threshold: float, batch_size: int
) -> Iterator[Detections]:
    with closing(_prepare_each(images, network.config, batch_size)) as prepared:
        for batch in _batches(prepared, batch_size):
            yield from _detect(network, batch, classes, threshold)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one of what is left. An error of the items comes after those before it."""
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _prepare_each(images: Iterable[ImageSource], config: ModelConfig, batch_size: int) -> Generator[Prepared]:
    """In order. Files are read while the network is busy, enough for its next batch; what is in memory waits."""
    prepare = partial(_prepare, config=config)
    for is_read, sources in groupby(enumerate(images), lambda item: isinstance(item[1], str | Path)):
        named = ((source, f"images[{index}]: ") for index, source in sources)
        yield from map_ahead(prepare, named, batch_size) if is_read else map(prepare, named)


def _prepare(named: tuple[ImageSource, str], config: ModelConfig) -> Prepared:
    source, name = named
    try:
        picture = load(source, config.num_channels)
    except ImageError as error:
        raise ImageError(f"{name}{error}") from None
    height, width = picture.shape[:2]
    return for_prediction(picture, config.resolution), (height, width)


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device if isinstance(network, nn.Module) else network.device


def _detect(network: Network, batch: list[Prepared], classes: ClassTable, threshold: float) -> Iterator[Detections]:
    images, sizes_hw = zip(*batch, strict=True)
    with torch.inference_mode():
        # Of one image no copy, which would wake the threads of torch (see `for_prediction`).
        stacked = torch.stack(images) if len(images) > 1 else images[0][None]
        # Not in the threads that read files: Apple's GPUs do not bear it.
        outputs = _run(network, stacked.to(_device(network)))
        found = postprocess(outputs, torch.tensor(sizes_hw), network.config.num_select, threshold)
    del outputs  # large, and unused while the caller looks at what is found
    for predictions, size_hw in zip(found, sizes_hw, strict=True):
        yield to_supervision(predictions, classes, size_hw)


def _run(network: Network, images: Float[Tensor, "B N R R"]) -> LayerOutputs:
    if not isinstance(network, nn.Module):
        return network(images)
    with evaluating(network):
        outputs: LayerOutputs = network(images, last_only=True)
    return outputs


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
