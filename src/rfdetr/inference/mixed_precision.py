"""A detector in mixed precision, whose products a GPU computes several times as fast as in float32."""

from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr.config.commands import OptimizeConfig
from rfdetr.devices import autocast_dtype
from rfdetr.errors import ConfigError
from rfdetr.models.decoder import GroupSelfAttention
from rfdetr.models.detector import Detector
from rfdetr.types import LayerOutputs


class MixedPrecisionDetector:
    """What a detector predicts with its last layer, with the weights that it had when this was made.

    Raises:
        ConfigError: nothing would be other than it is, or a setting is for the CPU.
    """

    def __init__(self, detector: Detector, settings: OptimizeConfig) -> None:
        self.config = detector.config
        self.device = next(detector.parameters()).device
        match settings.precision:
            case "int8" | "int8-bf16" as precision:
                raise ConfigError(
                    f"optimize: precision={precision!r} is for the CPU; on the {self.device} use 'bf16' or 'fp16'"
                )
            case precision:
                dtype = autocast_dtype(precision, self.device)
        if dtype is None:
            raise ConfigError(
                f"optimize: precision='32' is what the model computes in already on the {self.device}; "
                "use 'bf16' or 'fp16'"
            )
        if "batch_size" in settings.given():
            raise ConfigError(
                f"optimize: batch_size is for the CPU; on the {self.device} it is that of predict(batch_size=...)"
            )
        self.dtype = dtype
        self._detector = deepcopy(detector).eval().requires_grad_(False)
        for part in self._detector.modules():
            # What autocast would do with them in every pass.
            if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | GroupSelfAttention):
                part.to(dtype)

    def __call__(self, images: Float[Tensor, "B N R R"]) -> LayerOutputs:
        """As `Detector.forward`."""
        with torch.autocast(self.device.type, dtype=self.dtype):
            outputs: LayerOutputs = self._detector(images, last_only=True)
        return outputs
