import torch
from torch import Tensor

from rfdetr.models.detector import Detector
from rfdetr.models.segmentation_head import SegmentationHead
from rfdetr.types import MaskLogits
from tests.tiny import TINY, TINY_SEG


def random_masks() -> MaskLogits:
    random = torch.Generator().manual_seed(0)
    features, queries = torch.randn(2, 8, 5, 6, generator=random), torch.randn(2, 3, 8, generator=random)
    return MaskLogits(features, queries, torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))


def test_a_mask_is_the_product_of_query_and_features() -> None:
    masks = random_masks()
    expected = masks.queries[1, 2] @ masks.features[1, :, 4, 3] + 0.6
    torch.testing.assert_close(masks.dense()[1, 2, 4, 3], expected)


def test_masks_of_some_queries_are_those_of_all() -> None:
    masks = random_masks()
    torch.testing.assert_close(masks.of(1, torch.tensor([2, 0, 2])), masks.dense()[1, [2, 0, 2]])
    assert masks.of(0, torch.empty(0, dtype=torch.long)).shape == (0, 5, 6)


def test_features_of_another_precision_decide() -> None:
    """On a GPU mixed precision leaves them in float32, and what reads masks afterwards is outside of it."""
    exact = random_masks()
    mixed = MaskLogits(exact.features, exact.queries.bfloat16(), exact.bias.bfloat16())
    for found, expected in (
        (mixed.dense(), exact.dense()),
        (mixed.of(1, torch.tensor([2])), exact.of(1, torch.tensor([2]))),
    ):
        assert found.dtype is torch.float32
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)


def states(seed: int) -> Tensor:
    return torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(seed))


def test_masks_have_a_quarter_of_the_side_of_the_input() -> None:
    head = SegmentationHead(dim=32, dec_layers=2)
    layers, of_encoder = head(torch.randn(2, 32, 9, 7), [states(0), states(1)], states(2), (72, 56))
    assert [masks.dense().shape for masks in (*layers, of_encoder)] == [(2, 6, 18, 14)] * 3


def test_features_pass_one_more_block_for_each_layer() -> None:
    head = SegmentationHead(dim=32, dec_layers=2)
    level = torch.randn(2, 32, 8, 8)
    (first, second), of_encoder = head(level, [states(0), states(0)], states(0), (32, 32))
    torch.testing.assert_close(of_encoder.features, level)
    torch.testing.assert_close(first.features, head.blocks[0](level))
    torch.testing.assert_close(second.features, head.blocks[1](head.blocks[0](level)))

    assert torch.equal(first.queries, second.queries)


def test_a_mask_is_the_product_of_projected_features_and_code() -> None:
    head = SegmentationHead(dim=32, dec_layers=0)
    head.load_state_dict({name: torch.randn_like(tensor) for name, tensor in head.state_dict().items()})
    level = torch.randn(2, 32, 16, 16)
    _, masks = head(level, [], states(0), (64, 64))
    codes = head.query_features_proj(head.query_features_block(states(0)))
    expected = torch.einsum("bqd,bdhw->bqhw", codes, head.spatial_features_proj(level)) + head.bias
    torch.testing.assert_close(masks.dense(), expected, rtol=1e-4, atol=1e-2)


def test_each_layer_of_a_segmentation_model_has_masks() -> None:
    outputs = Detector(TINY_SEG).eval()(torch.randn(1, 3, 64, 64))
    for layer in (outputs, *outputs["aux_outputs"], outputs["enc_outputs"]):
        assert layer["pred_masks"].dense().shape == (1, TINY_SEG.num_queries, 16, 16)


def test_a_detection_model_has_neither_masks_nor_weights_for_them() -> None:
    detector = Detector(TINY)
    assert "pred_masks" not in detector.eval()(torch.randn(1, 3, 64, 64))
    assert not any(name.startswith("segmentation_head") for name in detector.state_dict())


def test_the_mask_head_leaves_the_initial_values_of_all_else_alone() -> None:
    with_masks = Detector(TINY_SEG).state_dict()
    for name, tensor in Detector(TINY).state_dict().items():
        assert torch.equal(with_masks[name], tensor)
