import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rfdetr.data.batches import EpochBatches, multi_scale_sizes, step_scale

NANO = [224, 256, 288, 320, 352, 384, 416, 448, 480, 512, 544]


def batches(num_images: int = 100, batch_size: int = 4, grad_accum_steps: int = 1, min_steps: int = 5) -> EpochBatches:
    return EpochBatches(
        num_images,
        batch_size,
        grad_accum_steps,
        seed=3,
        rank=0,
        world_size=1,
        scale_of_step=lambda step: 1000 + step,
        min_steps=min_steps,
    )


def steps(sampler: EpochBatches) -> list[set[int]]:
    return [{request.index for request in step} for step in sampler]


@pytest.mark.parametrize(
    ("resolution", "block_size", "expanded", "sizes"),
    [
        pytest.param(384, 32, True, NANO, id="expanded"),
        pytest.param(384, 32, False, NANO[2:-1], id="normal"),
        pytest.param(560, 56, False, [392, 448, 504, 560, 616, 672, 728, 784], id="base"),
        pytest.param(128, 32, True, [64, 96, 128, 160, 192, 224, 256, 288], id="none below two blocks"),
    ],
)
def test_multi_scale_sizes(resolution: int, block_size: int, expanded: bool, sizes: list[int]) -> None:
    assert multi_scale_sizes(resolution, block_size, expanded) == sizes


def test_multi_scale_sizes_of_all_models(shared: Path) -> None:
    table = json.loads((shared / "spec/oracles/multi_scale.json").read_text())
    rows = {"nano": (384, 32), "small": (512, 32), "medium": (576, 32), "base": (560, 56), "large": (704, 32)}
    for name, (resolution, block_size) in rows.items():
        assert multi_scale_sizes(resolution, block_size, expanded=False) == table[name]["normal"]
        assert multi_scale_sizes(resolution, block_size, expanded=True) == table[name]["expanded"]


def test_scales_of_seed_0_are_those_of_the_reference(shared: Path) -> None:
    expected = json.loads((shared / "spec/oracles/multi_scale_choice.json").read_text())["nano_expanded_first_40"]
    assert [step_scale(NANO, 0, step) for step in range(40)] == expected


def test_scales_depend_on_the_seed() -> None:
    assert step_scale(NANO, 0, 5) == 512
    assert [step_scale(NANO, 0, step) for step in range(20)] != [step_scale(NANO, 1, step) for step in range(20)]


@pytest.mark.parametrize(
    ("num_images", "steps_per_epoch", "times"),
    [
        pytest.param(100, 25, {1}, id="whole steps"),
        pytest.param(97, 25, {1, 2}, id="the last step is filled"),
        pytest.param(20, 5, {1}, id="just enough"),
        pytest.param(7, 5, {2, 3}, id="few images are repeated evenly"),
        pytest.param(1, 5, {20}, id="one image"),
    ],
)
def test_every_image_is_seen(num_images: int, steps_per_epoch: int, times: set[int]) -> None:
    sampler = batches(num_images)
    seen = Counter(request.index for step in sampler for request in step)
    assert sampler.steps_per_epoch == len(list(sampler)) == steps_per_epoch
    assert sorted(seen) == list(range(num_images))
    assert set(seen.values()) == times
    assert {len(step) for step in sampler} == {4}


def test_epochs_and_seeds_have_their_own_order() -> None:
    first = batches()
    assert steps(first) == steps(batches())
    assert steps(first) != steps(replace(first, epoch=1))
    assert steps(first) != steps(replace(first, seed=4))


def test_requests_carry_the_epoch_and_the_size_of_their_global_step() -> None:
    requests = [(step[0].epoch, step[0].size) for step in replace(batches(20), epoch=2)]
    assert requests == [(2, 1010), (2, 1011), (2, 1012), (2, 1013), (2, 1014)]


def test_an_epoch_resumes_where_it_was_left() -> None:
    whole = batches()
    assert list(replace(whole, start_step=7)) == list(whole)[7:]
    assert list(replace(whole, start_step=25)) == []
    assert not hasattr(whole, "__len__")


@pytest.mark.parametrize(
    ("batch_size", "grad_accum_steps", "world_size"),
    [(1, 8, 1), (8, 1, 1), (4, 1, 2), (1, 2, 4), (1, 1, 8)],
    ids=str,
)
def test_the_images_of_a_step_do_not_depend_on_how_it_is_split(
    batch_size: int, grad_accum_steps: int, world_size: int
) -> None:
    whole = list(batches(batch_size=2, grad_accum_steps=4))
    split = replace(batches(batch_size=batch_size, grad_accum_steps=grad_accum_steps), world_size=world_size)
    ranks = [list(replace(split, rank=rank)) for rank in range(world_size)]
    assert [[request for share in shares for request in share] for shares in zip(*ranks, strict=True)] == whole
