"""The rules of a GPU for mixed precision, on the CPU."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

# Of torch's list for CUDA (AT_FORALL_FP32 in ATen/autocast_mode.h), what the library might use.
IN_FLOAT32 = (
    *("exp", "expm1", "log", "log1p", "reciprocal", "rsqrt", "pow", "__pow__", "softplus", "softmax", "log_softmax"),
    *("layer_norm", "group_norm", "interpolate", "cumsum", "prod", "sum", "norm", "cdist", "logsumexp", "l1_loss"),
    "binary_cross_entropy_with_logits",
)


class AsOnGPU(TorchFunctionMode):
    """Within autocast of the CPU, what is in float32 on a GPU is so here, and what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        is_of_the_cpu = "out" in kwargs  # our attention there; GPUs have torch's own
        if name not in IN_FLOAT32 or is_of_the_cpu or not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        self.changed.add(name)
        args, kwargs = tree_map_only(Tensor, in_float32, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            return function(*args, **kwargs)


def in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
