from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rfdetr.models import attention
from rfdetr.models.attention import attend


def attended_and_gradients(attend: Callable[..., Tensor], tensors: list[Tensor], gradient: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    found = attend(*leaves)
    found.backward(gradient.to(found.dtype))
    return [found.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("shape", [(2, 3, 37, 16), (1, 1, 1, 8), (3, 2, 64, 32)])
def test_in_bfloat16_it_is_attention_within_its_rounding(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    *tensors, gradient = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    exact = attended_and_gradients(F.scaled_dot_product_attention, tensors, gradient)
    low = [tensor.bfloat16() for tensor in tensors]
    for ours, true in zip(attended_and_gradients(attend, low, gradient), exact, strict=True):
        assert ours.dtype is torch.bfloat16
        assert (ours - true).norm() < 0.012 * true.norm() + 1e-12


def test_what_lies_spread_in_memory_is_read_as_it_is() -> None:
    together = torch.randn(2, 37, 3, 4, 16, dtype=torch.bfloat16)
    spread_out = together.permute(2, 0, 3, 1, 4).unbind(0)
    assert torch.equal(attend(*spread_out), attend(*(tensor.contiguous() for tensor in spread_out)))


def test_the_rows_may_be_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    *tensors, gradient = (torch.randn(3, 4, 20, 8, generator=generator, dtype=torch.bfloat16) for _ in range(4))
    whole = attended_and_gradients(attend, tensors, gradient)
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 5 * 20**2)
    for part, all_at_once in zip(attended_and_gradients(attend, tensors, gradient), whole, strict=True):
        assert torch.equal(part, all_at_once)


def test_without_gradients_it_is_the_same() -> None:
    tensors = [torch.randn(3, 4, 20, 8, dtype=torch.bfloat16) for _ in range(3)]
    trained = attend(*(tensor.clone().requires_grad_() for tensor in tensors))
    assert torch.equal(attend(*tensors), trained)
    with torch.inference_mode():
        assert torch.equal(attend(*tensors), trained)


def test_recomputed_in_the_backward_pass_it_has_the_same_gradient() -> None:
    tensors = [torch.randn(2, 3, 20, 8, dtype=torch.bfloat16) for _ in range(4)]
    ways = (attend, partial(checkpoint, attend, use_reentrant=False))
    gradients = [attended_and_gradients(way, tensors[:3], tensors[3]) for way in ways]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_other_formats_are_left_to_torch() -> None:
    query, key, value = (torch.randn(2, 3, 20, 8) for _ in range(3))
    assert torch.equal(attend(query, key, value), F.scaled_dot_product_attention(query, key, value))
