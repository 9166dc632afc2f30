"""Configs of the commands that look at datasets and need no model's weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from rfdetr.config.base import Config
from rfdetr.config.model import MAX_CHANNELS, ModelConfig, ModelSettings, resolution_problems
from rfdetr.config.presets import PRESETS, configure, unknown_size
from rfdetr.config.runs import TrainConfig
from rfdetr.config.values import MAX_MEGAPIXELS, AnyPath

_PICTURES = (".jpg", ".jpeg", ".png")
_PAGES = (".html", ".htm")


class CheckConfig(Config):
    """What `rfdetr check` does: reads a dataset as training would, says what is in it, what is wrong, what to set."""

    dataset_dir: AnyPath
    """Folder with the dataset, as for training."""
    model: str = "medium"
    """Size that is to be trained: `nano` to `large`, `base`; with masks `seg-nano` to `seg-2xlarge`."""
    resolution: PositiveInt | None = None
    """Resolution that is to be trained at. None: the size's own."""
    num_queries: PositiveInt | None = None
    """Object queries that the model is to have. None: the size's own."""
    eval_max_dets: PositiveInt = TrainConfig.model_fields["eval_max_dets"].default
    """Detections per image that are to count in evaluation."""
    num_channels: int = Field(default=3, gt=0, le=MAX_CHANNELS)
    """Channels of the pictures that the model is to take."""
    max_image_megapixels: PositiveFloat = MAX_MEGAPIXELS
    """Larger pictures are refused before they are decoded."""
    masks: bool = False
    """Outlines are needed, as for `seg-` sizes. Otherwise their defects are warnings."""
    decode: bool = False
    """Read every picture in full, however long it takes. Otherwise they are read reduced, for 20 seconds at most."""
    html: AnyPath | None = None
    """Write the report as one HTML file here, pictures included."""
    pictures: AnyPath | None = None
    """Write some pictures with boxes and masks drawn here, as one JPEG or PNG file."""
    num_pictures: PositiveInt = Field(default=12, le=200)
    """Pictures drawn in the report and in that file."""

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        size = PRESETS.get(self.model)
        if size is None:
            yield ("model",), f"model: {unknown_size(self.model)}"
        elif self.resolution is not None:
            for problem in resolution_problems(self.resolution, size.block_size):
                yield ("model", "resolution"), problem
        for name, allowed in (("html", _PAGES), ("pictures", _PICTURES)):
            path = getattr(self, name)
            if path is None:
                continue
            if Path(path).suffix.lower() not in allowed:
                yield (name,), f"{name}: {path} is not the name of a {' or '.join(allowed)} file"
            elif Path(path).resolve().is_relative_to(Path(self.dataset_dir).resolve()):
                yield (name, "dataset_dir"), f"{name}: {path} lies in the dataset, whose files are never changed"

    @property
    def detector(self) -> ModelConfig:
        """The model that is to be trained."""
        return configure(PRESETS[self.model], ModelSettings(resolution=self.resolution, num_queries=self.num_queries))

    @property
    def needs_masks(self) -> bool:
        return self.masks or self.detector.segmentation_head


class ConvertConfig(Config):
    """What `rfdetr convert` does: writes a dataset in any format that is read as COCO, YOLO or tar shards."""

    dataset_dir: AnyPath
    """Folder with the dataset, as for training. It stays as it is."""
    output_dir: AnyPath
    """Folder to write, which is not there yet or empty, and outside of the dataset."""
    to: Literal["coco", "yolo"] = "coco"
    """Format: `coco` as Roboflow lays it out, `yolo` as Ultralytics does."""
    shards: PositiveInt | None = None
    """Write tar shards with so many images each, with COCO's annotations. None: pictures are files of their own."""
    link: Literal["hard", "symbolic"] | None = None
    """Link the pictures instead of copying them: `hard` or `symbolic`."""
    outlines: bool = True
    """Write outlines of objects, where there are any."""

    def contradictions(self) -> Iterator[tuple[tuple[str, ...], str]]:
        if self.shards is not None and self.to != "coco":
            yield ("shards", "to"), f"shards={self.shards} have COCO's annotations; leave out to={self.to}"
        if self.shards is not None and self.link is not None:
            yield ("shards", "link"), f"link={self.link} is for pictures that are files of their own; leave out shards"
