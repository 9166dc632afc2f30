"""Where files of different origin keep their weights and settings, and what must be true of these."""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from rfdetr.errors import WeightsError

# The first of these that holds something is meant; see `published_weights`.
PLACES = ("model", "state_dict", "ema_model", "legacy_ema_state_dict")
# What wrappers (Lightning, averaging or distributed training, torch.compile) put before a name.
_WRAPPERS = re.compile(r"(model\.|module\.|_orig_mod\.)+")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
KEYPOINTS = "is a keypoint model; this library detects boxes and masks"


def published_weights(content: Mapping[str, Any], file_size: int) -> dict[str, Tensor]:
    """The weights of a file, of any layout, under their published names.

    They are under `model`, or in Lightning's checkpoints under `state_dict`. Averaged weights that lie beside them are
    for the run to go on with, and not meant: where a run found the average to be better, it has saved a file with the
    average as `model`. A file that has nothing but averaged weights means these.

    Raises:
        WeightsError: there are none, or they cannot be those of a detector in a file of `file_size` bytes.
    """
    found = _unwrapped(_state_dict(content))
    if any(".base_model.model." in name or "lora_" in name for name in found):
        raise WeightsError("holds LoRA adapters; merge them into the encoder (merge_and_unload of PEFT) and save again")
    # Counters, as of batch norms, are nothing to load.
    found = {name: tensor for name, tensor in found.items() if tensor.dim() or tensor.is_floating_point()}
    mask = found.pop("_kp_active_mask", None)
    if (mask is not None and mask.numel()) or any(name.startswith("keypoint_head.") for name in found):
        raise WeightsError(KEYPOINTS)
    if any(name.endswith("register_tokens") for name in found):
        raise WeightsError("its encoder has register tokens, which no published size has")
    check_tensors(found, file_size)
    return found


def _state_dict(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    # The whole file may be a state dict.
    for state in (*(content.get(place) for place in PLACES), content):
        if isinstance(state, dict) and state and all(isinstance(tensor, Tensor) for tensor in state.values()):
            return cast("Mapping[str, Tensor]", state)
    raise WeightsError("not a checkpoint of RF-DETR: no weights under 'model' or 'state_dict'")


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put before them. Where some have that, the others are not of the model."""
    names = {name: _WRAPPERS.sub("", name, count=1) if _WRAPPERS.match(str(name)) else str(name) for name in state}
    is_wrapped = any(name != bare for name, bare in names.items())
    return {bare: state[name] for name, bare in names.items() if name != bare or not is_wrapped}


def check_tensors(weights: Mapping[str, Tensor], file_size: int) -> None:
    """Raises:
    WeightsError: not plain numbers, not finite, or more of them than a file of that many bytes can hold.
    """
    for name, tensor in weights.items():
        if tensor.dtype not in _DTYPES or tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise WeightsError(f"{name} holds no plain floating-point numbers ({tensor.dtype}); is it quantised?")
    # A view can pretend any size; copied it would become that large.
    if sum(tensor.numel() * tensor.element_size() for tensor in weights.values()) > file_size:
        raise WeightsError("damaged: its tensors claim to be larger than the file")
    broken = [name for name, tensor in weights.items() if not tensor.float().isfinite().all()]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise WeightsError(
            f"holds numbers that are not finite, in {', '.join(broken[:3])}{more}; its training diverged"
        )


def settings_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the run that made the file: `args`, else Lightning's `hyper_parameters`."""
    for settings in (content.get("args"), content.get("hyper_parameters")):
        values = settings if isinstance(settings, dict) else getattr(settings, "__dict__", None)
        if values:
            return {name: value for name, value in values.items() if isinstance(name, str)}
    return {}


def class_names_of(settings: Mapping[str, Any]) -> list[str]:
    """`class_names`, a list or a single name; empty where there are none."""
    names = settings.get("class_names")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, (str, int)) for name in names):
        return []
    return [str(name) for name in names]
