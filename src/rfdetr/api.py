"""RFDETR and its sizes: load, train, evaluate, predict, save; each verb delegates.

Heavy modules are imported in the verbs, so that `import rfdetr` stays light.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, overload

from rfdetr.config.commands import OptimizeConfig
from rfdetr.config.model import ModelConfig, ModelSettings
from rfdetr.config.presets import preset
from rfdetr.config.runs import EvaluateConfig, TrainConfig, train_problems
from rfdetr.config.verbs import takes_fields, takes_settings
from rfdetr.errors import ConfigError
from rfdetr.files import user_path

if TYPE_CHECKING:
    import supervision
    import torch

    from rfdetr.classes import ClassTable
    from rfdetr.evaluation.results import EvaluationResult
    from rfdetr.inference.sources import ImageSource
    from rfdetr.models.detector import Detector
    from rfdetr.training.rehearsal import Rehearsal
    from rfdetr.training.run import TrainingResult


class RFDETR:
    """A detector: its network, the settings that gave it its shape, and the classes it predicts.

    Use a size (`RFDETRNano()`, ...) or `RFDETR.from_checkpoint(path)`.

    Attributes:
        detector: the torch module; `detector(images, padding_mask=None)` gives its raw outputs.
        classes: dataset category id, name and logit of each class; None until training or a checkpoint tells.
        device: where the detector is.
    """

    size: ClassVar[str | None] = None

    @takes_fields(ModelSettings, lambda self, valid: train_problems(preset(self.size), valid) if self.size else [])
    def __init__(self, settings: ModelSettings) -> None:
        from rfdetr.lifecycle import open_size

        if self.size is None:
            raise ConfigError("RFDETR has no size of its own: use RFDETRNano, ... or RFDETR.from_checkpoint")
        self._settings = settings
        self._model = open_size(preset(self.size), settings)

    @classmethod
    def from_checkpoint(cls, path: str | Path, **settings: Any) -> RFDETR:
        """The model of a file: size, classes and resolution come from it; `settings` are those of the constructor.

        It may be a file of ours, a published one, or one of the published code (`.pth`, `.ckpt`, `.safetensors`).
        No code of it is run, but with `trust_checkpoint=True`.

        Raises:
            WeightsError: the file is missing, damaged, not of this class, or wants to run code.
            ConfigError: a setting is wrong.
        """
        from rfdetr.lifecycle import open_file

        if "pretrain_weights" in settings:
            raise ConfigError("pretrain_weights: the weights are those of the checkpoint; leave it out")
        file = user_path(path, "from_checkpoint")
        given = ModelSettings.from_dict({**settings, "pretrain_weights": file})
        opened = open_file(file, given, cls.size)
        model = object.__new__(SIZES[opened.detector.config.size])
        model._settings, model._model = given, opened
        return model

    @property
    def detector(self) -> Detector:
        return self._model.detector

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def classes(self) -> ClassTable | None:
        return self._model.classes

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return self.detector.config

    @property
    def class_names(self) -> list[str]:
        """Names by class id; ids that no class has are empty (COCO's published weights have some)."""
        if self.classes is None:
            return []
        names = self.classes.name_of
        return [names.get(class_id, "") for class_id in range(max(names, default=-1) + 1)]

    @takes_settings(TrainConfig, lambda self, valid: train_problems(self.config, valid))
    def train(self, config: TrainConfig) -> TrainingResult:
        """Train on a dataset, from the weights the model holds; afterwards it holds the best ones of the run.

        Raises:
            ConfigError: a setting is wrong, before anything is read, or contradicts the dataset, before the first step.
            DatasetError: the dataset cannot be trained on, before the first step.
            ImageError: more than `max_bad_images` images cannot be read; the state is saved.
            TrainingError: the loss stopped being finite, a file cannot be written, or a process has ended.
            WeightsError: the checkpoint to resume from cannot be used.
            Interrupted: by SIGTERM or Ctrl-C; the state is saved.
        """
        from rfdetr.lifecycle import train_model

        self._model, result = train_model(self._model, self._settings, config)
        return result

    @takes_settings(TrainConfig, lambda self, valid: train_problems(self.config, valid))
    def rehearse(self, config: TrainConfig) -> Rehearsal:
        """Try `train` with these settings: its steps, schedule, files, and about how much memory and time it will take.

        A few steps and batches are run on a copy of the model. Nothing is changed or written.

        Raises:
            ConfigError: a setting is wrong, or there is not enough memory.
            DatasetError: the dataset cannot be trained on.
            TrainingError: the loss is not finite.
        """
        from rfdetr.lifecycle import rehearse_model

        return rehearse_model(self._model, self._settings, config)

    @takes_settings(EvaluateConfig)
    def evaluate(self, config: EvaluateConfig) -> EvaluationResult:
        """Evaluate on a split of a dataset; the result maps names (`mAP_50_95`, `mAP_50`, ...) to numbers in [0, 1].

        Raises:
            ConfigError: a setting is wrong.
            DatasetError: the split is missing or broken, or has other classes than the model.
            ImageError: more than `max_bad_images` images cannot be read.
            TrainingError: a process that loads images has ended.
        """
        from rfdetr.lifecycle import evaluate_model

        return evaluate_model(self._model, config)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is an Iterable[str] too, but means one path
        self, images: ImageSource, threshold: float = 0.5, batch_size: int = 4
    ) -> supervision.Detections: ...
    @overload
    def predict(
        self, images: Iterable[ImageSource], threshold: float = 0.5, batch_size: int = 4
    ) -> list[supervision.Detections]: ...
    def predict(
        self, images: ImageSource | Iterable[ImageSource], threshold: float = 0.5, batch_size: int = 4
    ) -> supervision.Detections | list[supervision.Detections]:
        """Detect objects in one image, or in each of many, `batch_size` at a time.

        Segmentation models give masks, too: `mask` has one byte per detection and pixel of the image.

        Args:
            images: a path, URL, PIL image, HWC array of uint8 or uint16, CHW float tensor in [0, 1], or an iterable.
                Files are turned upright by their EXIF orientation; images in memory are taken as they are.
            threshold: detections scored above it are kept.
            batch_size: images per forward pass.

        Raises:
            ConfigError: a setting is out of range.
            ImageError: an input is not an image, or cannot be read.
        """
        from rfdetr.inference.predictor import predict

        return predict(self._model.network, images, self._model.named_classes, threshold, batch_size)

    def predict_each(
        self, images: Iterable[ImageSource], threshold: float = 0.5, batch_size: int = 4
    ) -> Iterator[supervision.Detections]:
        """`predict` for any number of images, as a video has: neither images nor results are kept.

        Raises:
            ConfigError: a setting is out of range; at once.
            ImageError: an input is not an image, or cannot be read; after the results of those before it.
        """
        from rfdetr.inference.predictor import predict_each

        return predict_each(self._model.network, images, self._model.named_classes, threshold, batch_size)

    @takes_settings(OptimizeConfig)
    def optimize(self, config: OptimizeConfig) -> None:
        """Prepare the model for prediction where it is: until it is trained again, that takes less time.

        On a CPU OpenVINO runs it: takes some seconds, and memory for the weights once more; what later processes can
        use is kept on disk. With `int8`, which `auto` takes where it is fastest, large layers are kept as bytes and
        their inputs rounded to such as they come, without images to calibrate with. On a GPU it computes in mixed
        precision. In all but float32 scores and boxes differ a little. `evaluate`, `train` and `save` keep to the
        weights in float32.

        Raises:
            ConfigError: a setting is not for this device or processor; for the CPU, OpenVINO is not installed
                (the message says how to install it), or the cache cannot be written to.
        """
        from rfdetr.lifecycle import optimize_model

        self._model = optimize_model(self._model, config)

    def save(self, path: str | Path) -> None:
        """Write weights, architecture and classes to a file that `from_checkpoint` opens: `.pth` or `.safetensors`.

        The layout is the published one, so that other tools can read it too.

        Raises:
            ConfigError: another suffix, or the file cannot be written.
        """
        from rfdetr.lifecycle import save_model

        save_model(self._model, user_path(path, "save"))


class RFDETRNano(RFDETR):
    """384 pixels, 2 decoder layers: the fastest."""

    size = "nano"


class RFDETRSmall(RFDETR):
    """512 pixels, 3 decoder layers."""

    size = "small"


class RFDETRMedium(RFDETR):
    """576 pixels, 4 decoder layers."""

    size = "medium"


class RFDETRLarge(RFDETR):
    """704 pixels, 4 decoder layers: the most accurate for boxes."""

    size = "large"


class RFDETRBase(RFDETR):
    """560 pixels, 3 decoder layers, patches of 14: the first release, superseded by Medium."""

    size = "base"


class RFDETRLargeDeprecated(RFDETR):
    """560 pixels, 3 wider decoder layers on two levels, DINOv2 base: the first Large, superseded by Large."""

    size = "large-deprecated"


class RFDETRSegNano(RFDETR):
    """Boxes and masks: 312 pixels, 4 decoder layers, 100 queries; the fastest."""

    size = "seg-nano"


class RFDETRSegSmall(RFDETR):
    """Boxes and masks: 384 pixels, 4 decoder layers, 100 queries."""

    size = "seg-small"


class RFDETRSegMedium(RFDETR):
    """Boxes and masks: 432 pixels, 5 decoder layers, 200 queries."""

    size = "seg-medium"


class RFDETRSegLarge(RFDETR):
    """Boxes and masks: 504 pixels, 5 decoder layers, 200 queries."""

    size = "seg-large"


class RFDETRSegXLarge(RFDETR):
    """Boxes and masks: 624 pixels, 6 decoder layers, 300 queries."""

    size = "seg-xlarge"


class RFDETRSeg2XLarge(RFDETR):
    """Boxes and masks: 768 pixels, 6 decoder layers, 300 queries; the most accurate."""

    size = "seg-2xlarge"


class RFDETRSegPreview(RFDETR):
    """Boxes and masks: 432 pixels, 4 decoder layers, 200 queries: the first release, superseded by SegMedium."""

    size = "seg-preview"


SIZES: dict[str, type[RFDETR]] = {model.size: model for model in RFDETR.__subclasses__() if model.size}

from_checkpoint = RFDETR.from_checkpoint
