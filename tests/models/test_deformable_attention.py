import math

import pytest
import torch
from torch import Tensor

from rfdetr.models.deformable_attention import DeformableAttention
from rfdetr.models.memory import Memory

HEADS, LEVELS, POINTS, DIM = 2, 2, 3, 8


@pytest.fixture
def attention() -> DeformableAttention:
    torch.manual_seed(0)
    return DeformableAttention(DIM, HEADS, LEVELS, POINTS)


def memory_with(padding: bool) -> Memory:
    random = torch.Generator().manual_seed(1)
    levels = [torch.randn(2, DIM, 6, 8, generator=random), torch.randn(2, DIM, 3, 4, generator=random)]
    mask = torch.zeros(2, 24, 32, dtype=torch.bool)
    mask[0, 16:] = mask[1, :, 16:] = True
    return Memory.from_levels(levels, mask if padding else None)


def bilinear(grid: Tensor, x: float, y: float) -> Tensor:
    """The value of a map [height, width, channels] at a point, in cells; 0 outside."""
    height, width, channels = grid.shape
    total = torch.zeros(channels)
    left, top = math.floor(x), math.floor(y)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        if 0 <= column < width and 0 <= row < height:
            total += (1 - abs(x - column)) * (1 - abs(y - row)) * grid[row, column]
    return total


def attend_slowly(attention: DeformableAttention, query: Tensor, reference: Tensor, memory: Memory) -> Tensor:
    """Point by point, as the paper writes it."""
    images, queries, _ = query.shape
    values = memory.zero_padding(attention.value_proj(memory.tokens))
    maps = values.split([height * width for height, width in memory.spatial_shapes], dim=1)
    offsets = attention.sampling_offsets(query).view(images, queries, HEADS, LEVELS, POINTS, 2)
    weights = attention.attention_weights(query).view(images, queries, HEADS, LEVELS * POINTS).softmax(dim=-1)
    joined = torch.zeros(images, queries, HEADS, DIM // HEADS)
    for image, q, head, level, point in torch.cartesian_prod(
        *(torch.arange(n) for n in (images, queries, HEADS, LEVELS, POINTS))
    ).tolist():
        height, width = memory.spatial_shapes[level]
        grid = maps[level][image].view(height, width, HEADS, -1)[:, :, head]
        cx, cy, w, h = memory.scale_boxes(reference, level)[image, q].tolist()
        dx, dy = offsets[image, q, head, level, point].tolist()
        x, y = cx + dx / POINTS * w * 0.5, cy + dy / POINTS * h * 0.5
        weight = weights[image, q, head, level * POINTS + point]
        joined[image, q, head] += weight * bilinear(grid, x * width - 0.5, y * height - 0.5)
    out: Tensor = attention.output_proj(joined.flatten(2))
    return out


@pytest.mark.parametrize("padding", [False, True], ids=["whole images", "padded images"])
@torch.no_grad()
def test_it_is_the_sum_over_points(attention: DeformableAttention, padding: bool) -> None:
    memory, query = memory_with(padding), 2 * torch.randn(2, 5, DIM)
    reference = torch.rand(2, 5, 4)  # some points fall outside of the map
    expected = attend_slowly(attention, query, reference, memory)
    assert torch.allclose(attention(query, reference, memory), expected, atol=1e-5)


@torch.no_grad()
def test_what_lies_in_the_padding_does_not_matter(attention: DeformableAttention) -> None:
    memory, query, reference = memory_with(padding=True), torch.randn(2, 5, DIM), torch.rand(2, 5, 4)
    assert memory.level_masks is not None
    padded = torch.cat([mask.flatten(1) for mask in memory.level_masks], dim=1).unsqueeze(-1)
    garbage = Memory(memory.tokens.masked_fill(padded, 1e6), memory.spatial_shapes, memory.level_masks)
    assert torch.equal(attention(query, reference, garbage), attention(query, reference, memory))


@torch.no_grad()
def test_a_box_without_size_looks_at_one_point(attention: DeformableAttention) -> None:
    """Which happens to every query beyond the valid tokens."""
    memory, reference = memory_with(padding=False), torch.tensor([0.5, 0.5, 0, 0]).expand(2, 3, 4)
    same = torch.randn(1, 1, DIM).expand(2, 3, -1)
    out = attention(same, reference, memory)
    assert out.isfinite().all()
    assert torch.allclose(out[:, :1].expand_as(out), out)
