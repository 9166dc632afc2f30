"""Which sample is seen when, and at which size."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

# Offsets from the model's own resolution, in blocks of patch_size x num_windows pixels.
_OFFSETS = range(-3, 5)
_EXPANDED_OFFSETS = range(-5, 6)
_LEAST_STEPS = 5
"""Of an epoch."""


def multi_scale_sizes(resolution: int, block_size: int, expanded: bool) -> list[int]:
    """The training resolutions around the model's own, smallest first; none has fewer than two blocks."""
    blocks = resolution // block_size
    offsets = _EXPANDED_OFFSETS if expanded else _OFFSETS
    return [(blocks + offset) * block_size for offset in offsets if blocks + offset >= 2]


def step_scale(sizes: Sequence[int], seed: int, step: int) -> int:
    """The size of all samples of a step, the same on all ranks."""
    return random.Random((seed << 32) | step).choice(sizes)  # noqa: S311 - not cryptography


def images_of_rank(
    num_images: int, rank: int, world_size: int, shards: Int64[np.ndarray, "N"] | None
) -> Int64[np.ndarray, "M"]:
    """The images that a rank takes of a split, in their order; over all ranks each once, and as many to within one.

    Of images in shards they are neighbours, so that a rank needs few shards, at most two of them in part; else every
    `world_size`-th.
    """
    if shards is None or world_size == 1:
        return np.arange(rank, num_images, world_size)
    return np.array_split(np.argsort(shards, kind="stable"), world_size)[rank]


def steps_per_epoch(num_images: int, images_per_step: int, at_least: int = _LEAST_STEPS) -> int:
    """The last one is filled up; a dataset too small for `at_least` is repeated."""
    return max(-(-num_images // images_per_step), at_least)


@dataclass(frozen=True)
class SampleRequest:
    """Image `index`, as augmented in `epoch`, `size` pixels wide and high."""

    index: int
    epoch: int
    size: int


@dataclass
class EpochBatches:
    """The batch sampler of training: for each step of `epoch`, from `start_step` on, the samples of this rank.

    Every image is seen once per epoch; the last step is filled with further ones. A dataset too small for `min_steps`
    steps is repeated, each image as often as any other to within one.

    The images of a step depend on the number of images per step, not on how it splits into batch_size x
    grad_accum_steps x world_size; but of a dataset in shards, each of several ranks takes the images of its own.

    There is no `len()`: a resumed epoch has fewer than `steps_per_epoch` steps.
    """

    num_images: int
    batch_size: int
    grad_accum_steps: int
    seed: int
    rank: int
    world_size: int
    scale_of_step: Callable[[int], int]
    """Global step -> size of its samples."""
    shards: Int64[np.ndarray, "N"] | None = None
    """Which shard each image lies in. None: each is a file of its own."""
    min_steps: int = _LEAST_STEPS
    epoch: int = 0
    start_step: int = 0

    @property
    def images_per_step(self) -> int:
        """Over all ranks."""
        return self.batch_size * self.grad_accum_steps * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.num_images, self.images_per_step, self.min_steps)

    def share(self) -> Int64[np.ndarray, "S N"]:
        """Image indices of this rank, for each step of the epoch."""
        # No sample has this index, so no augmentation shares these random numbers.
        key = [self.seed, self.epoch, self.num_images]
        if self.shards is None or not 1 < self.world_size <= self.num_images:
            order = _repeated(np.arange(self.num_images), self.steps_per_epoch * self.images_per_step, key)
            return order.reshape(self.steps_per_epoch, self.world_size, -1)[:, self.rank]
        own = images_of_rank(self.num_images, self.rank, self.world_size, self.shards)
        needed = self.steps_per_epoch * self.images_per_step // self.world_size
        return _repeated(own, needed, [*key, self.rank]).reshape(self.steps_per_epoch, -1)

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        epoch, share = self.epoch, self.share()
        for step in range(self.start_step, self.steps_per_epoch):
            size = self.scale_of_step(epoch * self.steps_per_epoch + step)
            yield [SampleRequest(int(index), epoch, size) for index in share[step]]


def _repeated(images: Int64[np.ndarray, "N"], needed: int, key: list[int]) -> Int64[np.ndarray, "K"]:
    """So many images by chance, none again before all have been taken equally often."""
    rng = np.random.default_rng(key)
    rounds = -(-needed // len(images))
    return np.concatenate([rng.permutation(images) for _ in range(rounds)])[:needed].astype(np.int64)
