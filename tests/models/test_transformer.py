import pytest
import torch
from torch import Tensor

from rfdetr.models.detector import Detector
from rfdetr.models.memory import Memory
from rfdetr.models.transformer import Transformer
from rfdetr.types import LayerOutputs
from tests.tiny import TINY


@pytest.fixture(scope="module")
def detector() -> Detector:
    detector = Detector(TINY).eval()
    torch.manual_seed(0)
    for name, parameter in detector.named_parameters():
        if "bbox_embed" in name:  # else all boxes would be the proposals
            torch.nn.init.normal_(parameter, std=0.1)
    return detector


@pytest.fixture(scope="module")
def transformer(detector: Detector) -> Transformer:
    return detector.transformer


def run(detector: Detector, memory: Memory) -> tuple[list[Tensor], Tensor, LayerOutputs, Tensor]:
    found: tuple[list[Tensor], Tensor, LayerOutputs, Tensor] = detector.transformer(
        memory, detector.query_feat.weight, detector.refpoint_embed.weight, groups=1
    )
    return found


def padded_levels() -> tuple[Tensor, Tensor]:
    """A map whose first image fills its upper left quarter, and the mask of its pixels."""
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[0, 32:] = mask[0, :, 32:] = True
    return torch.randn(2, TINY.hidden_dim, 8, 8), mask


@torch.no_grad()
def test_the_best_tokens_are_selected_best_first(transformer: Transformer) -> None:
    memory = Memory.from_levels([torch.randn(2, TINY.hidden_dim, 8, 8)], None)
    features = transformer.enc_output_norm[0](transformer.enc_output[0](memory.tokens))
    scores = transformer.enc_out_class_embed[0](features)
    expected = scores.amax(dim=-1).sort(dim=1, descending=True).values[:, : TINY.num_queries]
    outputs, tokens = transformer.select(memory, groups=1)
    assert torch.equal(outputs["pred_logits"].amax(dim=-1), expected)
    torch.testing.assert_close(transformer.enc_out_class_embed[0](tokens), outputs["pred_logits"])


@torch.no_grad()
def test_what_lies_in_the_padding_does_not_matter(detector: Detector) -> None:
    level, mask = padded_levels()
    garbage = level.clone()
    garbage[0, :, 4:] = 100 * torch.randn(TINY.hidden_dim, 4, 8)
    garbage[0, :, :, 4:] = -50
    clean, dirty = (run(detector, Memory.from_levels([each], mask)) for each in (level, garbage))
    assert torch.equal(clean[1], dirty[1])
    assert all(torch.equal(a, b) for a, b in zip(clean[0], dirty[0], strict=True))
    assert torch.equal(clean[2]["pred_logits"], dirty[2]["pred_logits"])


@torch.no_grad()
def test_a_padded_map_is_read_as_the_map_without_its_padding(detector: Detector) -> None:
    """As far as selection goes: boxes are relative to the unpadded image."""
    level, mask = padded_levels()
    _, reference, enc, _ = run(detector, Memory.from_levels([level], mask))
    _, alone_reference, alone_enc, _ = run(detector, Memory.from_levels([level[:1, :, :4, :4]], None))
    assert torch.allclose(enc["pred_boxes"][:1], alone_enc["pred_boxes"], atol=1e-6)
    assert torch.allclose(reference[:1], alone_reference, atol=1e-6)


@torch.no_grad()
def test_invalid_tokens_come_with_empty_boxes(transformer: Transformer) -> None:
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 16:] = mask[:, :, 8:] = True  # leaves 2 tokens for 6 queries
    outputs, _ = transformer.select(Memory.from_levels([torch.randn(1, TINY.hidden_dim, 8, 8)], mask), groups=1)
    boxes = outputs["pred_boxes"][0]
    assert (boxes[:, 2:].sum(dim=-1) > 0).sum() <= 2
    assert boxes.isfinite().all()
