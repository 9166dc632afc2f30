import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from supervision import Detections

from rfdetr.classes import ClassTable
from rfdetr.config.model import ModelConfig
from rfdetr.errors import ConfigError, ImageError
from rfdetr.inference.predictor import evaluating, predict, predict_each
from rfdetr.inference.resizing import for_prediction
from rfdetr.inference.sources import ImageSource
from rfdetr.models.detector import Detector
from rfdetr.models.postprocess import full_size_masks, postprocess

CONFIG = ModelConfig(
    size="nano",
    resolution=64,
    positional_encoding_size=4,
    encoder_width=32,
    encoder_depth=3,
    encoder_heads=2,
    out_feature_indexes=(1, 3),
    hidden_dim=32,
    dec_layers=1,
    sa_nheads=2,
    ca_nheads=2,
    num_queries=8,
    num_select=6,
    group_detr=2,
    num_classes=2,
)
SEGMENTATION = CONFIG.replace(size="seg-nano", segmentation_head=True)
CLASSES = ClassTable.from_categories([(1, "cat"), (2, "dog")])
ARRAY = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(CONFIG).eval()


@pytest.fixture(scope="module")
def segmenter() -> Detector:
    return Detector(SEGMENTATION).eval()


def same(a: Detections, b: Detections) -> bool:
    pairs = ((a.xyxy, b.xyxy), (a.confidence, b.confidence), (a.class_id, b.class_id))
    return all(np.allclose(x, y, atol=1e-4) for x, y in pairs if x is not None and y is not None)


def test_predictions_are_those_of_the_detector(detector: Detector) -> None:
    with torch.no_grad():
        outputs = detector(for_prediction(ARRAY, 64)[None])
    (expected,) = postprocess(outputs, torch.tensor([[50, 70]]), num_select=6)
    found = predict(detector, ARRAY, CLASSES, threshold=0)
    assert len(found) == 6
    assert np.allclose(found.xyxy, expected.boxes.numpy(), atol=1e-4)
    assert found.confidence is not None
    assert np.allclose(found.confidence, expected.scores.numpy(), atol=1e-6)
    assert found.class_id is not None
    assert found.class_id.tolist() == expected.labels.tolist()


def test_masks_are_those_of_the_detector_at_the_size_of_the_image(segmenter: Detector) -> None:
    with torch.no_grad():
        outputs = segmenter(for_prediction(ARRAY, 64)[None])
    (expected,) = postprocess(outputs, torch.tensor([[50, 70]]), num_select=6)
    assert expected.mask_logits is not None
    found = predict(segmenter, ARRAY, CLASSES, threshold=0)
    assert isinstance(found.mask, np.ndarray)
    assert (found.mask.shape, str(found.mask.dtype)) == ((6, 50, 70), "bool")
    assert np.array_equal(found.mask, torch.cat([*full_size_masks(expected.mask_logits, (50, 70))]).numpy())


def test_a_detector_of_boxes_gives_no_masks(detector: Detector) -> None:
    assert predict(detector, ARRAY, CLASSES, threshold=0).mask is None


def test_without_objects_masks_still_have_the_size_of_the_image(segmenter: Detector) -> None:
    found = predict(segmenter, [ARRAY, ARRAY[:20]], CLASSES, threshold=1)
    assert [image.mask.shape for image in found if image.mask is not None] == [(0, 50, 70), (0, 20, 70)]


@pytest.mark.parametrize("kind", ["detector", "segmenter"])
def test_what_scores_above_the_threshold_is_kept(kind: str, request: pytest.FixtureRequest) -> None:
    model: Detector = request.getfixturevalue(kind)
    everything = predict(model, ARRAY, CLASSES, threshold=0)
    assert everything.confidence is not None
    threshold = float(everything.confidence[2])
    found = predict(model, ARRAY, CLASSES, threshold)
    assert len(found) == 2
    assert found == everything[:2]  # masks too


def test_one_image_gives_detections_and_many_give_a_list(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(ARRAY).save(path)
    tensor = torch.from_numpy(ARRAY).permute(2, 0, 1).float() / 255
    mixed: list[ImageSource] = [path, str(path), Image.fromarray(ARRAY), ARRAY, tensor]
    together = predict(detector, mixed, CLASSES, threshold=0, batch_size=2)
    assert isinstance(together, list)
    assert len(together) == 5
    for source, found in zip(mixed, together, strict=True):
        alone = predict(detector, source, CLASSES, threshold=0)
        assert isinstance(alone, Detections)
        assert same(alone, found)


def test_images_of_different_sizes_share_a_batch(detector: Detector) -> None:
    images = [ARRAY, ARRAY[:20, :60], ARRAY[:1, :1]]
    together = predict(detector, images, CLASSES, threshold=0, batch_size=3)
    assert all(
        same(predict(detector, image, CLASSES, threshold=0), d) for image, d in zip(images, together, strict=True)
    )


def test_no_images_give_no_detections(detector: Detector) -> None:
    assert predict(detector, [], CLASSES) == []


def test_an_image_without_detections_keeps_its_place(detector: Detector) -> None:
    assert [len(found) for found in predict(detector, [ARRAY, ARRAY], CLASSES, threshold=1)] == [0, 0]


def test_of_a_stream_one_image_is_held_at_full_size(detector: Detector) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal most
        for _ in range(9):
            image = ARRAY.copy()
            alive.append(weakref.ref(image))
            yield image
            del image
            gc.collect()
            most = max(most, sum(reference() is not None for reference in alive))

    found = predict_each(detector, stream(), CLASSES, threshold=0, batch_size=4)
    next(found)
    assert len(alive) == 4
    assert sum(1 for _ in found) == 8
    assert most <= 1


def test_each_part_of_the_detector_keeps_its_mode(detector: Detector) -> None:
    detector.train()
    detector.backbone.eval()
    predict(detector, ARRAY, CLASSES)
    assert detector.training
    assert not any(part.training for part in detector.backbone.modules())
    assert detector.transformer.training
    with evaluating(detector):
        assert not any(part.training for part in detector.modules())
    detector.eval()


def test_prediction_leaves_nothing_for_autograd(detector: Detector) -> None:
    found = predict_each(detector, [ARRAY, ARRAY], CLASSES, threshold=0, batch_size=1)
    next(found)
    assert not torch.is_inference_mode_enabled()  # also between two images of a stream
    assert all(parameter.grad is None for parameter in detector.parameters())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param("/no/such.png", r"^/no/such\.png: no such file$", id="one"),
        pytest.param([ARRAY, "/no/such.png"], r"^images\[1\]: /no/such\.png: no such file$", id="of many"),
        pytest.param([[ARRAY]], r"^images\[0\]: a value of type list is not an image", id="nested list"),
        pytest.param(ARRAY[..., 0], r"^array of shape \(50, 70\), uint8: a grey image", id="wrong array"),
        pytest.param(None, "^a value of type NoneType is not an image", id="nothing"),
    ],
)
def test_errors_name_the_input(images: ImageSource, message: str, detector: Detector) -> None:
    with pytest.raises(ImageError, match=message):
        predict(detector, images, CLASSES)


@pytest.mark.parametrize("images", [ARRAY, [ARRAY]], ids=["one", "many"])
def test_settings_out_of_range(images: ImageSource, detector: Detector) -> None:
    with pytest.raises(ConfigError, match="threshold: must be a number between 0 and 1, got 50"):
        predict(detector, images, CLASSES, threshold=50)
    with pytest.raises(ConfigError, match="batch_size: must be a whole number from 1 on, got 0"):
        predict(detector, images, CLASSES, batch_size=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(detector: Detector) -> None:
    expected = predict(detector, ARRAY, CLASSES, threshold=0)
    found = predict(Detector(CONFIG).cuda(), ARRAY, CLASSES, threshold=0)
    assert found.confidence is not None
    assert expected.confidence is not None
    assert np.allclose(found.confidence, expected.confidence, atol=1e-2)
