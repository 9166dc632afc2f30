"""One config per verb: everything that decides what a run does, beside the model."""

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from rfdetr.config.base import Config
from rfdetr.config.model import DeviceName

Split = Literal["train", "valid", "test"]
Precision = Literal["auto", "32", "bf16", "fp16"]


class TrainConfig(Config):
    """Everything that decides what a training run does. Saved next to the weights it produced."""

    dataset_dir: str | Path
    """Folder with the dataset: `train/`, `valid/`, `test/` with an `_annotations.coco.json` each, or as COCO 2017."""
    output_dir: str | Path = "output"
    """Folder for checkpoints, metrics and settings."""
    epochs: PositiveInt = 100
    """Passes over the training split."""
    batch_size: PositiveInt = 4
    """Images per forward pass and device; more need more memory."""
    grad_accum_steps: PositiveInt = 4
    """Forward passes per optimiser step. The step sees batch_size x grad_accum_steps x devices images."""
    resume: str | Path | None = None
    """A `checkpoint.pth` to go on from, with optimiser, schedule and position."""
    seed: NonNegativeInt | None = None
    """Seed of everything random. None: one is drawn and recorded."""

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
    augment: Literal["default", "none"] = "default"
    """`default`: horizontal flip and random crop, each with probability 1/2; `none`: images as they are."""
    num_workers: NonNegativeInt = 2
    """Processes that load images; 0 loads in the main process."""
    pin_memory: bool | None = None
    """Page-locked host memory for faster transfers. None: with CUDA only."""
    persistent_workers: bool | None = None
    """Keep loader processes over epochs. None: when there are any."""
    prefetch_factor: PositiveInt | None = None
    """Batches each loader process prepares ahead. None: 2."""

    resolution: PositiveInt | None = None
    """Train at this resolution. None: the model's own."""
    device: DeviceName | None = None
    """Train here: `cpu`, `cuda` or `mps`. None: where the model is."""
    gradient_checkpointing: bool | None = None
    """Recompute ViT blocks in the backward pass to save memory. None: as the model was made."""
    precision: Precision = "auto"
    """Number format of the forward pass. `auto`: bf16 or fp16 where the GPU is fast at it, else 32."""
    accelerator: str = "auto"
    """Lightning accelerator; `auto` follows the device."""
    devices: int | str = Field(default=1, union_mode="left_to_right")
    """Number of devices, or Lightning's description of them."""
    num_nodes: PositiveInt = 1
    """Machines that train together."""
    strategy: str = "auto"
    """Lightning strategy over several devices."""

    checkpoint_interval: PositiveInt = 10
    """Epochs between numbered checkpoints."""
    skip_best_epochs: NonNegativeInt = 0
    """First epochs that cannot become the best, nor count for early stopping."""
    early_stopping: bool = False
    """Stop when the validation mAP, of masks where there are any, no longer improves."""
    early_stopping_patience: PositiveInt = 10
    """Evaluated epochs without improvement before stopping."""
    early_stopping_min_delta: NonNegativeFloat = 0.001
    """Change of the mAP that counts as improvement."""
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
    """Write TensorBoard logs (needs `rfdetr[loggers]`; without it, a warning)."""
    wandb: bool = False
    """Log to Weights & Biases (needs `rfdetr[loggers]`)."""
    project: str | None = None
    """Project name for the loggers."""
    run: str | None = None
    """Run name for the loggers."""
    progress_bar: Literal["tqdm", "rich"] | bool | None = None
    """Bar within an epoch: `tqdm`, `rich` or none. Each epoch prints one line in any case."""

    @field_validator("dataset_dir", "output_dir")
    @classmethod
    def _is_given(cls, value: str | Path) -> str | Path:
        if not str(value):
            raise ValueError("must not be empty")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.lr_scheduler == "step" and self.lr_min_factor:
            raise ValueError("lr_min_factor is the floor of lr_scheduler='cosine'; with 'step' it has no effect")
        if self.lr_scheduler == "cosine" and self.is_changed("lr_drop"):
            raise ValueError("lr_drop belongs to lr_scheduler='step'; with 'cosine' it has no effect")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs} is longer than epochs={self.epochs}")
        for name in ("early_stopping_patience", "early_stopping_min_delta", "early_stopping_use_ema"):
            if self.is_changed(name) and not self.early_stopping:
                raise ValueError(f"{name} has no effect without early_stopping=True")
        if self.num_workers == 0:
            for name in ("persistent_workers", "prefetch_factor"):
                if getattr(self, name):
                    raise ValueError(f"{name} needs num_workers > 0")
        return self

    def is_changed(self, name: str) -> bool:
        """Whether a setting differs from its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)


class EvaluateConfig(Config):
    """What an evaluation does."""

    dataset_dir: str | Path
    """Folder with the dataset, as for training."""
    split: Split = "test"
    """Which split: `train`, `valid` or `test`."""
    output_dir: str | Path | None = None
    """Where to write `metrics_<split>.json` and `predictions_<split>.json` (COCO results format). None: nowhere."""
    batch_size: PositiveInt = 4
    """Images per forward pass."""
    eval_max_dets: PositiveInt = 500
    """Detections per image that count."""
    log_per_class_metrics: bool = True
    """Report the AP of each class."""
    num_workers: NonNegativeInt = 2
    """Processes that load images; 0 loads in the main process."""
    precision: Precision = "32"
    """Number format of the forward pass."""


class ModelChoice(Config):
    """Which model a command works with."""

    model: str = "medium"
    """A size (`nano` to `large`, `base`; with masks `seg-nano` to `seg-2xlarge`) or a checkpoint file."""


class PredictConfig(Config):
    """What `rfdetr predict` does."""

    images: tuple[str | Path, ...] = Field(min_length=1)
    """Images, or folders of images."""
    output_dir: str | Path = "predictions"
    """Folder for the annotated images and `predictions.json`."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Detections scored above this are kept."""
    batch_size: PositiveInt = 4
    """Images per forward pass."""

    @field_validator("images", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, Path)) else value


class DemoConfig(Config):
    """What `rfdetr demo` does: draws a dataset, trains on it from scratch, evaluates, shows the result."""

    output_dir: str | Path = "demo"
    """Folder for the dataset, the checkpoints, `metrics.json` and the picture."""
    epochs: PositiveInt = 5
    """Passes over the training split."""
    train_images: PositiveInt = 256
    """Images drawn for training; a quarter as many each for validation and test."""
    seed: NonNegativeInt = 0
    """Seed of the drawn images and of the training run."""


def scratch_recipe() -> dict[str, Any]:
    """Training settings for random initial weights (`pretrain_weights=None`), where the fine-tuning defaults are slow.

    Nothing pretrained needs protecting, so every layer learns at the full rate, after a short warm-up.
    """
    return {"lr": 3e-4, "lr_encoder": 3e-4, "lr_vit_layer_decay": 1.0, "lr_component_decay": 1.0, "warmup_epochs": 1.0}
