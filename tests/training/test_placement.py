"""device, accelerator, devices, num_nodes and strategy: where the processes of a run are, and how they train."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_post_hook

from rfdetr.config.model import ModelSettings
from rfdetr.config.runs import TrainConfig
from rfdetr.distributed import World
from rfdetr.errors import ConfigError
from rfdetr.lifecycle import Model, train_model
from rfdetr.training.placement import check_machine

from .tiny import CPU, tiny_config, tiny_detector

NO_SETTINGS = ModelSettings()
# The second of two processes on the first of two machines.
TWO_BY_TWO = World(rank=1, local_rank=1, size=4, local_size=2)
without_gpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has a GPU")


def with_gpu(test: Any) -> Any:
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")(test))


def places(model: ModelSettings = NO_SETTINGS, world: World | None = None, **settings: Any) -> list[torch.device]:
    return check_machine(TrainConfig(dataset_dir="data", **settings), model, world)


# One process


@without_gpu
def test_the_usual_device_is_what_there_is() -> None:
    assert places() == [CPU]


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        pytest.param(NO_SETTINGS, {"device": "cpu"}, id="of the run"),
        pytest.param(ModelSettings(device="cpu"), {}, id="of the model"),
        pytest.param(ModelSettings(device="mps"), {"device": "cpu"}, id="of the run before that of the model"),
    ],
)
def test_device_says_where_to_train(model: ModelSettings, settings: dict[str, Any]) -> None:
    assert places(model, **settings) == [CPU]


@without_gpu
def test_what_is_not_here_is_said_all_at_once() -> None:
    config = TrainConfig(dataset_dir="data", device="cuda:1", num_nodes=2, resume="gone.pth")
    with pytest.raises(ConfigError) as caught:
        check_machine(config, NO_SETTINGS, None)
    first, *problems = str(caught.value).splitlines()
    assert first == "train has 3 problems:"
    starts = (
        "device: 'cuda:1' asked for, but torch sees",
        "num_nodes=2: start the same",
        "resume: gone.pth: no such file",
    )
    assert all(problem.strip().startswith(start) for problem, start in zip(problems, starts, strict=True))


@without_gpu
def test_half_precision_without_a_gpu_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="precision: 'fp16' needs a GPU; on the CPU use 'bf16' or '32'"):
        check_machine(TrainConfig(dataset_dir="data", precision="fp16"), NO_SETTINGS, None)


@without_gpu
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"device": "cuda:1"}, "device: 'cuda:1' asked for, but torch sees no CUDA device here", id="cuda"),
        pytest.param({"device": "mps"}, "device: 'mps' asked for, but this machine has none", id="mps"),
        pytest.param({"accelerator": "gpu"}, "accelerator: 'gpu' asked for, but this machine has none", id="gpu"),
    ],
)
def test_what_is_named_and_missing_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        places(ModelSettings(device="cpu"), **settings)


def test_accelerator_decides_where_device_leaves_it_open(capsys: pytest.CaptureFixture[str]) -> None:
    assert places(accelerator="cpu") == [CPU]
    assert capsys.readouterr().out == ""  # nothing is missing


@with_gpu
@pytest.mark.parametrize(
    ("settings", "found"),
    [
        pytest.param({}, "cuda:0", id="usual"),
        pytest.param({"device": "cuda:0"}, "cuda:0", id="named"),
        pytest.param({"accelerator": "gpu"}, "cuda:0", id="accelerator"),
        pytest.param({"accelerator": "cpu"}, "cpu", id="accelerator before the usual device"),
    ],
)
def test_where_there_is_a_gpu(settings: dict[str, Any], found: str) -> None:
    assert places(**settings) == [torch.device(found)]


# Several


@pytest.mark.parametrize(
    ("devices", "world", "count"),
    [
        pytest.param(1, None, 1, id="one"),
        pytest.param(3, None, 3, id="three"),
        pytest.param("auto", None, 1, id="the CPU is one"),
        pytest.param(1, TWO_BY_TWO, 2, id="started by torchrun"),
        pytest.param(2, TWO_BY_TWO, 2, id="as many as torchrun has started"),
        pytest.param("auto", TWO_BY_TWO, 2, id="all that torchrun has started"),
    ],
)
def test_devices_are_the_processes_of_a_machine(devices: int | str, world: World | None, count: int) -> None:
    assert places(world=world, accelerator="cpu", devices=devices) == [CPU] * count


@with_gpu
def test_all_devices_are_those_that_torch_sees() -> None:
    assert places(devices="auto") == [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    with pytest.raises(ConfigError, match="devices: asks for cuda:99, but this machine has"):
        places(devices="0,99")


@pytest.mark.parametrize("nodes", [1, 2])
def test_num_nodes_are_the_machines(nodes: int) -> None:
    assert places(world=TWO_BY_TWO, accelerator="cpu", num_nodes=nodes) == [CPU, CPU]
    with pytest.raises(ConfigError, match="num_nodes=3, but the processes were started on 2; leave it out"):
        places(world=TWO_BY_TWO, accelerator="cpu", num_nodes=3)


@pytest.mark.parametrize(
    ("settings", "world", "message"),
    [
        pytest.param(
            {"num_nodes": 2},
            None,
            "num_nodes=2: start the same program on every machine, with srun or with torchrun --nnodes 2 --node-rank "
            "<0, 1, ...> --nproc-per-node <devices of a machine> --master-addr <first machine> --master-port 29500",
            id="nobody starts them",
        ),
        pytest.param(
            {"devices": 3},
            TWO_BY_TWO,
            "devices=3, but 2 processes were started on this machine; leave it out",
            id="more than were started",
        ),
        pytest.param(
            {"accelerator": "auto", "device": "cuda", "devices": "0,1,3"},
            TWO_BY_TWO,
            "devices='0,1,3', but 2 processes were started on this machine; leave it out",
            id="more GPUs than were started",
        ),
    ],
)
def test_processes_that_nobody_starts_are_refused(settings: dict[str, Any], world: World | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        places(world=world, **{"accelerator": "cpu", **settings})
    assert str(caught.value) == f"train: {message}"


@without_gpu
def test_indices_are_for_gpus() -> None:
    with pytest.raises(ConfigError, match="devices='0,2' names GPUs, but training runs on the cpu; give a number"):
        places(devices="0,2")


@with_gpu
def test_one_gpu_is_not_for_two_processes() -> None:
    with pytest.raises(ConfigError, match="device='cuda:0' is one, but 2 processes were started on this machine"):
        places(world=TWO_BY_TWO, device="cuda:0")


def test_processes_that_see_one_gpu_each_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As srun gives them out. Those of torchrun see all that there are."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert places(world=TWO_BY_TWO) == [torch.device("cuda:0")] * 2
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(ConfigError, match="devices: asks for cuda:1, but this machine has 1 of them"):
        places(world=TWO_BY_TWO)


@pytest.mark.parametrize(
    ("strategy", "world"),
    [pytest.param("ddp", None, id="asked for"), pytest.param("auto", TWO_BY_TWO, id="started as several")],
)
def test_the_gpus_of_apple_share_no_gradients(
    strategy: Literal["auto", "ddp"], world: World | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    config = TrainConfig(dataset_dir="data", strategy=strategy)
    with pytest.raises(
        ConfigError, match=r"^train: strategy: gradients can be shared between CUDA devices and between CPUs"
    ):
        check_machine(config, NO_SETTINGS, world)
    assert check_machine(config.replace(strategy="auto"), NO_SETTINGS, None) == [torch.device("mps:0")]


@without_gpu
def test_what_several_settings_miss_is_said_once() -> None:
    config = TrainConfig(dataset_dir="data", device="cuda:1", strategy="ddp", precision="fp16")
    with pytest.raises(ConfigError) as caught:
        check_machine(config, NO_SETTINGS, None)
    assert str(caught.value).count("'cuda:1' asked for") == 1


# Together


def test_strategy_ddp_shares_gradients(dots: Path, tmp_path: Path) -> None:
    """In a group of one, if there is nobody else: the weights are those of a run without."""
    groups: dict[str, set[int]] = {"auto": set(), "ddp": set()}
    weights = {}
    for strategy, sizes in groups.items():
        hook = register_optimizer_step_post_hook(
            lambda *_, sizes=sizes: sizes.add(dist.get_world_size() if dist.is_initialized() else 0)
        )
        try:
            config = tiny_config(dots, tmp_path / strategy, device="cpu", strategy=strategy)
            trained, _ = train_model(Model(tiny_detector(2), None, CPU), NO_SETTINGS, config)
        finally:
            hook.remove()
        weights[strategy] = trained.detector.state_dict()
    assert groups == {"auto": {0}, "ddp": {1}}
    assert not dist.is_initialized()
    assert all(torch.equal(tensor, weights["ddp"][name]) for name, tensor in weights["auto"].items())
