import torch

from rfdetr.models.memory import Memory


def padded_memory() -> Memory:
    """Two levels of an image padded from 32 x 48 to 64 x 64 pixels, and of one that fills them."""
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[0, 32:] = True
    mask[0, :, 48:] = True
    return Memory.from_levels([torch.ones(2, 3, 8, 8), torch.full((2, 3, 4, 4), 2.0)], mask)


def test_tokens_are_level_by_level_and_row_by_row() -> None:
    levels = [torch.arange(6.0).view(1, 1, 2, 3), torch.arange(6.0, 8).view(1, 1, 1, 2)]
    memory = Memory.from_levels(levels, None)
    assert memory.tokens.flatten().tolist() == list(range(8))
    assert memory.spatial_shapes == [(2, 3), (1, 2)]


def test_valid_sizes_are_width_and_height_of_the_unpadded_part() -> None:
    memory = padded_memory()
    assert memory.valid_sizes(0).tolist() == [[6, 4], [8, 8]]
    assert memory.valid_sizes(1).tolist() == [[3, 2], [4, 4]]


def test_without_padding_all_images_share_the_valid_size() -> None:
    assert Memory.from_levels([torch.ones(5, 3, 4, 7)], None).valid_sizes(0).tolist() == [[7, 4]]


def test_boxes_shrink_by_the_padding() -> None:
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]]).expand(2, -1, -1)
    expected = torch.tensor([[[0.375, 0.25, 0.15, 0.1]], [[0.5, 0.5, 0.2, 0.2]]])
    assert torch.allclose(padded_memory().scale_boxes(boxes, 0), expected)


def test_padding_reads_as_0() -> None:
    memory = padded_memory()
    tokens = memory.zero_padding(memory.tokens)
    assert tokens[0, :64, 0].view(8, 8).sum(dim=1).tolist() == [6, 6, 6, 6, 0, 0, 0, 0]
    assert tokens[0, 64:, 0].view(4, 4).sum(dim=0).tolist() == [4, 4, 4, 0]
    assert torch.equal(tokens[1], memory.tokens[1])
