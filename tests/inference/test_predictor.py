import gc
import re
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from supervision import Detections
from torch import nn

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


@pytest.fixture
def png(tmp_path: Path) -> Path:
    Image.fromarray(ARRAY).save(tmp_path / "image.png")
    return tmp_path / "image.png"


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


def test_one_image_gives_detections_and_many_give_a_list(detector: Detector, png: Path) -> None:
    tensor = torch.from_numpy(ARRAY).permute(2, 0, 1).float() / 255
    mixed: list[ImageSource] = [png, str(png), Image.fromarray(ARRAY), ARRAY, tensor]
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


@pytest.mark.parametrize("of_files", [True, False], ids=["files", "arrays"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5])
def test_an_error_comes_after_the_results_of_the_images_before_it(
    detector: Detector, png: Path, of_files: bool, batch_size: int
) -> None:
    whole, wrong = (png, "/no/such.png") if of_files else (ARRAY, ARRAY[..., 0])
    found = predict_each(detector, [whole, whole, wrong, whole], CLASSES, batch_size=batch_size)
    assert isinstance(next(found), Detections)
    assert isinstance(next(found), Detections)
    with pytest.raises(ImageError, match=r"^images\[2\]: "):
        next(found)
    assert list(found) == []


@pytest.mark.parametrize("of_files", [True, False], ids=["files", "arrays"])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_so_does_one_of_the_callers_own_stream(detector: Detector, png: Path, of_files: bool, batch_size: int) -> None:
    def stream() -> Iterator[ImageSource]:
        yield from [png, png] if of_files else [ARRAY, ARRAY]
        raise ConnectionError("the camera is gone")

    found = predict_each(detector, stream(), CLASSES, batch_size=batch_size)
    assert isinstance(next(found), Detections)
    assert isinstance(next(found), Detections)
    with pytest.raises(ConnectionError, match="the camera is gone"):
        next(found)


def test_no_thread_goes_on_reading_when_the_caller_has_stopped(detector: Detector, png: Path) -> None:
    before = threading.active_count()
    found = predict_each(detector, [png] * 50, CLASSES, batch_size=2)
    next(found)
    assert threading.active_count() > before
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_warnings_stay_the_callers_while_files_are_read(detector: Detector, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.effect_noise((900, 900), 50).save(large)  # whose reading overlaps with what the caller does
    seen: list[str] = []
    for number, _ in enumerate(predict_each(detector, [large] * 40, CLASSES)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            time.sleep(0.02)  # of work, in which pictures are done
            warnings.warn(f"about image {number}", stacklevel=1)
        seen += [str(warning.message) for warning in caught]
    assert seen == [f"about image {number}" for number in range(40)]
    with pytest.raises(UserWarning, match="after the last image"):
        warnings.warn("after the last image", stacklevel=1)


def test_only_the_callers_thread_works_with_the_device(png: Path) -> None:
    """Apple's GPUs take images from one thread at a time, and any GPU takes a batch sooner than its images."""
    threads: set[threading.Thread] = set()

    class Watched(Detector):
        def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
            threads.add(threading.current_thread())
            return super().parameters(recurse)

    predict(Watched(CONFIG), [png] * 6, CLASSES)
    assert threads == {threading.current_thread()}


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


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(lambda *settings: predict(settings[0], ARRAY, CLASSES, *settings[1:]), id="one"),
        pytest.param(lambda *settings: predict(settings[0], [ARRAY], CLASSES, *settings[1:]), id="many"),
        pytest.param(lambda *settings: predict_each(settings[0], [], CLASSES, *settings[1:]), id="each, at the call"),
    ],
)
def test_settings_out_of_range(verb: Callable[[Detector, object, object], object], detector: Detector) -> None:
    for threshold in (50, -0.1, float("nan"), np.float32("nan"), True, "0.5", None):
        text = re.escape(f"threshold: must be a number between 0 and 1, got {threshold!r}")
        with pytest.raises(ConfigError, match=f"^{text}$"):
            verb(detector, threshold, 4)
    for batch_size in (0, np.int64(-1), 2.0, True, "4", None):
        text = re.escape(f"batch_size: must be a whole number from 1 on, got {batch_size!r}")
        with pytest.raises(ConfigError, match=f"^{text}$"):
            verb(detector, 0.5, batch_size)


@pytest.mark.parametrize(
    ("threshold", "batch_size"),
    [
        pytest.param(np.float32(0.25), np.int64(2), id="numpy"),
        pytest.param(Fraction(1, 4), 2, id="a fraction"),
        pytest.param(0, 1, id="the least"),
        pytest.param(1, 9, id="whole"),
    ],
)
def test_settings_may_be_numbers_of_any_kind(detector: Detector, threshold: float, batch_size: int) -> None:
    expected = predict(detector, [ARRAY] * 3, CLASSES, float(threshold), int(batch_size))
    assert predict(detector, [ARRAY] * 3, CLASSES, threshold, batch_size) == expected
    assert predict(detector, ARRAY, CLASSES, threshold, batch_size) == predict(
        detector, ARRAY, CLASSES, float(threshold)
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(detector: Detector, png: Path) -> None:
    expected = predict(detector, ARRAY, CLASSES, threshold=0)
    on_gpu = Detector(CONFIG).eval()
    on_gpu.load_state_dict(detector.state_dict())
    found, *others = predict(on_gpu.cuda(), [ARRAY, png, png], CLASSES, threshold=0)
    assert all(np.allclose(found.xyxy, other.xyxy, atol=1e-2) for other in others)
    assert found.confidence is not None
    assert expected.confidence is not None
    assert np.allclose(found.confidence, expected.confidence, atol=1e-2)
