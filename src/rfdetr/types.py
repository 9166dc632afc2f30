"""What flows between the layers.

Axes, here and in all signatures: B images, Q queries, C classes (logits), T objects of one image, M matched pairs,
D width, L levels, H heads, P sampled points, S tokens, N anything else.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from typing_extensions import NotRequired, TypedDict


class Target(TypedDict):
    """Ground truth of one image."""

    boxes: Float[Tensor, "T 4"]  # cxcywh in [0, 1]
    labels: Int[Tensor, "T"]  # class ids
    orig_size: Int[Tensor, "2"]  # (height, width) of the image file
    image_id: int
    masks: NotRequired[Bool[Tensor, "T height width"]]  # at the size of the input; for segmentation


@dataclass(frozen=True)
class MaskLogits:
    """The masks of all queries as a product, of which only what is needed is computed.

    Query q of image b has the logit `queries[b, q] . features[b, :, y, x] + bias[b, q]` at cell (y, x) of the grid.
    In mixed precision features may be float32 where queries are not, as on a GPU: masks are as exact as the features.
    """

    features: Float[Tensor, "B D h w"]
    queries: Float[Tensor, "B Q D"]
    bias: Float[Tensor, "B Q"]

    def of(self, image: int, queries: Int[Tensor, "N"]) -> Float[Tensor, "N h w"]:
        """The masks of some queries of one image."""
        chosen = self.queries[image, queries].to(self.features.dtype)
        products = torch.einsum("nd,dhw->nhw", chosen, self.features[image])
        return products + self._bias[image, queries]

    def dense(self) -> Float[Tensor, "B Q h w"]:
        return torch.einsum("bqd,bdhw->bqhw", self.queries.to(self.features.dtype), self.features) + self._bias

    @property
    def _bias(self) -> Float[Tensor, "B Q 1 1"]:
        return self.bias[..., None, None]


class LayerOutputs(TypedDict):
    """Raw predictions of one decoder layer, or of the encoder. Boxes are cxcywh, about [0, 1] but not clamped."""

    pred_logits: Float[Tensor, "B Q C"]
    pred_boxes: Float[Tensor, "B Q 4"]
    pred_masks: NotRequired[MaskLogits]  # of segmentation models


class RawOutputs(LayerOutputs):
    """Raw predictions of the last decoder layer, of the earlier ones (in order) and of the encoder."""

    aux_outputs: NotRequired[list[LayerOutputs]]
    enc_outputs: NotRequired[LayerOutputs]


@dataclass(frozen=True)
class ImageBatch:
    """Images and their ground truth; one micro-batch.

    Loaders give raw pixels; the detector gets them normalised.
    """

    images: Shaped[Tensor, "B channels height width"]
    targets: list[Target]

    def to(self, device: torch.device, non_blocking: bool = False) -> "ImageBatch":
        """The batch on a device; sizes and ids stay on the host, where they are needed."""

        def move(target: Target) -> Target:
            boxes = target["boxes"].to(device, non_blocking=non_blocking)
            labels = target["labels"].to(device, non_blocking=non_blocking)
            moved: Target = {**target, "boxes": boxes, "labels": labels}
            if "masks" in target:
                moved["masks"] = target["masks"].to(device, non_blocking=non_blocking)
            return moved

        images = self.images.to(device, non_blocking=non_blocking)
        return ImageBatch(images, [move(target) for target in self.targets])

    def pin_memory(self) -> "ImageBatch":
        """Images and masks in page-locked memory (called by torch's DataLoader); the rest is small."""

        def pin(target: Target) -> Target:
            return {**target, "masks": target["masks"].pin_memory()} if "masks" in target else target

        return ImageBatch(self.images.pin_memory(), [pin(target) for target in self.targets])


@dataclass(frozen=True)
class Predictions:
    """Detections of one image, best first."""

    boxes: Float[Tensor, "N 4"]  # xyxy in pixels of the original image
    scores: Float[Tensor, "N"]
    labels: Int[Tensor, "N"]  # class ids
    mask_logits: Float[Tensor, "N h w"] | None = None  # coarse, of the whole input; `full_size_masks` enlarges them
