import math

import pytest
import torch

from rfdetr.models.detector import Detector
from rfdetr.models.initialization import initialize_class_heads
from tests.tiny import TINY

PRIOR_BIAS = -math.log(99)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(TINY)


@torch.no_grad()
def test_a_new_detector_expects_every_class_with_a_hundredth(detector: Detector) -> None:
    outputs = detector.eval()(torch.randn(1, 3, 64, 64))
    assert torch.allclose(detector.class_embed.bias, torch.tensor(PRIOR_BIAS))
    assert outputs["pred_logits"].sigmoid().mean().item() == pytest.approx(0.01, abs=0.005)


@torch.no_grad()
def test_its_first_boxes_are_the_proposals(detector: Detector) -> None:
    outputs = detector.eval()(torch.randn(1, 3, 64, 64))
    assert torch.equal(outputs["pred_boxes"], outputs["enc_outputs"]["pred_boxes"])
    assert torch.equal(outputs["pred_boxes"][..., 2:], torch.full((1, TINY.num_queries, 2), 0.05))


def test_every_group_starts_with_a_copy_of_the_heads(detector: Detector) -> None:
    for copies, head in (
        (detector.transformer.enc_out_class_embed, detector.class_embed),
        (detector.transformer.enc_out_bbox_embed, detector.bbox_embed),
    ):
        for copy in copies:
            pairs = zip(copy.state_dict().values(), head.state_dict().values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


def test_deformable_heads_look_around_farther_with_each_point(detector: Detector) -> None:
    weights, attention = detector.state_dict(), "transformer.decoder.layers.0.cross_attn"
    offsets = weights[f"{attention}.sampling_offsets.bias"].view(4, 2, 2).tolist()  # heads, points, xy
    right, down, left, up = ([[pytest.approx(c, abs=1e-6) for c in point] for point in head] for head in offsets)
    assert [right, down] == [[[1, 0], [2, 0]], [[0, 1], [0, 2]]]
    assert [left, up] == [[[-1, 0], [-2, 0]], [[0, -1], [0, -2]]]
    assert not weights[f"{attention}.sampling_offsets.weight"].any()
    assert not weights[f"{attention}.attention_weights.weight"].any()
    assert not weights[f"{attention}.value_proj.bias"].any()
    assert not weights[f"{attention}.output_proj.bias"].any()


def test_the_vit_starts_small_with_full_layer_scales(detector: Detector) -> None:
    weights, block = detector.state_dict(), "backbone.vit.blocks.0"
    assert weights[f"{block}.attn.qkv.weight"].std().item() == pytest.approx(0.02, rel=0.2)
    assert not weights[f"{block}.attn.qkv.bias"].any()
    assert torch.equal(weights[f"{block}.scale1"], torch.ones(TINY.encoder_width))


def test_new_class_heads_are_copies_again() -> None:
    detector = Detector(TINY)
    before = detector.class_embed.weight.clone()
    initialize_class_heads(detector)
    assert not torch.equal(detector.class_embed.weight, before)
    for copy in detector.transformer.enc_out_class_embed:
        assert torch.equal(copy.state_dict()["weight"], detector.class_embed.weight)
