import pytest
import torch

from rfdetr.devices import autocast_dtype, pick_device
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_cuda_device_beyond_the_last() -> None:
    with pytest.raises(ConfigError, match=f"there are only {torch.cuda.device_count()} CUDA devices"):
        pick_device("cuda:99")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="has MPS")
def test_mps_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="'mps' asked for, but this machine has none"):
        pick_device("mps")


def test_number_format() -> None:
    assert autocast_dtype("auto", CPU) is None
    assert autocast_dtype("32", CPU) is None
    assert autocast_dtype("bf16", CPU) == torch.bfloat16
    assert autocast_dtype("auto", torch.device("mps")) == torch.float16
