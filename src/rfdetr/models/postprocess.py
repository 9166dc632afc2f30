"""Raw outputs -> scored, labelled boxes in pixels, and masks."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rfdetr.boxes import to_pixels
from rfdetr.types import LayerOutputs, Predictions

# Pixels of all masks that are enlarged at a time: bounds the memory of large images with many objects. Pieces of this
# size stay in the allocator's reach, where larger ones are mapped anew each time.
PIXELS_AT_ONCE = 1 << 22


def postprocess(
    outputs: LayerOutputs, orig_sizes: Int[Tensor, "B 2"], num_select: int, threshold: float | None = None
) -> list[Predictions]:
    """The `num_select` best (query, class) pairs of each image, best first; ties go to the lower query.

    There is no suppression of overlaps (set prediction needs none): one query may appear with several classes.
    `orig_sizes` are (height, width) of the original images. With a threshold, only what scores above it, on the host;
    masks stay on the device.
    """
    logits, boxes = outputs["pred_logits"].float(), outputs["pred_boxes"].float()
    num_classes = logits.shape[-1]
    scores = logits.sigmoid().flatten(1)
    order = _best(scores, num_select)
    scores = scores.gather(1, order)
    queries, labels = order // num_classes, order % num_classes
    chosen = boxes.gather(1, queries.unsqueeze(-1).expand(-1, -1, 4))
    sizes: Float[Tensor, "B 1 2"] = orig_sizes.to(boxes).unsqueeze(1)
    pixels = to_pixels(chosen, sizes)
    if threshold is not None:
        # How many are kept decides about shapes, for which the host would wait at each of them.
        pixels, scores, labels, queries = (values.cpu() for values in (pixels, scores, labels, queries))
    found = []
    for image in range(len(scores)):
        kept = slice(None) if threshold is None else scores[image] > threshold
        masks = None
        if "pred_masks" in outputs:
            chosen_masks = queries[image, kept].to(logits.device, non_blocking=True)
            masks = outputs["pred_masks"].of(image, chosen_masks).float()
        found.append(Predictions(pixels[image, kept], scores[image, kept], labels[image, kept], masks))
    return found


def _best(scores: Float[Tensor, "B N"], count: int) -> Int[Tensor, "B n"]:
    """Where the best scores of each row are, the best first; of equal ones, the first.

    `topk` is a tenth of a sort, but takes any of equal numbers. Here none are: the place is part of the number. (As
    integers, the bits of floating-point numbers that are not negative have the same order.)
    """
    number = scores.shape[1]
    from_the_end = torch.arange(number - 1, -1, -1, device=scores.device)
    keys = (scores.contiguous().view(torch.int32).long() << 32) + from_the_end
    # Apple's GPUs have compared the lower 32 bits alone.
    comparable = keys.cpu() if keys.is_mps else keys
    best = comparable.topk(min(count, number), dim=1).values.to(keys.device)
    return number - 1 - (best & 0xFFFFFFFF)


def full_size_masks(
    mask_logits: Float[Tensor, "N h w"], size_hw: tuple[int, int]
) -> Iterator[Bool[Tensor, "n height width"]]:
    """Masks at the size of the original image, which the mask grid covers whole; a few at a time, in order.

    They lie in memory column by column, as run-length code runs.
    """
    height, width = size_hw
    for part in mask_logits.split(max(1, PIXELS_AT_ONCE // (height * width))):
        columns = F.interpolate(part.mT.unsqueeze(1), (width, height), mode="bilinear", align_corners=False)
        yield (columns.squeeze(1) > 0).mT
