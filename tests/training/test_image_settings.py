"""The settings that say which pictures a run sees, and how they are loaded."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from rfdetr.errors import TrainingError
from rfdetr.training.run import Run
from rfdetr.types import ImageBatch

from .test_settings import opened
from .tiny import CPU

CUDA = torch.device("cuda")


def epochs_of(run: Run, count: int) -> Iterator[Iterator[list[ImageBatch]]]:
    for epoch in range(count):
        run.batches.epoch = epoch
        yield iter(run.loader)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        pytest.param({"multi_scale": False}, [64], id="one size"),
        pytest.param({"multi_scale": True, "expanded_scales": False}, [64, 96, 128, 160, 192], id="multi_scale"),
        pytest.param({"multi_scale": True}, [64, 96, 128, 160, 192, 224], id="expanded_scales"),
    ],
)
def test_images_are_of_the_sizes_of_multi_scale_and_expanded_scales(
    settings: dict[str, Any], sizes: list[int], dots: Path, tmp_path: Path
) -> None:
    run = opened(dots, tmp_path, batch_size=1, grad_accum_steps=2, **settings)
    steps = [{batch.images.shape[-2:] for batch in step} for epoch in epochs_of(run, 8) for step in epoch]
    assert all(len(shapes) == 1 for shapes in steps)  # of one size within a step
    assert sorted(set().union(*steps)) == [(size, size) for size in sizes]


def versions_of_images(run: Run) -> list[int]:
    """How many different pictures of each image two epochs have."""
    versions: dict[int, list[Tensor]] = {}
    for epoch in epochs_of(run, 2):
        for batch in (batch for step in epoch for batch in step):
            for target, pixels in zip(batch.targets, batch.images, strict=True):
                known = versions.setdefault(target["image_id"], [])
                if not any(torch.equal(pixels, other) for other in known):
                    known.append(pixels)
    return [len(known) for known in versions.values()]


def test_augment_none_trains_on_the_images_as_they_are(dots: Path, tmp_path: Path) -> None:
    assert versions_of_images(opened(dots, tmp_path, augment="none")) == [1] * 8
    assert versions_of_images(opened(dots, tmp_path, augment="default")) != [1] * 8
    assert versions_of_images(opened(dots, tmp_path, augment="none", noise=1.0)) != [1] * 8


def brightened(image: Any, boxes: Any, labels: Any, masks: Any) -> Any:
    if not len(labels):
        raise LookupError("no dots")
    return np.clip(image * np.random.uniform(0.5, 1), 0, 255).astype(np.uint8), boxes, labels, masks  # noqa: NPY002


def test_a_pipeline_of_the_user_makes_the_same_pictures_in_any_process(dots: Path, tmp_path: Path) -> None:
    alone, shared_out = (opened(dots, tmp_path, augment=brightened, num_workers=number, seed=5) for number in (0, 1))
    for own, other in zip(*(list(next(epochs_of(run, 1))) for run in (alone, shared_out)), strict=True):
        assert all(torch.equal(one.images, two.images) for one, two in zip(own, other, strict=True))
    assert versions_of_images(alone) != [1] * 8


def test_the_error_of_a_pipeline_comes_from_a_loader_process_as_it_is(dots: Path, tmp_path: Path) -> None:
    run = opened(dots, tmp_path, augment=lambda *parts: brightened(parts[0], [], [], None), num_workers=1)
    with pytest.raises(TrainingError, match=r"^augment: .*<lambda> failed with LookupError: no dots \(.*, line \d+\)$"):
        list(run.loader)


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("number", [0, 2])
def test_with_cache_pictures_are_decoded_once_and_the_same(
    kind: str, number: int, dots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = Path(shutil.copytree(dots, tmp_path / "data"))
    pictures = [
        [pixels for step in epoch for batch in step for pixels in batch.images]
        for epoch in epochs_of(opened(data, tmp_path / "plain", augment="default"), 2)
    ]
    cached = epochs_of(opened(data, tmp_path / "cached", augment="default", cache=kind, num_workers=number), 2)
    for expected, epoch in zip(pictures, cached, strict=True):
        seen = [pixels for step in epoch for batch in step for pixels in batch.images]
        torch.testing.assert_close(seen, expected, rtol=0, atol=0)
        for file in (data / "train").glob("*.png"):
            file.unlink()


def loading_processes(run: Run) -> list[set[int]]:
    """Those of each of two epochs."""
    others = {process.pid for process in psutil.Process().children()}
    found = []
    for epoch in epochs_of(run, 2):
        next(epoch)
        found.append({process.pid for process in psutil.Process().children()} - others)
        list(epoch)
    return found


@pytest.mark.parametrize("number", [0, 1, 2])
def test_num_workers_are_the_processes_that_load_images(number: int, dots: Path, tmp_path: Path) -> None:
    first, second = loading_processes(opened(dots, tmp_path, num_workers=number))
    assert len(first) == number
    assert second == first


@pytest.mark.parametrize("persistent", [None, True, False])
def test_persistent_workers_live_longer_than_an_epoch(persistent: bool | None, dots: Path, tmp_path: Path) -> None:
    first, second = loading_processes(opened(dots, tmp_path, num_workers=1, persistent_workers=persistent))
    assert (first == second) == (persistent is not False)
    assert len(first) == len(second) == 1


@pytest.mark.parametrize(("factor", "ahead"), [(None, 2), (1, 1), (3, 3)])
def test_prefetch_factor_is_the_batches_loaded_ahead(
    factor: int | None, ahead: int, dots: Path, tmp_path: Path
) -> None:
    run = opened(dots, tmp_path, num_workers=1, prefetch_factor=factor, persistent_workers=False)
    asked_for: list[int] = []
    run.batches.scale_of_step = lambda step: asked_for.append(step) or 64  # type: ignore[func-returns-value]
    next(iter(run.loader))
    assert asked_for == list(range(1 + ahead))


@pytest.mark.parametrize(
    ("setting", "device", "pinned"),
    [(None, CUDA, True), (True, CUDA, True), (False, CUDA, False), (None, CPU, False)],
    ids=str,
)
def test_pin_memory_reaches_the_loader(
    setting: bool | None, device: torch.device, pinned: bool, dots: Path, tmp_path: Path
) -> None:
    loader = opened(dots, tmp_path, device, pin_memory=setting, precision="32").loader
    assert loader.pin_memory == pinned


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("setting", [True, False])
def test_pin_memory_locks_the_pages_of_images(setting: bool, dots: Path, tmp_path: Path) -> None:
    (batch,) = next(iter(opened(dots, tmp_path, CUDA, pin_memory=setting).loader))
    assert batch.images.is_pinned() == setting
