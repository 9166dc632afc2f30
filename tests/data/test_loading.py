import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import EpochBatches, SampleRequest, step_scale
from rfdetr.data.channels import Pixels
from rfdetr.data.collation import collate, on_device
from rfdetr.data.loading import EvaluationDataset, TrainingDataset, evaluation_loader, read_image, training_loader
from rfdetr.data.preprocess import normalize, squeezed, to_pixels
from rfdetr.data.reading import read_split
from rfdetr.data.resampling import picture_hw
from rfdetr.data.synthetic import draw_dataset
from rfdetr.errors import ImageError
from rfdetr.types import ImageBatch, Target

from .packing import path_of
from .tiny_coco import annotation, image, write_coco


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dataset(folder, train_images=12, seed=0)
    return read_split(folder, "train")


@pytest.fixture(scope="module")
def outlined(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    folder = tmp_path_factory.mktemp("outlined")
    draw_dataset(folder, train_images=12, seed=0)
    return read_split(folder, "train", masks=True)


def epoch(annotations: Annotations, batch_size: int = 2, grad_accum_steps: int = 2, **changes: Any) -> EpochBatches:
    sampler = EpochBatches(
        len(annotations),
        batch_size,
        grad_accum_steps,
        seed=1,
        rank=0,
        world_size=1,
        scale_of_step=lambda step: step_scale([32, 64, 96], 1, step),
        min_steps=3,
    )
    return replace(sampler, **changes)


def tensors(steps: Iterator[list[ImageBatch]]) -> list[list[Any]]:
    """Everything in the steps, sample by sample."""
    return [
        [
            [pixels, *(torch.as_tensor(value) for value in target.values())]
            for batch in step
            for pixels, target in zip(batch.images, batch.targets, strict=True)
        ]
        for step in steps
    ]


def assert_identical(a: list[Any], b: list[Any]) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_step_is_its_micro_batches(shapes: Annotations) -> None:
    steps = list(training_loader(shapes, epoch(shapes), augment="default", num_workers=0))
    assert [[len(batch.targets) for batch in step] for step in steps] == [[2, 2]] * 3
    sizes = [step_scale([32, 64, 96], 1, step) for step in range(3)]
    assert [[batch.images.shape for batch in step] for step in steps] == [[(2, 3, size, size)] * 2 for size in sizes]
    target = steps[0][0].targets[0]
    assert target["orig_size"].tolist() == [192, 192]
    assert 0 <= target["boxes"].min() <= target["boxes"].max() <= 1
    assert len(target["boxes"]) == len(target["labels"])


@pytest.mark.parametrize(("context", "num_workers"), [("fork", 2), ("spawn", 1)])
def test_workers_change_nothing(outlined: Annotations, context: str, num_workers: int) -> None:
    alone = training_loader(outlined, epoch(outlined), augment="default", num_workers=0)
    shared_out = training_loader(outlined, epoch(outlined), augment="default", num_workers=num_workers)
    shared_out.multiprocessing_context = context
    assert_identical(tensors(iter(alone)), tensors(iter(shared_out)))


@pytest.mark.parametrize("augment", ["default", "none"])
def test_reading_masks_changes_nothing_else(shapes: Annotations, outlined: Annotations, augment: Any) -> None:
    plain, masked = (TrainingDataset(split, augment, seed=1) for split in (shapes, outlined))
    for index in range(12):
        request = SampleRequest(index, epoch=0, size=64)
        (pixels, target), (same_pixels, masked_target) = plain[request], masked[request]
        assert pixels.equal(same_pixels)
        assert target["boxes"].equal(masked_target["boxes"])
        assert "masks" not in target
        assert masked_target["masks"].shape == (len(target["boxes"]), 64, 64)
        assert masked_target["masks"].any()


def test_persistent_workers_follow_the_epoch(shapes: Annotations) -> None:
    sampler = epoch(shapes)
    loader = training_loader(shapes, sampler, augment="default", num_workers=1)
    first = tensors(iter(loader))
    sampler.epoch, sampler.start_step = 1, 1
    resumed = tensors(iter(loader))
    fresh = training_loader(shapes, epoch(shapes, epoch=1), augment="default", num_workers=0)
    assert_identical(resumed, tensors(iter(fresh))[1:])
    assert len(first) == 3


def test_micro_batches_of_one_hold_the_same_samples(shapes: Annotations) -> None:
    whole = training_loader(shapes, epoch(shapes, 4, 1), augment="default", num_workers=0)
    single = training_loader(shapes, epoch(shapes, 1, 4), augment="default", num_workers=0)
    assert_identical(tensors(iter(whole)), tensors(iter(single)))


def test_an_augmentation_belongs_to_seed_epoch_and_index(shapes: Annotations) -> None:
    dataset = TrainingDataset(shapes, "default", seed=1)
    request = SampleRequest(index=2, epoch=0, size=64)
    again = TrainingDataset(shapes, "default", seed=1)[request]
    assert dataset[request][0].equal(again[0])
    others = [dataset[replace(request, epoch=number)][0] for number in range(1, 9)]
    others += [TrainingDataset(shapes, "default", seed=seed)[request][0] for seed in range(2, 9)]
    assert sum(not other.equal(again[0]) for other in others) > 9


def test_without_augmentation_training_sees_what_evaluation_sees(outlined: Annotations) -> None:
    train = TrainingDataset(outlined, "none", seed=1)[SampleRequest(3, epoch=7, size=64)]
    evaluation = EvaluationDataset(outlined, 64)[3]
    assert train[0].equal(evaluation[0])
    torch.testing.assert_close(train[1]["boxes"], evaluation[1]["boxes"])
    assert train[1]["labels"].equal(evaluation[1]["labels"])
    assert train[1]["masks"].equal(evaluation[1]["masks"])


def test_evaluation_over_all_ranks_sees_each_image_once_and_in_order(shapes: Annotations) -> None:
    ids = [
        [
            target["image_id"]
            for batch in evaluation_loader(shapes, 32, batch_size=3, num_workers=0, rank=rank, world_size=5)
            for target in batch.targets
        ]
        for rank in range(5)
    ]
    assert ids == [[0, 5, 10], [1, 6, 11], [2, 7], [3, 8], [4, 9]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_pixels_travel_as_bytes_and_become_numbers_on_the_device(shapes: Annotations, num_workers: int) -> None:
    batch = next(iter(evaluation_loader(shapes, 32, batch_size=3, num_workers=num_workers)))
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    expected = normalize(squeezed(read_image(shapes, 2), 32))
    assert on_device(batch, torch.device("cpu")).images[2].equal(expected)


def test_evaluation_batches(shapes: Annotations) -> None:
    loader = evaluation_loader(shapes, 32, batch_size=5, num_workers=2)
    assert [len(batch.images) for batch in loader] == [5, 5, 2]
    assert len(loader) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_the_global_random_state_alone(shapes: Annotations, num_workers: int) -> None:
    before: Tensor = torch.get_rng_state()
    list(training_loader(shapes, epoch(shapes), augment="default", num_workers=num_workers))
    list(evaluation_loader(shapes, 32, batch_size=4, num_workers=num_workers))
    assert torch.get_rng_state().equal(before)


def test_a_picture_that_was_replaced_by_one_of_another_size(tmp_path: Path) -> None:
    annotations = read_split(write_coco(tmp_path), "train")
    Image.new("RGB", (30, 20)).save(path_of(annotations, 0))
    with pytest.raises(ImageError) as error:
        EvaluationDataset(annotations, 32)[0]
    assert str(error.value) == (
        "1.png: is no longer of 60 x 40 pixels, as when the dataset was read: its boxes would be misplaced"
    )


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_large_pictures_are_decoded_at_reduced_scale_for_training_alone(tmp_path: Path, masks: bool) -> None:
    """A white rectangle stays where its box and mask are."""
    outline = [[300, 200, 900, 200, 900, 600, 300, 600]]
    box = annotation(1, bbox=[300, 200, 600, 400], segmentation=outline)
    write_coco(tmp_path, images=[image(1, file_name="1.jpg", width=1207, height=803)], annotations=[box])
    pixels = np.zeros((803, 1207, 3), dtype=np.uint8)
    pixels[200:600, 300:900] = 255
    Image.fromarray(pixels).save(tmp_path / "train/1.jpg", quality=95)
    split = read_split(tmp_path, "train", masks=masks)
    assert [picture_hw(read_image(split, 0, at_least)) for at_least in (None, 402, 400)] == [
        (803, 1207),
        (803, 1207),
        (402, 604),
    ]
    seen, target = TrainingDataset(split, "none", seed=0, at_least=400)[SampleRequest(0, epoch=0, size=64)]
    in_full, in_full_target = EvaluationDataset(split, 64)[0]
    assert target["boxes"].equal(in_full_target["boxes"])
    assert not seen.equal(in_full)
    assert ((seen > 127) != (in_full > 127)).float().mean() < 0.01
    if masks:
        assert target["masks"].equal(in_full_target["masks"])
        assert ((seen[0] > 127) != target["masks"][0]).float().mean() < 0.01


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_masks_of_a_batch_are_on_the_images_objects(outlined: Annotations, num_workers: int) -> None:
    """A mask covers at least a third of its box: circles, rectangles, triangles and stars do."""
    for batch in evaluation_loader(outlined, 64, batch_size=5, num_workers=num_workers):
        for target in batch.targets:
            assert len(target["masks"]) == len(target["boxes"])
            for mask, (cx, cy, w, h) in zip(target["masks"], (target["boxes"] * 64).tolist(), strict=True):
                around = mask[max(0, int(cy - h / 2) - 1) : int(cy + h / 2) + 2]
                around = around[:, max(0, int(cx - w / 2) - 1) : int(cx + w / 2) + 2]
                assert w * h / 3 < mask.sum() == around.sum()


def test_the_masks_of_a_batch_come_from_a_worker_as_one_tensor(outlined: Annotations) -> None:
    (batch,) = evaluation_loader(outlined, 64, batch_size=12, num_workers=1)
    storages = {target["masks"].untyped_storage().data_ptr() for target in batch.targets}
    assert len(storages) == 1
    assert batch.targets[0]["masks"].is_shared()


def test_a_batch_without_objects(tmp_path: Path) -> None:
    empty = read_split(write_coco(tmp_path, "valid", annotations=[]), "valid", masks=True)
    (batch,) = evaluation_loader(empty, 32, batch_size=2, num_workers=1)
    assert [target["masks"].shape for target in batch.targets] == [(0, 32, 32)] * 2


def objects_within(thing: object) -> int:
    """All Python objects that it leads to, code aside."""
    known, left = set(), [thing]
    while left:
        item = left.pop()
        if id(item) not in known and not isinstance(item, type | ModuleType | FunctionType):
            known.add(id(item))
            left += gc.get_referents(item)
    return len(known)


def test_datasets_hold_no_python_object_per_image(tmp_path: Path) -> None:
    """Their reference counts would be written to, which copies the memory that forked processes share."""
    counts = []
    for number in (20, 60):
        outline = [[10, 20, 40, 20, 40, 30]]
        rows = [annotation(row, image_id=row % number, segmentation=outline) for row in range(3 * number)]
        root = write_coco(tmp_path / str(number), images=[image(row) for row in range(number)], annotations=rows)
        for row in {*range(number)} - {1, 2}:
            (root / f"train/{row}.png").hardlink_to(root / "train/1.png")
        split = read_split(root, "train", masks=True)
        assert len(split) == number
        counts.append(
            [objects_within(TrainingDataset(split, "default", 0)), objects_within(EvaluationDataset(split, 32))]
        )
    assert counts[0] == counts[1]


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_many_small_targets_need_few_file_handles(tmp_path: Path, masks: bool) -> None:
    resource = pytest.importorskip("resource")
    outline = [[10, 20, 40, 20, 40, 30]]
    rows = [annotation(number, image_id=number % 400, segmentation=outline) for number in range(400)]
    write_coco(tmp_path, images=[image(number) for number in range(400)], annotations=rows)
    for number in {*range(400)} - {1, 2}:
        (tmp_path / f"train/{number}.png").hardlink_to(tmp_path / "train/1.png")
    annotations = read_split(tmp_path, "train", masks=masks)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        loader = evaluation_loader(annotations, 32, batch_size=100, num_workers=1)
        loader.timeout = 20  # without handles it would wait for ever
        kept = list(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(len(batch.targets) for batch in kept) == 400


def test_a_batch_of_pictures_of_several_types_is_what_each_is_alone() -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pictures: list[Pixels] = [bytes_, bytes_.astype(np.uint16) * 257, bytes_.astype(np.float32) / 255]
    target: Target = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "orig_size": torch.tensor([8, 8]),
        "image_id": 0,
    }
    together = on_device(collate([(to_pixels(picture), target) for picture in pictures]), torch.device("cpu"))
    for found, picture in zip(together.images, pictures, strict=True):
        assert found.equal(normalize(to_pixels(picture)[None])[0])
