"""Images that cannot be decoded in the middle of a run."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rfdetr.config.runs import Split
from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import EpochBatches, SampleRequest
from rfdetr.data.loading import TrainingDataset, evaluation_loader, still_unreadable, training_loader
from rfdetr.data.reading import read_split
from rfdetr.data.unreadable import check_number, number_line
from rfdetr.errors import ImageError

from .packing import path_of
from .tiny_coco import annotation, image, write_coco

COUNT = 12
BAD = (3, 7)


def write_photographs(root: Path, split: Split = "train") -> Annotations:
    """Twelve JPEG files, each with an object."""
    images = [image(number, file_name=f"{number}.jpg") for number in range(COUNT)]
    write_coco(root, split, images, [annotation(number, image_id=number) for number in range(COUNT)])
    for file in (root / split).glob("*.png"):
        file.unlink()
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / split / f"{number}.jpg")
    return read_split(root, split)


def truncate(annotations: Annotations, numbers: Iterable[int]) -> None:
    """Cut the files in the middle of their pixels; their headers say nothing of it."""
    for number in numbers:
        path = path_of(annotations, number)
        path.write_bytes(path.read_bytes()[:-900])


@pytest.fixture
def photographs(tmp_path: Path) -> Annotations:
    annotations = write_photographs(tmp_path)
    truncate(annotations, BAD)
    return annotations


def batches(**changes: Any) -> EpochBatches:
    usual: dict[str, Any] = {"batch_size": 2, "grad_accum_steps": 2, "rank": 0, "world_size": 1, "min_steps": 3}
    return EpochBatches(COUNT, seed=5, scale_of_step=lambda _: 32, **{**usual, **changes})


def samples_of(annotations: Annotations, sampler: EpochBatches, num_workers: int = 0) -> tuple[list[Any], set[int]]:
    """Image id and pixels of every sample, step by step; and what could not be read."""
    loader = training_loader(annotations, sampler, augment="default", num_workers=num_workers)
    seen = [
        [
            (target["image_id"], pixels)
            for batch in step
            for target, pixels in zip(batch.targets, batch.images, strict=True)
        ]
        for step in loader
    ]
    return seen, set(loader.take_unreadable())


def assert_same_samples(found: Sequence[Any], expected: Sequence[Any]) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_batch_stays_full_and_the_images_are_named(num_workers: int, photographs: Annotations) -> None:
    sampler = batches()
    loader = training_loader(photographs, sampler, augment="default", num_workers=num_workers)
    steps = [[target["image_id"] for batch in step for target in batch.targets] for step in loader]
    requests = [[request.index for request in step] for step in sampler]
    assert [len(step) for step in steps] == [4, 4, 4]
    for ids, wanted in zip(steps, requests, strict=True):
        assert [here for here, index in zip(ids, wanted, strict=True) if index not in BAD] == [
            index for index in wanted if index not in BAD
        ]
    assert not set(BAD) & {number for step in steps for number in step}
    unreadable = loader.take_unreadable()
    assert sorted(unreadable) == sorted(BAD)
    for number, reason in unreadable.items():
        assert f"{number}.jpg: " in reason
        assert "truncated" in reason
    assert not loader.has_unreadable


def test_substitutes_depend_on_seed_epoch_and_image_alone(photographs: Annotations) -> None:
    """Not on workers, ranks, micro-batches, nor on where a run was resumed."""
    whole, unreadable = samples_of(photographs, batches())
    assert unreadable == set(BAD)
    assert_same_samples(samples_of(photographs, batches(), num_workers=2)[0], whole)
    assert_same_samples(samples_of(photographs, batches(batch_size=4, grad_accum_steps=1))[0], whole)
    assert_same_samples(samples_of(photographs, batches(start_step=1))[0], whole[1:])
    ranks = [samples_of(photographs, batches(batch_size=1, world_size=2, rank=rank))[0] for rank in (0, 1)]
    assert_same_samples([first + second for first, second in zip(*ranks, strict=True)], whole)
    again = TrainingDataset(photographs, "default", seed=5)[SampleRequest(3, epoch=0, size=32)]
    others = [TrainingDataset(photographs, "default", seed=5)[SampleRequest(3, epoch, 32)] for epoch in range(1, 7)]
    assert len({other[1]["image_id"] for other in [again, *others]}) > 2


def test_images_that_come_twice_have_a_substitute_each_time(photographs: Annotations) -> None:
    """A failure that came before in the same batch changes nothing."""
    dataset, request = TrainingDataset(photographs, "default", seed=5), SampleRequest(3, epoch=0, size=32)
    alone = dataset[request]
    (_, second), unreadable = dataset.readable([request, request])
    assert_same_samples([second[0]], [alone[0]])
    assert list(unreadable) == [3]


def test_a_split_of_unreadable_images_is_an_error(photographs: Annotations) -> None:
    truncate(photographs, set(range(COUNT)) - set(BAD))
    with pytest.raises(ImageError, match=r"^of the train split, none of 12 images can be read, the first: .*\.jpg: "):
        samples_of(photographs, batches(), num_workers=1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_leaves_them_out(num_workers: int, photographs: Annotations) -> None:
    loader = evaluation_loader(photographs, 32, batch_size=4, num_workers=num_workers)
    ids = [[target["image_id"] for target in batch.targets] for batch in loader]
    assert ids == [[0, 1, 2], [4, 5, 6], [8, 9, 10, 11]]
    assert sorted(loader.take_unreadable()) == sorted(BAD)


def test_a_batch_of_none_is_no_batch(photographs: Annotations) -> None:
    truncate(photographs, [2])
    ids = [batch.targets[0]["image_id"] for batch in evaluation_loader(photographs, 32, batch_size=2, num_workers=0)]
    assert ids == [0, 4, 6, 8, 10]


def test_mended_images_are_readable_again(photographs: Annotations) -> None:
    assert list(still_unreadable(photographs, [1, 3, 7])) == [3, 7]
    path = path_of(photographs, 3)
    Image.new("RGB", (60, 40)).save(path)
    assert list(still_unreadable(photographs, [3, 7])) == [7]


def test_too_many_are_listed() -> None:
    found = {number: f"{number}.jpg: cannot be read: broken" for number in range(23)}
    check_number(found, "valid", 50, limit=23)
    with pytest.raises(ImageError) as caught:
        check_number(found, "valid", 50, limit=22)
    assert str(caught.value).splitlines() == [
        "23 of 50 images of the valid split cannot be read, more than max_bad_images=22 allows. Mend them, take them "
        "out of the dataset, or raise max_bad_images:",
        *[f"  {number}.jpg: cannot be read: broken" for number in range(20)],
        "  and 3 more",
    ]


def test_the_line_of_an_epoch() -> None:
    assert number_line({}) is number_line({"train": {}}) is None
    assert number_line({"train": {1: "a", 5: "b"}, "valid": {3: "c"}}) == (
        "images that cannot be read: 2 of train (others take their places), 1 of valid (left out)"
    )
