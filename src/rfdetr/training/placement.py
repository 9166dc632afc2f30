"""Which device each process of a machine trains on."""

import os
from pathlib import Path

import torch

from rfdetr.config.base import refuse
from rfdetr.config.model import ModelSettings
from rfdetr.config.runs import TrainConfig
from rfdetr.devices import training_device
from rfdetr.distributed import World
from rfdetr.errors import ConfigError


def check_machine(config: TrainConfig, settings: ModelSettings, world: World | None) -> list[torch.device]:
    """The devices of this machine's processes, by local rank; `world` is what has been started already, if anything.

    Raises:
        ConfigError: names everything at once that is asked for and not here, or contradicts what has been started.
    """
    problems = []
    for look in (
        lambda: _device(config, settings),
        lambda: _check_world(config, world),
        lambda: _check_precision(config, settings),
        lambda: _check_strategy(config, settings, world),
        lambda: _check_resume(config),
    ):
        try:
            look()
        except ConfigError as error:
            problems.append(str(error))
    refuse("train", list(dict.fromkeys(problems)))  # a device that is not there is missed by several
    return _placement(config, settings, world)


def _placement(config: TrainConfig, settings: ModelSettings, world: World | None) -> list[torch.device]:
    """Where only the model was told a device, training stays on it."""
    device = _device(config, settings)
    if config.devices != "auto" and not isinstance(config.devices, int):
        return _listed(config.devices, device)
    if world is not None:
        count = world.local_size
        if device.type == "cuda" and _sees_its_own_alone():
            return [torch.device("cuda", 0)] * count
    elif config.devices == "auto":
        count = torch.cuda.device_count() if device.type == "cuda" else 1
    else:
        count = int(config.devices)
    if count == 1 and device.index is not None:
        return [device]
    return [_nth(device, index) for index in range(count)]


def _sees_its_own_alone() -> bool:
    """Whether this process was given one GPU, as by `srun --gpus-per-task=1`; torchrun shows all to each."""
    is_given = "CUDA_VISIBLE_DEVICES" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
    return is_given and torch.cuda.device_count() == 1


def _device(config: TrainConfig, settings: ModelSettings) -> torch.device:
    name = config.device if "device" in config.given() or settings.device is None else settings.device
    return training_device(name, config.accelerator)


def _check_precision(config: TrainConfig, settings: ModelSettings) -> None:
    if config.precision == "fp16" and _device(config, settings).type == "cpu":
        raise ConfigError("precision: 'fp16' needs a GPU; on the CPU use 'bf16' or '32'")


def _check_strategy(config: TrainConfig, settings: ModelSettings, world: World | None) -> None:
    is_shared = config.strategy == "ddp" or (world is not None and world.size > 1)
    if is_shared and _device(config, settings).type == "mps":
        raise ConfigError(
            "strategy: gradients can be shared between CUDA devices and between CPUs, but training runs on the mps; "
            "train in one process without strategy='ddp', or with device='cpu'"
        )


def _check_resume(config: TrainConfig) -> None:
    if config.resume not in (None, "auto") and not Path(config.resume).is_file():
        raise ConfigError(f"resume: {config.resume}: no such file")


def _check_world(config: TrainConfig, world: World | None) -> None:
    if world is None:
        if config.num_nodes > 1:
            raise ConfigError(
                f"num_nodes={config.num_nodes}: start the same program on every machine, with srun or with torchrun "
                f"--nnodes {config.num_nodes} --node-rank <0, 1, ...> --nproc-per-node <devices of a machine> "
                "--master-addr <first machine> --master-port 29500"
            )
        return
    nodes = world.size // world.local_size
    if config.num_nodes not in (1, nodes):
        raise ConfigError(f"num_nodes={config.num_nodes}, but the processes were started on {nodes}; leave it out")
    asked = config.devices if isinstance(config.devices, int) else len(config.devices.split(","))
    if asked not in (1, world.local_size):
        raise ConfigError(
            f"devices={config.devices!r}, but {world.local_size} processes were started on this machine; leave it out"
        )
    if ":" in config.device and world.local_size > 1:
        raise ConfigError(
            f"device={config.device!r} is one, but {world.local_size} processes were started on this machine; "
            "leave its index out"
        )


def _listed(devices: str, device: torch.device) -> list[torch.device]:
    if device.type != "cuda":
        raise ConfigError(f"devices={devices!r} names GPUs, but training runs on the {device.type}; give a number")
    return [_nth(device, int(index)) for index in devices.split(",")]


def _nth(device: torch.device, index: int) -> torch.device:
    if device.type == "cpu":
        return device
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if index >= there:
        raise ConfigError(f"devices: asks for {device.type}:{index}, but this machine has {there} of them")
    return torch.device(device.type, index)
