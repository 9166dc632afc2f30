"""A device that is none: it computes on the CPU, its tensors are elsewhere, and it notes when the host waits for it.

    python -m tests.training.pretend_device

prints as JSON, by name of a piece of work, the places where the host has waited. A process of its own is needed, as
torch cannot forget a device. What waits is what waits on a GPU: a number that Python asks for, a shape that depends on
numbers, and any copy between host and device that is not `non_blocking`, also one that is hidden in `torch.tensor` or
in an index. A tensor of the host between those of the device is an error.
"""

import json
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
from typing_extensions import Self

import rfdetr
from rfdetr.config.model import ModelConfig
from rfdetr.models.detector import Detector
from rfdetr.models.on_host import OnHost
from rfdetr.training.state import Progress
from rfdetr.training.step import TrainingStep
from rfdetr.types import ImageBatch, Target

from ..tiny import TINY, TINY_SEG, random_mask_targets, random_targets
from .tiny import tiny_config

DEVICE = torch.device("privateuseone:0")  # which torch keeps for devices that it does not know
PACKAGE = Path(rfdetr.__file__).parent
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
ALWAYS_WAIT = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "bincount",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
}


class Remote(Tensor):
    """A tensor of the device, with its numbers in one of the host."""

    @staticmethod
    def __new__(cls, numbers: Tensor) -> Self:
        return Tensor._make_wrapper_subclass(
            cls, numbers.size(), numbers.stride(), numbers.storage_offset(), dtype=numbers.dtype, device=DEVICE
        )

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, *_: Any) -> Any:
        raise AssertionError(f"{operation} outside of the watch")


class Watch(TorchDispatchMode):
    """Computes, and notes where the host waits. What was queued before a wait is done afterwards."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[str] = []
        self.queued = self.done = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in tensors if not isinstance(tensor, Remote)]
        there = len(here) < len(tensors)
        to_device = there
        if kwargs.get("device") is not None:
            to_device = torch.device(kwargs["device"]).type == DEVICE.type
            kwargs["device"] = torch.device("cpu")
        if there or to_device:
            self.queued += 1
            self.note(operation, args, kwargs, crosses=bool(here) if operation is COPIES[1] else there != to_device)
            if operation not in COPIES and there and any(tensor.dim() for tensor in here):
                raise AssertionError(f"{operation} of tensors of the host and of the device")
        inside_args, inside_kwargs = tree_map_only(Remote, lambda tensor: tensor.numbers, (args, kwargs))
        found = operation(*inside_args, **inside_kwargs)
        if not to_device or (operation is COPIES[1] and not isinstance(args[0], Remote)):
            return found
        found = tree_map_only(Tensor, Remote, found)
        return return_and_correct_aliasing(operation, args, kwargs, found) if there else found

    def note(self, operation: Any, args: Any, kwargs: dict[str, Any], crosses: bool) -> None:
        name = operation.name().removeprefix("aten::").split(".")[0]
        if operation in COPIES:
            non_blocking = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            if crosses and not non_blocking:
                self.wait()
        elif operation in INDEXED:
            if any(index is not None and index.dtype is torch.bool for index in args[1]):
                self.wait()
        elif name in ALWAYS_WAIT or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.wait()

    def wait(self, until: int | None = None) -> None:
        self.done = self.queued if until is None else until
        self.waits.append(place())


def place() -> str:
    """The file and line of the library that is being run."""
    frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(PACKAGE)]
    ours = [frame for frame in frames if not frame.filename.endswith("on_host.py")]
    return f"{Path(ours[-1].filename).relative_to(PACKAGE).as_posix()}: {ours[-1].line}" if ours else "elsewhere"


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Autocast asks, also where it is not enabled. Its conversions happen on the device, so they are left out."""
        return [torch.bfloat16]


class HostGenerator(torch.Generator):
    def __new__(cls, device: Any = None) -> Self:
        return super().__new__(cls)


def event_of(watch: Watch) -> type:
    class Event:
        def __init__(self, device: torch.device) -> None:
            self.at = 0

        def record(self, stream: None) -> None:
            self.at = watch.queued

        def synchronize(self) -> None:
            if self.at > watch.done:
                watch.wait(self.at)

    return Event


def pretending(watch: Watch) -> AbstractContextManager[Any]:
    """Events, streams and generators are torch's own code of each device, which this one has not."""
    stack = ExitStack()
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(torch, "Event", event_of(watch))
    patch.setattr(torch.accelerator, "current_stream", lambda index: None)
    patch.setattr(torch, "Generator", HostGenerator)
    stack.enter_context(watch)
    return stack


def waits_of(work: Callable[[], Any]) -> list[str]:
    watch = Watch()
    with pretending(watch):
        work()
    return watch.waits


def single_calls() -> dict[str, Callable[[], Any]]:
    """Named after what they do; all of the first kind wait once, all of the second never."""
    remote = Remote(torch.rand(3, 4))
    numbers = Remote(torch.arange(3))
    host = torch.rand(3, 4)
    waiting: dict[str, Callable[[], Any]] = {
        "item": lambda: float(remote[0, 0]),
        "bool": lambda: bool((remote > 0).all()),
        "tolist": remote.tolist,
        "cpu": remote.cpu,
        "copy to the host": lambda: torch.empty(3, 4).copy_(remote),
        "copy to the device": lambda: remote.clone().copy_(host),
        "to the device": lambda: host.to(DEVICE),
        "tensor": lambda: torch.tensor([1.0, 2.0], device=DEVICE),
        "new tensor": lambda: remote.new_tensor([1.0, 2.0]),
        "list as index": lambda: remote[:, [1, 0]],
        "mask as index": lambda: remote[remote > 0.5],
        "assignment by mask": lambda: remote.clone().__setitem__(remote > 0.5, 0.0),
        "nonzero": remote.nonzero,
        "masked_select": lambda: remote.masked_select(remote > 0.5),
        "unique": numbers.unique,
        "repeat_interleave": lambda: remote.repeat_interleave(numbers, dim=0),
        "equal": lambda: torch.equal(remote, remote),
        "reading a copy": lambda: OnHost(remote).read(),
    }
    free: dict[str, Callable[[], Any]] = {
        "to the device without waiting": lambda: host.to(DEVICE, non_blocking=True),
        "made on the device": lambda: torch.arange(3, device=DEVICE) + torch.full((3,), 2.0, device=DEVICE),
        "numbers as index": lambda: remote[numbers, numbers],
        "a number of the host": lambda: remote / torch.tensor(3.0),
        "topk": lambda: remote.topk(2),
        "repeat_interleave of known length": lambda: remote.repeat_interleave(numbers, dim=0, output_size=3),
        "beginning a copy": lambda: OnHost(remote),
    }
    return {f"waits: {name}": call for name, call in waiting.items()} | {
        f"free: {name}": call for name, call in free.items()
    }


def read_two_copies() -> None:
    """The second comes later, so that the first has come as well."""
    first = OnHost(Remote(torch.rand(3)))
    second = OnHost(Remote(torch.rand(3)))
    second.read()
    first.read()


def mixed() -> list[str]:
    with pretending(Watch()):
        try:
            Remote(torch.rand(3)) + torch.rand(3)
        except AssertionError:
            return ["refused"]
    return []


def one_step(model: ModelConfig, targets: list[Target]) -> list[str]:
    """A step of two micro-batches, after one that has made the optimiser's state."""
    config = tiny_config(Path(), Path(), precision="32", clip_max_norm=0.1)
    batch = ImageBatch(torch.randint(0, 256, (len(targets), 3, 64, 64), dtype=torch.uint8), targets)
    watch = Watch()
    with pretending(watch):
        step = TrainingStep(Detector(model).to(DEVICE).train(), config, Progress(0, 8, 4), 2, DEVICE)
        step([batch, batch])
        watch.waits.clear()
        step([batch, batch])
    return watch.waits


def main() -> None:
    _setup_privateuseone_for_python_backend("pretend", Backend())
    torch._C._set_only_lift_cpu_tensors(True)  # else `torch.tensor` hides its copy to the device
    found = {name: waits_of(call) for name, call in single_calls().items()}
    found["two copies"] = waits_of(read_two_copies)
    found["mixed"] = mixed()
    found["boxes"] = one_step(TINY, random_targets([3, 2]))
    found["masks"] = one_step(TINY_SEG, random_mask_targets([3, 2]))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
