"""A detector that is small enough to test with, and complete, and ground truth for it."""

import torch

from rfdetr.config.model import ModelConfig
from rfdetr.types import MaskLogits, RawOutputs, Target

TINY = ModelConfig(
    size="nano",
    resolution=64,
    patch_size=8,
    num_windows=2,
    positional_encoding_size=8,
    encoder_width=24,
    encoder_depth=4,
    encoder_heads=3,
    out_feature_indexes=(1, 3),
    hidden_dim=32,
    dec_layers=2,
    sa_nheads=2,
    ca_nheads=4,
    num_queries=6,
    num_select=10,
    group_detr=3,
    num_classes=4,
)


TINY_SEG = TINY.replace(size="seg-nano", segmentation_head=True)


def random_targets(counts: list[int], num_classes: int = 4, seed: int = 0) -> list[Target]:
    """Images with so many objects each."""
    random = torch.Generator().manual_seed(seed)
    found: list[Target] = []
    for image_id, count in enumerate(counts):
        boxes = torch.rand(count, 4, generator=random) * 0.3 + 0.2
        labels = torch.randint(num_classes, (count,), generator=random)
        found.append({"boxes": boxes, "labels": labels, "orig_size": torch.tensor([48, 64]), "image_id": image_id})
    return found


def with_masks(outputs: RawOutputs, seed: int = 0) -> RawOutputs:
    """The same outputs of one layer, with random masks on a grid of 16 x 16."""
    random = torch.Generator().manual_seed(seed)
    images, queries, _ = outputs["pred_logits"].shape
    features = torch.randn(images, 8, 16, 16, generator=random)
    codes = torch.randn(images, queries, 8, generator=random)
    return {**outputs, "pred_masks": MaskLogits(features, codes, torch.full(codes.shape[:2], 0.1))}


def random_mask_targets(counts: list[int], seed: int = 0) -> list[Target]:
    """As `random_targets`, with the boxes filled as masks in an input of 64 x 64."""
    cells = (torch.arange(64) + 0.5) / 64
    found = random_targets(counts, seed=seed)
    for target in found:
        cx, cy, w, h = target["boxes"][:, :, None, None].unbind(1)
        target["masks"] = ((cells - cx).abs() < w / 2) & ((cells[:, None] - cy).abs() < h / 2)
    return found


def random_outputs(images: int, queries: int, num_classes: int = 4, seed: int = 0) -> RawOutputs:
    """Of one layer alone."""
    random = torch.Generator().manual_seed(seed)
    return {
        "pred_logits": torch.randn(images, queries, num_classes + 1, generator=random),
        "pred_boxes": torch.rand(images, queries, 4, generator=random) * 0.5 + 0.2,
    }
