"""The forward pass and the post-processing of each size against the recorded ones.

Limits are those that the oracles' authors suggest; what each of them can see is written there.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rfdetr.models.detector import Detector
from rfdetr.models.postprocess import full_size_masks, postprocess
from rfdetr.types import LayerOutputs, Predictions, RawOutputs
from tests.oracles import batch, oracle_cases, oracle_detector, read_json, read_tensors, stats

FEATURES, PROJECTOR, STATES, LOGITS, BOXES, MASKS = 8e-6, 3e-5, 4e-5, 4e-5, 1e-6, 3e-4
ORIGINAL_SIZES = torch.tensor([[480, 640], [333, 500]])


@dataclass
class Run:
    """One forward pass beside its record."""

    recorded: dict[str, Tensor]
    features: list[Tensor] = field(default_factory=list)
    levels: list[Tensor] = field(default_factory=list)
    query_pos: list[Tensor] = field(default_factory=list)
    layers: list[Tensor] = field(default_factory=list)
    hs: list[Tensor] = field(default_factory=list)
    reference: list[Tensor] = field(default_factory=list)
    outputs: RawOutputs = field(init=False)


@lru_cache(maxsize=1)
def detector_of(size: str) -> Detector:
    return oracle_detector(size).eval()


@pytest.fixture(scope="module", params=oracle_cases("eval"), ids="-".join)
def run(request: pytest.FixtureRequest) -> Run:
    size, case = request.param
    found = Run(read_tensors(f"oracles/{size}/{case}.safetensors"))
    images, mask = batch(read_json(f"oracles/{size}/meta.json"), case)
    detector = detector_of(size)
    decoder = detector.transformer.decoder
    watched: list[tuple[nn.Module, list[Tensor]]] = [
        (detector.backbone.vit, found.features),
        (detector.backbone, found.levels),
        (decoder.ref_point_head, found.query_pos),
        *((layer, found.layers) for layer in decoder.layers),
        (decoder, found.hs),
    ]
    handles = [module.register_forward_hook(keep(into)) for module, into in watched]
    handles.append(detector.transformer.register_forward_hook(lambda _, __, out: found.reference.append(out[1])))
    with torch.inference_mode():
        found.outputs = detector(images, mask)
    for handle in handles:
        handle.remove()
    return found


def keep(into: list[Tensor]) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor | list[Tensor]) -> None:
        into.extend([output] if isinstance(output, Tensor) else output)

    return hook


def assert_close(found: Tensor, recorded: Tensor, limit: float) -> None:
    torch.testing.assert_close(found, recorded, rtol=0, atol=limit)


def assert_same_stats(found: Tensor, recorded: Tensor, limit: float) -> None:
    """Sums may be off by the limit in each element, mean, deviation and extremes by the limit itself."""
    allowed = limit * torch.tensor([found.numel(), 1, 1, found.numel(), 1, 1])
    excess = (stats(found) - recorded).abs() - allowed
    assert excess.max() <= 0, f"sum, mean, std, abs sum, min, max beyond the limit by {excess.tolist()}"


def test_vit_features(run: Run) -> None:
    assert len(run.features) == 4
    for index, feature in enumerate(run.features):
        assert_close(feature[:, :4], run.recorded[f"feat{index}.first4"], FEATURES)
        assert_close(feature.mean(dim=(2, 3)), run.recorded[f"feat{index}.chan_mean"], FEATURES)
        assert_same_stats(feature, run.recorded[f"feat{index}.stats"], FEATURES)


def test_projector(run: Run) -> None:
    for index, level in enumerate(run.levels):
        assert_close(level[:, :8], run.recorded[f"proj{index}.first8"], PROJECTOR)
        assert_close(level.mean(dim=(2, 3)), run.recorded[f"proj{index}.chan_mean"], PROJECTOR)
        assert_same_stats(level, run.recorded[f"proj{index}.stats"], PROJECTOR)
    assert f"proj{len(run.levels)}.stats" not in run.recorded


def test_selected_tokens_in_their_order(run: Run) -> None:
    """Their boxes tell which tokens they are, even where the scores of neighbours in rank hardly differ."""
    enc = run.outputs["enc_outputs"]
    assert_close(enc["pred_boxes"], run.recorded["enc.pred_boxes"], BOXES)
    assert_close(enc["pred_logits"].amax(dim=-1), run.recorded["topk.value"], LOGITS)
    assert_close(enc["pred_logits"][:, :16], run.recorded["enc.pred_logits.first16"], LOGITS)
    assert_same_stats(enc["pred_logits"], run.recorded["enc.pred_logits.stats"], LOGITS)


def test_reference_boxes_and_their_encoding(run: Run) -> None:
    assert_close(run.reference[0], run.recorded["ref"], BOXES)
    assert_close(run.query_pos[0][:, :8], run.recorded["query_pos.first8"], STATES)


def test_decoder_layers(run: Run) -> None:
    for index, states in enumerate(run.layers):
        assert_close(states[:, :8], run.recorded[f"dec{index}.first8"], STATES)
        assert_same_stats(states, run.recorded[f"dec{index}.stats"], STATES)
    assert f"dec{len(run.layers)}.stats" not in run.recorded
    assert_close(run.hs[-1][:, :8], run.recorded["hs_last.first8"], STATES)


def test_predictions(run: Run) -> None:
    assert_close(run.outputs["pred_logits"], run.recorded["pred_logits"], LOGITS)
    assert_close(run.outputs["pred_boxes"], run.recorded["pred_boxes"], BOXES)


def test_predictions_of_the_earlier_layers(run: Run) -> None:
    aux = run.outputs["aux_outputs"]
    assert len(aux) == len(run.layers) - 1
    for index, layer in enumerate(aux):
        assert_close(layer["pred_boxes"], run.recorded[f"aux{index}.pred_boxes"], BOXES)
        assert_close(layer["pred_logits"][:, :16], run.recorded[f"aux{index}.pred_logits.first16"], LOGITS)
        assert_same_stats(layer["pred_logits"], run.recorded[f"aux{index}.pred_logits.stats"], LOGITS)


def test_masks_of_every_layer(run: Run) -> None:
    layers = {"": run.outputs, "enc.": run.outputs["enc_outputs"]}
    layers |= {f"aux{index}.": layer for index, layer in enumerate(run.outputs["aux_outputs"])}
    for name, layer in layers.items():
        assert ("pred_masks" in layer) == (f"{name}pred_masks.stats" in run.recorded)
        if "pred_masks" in layer:
            masks = layer["pred_masks"].dense()
            assert_same_stats(masks, run.recorded[f"{name}pred_masks.stats"], MASKS)
            assert_close(masks.mean(dim=(2, 3)), run.recorded[f"{name}pred_masks.query_mean"], MASKS)
            if not name:
                assert_close(masks[:, :4], run.recorded["pred_masks.first4"], MASKS)


def test_post_processing_of_the_recorded_predictions(run: Run) -> None:
    """From the same numbers to the same detections, rank by rank."""
    recorded: LayerOutputs = {"pred_logits": run.recorded["pred_logits"], "pred_boxes": run.recorded["pred_boxes"]}
    for image, found in enumerate(detections(run, recorded)):
        assert_close(found.scores, run.recorded[f"post{image}.scores"], 1e-6)
        assert torch.equal(found.labels, run.recorded[f"post{image}.labels"].long())
        assert_close(found.boxes, run.recorded[f"post{image}.boxes"], 1e-3)


def test_detections(run: Run) -> None:
    """Two that score within rounding of each other may change places."""
    for image, found in enumerate(detections(run, run.outputs)):
        assert_close(found.scores, run.recorded[f"post{image}.scores"], 1e-5)
        assert is_same(run, image, found).float().mean() >= 0.98


def test_full_size_masks(run: Run) -> None:
    for image, found in enumerate(detections(run, run.outputs)):
        if found.mask_logits is None:
            assert f"post{image}.mask_area" not in run.recorded
            continue
        height, width = ORIGINAL_SIZES[image].tolist()
        masks = torch.cat([*full_size_masks(found.mask_logits, (height, width))])
        recorded = run.recorded[f"post{image}.mask_area"]
        same = is_same(run, image, found)
        off = (masks.sum(dim=(1, 2)) - recorded).abs()
        assert (off <= 0.001 * recorded + 3)[same].all()
        bits = torch.from_numpy(np.unpackbits(run.recorded[f"post{image}.mask_first3_packbits"].numpy(), axis=1))
        recorded_first = bits[:, : height * width].view(-1, height, width).bool()
        assert same[:3].all()
        assert (masks[:3] != recorded_first).float().mean() < 1e-5


def detections(run: Run, outputs: LayerOutputs) -> list[Predictions]:
    return postprocess(outputs, ORIGINAL_SIZES, num_select=len(run.recorded["post0.scores"]))


def is_same(run: Run, image: int, found: Predictions) -> Tensor:
    """Which detections are the recorded ones, rank by rank."""
    same_box = (found.boxes - run.recorded[f"post{image}.boxes"]).abs().amax(dim=-1) < 1e-3
    return same_box & (found.labels == run.recorded[f"post{image}.labels"])
