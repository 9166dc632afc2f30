"""Numbers that the device has computed, on their way to the host."""

import torch
from jaxtyping import Shaped
from torch import Tensor


class OnHost:
    """The copy of a tensor, under way. Reading it waits for the copy, not for what the device is given afterwards.

    So a copy that was begun earlier is there as soon as any later one is.
    """

    def __init__(self, tensor: Shaped[Tensor, "..."]) -> None:
        has_streams = tensor.device.type not in ("cpu", "mps")
        self._copy = tensor.detach().to("cpu", non_blocking=has_streams)  # then page-locked: several times faster
        self._arrival = torch.Event(tensor.device) if has_streams else None
        if self._arrival is not None:
            # Left to itself, torch would take the stream of the current device, which may be another one.
            self._arrival.record(torch.accelerator.current_stream(tensor.device.index))

    def read(self) -> Shaped[Tensor, "..."]:
        """On the CPU."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._copy
