"""Raw outputs -> scored, labelled boxes in pixels."""

from jaxtyping import Float, Int
from torch import Tensor

from rfdetr.boxes import to_pixels
from rfdetr.types import LayerOutputs, Predictions


def postprocess(outputs: LayerOutputs, orig_sizes: Int[Tensor, "B 2"], num_select: int) -> list[Predictions]:
    """The `num_select` best (query, class) pairs of each image, best first; ties go to the lower query.

    There is no suppression of overlaps (set prediction needs none): one query may appear with several classes.
    `orig_sizes` are (height, width) of the original images.
    """
    logits, boxes = outputs["pred_logits"].float(), outputs["pred_boxes"].float()
    num_classes = logits.shape[-1]
    scores, order = logits.sigmoid().flatten(1).sort(dim=1, descending=True, stable=True)
    scores, order = scores[:, :num_select], order[:, :num_select]
    queries = order // num_classes
    chosen = boxes.gather(1, queries.unsqueeze(-1).expand(-1, -1, 4))
    sizes: Float[Tensor, "B 1 2"] = orig_sizes.to(boxes).unsqueeze(1)
    pixels = to_pixels(chosen, sizes)
    return [Predictions(*image) for image in zip(pixels, scores, order % num_classes, strict=True)]
