"""batch_size="auto": the largest micro-batch that fits into memory, for the same number of images per step."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rfdetr.config.runs import TrainConfig
from rfdetr.console import say
from rfdetr.data.annotations import Annotations
from rfdetr.distributed import gathered, rank_and_world_size
from rfdetr.errors import ConfigError
from rfdetr.models.detector import Detector
from rfdetr.training.checkpoints import copy_bytes
from rfdetr.training.memory import GIB, PeakMemory, held_memory, is_out_of_memory, return_gpu_memory, usable_memory
from rfdetr.training.rehearsal import densest_steps, evaluate_few, on_stage, remedies
from rfdetr.training.step import exchange_bytes

USUAL_BATCH_SIZE = int(TrainConfig.model_fields["batch_size"].default)
# The rest is for what changes from step to step, and on the CPU for the loader processes and for everybody else.
SHARE_OF_CARD, SHARE_OF_MACHINE = 0.95, 0.8


def fitting_batch_size(
    detector: Detector,
    train_split: Annotations,
    valid_split: Annotations,
    config: TrainConfig,
    device: torch.device,
    devices: int = 1,
    devices_here: int = 1,
) -> TrainConfig:
    """The config with a number for batch_size="auto", and the grad_accum_steps that keep the images per step.

    They are those of the field's default times grad_accum_steps. Says what was chosen. In a process group all have to
    call this, and all get the same. `devices` is the number of processes that the run will have, if not those of a
    group, and `devices_here` how many of them on this machine.

    Raises:
        ConfigError: not even one image fits.
    """
    if config.batch_size != "auto":
        return config
    return Trial(detector, train_split, valid_split, config, device, devices, devices_here).settle()


@dataclass
class Trial:
    """Finds out how much memory batches take."""

    detector: Detector
    train_split: Annotations
    valid_split: Annotations
    config: TrainConfig
    device: torch.device
    devices: int = 1
    devices_here: int = 1

    def __post_init__(self) -> None:
        self.effective = USUAL_BATCH_SIZE * self.config.grad_accum_steps
        self.candidates = [size for size in range(self.effective, 0, -1) if self.effective % size == 0]
        self.usable = usable_memory(self.device)
        if self.device.type == "cpu":
            of_group = gathered(socket.gethostname()).count(socket.gethostname())
            self.usable //= max(self.devices_here, of_group)

    @property
    def _processes(self) -> int:
        """Of the run, which may not have begun."""
        return max(self.devices, rank_and_world_size()[1])

    def settle(self) -> TrainConfig:
        """Raises:
        ConfigError: not even one image fits.
        """
        find = self.on_card if self.device.type == "cuda" else self.extrapolated
        batch_size, needed = find()
        memory = f"{needed / GIB:.1f} of {self.usable / GIB:.1f} GiB"
        if not batch_size:
            raise ConfigError(
                f"batch_size: not even 1 image at a time fits into the memory of {self.device} ({memory}); "
                f"try {remedies(self.config)}"
            )
        steps, each = self.effective // batch_size, " on each device" if self._processes > 1 else ""
        say(
            f"batch_size: {batch_size} fits ({memory}), "
            f"so grad_accum_steps={steps} keeps {self.effective} images per step{each}"
        )
        return self.config.replace(batch_size=batch_size, grad_accum_steps=steps)

    def needed(self, batch_size: int) -> int:
        """Bytes that a run with this micro-batch holds at most."""
        config = self.config.replace(batch_size=batch_size, grad_accum_steps=self.effective // batch_size)
        with PeakMemory(self.device) as memory, on_stage(self.detector, self.train_split, config, self.device) as step:
            densest_steps(step, self.train_split)
            evaluate_few(step, self.valid_split, devices=1)
            copy = copy_bytes(step.detector, config, self.device)
            exchange = exchange_bytes(step.detector, config, self._processes)
        return memory.peak + copy + exchange

    def on_card(self) -> tuple[int, int]:
        """The first that no process runs out of memory with, and its bytes; 0 if there is none."""
        needed = 0
        for batch_size in self.candidates:
            try:
                needed = self.needed(batch_size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                needed = self.usable
            return_gpu_memory()
            needed = max(gathered(needed))
            if all(gathered(needed <= SHARE_OF_CARD * self.usable)):
                return batch_size, needed
        return 0, needed

    def extrapolated(self) -> tuple[int, int]:
        """The first that fits by what one and two images take; a process without memory is killed, not told."""
        before, one = held_memory(self.device), self.needed(1)
        each = one - before
        if all(gathered(one + each <= self.usable)):
            each = max(self.needed(2) - one, 0)
        room = int(SHARE_OF_MACHINE * self.usable)
        batch_size = min(gathered(largest_within(room, one, each, self.candidates)))
        return batch_size, one + max(batch_size - 1, 0) * each


def largest_within(room: int, one: int, each: int, candidates: Sequence[int]) -> int:
    """The first batch size for whose images the bytes are enough, `one` for the first and `each` for the others."""
    return next((size for size in candidates if one + (size - 1) * each <= room), 0)
