"""A few steps and batches of a run, to know what all of it will take. Nothing is left changed or written."""

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from rfdetr.config.runs import TrainConfig
from rfdetr.console import size_words
from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import SampleRequest
from rfdetr.data.collation import collate
from rfdetr.data.loading import TrainingDataset
from rfdetr.devices import num_cores
from rfdetr.errors import ConfigError
from rfdetr.evaluation.evaluate import run_all
from rfdetr.models.detector import Detector
from rfdetr.training.checkpoints import copy_bytes
from rfdetr.training.display import duration
from rfdetr.training.epoch import EMA, REGULAR
from rfdetr.training.memory import PeakMemory, is_out_of_memory, usable_memory
from rfdetr.training.plan import Plan, make_plan, plan_lines
from rfdetr.training.setup import decoding_size, in_training, training_sizes
from rfdetr.training.state import Progress
from rfdetr.training.step import TrainingStep, exchange_bytes
from rfdetr.training.validation import ValidationLoss, evaluation_dtype
from rfdetr.types import ImageBatch

MOST_STEPS, SECONDS_OF_STEPS = 3, 20.0
"""When one of them is reached, no further step is measured."""
EVALUATED_BATCHES = 4
LOADED_IMAGES = 8


@dataclass(frozen=True)
class Rehearsal:
    """What a run will do, and about what it will need."""

    plan: Plan
    densest_objects: int
    """In the micro-batch that needs most memory: the images with the most objects, at the largest resolution."""
    densest_seconds: float
    """For this micro-batch."""
    usual_size: int
    """The resolution that needs about the mean time."""
    usual_seconds: float
    """For a micro-batch of images with few to many objects at that resolution."""
    loading_seconds: float
    """For a process to load one image."""
    step_seconds: float
    """For a step of the run, with all its micro-batches and their loading."""
    evaluation_seconds: float
    """For one evaluation of the whole validation split."""
    memory: int
    """Bytes held at most, evaluation included."""
    usable_memory: int
    """Bytes that the process could hold."""

    @property
    def epoch_seconds(self) -> float:
        """Of training, without evaluation."""
        return self.step_seconds * self.plan.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.epoch_seconds * self.plan.config.epochs + self.evaluation_seconds * self.plan.evaluations

    @property
    def waits_for_images(self) -> bool:
        """Whether loading is what decides the time of a step."""
        return self.step_seconds > 1.05 * self.usual_seconds * self.plan.config.grad_accum_steps

    def report(self) -> str:
        """All of it for people, a line for each part."""
        plan, batch_size = self.plan, self.plan.config.batch_size
        lines = [
            *plan_lines(plan),
            (
                "rehearsed",
                f"batch of {batch_size} with {self.densest_objects} objects, the most, at {plan.sizes[-1]} pixels: "
                f"{_seconds(self.densest_seconds)}; usual ones at {self.usual_size}: {_seconds(self.usual_seconds)}",
            ),
            ("loading", self._loading_words()),
            (
                "memory",
                f"about {size_words(self.memory)} of {size_words(self.usable_memory)}, evaluation and saving included",
            ),
            (
                "time",
                f"about {_seconds(self.step_seconds)} per step, {_seconds(self.epoch_seconds)} per epoch, "
                f"{_seconds(self.evaluation_seconds)} per evaluation: {duration(self.seconds)} in all",
            ),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:{width}}  {words}" for name, words in lines)

    def _loading_words(self) -> str:
        workers = self.plan.config.num_workers
        words = f"{_seconds(self.loading_seconds)} per image, in {workers or 'no'} processes of its own (num_workers)"
        return f"{words}; training waits for it" if self.waits_for_images else words


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def rehearse(
    detector: Detector,
    train_split: Annotations,
    valid_split: Annotations,
    config: TrainConfig,
    device: torch.device,
    devices: int = 1,
) -> Rehearsal:
    """Try a run on a copy of the detector; `devices` is the number of processes that it will have.

    Raises:
        ConfigError: the device has less memory than the batch needs.
        TrainingError: the loss is not finite.
    """
    try:
        return _rehearse(detector, train_split, valid_split, config, device, devices)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(
            f"batch_size: {config.batch_size} images at a time do not fit into the memory of {device}; try "
            f"batch_size='auto', or {remedies(config)}"
        ) from None


def remedies(config: TrainConfig) -> str:
    """What a user can do about too little memory, in the order of what it costs."""
    saving = {"gradient_checkpointing": True, "multi_scale": False}
    left = [f"{name}={value}" for name, value in saving.items() if getattr(config, name) != value]
    return ", ".join([*left, "a smaller resolution"])


def _rehearse(
    detector: Detector,
    train_split: Annotations,
    valid_split: Annotations,
    config: TrainConfig,
    device: torch.device,
    devices: int,
) -> Rehearsal:
    usable = usable_memory(device)
    with PeakMemory(device) as memory, on_stage(detector, train_split, config, device) as step:
        plan = make_plan(step.detector, train_split, valid_split, config, device, devices)
        objects, densest_seconds = densest_steps(step, train_split)
        usual_size = min(plan.sizes, key=lambda size: abs(size**2 - statistics.mean(s**2 for s in plan.sizes)))
        usual = TrainingDataset(
            train_split, config.recipe, seed=0, at_least=decoding_size(step.detector.config, config)
        )
        images = by_objects(train_split)[:: -(-len(train_split) // LOADED_IMAGES)]
        started = time.perf_counter()
        samples = [usual[SampleRequest(int(index), 0, usual_size)] for index in images]
        loading_seconds = (time.perf_counter() - started) / len(samples)
        spread = np.linspace(0, len(samples) - 1, int(config.batch_size) + 2)[1:-1].round().astype(int)
        usual_seconds = measure(step, collate([samples[index] for index in spread]))
        evaluation_seconds = evaluate_few(step, valid_split, devices)
        beside = copy_bytes(step.detector, config, device) + exchange_bytes(step.detector, config, devices)
    return Rehearsal(
        plan=plan,
        densest_objects=objects,
        densest_seconds=densest_seconds,
        usual_size=usual_size,
        usual_seconds=usual_seconds,
        loading_seconds=loading_seconds,
        step_seconds=_step_seconds(usual_seconds, loading_seconds, config, device),
        evaluation_seconds=evaluation_seconds,
        memory=memory.peak + beside,
        usable_memory=usable,
    )


@contextmanager
def on_stage(
    detector: Detector, train_split: Annotations, config: TrainConfig, device: torch.device
) -> Iterator[TrainingStep]:
    """The training step of a copy. Torch's random numbers go on afterwards as if nothing had been."""
    stand_in = copy.deepcopy(detector)
    progress = Progress(seed=0, num_images=len(train_split), images_per_step=int(config.batch_size))
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        in_training(stand_in, config, device),
    ):
        # A process that runs out of memory must not leave others waiting for its gradients.
        yield TrainingStep(stand_in, config, progress, steps_per_epoch=1, device=device, exchanges=False)


def by_objects(annotations: Annotations) -> Int64[np.ndarray, "N"]:
    """All images, those with the most objects first."""
    counted = np.concatenate([[0], np.cumsum(~annotations.is_crowd)])[annotations.offsets]
    return np.argsort(-np.diff(counted), kind="stable")


def densest_steps(step: TrainingStep, train_split: Annotations) -> tuple[int, float]:
    """Steps of the micro-batch that needs most memory: its objects, and the seconds of a step."""
    size, batch_size = training_sizes(step.detector.config, step.config)[-1], int(step.config.batch_size)
    images = np.resize(by_objects(train_split)[:batch_size], batch_size)
    dataset = TrainingDataset(train_split, augment="none", seed=0)
    batch = collate([dataset[SampleRequest(int(index), 0, size)] for index in images])
    return sum(len(target["labels"]) for target in batch.targets), measure(step, batch)


def measure(step: TrainingStep, batch: ImageBatch) -> float:
    """Seconds per micro-batch, after a warm-up in which the optimiser's state comes into being.

    The second micro-batch of a step finds the gradients of the first: then memory is fullest.
    """
    step([batch])
    step.mean_losses()  # waits for the device
    batches = [batch] * min(2, step.config.grad_accum_steps)
    seconds: list[float] = []
    while not seconds or (len(seconds) < MOST_STEPS and sum(seconds) < SECONDS_OF_STEPS):
        started = time.perf_counter()
        step(batches)
        step.mean_losses()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) / len(batches)


class FewBatches:
    """Interrupts an evaluation after a few batches, and notes when each of them began."""

    def __init__(self) -> None:
        self.began: list[float] = []

    def __call__(self) -> bool:
        self.began.append(time.perf_counter())
        return len(self.began) > EVALUATED_BATCHES


def evaluate_few(step: TrainingStep, valid_split: Annotations, devices: int) -> float:
    """Evaluate a few batches as a run does; the seconds that all of the split will take."""
    config = step.config
    detectors = {REGULAR: step.detector} | ({EMA: step.ema.detector} if step.ema else {})
    batch_size, few = config.eval_batch_size or int(config.batch_size), FewBatches()
    started = time.perf_counter()
    run_all(
        detectors,
        valid_split,
        batch_size=batch_size,
        max_dets=config.eval_max_dets,
        num_workers=config.num_workers,
        device=step.device,
        dtype=evaluation_dtype(config, step.device),
        observe=ValidationLoss(step.device, config).add if config.compute_val_loss else None,
        is_interrupted=few,
    )
    few()
    # The first batch waits for the loader processes to start; the second may still find things to be done once.
    each = np.diff(few.began[: EVALUATED_BATCHES + 1])
    batches = -(-len(valid_split) // (devices * batch_size))
    return few.began[0] - started + batches * float(np.mean(each[1:] if len(each) > 1 else each))


def _step_seconds(usual_seconds: float, loading_seconds: float, config: TrainConfig, device: torch.device) -> float:
    """Loading goes on beside the computation, as far as there are processes and cores for it."""
    computing = usual_seconds * config.grad_accum_steps
    loading = loading_seconds * int(config.batch_size) * config.grad_accum_steps
    if not config.num_workers:
        return computing + loading
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    return max(computing, loading / config.num_workers, (computing * threads + loading) / num_cores())
