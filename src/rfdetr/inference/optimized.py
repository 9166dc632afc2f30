"""A detector run by OpenVINO, which on a CPU is faster at it than PyTorch, most of all in bfloat16."""

from threading import Lock
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rfdetr.config.commands import OptimizeConfig
from rfdetr.errors import ConfigError
from rfdetr.inference.programs import import_openvino, kept_program
from rfdetr.models.detector import Detector
from rfdetr.types import LayerOutputs, MaskLogits

NUMBER_FORMATS = {"32": "float32", "bf16": "bfloat16"}


class OptimizedDetector:
    """What a detector predicts with its last layer, with the weights that it had when this was made.

    Calls from several threads wait for each other.

    Raises:
        ConfigError: OpenVINO is not installed, the cache cannot be written to, or the format is not for a CPU.
    """

    def __init__(self, detector: Detector, settings: OptimizeConfig) -> None:
        self.config = detector.config
        self.device = torch.device("cpu")
        if settings.precision == "fp16":
            raise ConfigError("optimize: precision='fp16' needs a GPU; on the CPU use 'bf16' or '32'")
        openvino = import_openvino()
        core = openvino.Core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = ("bf16" if has_bf16 else "32") if settings.precision == "auto" else settings.precision
        self.batch_size = settings.batch_size
        program = kept_program(detector, self.batch_size)
        self._request = core.compile_model(program, "CPU", self._properties(openvino)).create_infer_request()
        self._lock = Lock()

    def _properties(self, openvino: Any) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": {"32": openvino.Type.f32, "bf16": openvino.Type.bf16}[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Threads bound to cores would wait there for those that decode images.
            "ENABLE_CPU_PINNING": False,
        }

    def __call__(self, images: Float[Tensor, "B N R R"]) -> LayerOutputs:
        """As `Detector.forward`, for images of the detector's resolution: any number, `batch_size` at a time."""
        passes = [self._run(part) for part in images.split(self.batch_size)]
        logits, boxes, *masks = (torch.cat(parts) for parts in zip(*passes, strict=True))
        outputs: LayerOutputs = {"pred_logits": logits, "pred_boxes": boxes}
        if masks:
            outputs["pred_masks"] = MaskLogits(*masks)
        return outputs

    def _run(self, images: Float[Tensor, "n N R R"]) -> list[Tensor]:
        count = len(images)
        if count < self.batch_size:
            images = torch.cat([images, images.new_zeros(self.batch_size - count, *images.shape[1:])])
        with self._lock:
            found = self._request.infer([images.numpy()], share_inputs=True)
        return [torch.from_numpy(found[index])[:count] for index in range(len(found))]
