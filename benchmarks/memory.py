"""How much memory does training take, and does the batch size that the documentation advises fit a card?

    OMP_NUM_THREADS=1 python benchmarks/memory.py

A count, not a measurement on a card: one micro-batch runs forward and backward on the CPU under bf16 autocast, at the
largest size of multi-scale training. The bytes of all tensors are followed, for one image and for two; what one image
more takes gives larger batches.
"""

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from rfdetr.config.presets import preset
from rfdetr.config.runs import TrainConfig
from rfdetr.models.criterion import detection_losses, total_loss
from rfdetr.models.detector import Detector
from rfdetr.training.run import training_sizes
from rfdetr.training.step import loss_weights, mask_supervision
from rfdetr.types import ImageBatch, Target

MIB, GIB = 2**20, 2**30
CONFIG = TrainConfig(dataset_dir="unused")
SIZES = ("nano", "medium", "large", "seg-nano", "seg-medium", "seg-large", "seg-xlarge", "seg-2xlarge")
ADVICE = (("A100", 40, 16), ("RTX 4090", 24, 8), ("RTX 3090", 24, 8), ("T4", 15, 4), ("RTX 3070", 8, 2))
"""The page's cards, the GiB of each and its batch size (the fp16 of a T4 takes as many bytes as bf16)."""
BATCH_SIZES = (16, 8, 4, 2, 1)
# Assumed, not counted: CUDA's context with its libraries; and what the allocator cannot use between its blocks.
CONTEXT, LOSSES_OF_ALLOCATOR = 0.8 * GIB, 1.15


@dataclass(frozen=True)
class Line:
    """Bytes as a function of the images in a micro-batch."""

    fixed: float
    per_image: float

    @classmethod
    def through(cls, one: int, two: int) -> "Line":
        return cls(2 * one - two, two - one)

    def at(self, images: int) -> float:
        return self.fixed + images * self.per_image


@dataclass(frozen=True)
class Need:
    """What training a size takes, in bytes."""

    state: int
    """Weights, Adam's two moments and the EMA. Gradients come and go: they are part of the peak."""
    saved: Line
    """Kept by the forward pass for the backward pass, weights aside."""
    peak: Line
    """The most that forward and backward pass hold at once, beside the state."""

    def on_card(self, images: int) -> float:
        return CONTEXT + LOSSES_OF_ALLOCATOR * (self.state + self.peak.at(images))


def make_batch(detector: Detector, images: int, pixels: int, objects: int) -> ImageBatch:
    """Noise; nothing here depends on what is to be seen."""
    rng = torch.Generator().manual_seed(0)
    targets: list[Target] = []
    for index in range(images):
        boxes = torch.cat([torch.rand(objects, 2, generator=rng), torch.full((objects, 2), 0.1)], dim=1)
        labels = torch.randint(detector.config.num_classes, (objects,), generator=rng)
        target: Target = {"boxes": boxes, "labels": labels, "orig_size": torch.tensor([pixels] * 2), "image_id": index}
        if detector.config.segmentation_head:
            target["masks"] = torch.rand(objects, pixels, pixels, generator=rng) > 0.9
        targets.append(target)
    return ImageBatch(torch.randn(images, 3, pixels, pixels, generator=rng), targets)


def count(detector: Detector, images: int, pixels: int, objects: int) -> tuple[int, int]:
    """Bytes saved for the backward pass, and at the peak."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in detector.state_dict().values()}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    detector.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        batch = make_batch(detector, images, pixels, objects)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs = detector(batch.images)
                groups, supervision = detector.config.group_detr, mask_supervision(CONFIG, seed=0)
                losses = detection_losses(outputs, batch.targets, torch.ones(()), groups, supervision)
            loss = total_loss(losses, loss_weights(CONFIG))
        loss.backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return sum(saved.values()), peak


def need(size: str, checkpointing: bool, objects: int) -> Need:
    model = preset(size)
    detector = Detector(model).train()
    detector.backbone.vit.gradient_checkpointing = checkpointing
    pixels = training_sizes(model, CONFIG)[-1]
    one, two = (count(detector, images, pixels, objects) for images in (1, 2))
    every = sum(parameter.nbytes for parameter in detector.parameters())
    trained = sum(parameter.nbytes for parameter in detector.parameters() if parameter.requires_grad)
    return Need(2 * every + 2 * trained, saved=Line.through(one[0], two[0]), peak=Line.through(one[1], two[1]))


def print_needs(needs: dict[tuple[str, bool], Need]) -> None:
    print("| size | pixels at most | checkpointing | state, MiB | saved per image, MiB | peak: MiB + MiB per image |")
    print("| --- | ---: | --- | ---: | ---: | ---: |")
    for (size, checkpointing), found in needs.items():
        pixels = training_sizes(preset(size), CONFIG)[-1]
        peak = f"{found.peak.fixed / MIB:.0f} + {found.peak.per_image / MIB:.0f}"
        columns = (size, pixels, "yes" if checkpointing else "no", f"{found.state / MIB:.0f}")
        print("|", " | ".join(map(str, columns)), f"| {found.saved.per_image / MIB:.0f} | {peak} |")


def print_advice(needs: dict[tuple[str, bool], Need]) -> None:
    cards = " | ".join(f"{card}, {gib}: {images}" for card, gib, images in ADVICE)
    print(f"\n| size | checkpointing | {cards} |\n| --- | --- |{' --- |' * len(ADVICE)}")
    for (size, checkpointing), found in needs.items():
        cells = []
        for _, gib, images in ADVICE:
            most = next((batch for batch in BATCH_SIZES if found.on_card(batch) <= gib * GIB), 0)
            cells.append(f"{found.on_card(images) / GIB:.1f} (up to {most})")
        print(f"| {size} | {'yes' if checkpointing else 'no'} |", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--objects", type=int, default=30, help="in every image")
    args = parser.parse_args()
    cases = [(size, checkpointing) for size in args.sizes for checkpointing in (False, True)]
    needs = {case: need(*case, args.objects) for case in cases}
    print_needs(needs)
    print_advice(needs)


if __name__ == "__main__":
    main()
