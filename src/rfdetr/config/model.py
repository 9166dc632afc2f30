"""ModelConfig: everything that decides tensor shapes. ModelSettings: what a user may change of a size."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, field_validator, model_validator
from typing_extensions import Self

from rfdetr.config.base import Config
from rfdetr.config.values import Seed

# More is a mistake, and would be found when the memory is full.
MAX_CLASSES = 100_000
MAX_CHANNELS = 1024
PROJECTOR_SCALES = {"P3": 2.0, "P4": 1.0, "P5": 0.5}


class ModelConfig(Config):
    """The architecture of one detector; saved with its weights."""

    size: str
    """Name of the published size this model is, or is derived from."""
    resolution: PositiveInt
    """Side of the square input in pixels; a multiple of patch_size x num_windows."""
    num_channels: int = Field(default=3, gt=0, le=MAX_CHANNELS)
    """Channels of the input: 3 is RGB, 1 grey; others must be those of the image files."""
    patch_size: PositiveInt = 16
    """Side of a ViT patch in pixels."""
    num_windows: PositiveInt = 2
    """Attention windows per axis in the windowed ViT blocks."""
    positional_encoding_size: PositiveInt
    """Side of the stored grid of position embeddings, in patches."""
    encoder_width: PositiveInt = 384
    """Channels of the ViT: 384 is DINOv2 small, 768 is base."""
    encoder_depth: PositiveInt = 12
    """Blocks of the ViT."""
    encoder_heads: PositiveInt = 6
    """Attention heads of the ViT."""
    out_feature_indexes: tuple[NonNegativeInt, ...] = (3, 6, 9, 12)
    """ViT stages that feed the projector (stage k is the output of k blocks), and the blocks with full attention."""
    projector_scale: tuple[Literal["P3", "P4", "P5"], ...] = ("P4",)
    """Pyramid levels: P4 is the stride of the patches, P3 half of it, P5 twice."""
    hidden_dim: PositiveInt = 256
    """Channels of projector, decoder and heads."""
    dec_layers: PositiveInt = 3
    """Decoder layers."""
    sa_nheads: PositiveInt = 8
    """Heads of the decoder's self-attention."""
    ca_nheads: PositiveInt = 16
    """Heads of the decoder's deformable attention."""
    dec_n_points: PositiveInt = 2
    """Sampling points per head and level of the deformable attention."""
    num_queries: PositiveInt = 300
    """Object queries per group: the most objects one image can have."""
    num_select: PositiveInt = 300
    """Detections kept per image, best first."""
    group_detr: PositiveInt = 13
    """Query groups in training (Group DETR, arXiv:2207.13085); prediction uses the first."""
    num_classes: int = Field(default=90, gt=0, le=MAX_CLASSES)
    """Classes the head distinguishes; it has one more logit, which is never a target."""
    segmentation_head: bool = False
    """Whether each object gets a mask beside its box."""

    @property
    def block_size(self) -> int:
        """Height and width of every input are multiples of this."""
        return self.patch_size * self.num_windows

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for problem in resolution_problems(self.resolution, self.block_size):
            raise ValueError(problem)
        for heads, width in (
            ("encoder_heads", "encoder_width"),
            ("sa_nheads", "hidden_dim"),
            ("ca_nheads", "hidden_dim"),
        ):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(f"{heads}={getattr(self, heads)} must divide {width}={getattr(self, width)}")
        if max(self.out_feature_indexes) > self.encoder_depth:
            raise ValueError(
                f"out_feature_indexes {self.out_feature_indexes} exceed encoder_depth={self.encoder_depth}"
            )
        return self


def resolution_problems(resolution: int, block_size: int) -> list[str]:
    """Whether a model can take a resolution; if not, the nearest that it can."""
    if resolution % block_size == 0:
        return []
    below = resolution // block_size * block_size
    nearest = " or ".join(str(size) for size in (below, below + block_size) if size)
    return [f"resolution={resolution} is not a multiple of patch_size x num_windows = {block_size}; nearest: {nearest}"]


def check_device(name: str) -> str:
    """Raises:
    ValueError: not the name of a device; whether it is there is seen when it is used.
    """
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"must be 'cpu', 'cuda', 'cuda:<index>' or 'mps', got {name!r}")
    return name


DeviceName = Annotated[str, AfterValidator(check_device)]


ClassRows = Literal["by-name", "by-position"]


class ModelSettings(Config):
    """What may be changed of a published size. None keeps the size's own value."""

    num_classes: Annotated[int, Field(gt=0, le=MAX_CLASSES)] | None = None
    """Number of classes. None: 90 (COCO), or what the checkpoint or the training data has."""
    resolution: PositiveInt | None = None
    """Side of the square input in pixels; a multiple of 32 (SegNano: 12, other Seg: 24, Base, LargeDeprecated: 56)."""
    num_channels: Annotated[int, Field(gt=0, le=MAX_CHANNELS)] | None = None
    """Channels of the images: 3 is RGB, 1 grey; others must be those of the files. None: 3, or the checkpoint's."""
    num_queries: PositiveInt | None = None
    """Object queries per group: the most objects one image can have."""
    num_select: PositiveInt | None = None
    """Detections kept per image, best first."""
    group_detr: PositiveInt | None = None
    """Query groups in training; fewer train faster per step and need more steps."""
    dec_layers: PositiveInt | None = None
    """Decoder layers."""
    positional_encoding_size: PositiveInt | None = None
    """Side of the stored grid of position embeddings. None: follows the resolution where the size does."""
    pretrain_weights: str | Path | None = "published"
    """Weights to start from: `published` (COCO weights of this size), a file, or `none` for random values."""
    class_rows: ClassRows = "by-name"
    """Head rows kept when the classes differ: those of the same names, or `by-position` the first, repeated."""
    trust_checkpoint: bool = False
    """Open a weight file that runs code when it is read. Only if you trust where it comes from."""
    encoder_weights: str | Path | None = None
    """DINOv2 weights for the ViT (a Hugging Face folder or `.safetensors` file), with `pretrain_weights` `none`."""
    device: DeviceName | None = None
    """Where the model lives: `cpu`, `cuda`, `cuda:1`, `mps`. None: the best there is (each process its own GPU)."""
    gradient_checkpointing: bool = False
    """Recompute ViT blocks in the backward pass: less memory, about a third more time."""
    init_seed: Seed = 0
    """Seed of the values that no checkpoint gives: all of them from scratch, else new class heads."""

    @field_validator("pretrain_weights", "encoder_weights", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:
        return None if isinstance(value, str) and value.lower() in ("none", "null", "") else value

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.encoder_weights is not None and self.pretrain_weights is not None:
            yield (
                ("encoder_weights", "pretrain_weights"),
                f"encoder_weights is for training from scratch, but pretrain_weights={str(self.pretrain_weights)!r} "
                "brings an encoder of its own; add pretrain_weights=None",
            )

    def architecture(self) -> dict[str, int]:
        """The changes to a size's ModelConfig."""
        names = set(ModelConfig.model_fields) & set(type(self).model_fields)
        return {name: value for name in sorted(names) if (value := getattr(self, name)) is not None}
