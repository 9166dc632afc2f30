from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rfdetr.config.model import ModelConfig
from rfdetr.models.criterion import detection_losses, total_loss
from rfdetr.models.detector import Detector
from rfdetr.types import LayerOutputs, RawOutputs
from tests.tiny import TINY, TINY_SEG, random_targets

QUERIES, GROUPS = TINY.num_queries, TINY.group_detr


def random_detector(config: ModelConfig = TINY) -> Detector:
    """All weights random, so that no part is without effect."""
    detector = Detector(config)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if "norm" not in name and "bn" not in name:
                parameter.normal_(std=0.1, generator=random)
    return detector


@pytest.fixture
def detector() -> Detector:
    return random_detector()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def layers(outputs: RawOutputs) -> Iterator[LayerOutputs]:
    yield outputs
    yield from outputs["aux_outputs"]
    yield outputs["enc_outputs"]


def gradients(detector: Detector, images: Tensor) -> dict[str, Tensor]:
    outputs = detector(images)
    losses = detection_losses(outputs, random_targets([2, 1]), torch.tensor(9.0), GROUPS)
    total_loss(losses, {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}).backward()
    return {name: weight.grad for name, weight in detector.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("training", [True, False], ids=["training", "prediction"])
@torch.no_grad()
def test_outputs_of_every_layer(detector: Detector, images: Tensor, training: bool) -> None:
    outputs = detector.train(training)(images)
    assert len(outputs["aux_outputs"]) == TINY.dec_layers - 1
    queries = QUERIES * GROUPS if training else QUERIES
    for layer in layers(outputs):
        assert layer["pred_logits"].shape == (2, queries, TINY.num_classes + 1)
        assert layer["pred_boxes"].shape == (2, queries, 4)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 160), (64, 64), (96, 48)], ids="{}".format)
@torch.no_grad()
def test_any_size_of_whole_windows_will_do(detector: Detector, height: int, width: int) -> None:
    outputs = detector.eval()(torch.randn(1, 3, height, width))
    assert outputs["pred_boxes"].shape == (1, min(QUERIES, height * width // 64), 4)
    assert outputs["pred_boxes"].isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(64, 72), (60, 64)])
def test_another_size_is_refused(detector: Detector, height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"^image size {height}x{width} is not a multiple of 16 in both axes$"):
        detector(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize(
    "size", [pytest.param(64, id="64 cells for 6 queries"), pytest.param(16, id="4 cells for 6 queries")]
)
@pytest.mark.parametrize("group", range(GROUPS))
@torch.no_grad()
def test_each_group_predicts_as_a_detector_that_has_this_group_alone(detector: Detector, group: int, size: int) -> None:
    weights = detector.state_dict()
    kept = slice(group * QUERIES, (group + 1) * QUERIES)
    alone = Detector(TINY.replace(group_detr=1))
    own = {}
    for name in alone.state_dict():
        if name.startswith("transformer.enc_o"):
            own[name] = weights[name.replace(".0.", f".{group}.", 1)]
        else:
            own[name] = weights[name][kept] if name.startswith(("query_feat", "refpoint_embed")) else weights[name]
    alone.load_state_dict(own)
    images = torch.randn(2, 3, size, size)
    together, expected = detector.train()(images), alone.eval()(images)
    count = min(QUERIES, (size // 8) ** 2)
    part = slice(group * count, (group + 1) * count)
    for found, layer in zip(layers(together), layers(expected), strict=True):
        assert torch.allclose(found["pred_logits"][:, part], layer["pred_logits"], atol=1e-5)
        assert torch.allclose(found["pred_boxes"][:, part], layer["pred_boxes"], atol=1e-6)


@torch.no_grad()
def test_with_fewer_cells_than_queries_the_first_queries_of_each_group_are_used(detector: Detector) -> None:
    weights = detector.state_dict()
    for name in ("query_feat.weight", "refpoint_embed.weight"):
        weights[name] = weights[name].view(GROUPS, QUERIES, -1)[:, :4].flatten(0, 1)
    fewer = Detector(TINY.replace(num_queries=4))
    fewer.load_state_dict(weights)
    four_cells = torch.randn(1, 3, 16, 16)
    assert torch.equal(detector.train()(four_cells)["pred_logits"], fewer.train()(four_cells)["pred_logits"])


def test_the_decoder_does_not_train_the_selection(detector: Detector, images: Tensor) -> None:
    detector.train()(images)["pred_boxes"].sum().backward()
    selection = {name: p.grad for name, p in detector.named_parameters() if name.startswith("transformer.enc_o")}
    assert len(selection) == 12 * GROUPS
    assert all(gradient is None for gradient in selection.values())


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY, TINY_SEG], ids=["boxes", "masks"])
def test_the_last_layer_alone_is_that_of_all_layers(config: ModelConfig, images: Tensor) -> None:
    detector = Detector(config).eval()
    everything, last = detector(images), detector(images, last_only=True)
    assert everything.keys() - last.keys() == {"aux_outputs", "enc_outputs"}
    assert torch.equal(last["pred_logits"], everything["pred_logits"])
    assert torch.equal(last["pred_boxes"], everything["pred_boxes"])
    if config.segmentation_head:
        assert torch.equal(last["pred_masks"].dense(), everything["pred_masks"].dense())


@torch.no_grad()
def test_an_image_is_predicted_alone_as_in_a_batch(detector: Detector, images: Tensor) -> None:
    together, alone = detector.eval()(images), detector(images[1:])
    assert torch.allclose(together["pred_boxes"][1:], alone["pred_boxes"], atol=1e-6)


@torch.no_grad()
def test_a_mask_without_padding_changes_nothing(detector: Detector, images: Tensor) -> None:
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    without, with_mask = detector.eval()(images), detector(images, mask)
    for a, b in zip(layers(without), layers(with_mask), strict=True):
        assert torch.equal(a["pred_logits"], b["pred_logits"])
        assert torch.equal(a["pred_boxes"], b["pred_boxes"])


@torch.no_grad()
def test_the_mask_concerns_only_the_images_that_have_padding(detector: Detector, images: Tensor) -> None:
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[0, 40:] = True
    without, with_mask = detector.eval()(images), detector(images, mask)
    assert not torch.allclose(with_mask["pred_boxes"][0], without["pred_boxes"][0])
    assert torch.allclose(with_mask["pred_boxes"][1], without["pred_boxes"][1], atol=1e-6)


def test_one_seed_gives_one_detector_and_leaves_the_global_random_state_alone() -> None:
    before, of_gpus = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    first, same, other = (Detector(TINY, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, torch.cuda.get_rng_state_all(), of_gpus))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["class_embed.weight"], other["class_embed.weight"])


def test_everything_that_requires_a_gradient_gets_one(detector: Detector, images: Tensor) -> None:
    """Else training on several devices would wait for it."""
    trained = {name for name, parameter in detector.named_parameters() if parameter.requires_grad}
    assert gradients(detector.train(), images).keys() == trained


def test_gradient_checkpointing_changes_no_gradient(images: Tensor) -> None:
    plain, saving = random_detector().train(), random_detector().train()
    saving.backbone.vit.gradient_checkpointing = True
    expected, found = gradients(plain, images), gradients(saving, images)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-7) for name in expected)


@torch.no_grad()
def test_stochastic_depth_acts_in_training_only(detector: Detector, images: Tensor) -> None:
    calm = detector.train()(images)["pred_logits"], detector.eval()(images)["pred_logits"]
    detector.backbone.vit.set_drop_path(0.9)
    torch.manual_seed(0)
    shaken = detector.train()(images)["pred_logits"], detector.eval()(images)["pred_logits"]
    assert not torch.allclose(calm[0], shaken[0])
    assert torch.equal(calm[1], shaken[1])


def test_bfloat16_gives_finite_losses_and_gradients_and_float32_boxes(detector: Detector, images: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = detector.train()(images)
        assert {layer["pred_boxes"].dtype for layer in layers(outputs)} == {torch.float32}
        found = gradients(detector, images)
    assert all(gradient.isfinite().all() for gradient in found.values())
