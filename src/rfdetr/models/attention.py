"""Multi-head attention: softmax(Q K^T / sqrt(D)) V."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Scores that are worked on at a time: they stay in the cache of a core between product, softmax and product.
SCORES_AT_ONCE = 1 << 20


def attend(
    query: Float[Tensor, "B H S D"], key: Float[Tensor, "B H S D"], value: Float[Tensor, "B H S D"]
) -> Float[Tensor, "B H S D"]:
    """Every token reads every token of its row, per head.

    torch's fused kernel, but for bfloat16 on the CPU: there that kernel takes three times as long as the products and
    the softmax that it is made of, in the backward pass five times (`benchmarks/README.md`).
    """
    if query.device.type == "cpu" and query.dtype is torch.bfloat16:
        attended: Tensor = _ExplicitAttention.apply(query, key, value)  # type: ignore[no-untyped-call]
        return attended
    return F.scaled_dot_product_attention(query, key, value)


class _ExplicitAttention(torch.autograd.Function):
    """The attention weights are kept for a backward pass, which makes four products of them and no copies."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (tensor.flatten(0, 1) for tensor in (query, key, value))
        scale = query.shape[-1] ** -0.5
        rows, tokens, _ = q.shape
        is_trained = any(ctx.needs_input_grad)
        weights = q.new_empty(rows if is_trained else 0, tokens, tokens)
        attended = torch.empty_like(q)
        for part in _parts(rows, tokens):
            # beta=0: what it adds to does not count.
            scores = torch.baddbmm(q[part, :1, :1], q[part], k[part].mT, beta=0, alpha=scale)
            of_part = torch.softmax(scores, dim=-1, out=weights[part] if is_trained else scores)
            torch.bmm(of_part, v[part], out=attended[part])
        if is_trained:
            ctx.save_for_backward(q, k, v, weights)
        return attended.view_as(query)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        q, k, v, weights = ctx.saved_tensors
        shape = gradients[0].shape
        of_attended = gradients[0].flatten(0, 1)
        rows, tokens, dim = q.shape
        of_q, of_k, of_v = (torch.empty_like(q) for _ in range(3))
        for part in _parts(rows, tokens):
            torch.bmm(weights[part].mT, of_attended[part], out=of_v[part])
            of_weights = torch.bmm(of_attended[part], v[part].mT)
            of_scores = torch._softmax_backward_data(of_weights, weights[part], -1, q.dtype)
            torch.bmm(of_scores, k[part], out=of_q[part])
            torch.bmm(of_scores.mT, q[part], out=of_k[part])
        scale = dim**-0.5
        return of_q.mul_(scale).view(shape), of_k.mul_(scale).view(shape), of_v.view(shape)


def _parts(rows: int, tokens: int) -> list[slice]:
    count = max(1, SCORES_AT_ONCE // tokens**2)
    return [slice(start, start + count) for start in range(0, rows, count)]
