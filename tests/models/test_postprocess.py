import pytest
import torch
from torch import Tensor

from rfdetr.models.postprocess import PIXELS_AT_ONCE, full_size_masks, postprocess
from rfdetr.types import MaskLogits, Predictions

SIZE = torch.tensor([[100, 200]])


def detect(logits: Tensor, boxes: Tensor | None = None, num_select: int = 100) -> Predictions:
    if boxes is None:
        boxes = torch.rand(logits.shape[0], 4)
    (found,) = postprocess({"pred_logits": logits[None], "pred_boxes": boxes[None]}, SIZE, num_select)
    return found


needs_mps = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs Apple's GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("mps", marks=needs_mps)])
def test_best_first_and_one_query_may_have_several_classes(device: str) -> None:
    found = detect(torch.tensor([[0.0, 2.0], [1.0, -1.0]], device=device), torch.rand(2, 4, device=device))
    assert found.labels.tolist() == [1, 0, 0, 1]
    assert found.scores.tolist() == pytest.approx(torch.tensor([2.0, 1, 0, -1]).sigmoid().tolist())


def test_ties_go_to_the_lower_query_then_the_lower_class() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.1 * (query + 1), 0.1] for query in range(3)])
    found = detect(torch.zeros(3, 2), boxes)
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    widths = (found.boxes[:, 2] - found.boxes[:, 0]).tolist()
    assert widths == pytest.approx([20, 20, 40, 40, 60, 60], abs=1e-3)


@pytest.mark.parametrize(
    ("num_select", "count"),
    [pytest.param(4, 4, id="fewer"), pytest.param(6, 6, id="all"), pytest.param(300, 6, id="more than there are")],
)
def test_as_many_as_asked_for_or_as_there_are(num_select: int, count: int) -> None:
    found = detect(torch.randn(3, 2), num_select=num_select)
    assert len(found.scores) == len(found.labels) == len(found.boxes) == count


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        pytest.param([0.5, 0.5, 0.5, 0.5], [50, 25, 150, 75], id="inside"),
        pytest.param([0.5, 0.5, 2.0, 2.0], [0, 0, 200, 100], id="larger than the image"),
        pytest.param([1.5, 0.5, 0.1, 0.1], [200, 45, 200, 55], id="outside becomes a line"),
        pytest.param([0.5, 0.5, -0.2, 0.2], [100, 40, 100, 60], id="negative width counts as 0"),
    ],
)
def test_boxes_are_cut_off_at_the_border(box: list[float], pixels: list[float]) -> None:
    found = detect(torch.zeros(1, 1), torch.tensor([box]))
    assert found.boxes[0].tolist() == pytest.approx(pixels, abs=1e-4)


def test_each_image_has_its_own_size() -> None:
    outputs = torch.tensor([[[0.5, 0.5, 1.0, 1.0]]]).expand(2, -1, -1)
    sizes = torch.tensor([[480, 640], [333, 500]])
    found = postprocess({"pred_logits": torch.zeros(2, 1, 1), "pred_boxes": outputs}, sizes, num_select=1)
    assert [image.boxes[0].tolist() for image in found] == [[0, 0, 640, 480], [0, 0, 500, 333]]


def test_scores_of_half_precision_are_float32() -> None:
    found = detect(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert found.scores.dtype == torch.float32


def test_a_threshold_keeps_what_scores_above_it() -> None:
    logits = torch.tensor([[3.0, 0.0], [-3.0, 1.0]])
    (found,) = postprocess({"pred_logits": logits[None], "pred_boxes": torch.rand(1, 2, 4)}, SIZE, 100, threshold=0.5)
    assert found.scores.tolist() == torch.tensor([3.0, 1.0]).sigmoid().tolist()
    assert len(found.boxes) == len(found.labels) == 2


def test_masks_go_with_their_queries() -> None:
    masks = MaskLogits(torch.ones(1, 1, 3, 3), torch.tensor([[[1.0], [2.0]]]), torch.zeros(1, 2))
    logits = torch.tensor([[[0.0, -1.0], [5.0, -5.0]]])
    (found,) = postprocess({"pred_logits": logits, "pred_boxes": torch.rand(1, 2, 4), "pred_masks": masks}, SIZE, 3)
    assert found.mask_logits is not None
    assert found.mask_logits[:, 0, 0].tolist() == [2, 1, 1]


def test_masks_at_the_size_of_the_image_a_few_at_a_time() -> None:
    size_hw = (400, PIXELS_AT_ONCE // (400 * 10))
    logits = torch.full((12, 4, 4), -1.0)
    logits[:, :, :2] = 1.0
    chunks = [*full_size_masks(logits, size_hw)]
    assert [len(chunk) for chunk in chunks] == [10, 2]
    whole = torch.cat(chunks)
    assert whole.shape == (12, *size_hw)
    assert whole[:, :, : size_hw[1] // 2].all()
    assert not whole[:, :, size_hw[1] // 2 :].any()
    assert sum(len(chunk) for chunk in full_size_masks(logits[:0], size_hw)) == 0


def test_a_score_that_is_not_a_number_is_above_no_threshold() -> None:
    logits = torch.tensor([[[float("nan"), 2.0]]])
    (found,) = postprocess({"pred_logits": logits, "pred_boxes": torch.rand(1, 1, 4)}, SIZE, 100, threshold=0.0)
    assert found.labels.tolist() == [1]
