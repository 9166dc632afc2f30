"""A detector that is small enough to test with, and complete, and ground truth for it."""

import torch

from rfdetr.config.model import ModelConfig
from rfdetr.types import RawOutputs, Target

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


def random_targets(counts: list[int], num_classes: int = 4, seed: int = 0) -> list[Target]:
    """Images with so many objects each."""
    random = torch.Generator().manual_seed(seed)
    found: list[Target] = []
    for image_id, count in enumerate(counts):
        boxes = torch.rand(count, 4, generator=random) * 0.3 + 0.2
        labels = torch.randint(num_classes, (count,), generator=random)
        found.append({"boxes": boxes, "labels": labels, "orig_size": torch.tensor([48, 64]), "image_id": image_id})
    return found


def random_outputs(images: int, queries: int, num_classes: int = 4, seed: int = 0) -> RawOutputs:
    """Of one layer alone."""
    random = torch.Generator().manual_seed(seed)
    return {
        "pred_logits": torch.randn(images, queries, num_classes + 1, generator=random),
        "pred_boxes": torch.rand(images, queries, 4, generator=random) * 0.5 + 0.2,
    }
