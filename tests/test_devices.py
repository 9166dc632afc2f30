from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rfdetr.devices import as_current, autocast_dtype, multiplies_bfloat16, pick_device, processor_has, training_device
from rfdetr.errors import ConfigError

CPU = torch.device("cpu")


def test_a_named_device_is_taken() -> None:
    assert pick_device("cpu") == CPU


def test_without_a_name_it_is_the_best_there_is() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device(None).type == best


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_where_there_is_none(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pick_device(name)
    assert str(caught.value) == f"device: '{name}' asked for, but torch sees no CUDA device here. Use device='cpu'"


@pytest.mark.parametrize("name", [None, "cuda"])
@pytest.mark.parametrize(
    ("environment", "found"),
    [
        pytest.param({}, "cuda", id="alone"),
        pytest.param({"LOCAL_RANK": "1"}, "cuda:1", id="torchrun"),
        pytest.param({"SLURM_LOCALID": "1"}, "cuda:1", id="srun"),
        pytest.param({"SLURM_LOCALID": "3"}, "cuda", id="fewer GPUs than processes"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(
    name: str | None, environment: dict[str, str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for variable in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert pick_device(name) == torch.device(found)
    assert pick_device("cuda:0") == torch.device("cuda:0")


def test_a_gpu_is_the_current_one_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    current = []

    @contextmanager
    def device(which: torch.device) -> Iterator[None]:
        current.append(which)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    with as_current(torch.device("cuda:1")):
        assert current == [torch.device("cuda:1")]
    with as_current(CPU):
        assert current == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_cuda_device_beyond_the_last() -> None:
    with pytest.raises(ConfigError, match=f"there are only {torch.cuda.device_count()} CUDA devices"):
        pick_device("cuda:99")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="has MPS")
def test_mps_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="'mps' asked for, but this machine has none"):
        pick_device("mps")


without_gpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has a GPU")


@without_gpu
def test_training_is_on_what_there_is() -> None:
    assert training_device("cuda") == CPU


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cpu"])
def test_an_accelerator_decides(name: str) -> None:
    assert training_device(name, "cpu") == CPU


@without_gpu
@pytest.mark.parametrize(
    ("name", "accelerator", "message"),
    [
        pytest.param("cuda:1", "auto", "device: 'cuda:1' asked for, but torch sees no CUDA device here", id="GPU"),
        pytest.param("mps", "auto", "device: 'mps' asked for, but this machine has none", id="MPS"),
        pytest.param("cuda", "gpu", "accelerator: 'gpu' asked for, but this machine has none", id="any GPU"),
        pytest.param("cuda", "mps", "accelerator: 'mps' asked for, but this machine has none", id="kind"),
    ],
)
def test_a_device_to_train_on_that_is_not_there(name: str, accelerator: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        training_device(name, accelerator)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(
    ("name", "accelerator", "device"),
    [
        ("cuda", "auto", "cuda"),
        ("cuda", "gpu", "cuda"),
        ("cuda:0", "cuda", "cuda:0"),
        ("cpu", "auto", "cpu"),
        ("cuda", "cpu", "cpu"),
    ],
)
def test_training_with_a_gpu(name: str, accelerator: str, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert training_device(name, accelerator) == torch.device(device)
    assert capsys.readouterr().out == ""


def test_number_format() -> None:
    assert autocast_dtype("32", CPU) is None
    assert autocast_dtype("bf16", CPU) == torch.bfloat16
    assert autocast_dtype("auto", torch.device("mps")) == torch.float16


def test_the_processor_says_what_it_multiplies() -> None:
    """Linux lists the same."""
    flags = Path("/proc/cpuinfo")
    if not flags.exists() or "\nflags" not in flags.read_text():
        pytest.skip("no list to compare with")
    listed = set(flags.read_text().split())
    assert multiplies_bfloat16() == bool({"avx512_bf16", "amx_bf16"} & listed)
    for name in ("avx512_vnni", "avx_vnni", "amx_tile"):
        assert processor_has(name) == (name in listed)
    assert autocast_dtype("auto", CPU) is (torch.bfloat16 if multiplies_bfloat16() else None)


def test_a_torch_that_does_not_list_it_is_asked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those up to 2.10, of which some lack a question."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert processor_has("avx512_vnni")
    assert not multiplies_bfloat16()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert multiplies_bfloat16()
