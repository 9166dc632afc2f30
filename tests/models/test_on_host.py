import pytest
import torch

from rfdetr.models.on_host import OnHost


def test_on_the_cpu_it_is_the_tensor_itself_without_its_gradient() -> None:
    tensor = torch.ones(3, requires_grad=True)
    copy = OnHost(tensor).read()
    assert copy.data_ptr() == tensor.data_ptr()
    assert not copy.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_from_a_gpu_it_is_what_was_computed_before() -> None:
    tensor = torch.ones(1000, 1000, device="cuda")
    copy = OnHost(tensor @ tensor)
    tensor.zero_()
    assert (copy.read() == 1000).all()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_from_a_gpu_that_is_not_the_current_one_as_well() -> None:
    tensor = torch.ones(4000, 4000, device="cuda:1")
    assert (OnHost(tensor @ tensor).read() == 4000).all()
