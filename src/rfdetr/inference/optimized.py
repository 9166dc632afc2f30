"""A detector run by OpenVINO, which on a CPU is faster at it than PyTorch, most of all in bfloat16 and with bytes."""

from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor

from rfdetr.config.commands import OptimizeConfig
from rfdetr.config.values import OptimizedPrecision
from rfdetr.devices import multiplies_bfloat16, processor_has
from rfdetr.errors import ConfigError
from rfdetr.inference.programs import import_openvino, kept_program
from rfdetr.inference.quantization import GROUP, quantize_layers
from rfdetr.models.detector import Detector
from rfdetr.types import LayerOutputs, MaskLogits

NUMBER_FORMATS = {
    "32": "float32",
    "bf16": "bfloat16",
    "int8": "large layers in bytes, all else in float32",
    "int8-bf16": "large layers in bytes, all else in bfloat16",
}
VNNI = ("avx512_vnni", "avx_vnni")
"""Instructions for products of bytes."""


class OptimizedDetector:
    """What a detector predicts with its last layer, with the weights that it had when this was made.

    Calls from several threads wait for each other.

    Raises:
        ConfigError: OpenVINO is not installed or too old, the cache cannot be written to, the format is not for this
            processor, or for `int8` a weight is not finite.
    """

    def __init__(self, detector: Detector, settings: OptimizeConfig) -> None:
        self.config = detector.config
        self.device = torch.device("cpu")
        if settings.precision == "fp16":
            raise ConfigError("optimize: precision='fp16' needs a GPU; on the CPU use 'auto'")
        self.precision = _fastest() if settings.precision == "auto" else settings.precision
        in_bytes, in_bfloat16 = self.precision.startswith("int8"), self.precision.endswith("bf16")
        if in_bytes and not processor_has(*VNNI):
            raise _not_here(self.precision, "VNNI")
        if in_bfloat16 and not multiplies_bfloat16():
            raise _not_here(self.precision, "products of bfloat16")
        openvino = import_openvino()
        self.batch_size = settings.batch_size
        properties = {
            "INFERENCE_PRECISION_HINT": openvino.Type.bf16 if in_bfloat16 else openvino.Type.f32,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Threads bound to cores would wait there for those that decode images.
            "ENABLE_CPU_PINNING": False,
        }
        if in_bytes:
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP
            _check_finite(detector)
        core = openvino.Core()
        file = kept_program(detector, self.batch_size)
        try:
            program = core.read_model(file)
            if in_bytes:
                quantize_layers(program)
            self.compiled = core.compile_model(program, "CPU", properties)
        except RuntimeError as error:
            reason = (str(error).strip() or "for no reason given").splitlines()[-1]
            raise ConfigError(
                f"optimize: OpenVINO cannot load the model in precision={self.precision!r}: {reason}. "
                f"Try another one, or remove {file.parent}, from which it is loaded"
            ) from None
        self._request = self.compiled.create_infer_request()
        self._lock = Lock()

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


def _fastest() -> OptimizedPrecision:
    """Of the formats that are about as accurate as bfloat16, on processors that it is known of."""
    # The matrix units of AMX multiply bfloat16 as fast as VNNI does bytes, or faster.
    if processor_has("avx512_vnni") and not processor_has("amx_tile"):
        return "int8-bf16" if multiplies_bfloat16() else "int8"
    return "bf16" if multiplies_bfloat16() else "32"


def _not_here(precision: OptimizedPrecision, instructions: str) -> ConfigError:
    return ConfigError(
        f"optimize: precision={precision!r} needs a processor with {instructions}, which this one lacks; use 'auto'"
    )


def _check_finite(detector: Detector) -> None:
    """In bytes what is not finite would be, and nobody would notice."""
    for name, tensor in detector.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ConfigError(f"optimize: the model has weights that are not finite: {name}")
