"""What a run will do, as far as its settings, the model and the dataset say it."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rfdetr.config.model import ModelConfig
from rfdetr.config.runs import TrainConfig
from rfdetr.console import size_words
from rfdetr.data.annotations import Annotations
from rfdetr.devices import autocast_dtype
from rfdetr.models.detector import Detector
from rfdetr.training.checkpoints import state_bytes, weights_bytes
from rfdetr.training.loggers import SERVICES
from rfdetr.training.optimizer import parameter_groups
from rfdetr.training.run_dir import RunDir
from rfdetr.training.schedules import STEP_FACTOR
from rfdetr.training.setup import epoch_batches, training_sizes


@dataclass(frozen=True)
class Files:
    """Files of a run that are of one size."""

    name: str
    count: int
    bytes_each: int

    @property
    def bytes(self) -> int:
        return self.count * self.bytes_each


@dataclass(frozen=True)
class Plan:
    """A run from its first step to its last, if nothing stops it early."""

    config: TrainConfig
    model: ModelConfig
    device: str
    number_format: str
    """Of the forward pass."""
    devices: int
    """Processes, over all machines."""
    parameters: int
    trained_parameters: int
    rates: dict[str, tuple[float, float]]
    """Lowest and highest learning rate of heads, decoder and ViT (without it, it is frozen)."""
    train_images: int
    valid_images: int
    sizes: list[int]
    """Resolutions of training, smallest first."""
    steps_per_epoch: int
    files: list[Files]
    """Only those that may be large."""
    free_disk: int
    """Bytes, where `output_dir` is or will be."""

    @property
    def images_per_step(self) -> int:
        return int(self.config.batch_size) * self.config.grad_accum_steps * self.devices

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    @property
    def warmup_steps(self) -> int:
        return int(self.steps_per_epoch * self.config.warmup_epochs)

    @property
    def evaluations(self) -> int:
        return -(-self.config.epochs // self.config.eval_interval)

    @property
    def bytes_on_disk(self) -> int:
        return sum(files.bytes for files in self.files)


def make_plan(
    detector: Detector,
    train_split: Annotations,
    valid_split: Annotations,
    config: TrainConfig,
    device: torch.device,
    devices: int,
) -> Plan:
    """The plan of a run; `batch_size` is a number by now, and the detector as `in_training` makes it."""
    trained = {name: tensor for name, tensor in detector.named_parameters() if tensor.requires_grad}
    dtype = autocast_dtype(config.precision, device)
    batches = replace(epoch_batches(train_split, detector.config, config, seed=0), world_size=devices)
    return Plan(
        config=config,
        model=detector.config,
        device=str(device),
        number_format=str(dtype or torch.float32).removeprefix("torch."),
        devices=devices,
        parameters=sum(tensor.numel() for tensor in detector.parameters()),
        trained_parameters=sum(tensor.numel() for tensor in trained.values()),
        rates=_rates(trained, detector.config, config),
        train_images=len(train_split),
        valid_images=len(valid_split),
        sizes=training_sizes(detector.config, config),
        steps_per_epoch=batches.steps_per_epoch,
        files=_files(detector, config),
        free_disk=_free_disk(Path(config.output_dir)),
    )


def _rates(
    trained: dict[str, torch.nn.Parameter], model: ModelConfig, config: TrainConfig
) -> dict[str, tuple[float, float]]:
    parts = {"backbone.vit.": "ViT", "transformer.decoder.": "decoder"}
    rates: dict[str, list[float]] = {"heads": [], "decoder": [], "ViT": []}
    for group in parameter_groups(trained.items(), model, config):
        for name in group.names:
            part = next((part for start, part in parts.items() if name.startswith(start)), "heads")
            rates[part].append(group.lr)
    return {part: (min(values), max(values)) for part, values in rates.items() if values}


def _files(detector: Detector, config: TrainConfig) -> list[Files]:
    """Without those that are second names: the numbered one of the last epoch, and the better of the best.

    File systems without links have these as well. A file that is replaced is there twice for a moment.
    """
    interval, run_dir = config.checkpoint_interval, RunDir(Path())
    files = [
        Files(str(run_dir.last), 1, state_bytes(detector, config)),
        Files(
            f"{run_dir.numbered(interval)}, every {interval} epochs",
            (config.epochs - 1) // interval,
            state_bytes(detector, config),
        ),
        Files("checkpoint_best_*.pth", 1 + config.use_ema, weights_bytes(detector)),
    ]
    return [one for one in files if one.count]


def _free_disk(folder: Path) -> int:
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def plan_lines(plan: Plan) -> list[tuple[str, str]]:
    """What there is to say of each part of a plan."""
    config = plan.config
    return [
        ("model", _model_words(plan)),
        ("images", f"{plan.train_images} for training, {plan.valid_images} for validation"),
        (
            "step",
            f"{plan.images_per_step} images: batch_size {config.batch_size} x grad_accum_steps "
            f"{config.grad_accum_steps} x {counted(plan.devices, 'device')}",
        ),
        ("sizes", " ".join(map(str, plan.sizes)) + f" pixels, in evaluation {plan.model.resolution}"),
        ("run", f"{plan.steps_per_epoch} steps per epoch, {plan.steps} in {counted(config.epochs, 'epoch')}"),
        ("rates", _rate_words(plan)),
        ("schedule", schedule_words(plan)),
        ("evaluation", evaluation_words(plan)),
        ("loggers", ", ".join(["metrics.csv", *(name for name in SERVICES if getattr(config, name))])),
        *_file_lines(plan),
    ]


def _model_words(plan: Plan) -> str:
    parameters = f"{plan.parameters / 1e6:.1f} M parameters ({plan.trained_parameters / 1e6:.1f} M of them trained)"
    return f"{plan.model.size}, {plan.model.num_classes} classes, {parameters}, {plan.number_format} on {plan.device}"


def _rate_words(plan: Plan) -> str:
    parts = [f"{part} {_range(*bounds)}" for part, bounds in plan.rates.items()]
    return ", ".join(parts if "ViT" in plan.rates else [*parts, "ViT 0 (freeze_encoder)"])


def _range(lowest: float, highest: float) -> str:
    return f"{highest:.2g}" if lowest == highest else f"{lowest:.2g} to {highest:.2g}"


def schedule_words(plan: Plan) -> str:
    """Warm-up and what follows, with the steps and rates."""
    config, parts = plan.config, []
    if plan.warmup_steps:
        parts.append(f"up from 0 over the first {plan.warmup_steps} steps ({config.warmup_epochs:g} epochs)")
    if config.lr_scheduler == "cosine":
        parts.append(f"half a cosine down to {_factor(config.lr_min_factor)} at step {plan.steps}")
    elif config.lr_drop < config.epochs:
        drop = config.lr_drop * plan.steps_per_epoch
        parts.append(f"x {STEP_FACTOR:g} from step {drop} on (lr_drop={config.lr_drop} epochs)")
    else:
        parts.append(f"constant (lr_drop={config.lr_drop} is not before the end)")
    return f"{config.lr_scheduler}: " + ", then ".join(parts)


def _factor(factor: float) -> str:
    return f"x {factor:g}" if factor else "0"


def evaluation_words(plan: Plan) -> str:
    config = plan.config
    every = "after every epoch" if config.eval_interval == 1 else f"every {config.eval_interval} epochs and at the end"
    weights = "the weights and their average" if config.use_ema else "the weights"
    loss = ", with loss" * config.compute_val_loss
    test = "; the test split at the end" * config.run_test
    return f"{counted(plan.evaluations, 'time')} ({every}): {weights}{loss}{test}"


def _file_lines(plan: Plan) -> list[tuple[str, str]]:
    lines = []
    for files in plan.files:
        number = f"{files.count} x " if files.count > 1 else ""
        lines.append(("", f"{files.name}: {number}{size_words(files.bytes_each)}"))
    summed = f"{size_words(plan.bytes_on_disk)} and some small files; {size_words(plan.free_disk)} are free"
    return [("files", f"in {plan.config.output_dir}: about {summed}"), *lines]


def counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"
