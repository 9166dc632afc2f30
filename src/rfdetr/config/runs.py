"""One config per verb: everything that decides what a run does, beside the model."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from rfdetr.config.base import Config
from rfdetr.config.model import DeviceName, ModelConfig, resolution_problems
from rfdetr.config.presets import PRESETS, unknown_size
from rfdetr.config.recipes import RECIPES, Recipe
from rfdetr.config.values import (
    MAX_MEGAPIXELS,
    AnyPath,
    Augment,
    Chance,
    ClassNames,
    DatasetSource,
    Fraction,
    Precision,
    Seed,
    is_importable,
    is_sendable,
    name_of_callable,
)

Split = Literal["train", "valid", "test"]
WithoutEffect = tuple[tuple[tuple[str, ...], str, Any], ...]
"""Settings, and the value of another one with which they do nothing."""

IDLE: WithoutEffect = (
    (("lr_drop",), "lr_scheduler", "cosine"),
    (("lr_encoder", "lr_vit_layer_decay"), "freeze_encoder", True),
    (("ema_decay", "ema_tau", "early_stopping_use_ema"), "use_ema", False),
    (("early_stopping_patience", "early_stopping_min_delta", "early_stopping_use_ema"), "early_stopping", False),
    (("degrees", "scale", "translate", "shear"), "affine", 0.0),
    (("valid_seed",), "valid_fraction", None),
    (("brightness", "contrast", "saturation", "hue"), "color_jitter", 0.0),
)
# Harmless: said once, and the run goes on.
NEEDLESS: WithoutEffect = (
    (("lr_min_factor",), "lr_scheduler", "step"),
    (("expanded_scales",), "multi_scale", False),
    (("gradient_checkpointing",), "freeze_encoder", True),
    (("compute_test_loss",), "run_test", False),
)
MASK_SETTINGS = ("mask_ce_loss_coef", "mask_dice_loss_coef", "mask_point_sample_ratio", "copy_paste")


class TrainConfig(Config):
    """Everything that decides what a training run does. Saved next to the weights it produced."""

    dataset_dir: DatasetSource
    """Folder with the dataset, in COCO, YOLO, Pascal VOC or CSV format; in Python also a sequence of samples."""
    output_dir: AnyPath = "output"
    """Folder for checkpoints, metrics and settings."""
    epochs: PositiveInt = 100
    """Passes over the training split."""
    batch_size: PositiveInt | Literal["auto"] = 4
    """Images per forward pass and device. `auto`: the most that fit, and grad_accum_steps so that the product stays."""
    grad_accum_steps: PositiveInt = 4
    """Forward passes per optimiser step. The step sees batch_size x grad_accum_steps x devices images."""
    resume: AnyPath | None = None
    """Checkpoint of a run to go on from. `auto`: the newest complete one in output_dir, else a fresh start."""
    class_names: ClassNames = None
    """Names of the classes, in the order of the dataset's category ids. None: the dataset's own."""
    seed: Seed | None = None
    """Seed of everything random. None: one is drawn and recorded."""
    valid_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Where there is no validation split, so much of the training images becomes one."""
    valid_seed: Seed = 0
    """Which images valid_fraction takes; those stay the same whatever `seed` is."""

    lr: PositiveFloat = 1e-4
    """Learning rate of the projector, the two-stage modules and the heads."""
    lr_encoder: PositiveFloat = 1.5e-4
    """Learning rate of the ViT before its decays."""
    lr_vit_layer_decay: float = Field(default=0.8, gt=0, le=1)
    """Each ViT block below the last learns this much slower than the one above; 1 for training from scratch."""
    lr_component_decay: float = Field(default=0.7, gt=0, le=1)
    """The decoder learns this much slower than the heads, the ViT its square; 1 for training from scratch."""
    weight_decay: NonNegativeFloat = 1e-4
    """AdamW's weight decay."""
    clip_max_norm: NonNegativeFloat = 0.1
    """Largest global gradient norm of a step; 0 does not clip."""
    lr_scheduler: Literal["step", "cosine"] = "step"
    """`step` divides the rates by 10 after lr_drop epochs; `cosine` anneals them over the run."""
    lr_drop: PositiveInt = 100
    """Epochs until the `step` schedule divides the rates by 10."""
    lr_min_factor: float = Field(default=0.0, ge=0, le=1)
    """Floor of the `cosine` schedule as a fraction of the initial rates."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Length of the linear warm-up; may be a fraction."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Largest stochastic depth rate of the ViT (its last block's; linear from 0)."""
    freeze_encoder: bool = False
    """Leave the ViT as it is: faster, less memory, often less accurate."""
    cls_loss_coef: NonNegativeFloat = 1.0
    """Weight of the classification loss."""
    bbox_loss_coef: NonNegativeFloat = 5.0
    """Weight of the L1 box loss."""
    giou_loss_coef: NonNegativeFloat = 2.0
    """Weight of the GIoU loss."""
    mask_ce_loss_coef: NonNegativeFloat = 5.0
    """Weight of the masks' cross-entropy, in the loss and in the assignment (segmentation models)."""
    mask_dice_loss_coef: NonNegativeFloat = 5.0
    """Weight of the masks' Dice loss, in the loss and in the assignment (segmentation models)."""
    mask_point_sample_ratio: PositiveInt = 16
    """Cells of the mask grid per random point at which masks are compared (segmentation models)."""

    use_ema: bool = True
    """Keep an exponential moving average of the weights; it is evaluated beside the weights themselves."""
    ema_decay: float = Field(default=0.993, ge=0, lt=1)
    """Decay of the average per step."""
    ema_tau: NonNegativeFloat = 100.0
    """Steps over which the decay rises to its value; 0 starts with it."""

    multi_scale: bool = True
    """Draw the training resolution of each step from a list around the model's own."""
    expanded_scales: bool = True
    """11 instead of 8 scales, from -5 to +5 blocks."""
    augment: Augment = "default"
    """A recipe of augmentation, or in Python one of your own: a function, torchvision v2 transforms, Albumentations."""
    horizontal_flip: Chance | None = None
    """Chance of mirroring left to right. None, here and below: as in the recipe."""
    vertical_flip: Chance | None = None
    """Chance of mirroring top to bottom."""
    rotate90: Chance | None = None
    """Chance of turning by 90, 180 or 270 degrees."""
    crop: Chance | None = None
    """Chance of cutting out a random square of at least 64% of the shorter side."""
    affine: Chance | None = None
    """Chance that degrees, scale, translate and shear apply to an image."""
    degrees: float | None = Field(default=None, ge=0, le=180)
    """Largest rotation, either way."""
    scale: Fraction | None = None
    """Largest change of scale: 0.2 draws from 0.8 to 1.2."""
    translate: Fraction | None = None
    """Largest shift, as a fraction of width and height."""
    shear: float | None = Field(default=None, ge=0, le=60)
    """Largest shear along each axis, in degrees."""
    color_jitter: Chance | None = None
    """Chance that brightness, contrast, saturation and hue apply to an image."""
    brightness: Chance | None = None
    """Largest change of brightness: 0.2 draws a factor from 0.8 to 1.2."""
    contrast: Chance | None = None
    """Largest change of contrast, as of brightness."""
    saturation: Chance | None = None
    """Largest change of saturation, as of brightness."""
    hue: float | None = Field(default=None, ge=0, le=0.5)
    """Largest change of hue, as a fraction of the colour circle."""
    grayscale: Chance | None = None
    """Chance of taking all colour away."""
    blur: Chance | None = None
    """Chance of a Gaussian blur with a sigma of up to 2 pixels."""
    noise: Chance | None = None
    """Chance of Gaussian noise with a standard deviation of up to 6% of white."""
    mosaic: Chance | None = None
    """Chance of making one image of parts of four."""
    mixup: Chance | None = None
    """Chance of blending an image with another one; the objects of both count."""
    copy_paste: Chance | None = None
    """Chance of pasting objects of another image, cut out by their masks (segmentation models)."""
    num_workers: NonNegativeInt = 2
    """Processes that load images; 0 loads in the main process."""
    cache: Literal["ram", "disk"] | None = None
    """Keep decoded training pictures, near their training size, in memory (`ram`) or in a temporary file (`disk`)."""
    max_image_megapixels: PositiveFloat = MAX_MEGAPIXELS
    """Larger pictures are refused before they are decoded, which takes 3 MB of memory per megapixel, or more."""
    max_bad_images: NonNegativeInt = 100
    """Images of a split that may turn out to be unreadable: more than these end the run. They are named and skipped."""
    pin_memory: bool | None = None
    """Page-locked host memory for faster transfers. None: with CUDA only."""
    persistent_workers: bool | None = None
    """Keep loader processes over epochs. None: when there are any."""
    prefetch_factor: PositiveInt | None = None
    """Batches each loader process prepares ahead. None: 2."""

    resolution: PositiveInt | None = None
    """Train at this resolution. None: the model's own."""
    device: DeviceName = "cuda"
    """Train here: `cpu`, `mps`, `cuda:1`, or `cuda`: the GPU where there is one, else what there is."""
    gradient_checkpointing: bool = False
    """Recompute ViT blocks in the backward pass: less memory, about a third more time."""
    precision: Precision = "auto"
    """Number format of the forward pass. `auto`: bf16 where GPU or processor has it, fp16 on other GPUs, else 32."""
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """Kind of device to train on; `auto` follows `device`."""
    devices: int | str = Field(default=1, union_mode="left_to_right")
    """Processes on this machine, a device each: a number, `auto` for all GPUs, or indices of GPUs as `0,2`."""
    num_nodes: PositiveInt = 1
    """Machines that train together."""
    strategy: Literal["auto", "ddp"] = "auto"
    """How several processes train together: `ddp`; `auto` is that where there are several."""

    checkpoint_interval: PositiveInt = 10
    """Epochs between numbered checkpoints."""
    checkpoint_every_steps: PositiveInt | None = None
    """Steps between savings of `checkpoint.pth` within an epoch. None: at the end of each epoch only."""
    checkpoint_every_minutes: PositiveFloat | None = None
    """Minutes between savings of `checkpoint.pth` within an epoch. None: at the end of each epoch only."""
    best_metric: Literal["mAP_50_95", "mAP_50", "mAP_75", "mAR", "F1"] = "mAP_50_95"
    """Validation metric that says which weights are best; of masks, where there are any, but for F1."""
    skip_best_epochs: NonNegativeInt = 0
    """First epochs that cannot become the best, nor count for early stopping."""
    early_stopping: bool = False
    """Stop when the best_metric of the validation split no longer improves."""
    early_stopping_patience: PositiveInt = 10
    """Epochs without improvement before stopping, evaluated or not; looked at after each evaluation."""
    early_stopping_min_delta: NonNegativeFloat = 0.001
    """Change of the best_metric that counts as improvement."""
    early_stopping_use_ema: bool = False
    """Watch the averaged weights alone. Otherwise the better of both."""

    eval_interval: PositiveInt = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    eval_batch_size: PositiveInt | None = None
    """Images per forward pass in evaluation. None: batch_size."""
    eval_max_dets: PositiveInt = 500
    """Detections per image that count in COCO evaluation."""
    log_per_class_metrics: bool = True
    """Report the AP of each class."""
    compute_val_loss: bool = True
    """Compute the loss on the validation split."""
    compute_test_loss: bool = True
    """Compute the loss in the test run at the end (run_test)."""
    fp16_eval: bool = False
    """Evaluate in float16: less memory, slightly other numbers."""
    run_test: bool = False
    """Evaluate the best weights on the test split at the end."""

    tensorboard: bool = True
    """Write TensorBoard logs (needs the package `tensorboard`; without it, a warning)."""
    wandb: bool = False
    """Log to Weights & Biases (needs the package `wandb`)."""
    mlflow: bool = False
    """Log to MLflow (needs the package `mlflow` or `mlflow-skinny`); where to, `MLFLOW_TRACKING_URI` says."""
    project: str | None = None
    """Project name for Weights & Biases, experiment name for MLflow."""
    run: str | None = None
    """Run name for the loggers."""
    progress_bar: Literal["tqdm", "rich"] | bool | None = None
    """Bar within an epoch: `tqdm`, `rich` or none. Each epoch prints one line in any case."""
    sample_interval: NonNegativeInt = 10
    """Epochs between sheets of validation pictures with predictions, the first before training; 0 draws none."""

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, value: int | str) -> int | str:
        indices = str(value).split(",")
        is_list = len(indices) > 1 and all(map(str.isdecimal, indices)) and len(indices) == len(set(indices))
        if not (is_list or value == "auto" or (isinstance(value, int) and value > 0)):
            raise ValueError(f"must be a number above 0, 'auto', or different GPU indices as '0,2', got {value!r}")
        return value

    @property
    def recipe(self) -> Recipe:
        """The augmentation: a recipe, or the user's own pipeline and nothing else, with what is set beside it."""
        named = RECIPES[self.augment] if isinstance(self.augment, str) else Recipe.nothing_but(self.augment)
        options = {name: getattr(self, name) for name in Recipe.options()}
        return replace(named, **{name: value for name, value in options.items() if value is not None})

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        yield from self._without_effect(IDLE)
        if self.devices != 1 and not isinstance(self.augment, str) and not is_sendable(self.augment):
            yield (
                ("augment", "devices"),
                f"augment: {name_of_callable(self.augment)} cannot be sent to other processes, and devices="
                f"{self.devices!r} needs some; define it at the top level of a module that can be imported",
            )
        if self.devices != 1 and not is_importable(self.dataset_dir):
            yield (
                ("dataset_dir", "devices"),
                f"dataset_dir: the class of a dataset is of the script itself, and devices={self.devices!r} needs "
                "other processes; define it at the top level of a module that can be imported",
            )
        if self.warmup_epochs > self.epochs:
            yield ("warmup_epochs", "epochs"), f"warmup_epochs={self.warmup_epochs} is longer than epochs={self.epochs}"
        for name in ("persistent_workers", "prefetch_factor"):
            if getattr(self, name) and self.num_workers == 0:
                yield (name, "num_workers"), f"{name}={getattr(self, name)} needs num_workers above 0"
        yield from self._device_contradictions()

    def _device_contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        own = self.device.split(":")[0]
        kind, source = (own, "device") if self.accelerator == "auto" else (self.accelerator, "accelerator")
        # The default "cuda" is what there is, and so goes with every accelerator.
        if self.is_changed("device") and own != kind and (own, kind) not in (("cuda", "gpu"), ("mps", "gpu")):
            yield ("accelerator", "device"), f"accelerator={kind!r} is not for device={self.device!r}"
        if self.is_changed("devices") and ":" in self.device:
            yield ("devices", "device"), f"devices={self.devices!r} is not for device={self.device!r}, which is one"
        if "," in str(self.devices) and kind == "cpu":
            yield ("devices", source), f"devices={self.devices!r} are GPUs, but {source}='cpu'"
        if self.devices not in (1, "auto") and kind == "mps":
            yield ("devices", source), f"devices={self.devices!r} is not for {source}='mps', which is one"
        if self.precision == "fp16" and kind == "cpu":
            yield ("precision", source), f"precision='fp16' is not for {source}='cpu'; use '32' or 'bf16'"

    def remarks(self) -> list[str]:
        """Settings without effect that do no harm, to be said at the start of a run."""
        lines = [text for _, text in self._without_effect(NEEDLESS)]
        lines += [
            f"{chance} has no effect: {what} are all 0"
            for chance, what in self.recipe.idle()
            if self.is_changed(chance)
        ]
        if self.early_stopping and self.eval_interval >= self.epochs:
            lines.append(f"early_stopping cannot stop: eval_interval={self.eval_interval} evaluates at the end only")
        if self.skip_best_epochs >= self.epochs:
            lines.append(f"skip_best_epochs={self.skip_best_epochs} leaves none of epochs={self.epochs} to be the best")
        if self.project is not None and not (self.wandb or self.mlflow):
            lines.append("project has no effect without wandb or mlflow")
        if self.run is not None and not (self.wandb or self.mlflow or self.tensorboard):
            lines.append("run has no effect without wandb, mlflow or tensorboard")
        return lines

    def _without_effect(self, rules: WithoutEffect) -> Iterator[tuple[tuple[str, ...], str]]:
        for names, other, value in rules:
            if getattr(self, other) == value:
                for name in filter(self.is_changed, names):
                    own = f"{name}={getattr(self, name)!r}"
                    yield (name, other), f"{own} has no effect with {other}={value!r}; leave it out or change {other}"


def train_problems(model: ModelConfig, settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with valid settings of training because of the model."""
    resolution = settings.get("resolution")
    problems = [] if resolution is None else resolution_problems(resolution, model.block_size)
    if not model.segmentation_head:
        defaults = {name: TrainConfig.model_fields[name].default for name in MASK_SETTINGS}
        changed = [name for name, default in defaults.items() if settings.get(name, default) != default]
        problems += [f"{name}: of no effect on a detection model; leave it out or use a seg- size" for name in changed]
    return problems


class EvaluateConfig(Config):
    """What an evaluation does."""

    dataset_dir: DatasetSource
    """Folder with the dataset, as for training."""
    split: Split = "test"
    """Which split: `train`, `valid` or `test`."""
    class_names: ClassNames = None
    """Names of the classes, in the order of the dataset's category ids. None: the dataset's own."""
    output_dir: AnyPath | None = None
    """Where to write `metrics_<split>.json` and `predictions_<split>.json` (COCO results format). None: nowhere."""
    batch_size: PositiveInt = 4
    """Images per forward pass."""
    eval_max_dets: PositiveInt = 500
    """Detections per image that count."""
    log_per_class_metrics: bool = True
    """Report the AP of each class."""
    num_workers: NonNegativeInt = 2
    """Processes that load images; 0 loads in the main process."""
    max_image_megapixels: PositiveFloat = MAX_MEGAPIXELS
    """Larger pictures are refused before they are decoded."""
    max_bad_images: NonNegativeInt = 100
    """Images that may turn out to be unreadable: more than these are an error. They are named and left out."""
    precision: Precision = "32"
    """Number format of the forward pass."""


class ModelChoice(Config):
    """Which model a command works with."""

    model: str = "medium"
    """A size (`nano` to `large`, `base`; with masks `seg-nano` to `seg-2xlarge`) or a checkpoint file."""

    @property
    def is_file(self) -> bool:
        """Whether it is a checkpoint file rather than a size."""
        return Path(self.model).suffix in (".pth", ".pt", ".ckpt", ".safetensors")

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if not self.is_file and self.model not in PRESETS:
            yield ("model",), f"model: {unknown_size(self.model)}"


def scratch_recipe() -> dict[str, Any]:
    """Training settings for random initial weights (`pretrain_weights=None`), where the fine-tuning defaults are slow.

    Nothing pretrained needs protecting, so every layer learns at the full rate, after a short warm-up.
    """
    return {"lr": 3e-4, "lr_encoder": 3e-4, "lr_vit_layer_decay": 1.0, "lr_component_decay": 1.0, "warmup_epochs": 1.0}
