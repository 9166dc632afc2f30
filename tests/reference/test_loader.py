"""Weights fitted to other classes, queries and resolutions, against what the published code makes of the same files."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rfdetr
from rfdetr import RFDETRNano
from rfdetr.coco_names import COCO
from rfdetr.weights.names import to_published
from rfdetr.weights.state_dict import POSITIONS, QUERIES
from tests.oracles import oracle_detector, read_json, stats

CLASS_HEADS = ["class_embed", *(f"transformer.enc_out_class_embed.{group}" for group in range(13))]


@cache
def published() -> dict[str, Tensor]:
    return to_published(oracle_detector("nano").state_dict())


def three_classes() -> dict[str, Tensor]:
    """The first four rows of every class head."""
    return {name: tensor[:4] if "class_embed" in name else tensor for name, tensor in published().items()}


@pytest.fixture
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = read_json("oracles/loader.json")
    return found


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout: weights, and nothing beside them."""
    path = tmp_path_factory.mktemp("coco") / "weights.pth"
    torch.save({"model": published()}, path)
    return path


@pytest.fixture(scope="module")
def xyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("xyz") / "weights.pth"
    torch.save({"model": three_classes(), "args": {"class_names": ["x", "y", "z"]}}, path)
    return path


def opened(path: Path, **settings: Any) -> RFDETRNano:
    return RFDETRNano(pretrain_weights=path, device="cpu", **settings)


def class_biases(model: RFDETRNano, group: int | None = None) -> Tensor:
    head = CLASS_HEADS[0] if group is None else CLASS_HEADS[1 + group]
    biases: Tensor = model.detector.state_dict()[f"{head}.bias"]
    return biases


def close(values: Tensor, recorded: list[float]) -> bool:
    return torch.allclose(values, torch.tensor(recorded), atol=1e-6)


def test_a_fewer_classes_take_the_first_rows(coco: Path, recorded: dict[str, Any]) -> None:
    expected = recorded["A_num_classes_3"]
    model = opened(coco, num_classes=3, class_rows="by-position")
    assert model.config.num_classes == expected["num_classes"]
    assert close(class_biases(model), expected["class_embed.bias"])
    assert close(class_biases(model, group=12), expected["enc12.bias"])
    assert model.class_names == ["", "person", "bicycle"]


def test_b_more_classes_take_the_rows_again(coco: Path, recorded: dict[str, Any]) -> None:
    expected = recorded["B_num_classes_100"]
    model = opened(coco, num_classes=100, class_rows="by-position")
    biases = class_biases(model)
    assert (len(biases), model.config.num_classes) == (expected["rows"], expected["num_classes"])
    assert close(biases[89:94], expected["class_embed.bias_89..93"])
    assert close(biases[-3:], expected["last3"])
    assert model.classes == COCO


def test_c_without_a_number_of_classes_the_file_tells(xyz: Path, recorded: dict[str, Any]) -> None:
    expected = recorded["C_ckpt_3_classes_unset"]
    model = opened(xyz)
    assert (len(class_biases(model)), model.config.num_classes) == (expected["rows"], expected["num_classes"])
    assert model.class_names == expected["class_names"]


def test_c2_more_classes_than_the_file_has(xyz: Path, recorded: dict[str, Any]) -> None:
    expected = recorded["C2_ckpt_3_classes_user_5"]
    model = opened(xyz, num_classes=5, class_rows="by-position")
    assert (len(class_biases(model)), model.config.num_classes) == (expected["rows"], expected["num_classes"])
    assert close(class_biases(model), expected["bias"])
    assert model.class_names == ["x", "y", "z"]


@pytest.mark.parametrize("num_classes", [3, 100])
def test_by_name_rows_of_unknown_classes_start_anew(coco: Path, num_classes: int) -> None:
    model = opened(coco, num_classes=num_classes)
    state = model.detector.state_dict()
    for head in CLASS_HEADS:
        assert torch.equal(state[f"{head}.bias"], state[f"{head}.bias"][:1].expand(num_classes + 1))
    assert float(state["class_embed.bias"][0]) == pytest.approx(-4.59512, abs=1e-5)
    assert model.class_names == []


def test_d_positions_at_another_resolution(coco: Path, recorded: dict[str, Any]) -> None:
    expected = recorded["D_resolution_512"]
    model = opened(coco, resolution=512)
    positions = model.detector.state_dict()[POSITIONS]
    assert list(positions.shape) == expected["shape"]
    assert model.config.positional_encoding_size == expected["PE"]
    sample = torch.tensor(expected["values[0,[0,1,2,33,500,1024],:4]"])
    assert torch.allclose(positions[0, [0, 1, 2, 33, 500, 1024], :4], sample, atol=1e-6)
    assert stats(positions).tolist() == pytest.approx(expected["stats"], rel=1e-5, abs=1e-8)


def test_e_fewer_queries_and_groups(
    tmp_path: Path, recorded: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = recorded["E_queries_200_groups_5_with_args"]
    settings = {"num_queries": 300, "group_detr": 13, "class_names": ["a", "b", "c"]}
    torch.save({"model": published(), "args": settings}, tmp_path / "weights.pth")
    model = opened(tmp_path / "weights.pth", num_queries=200, group_detr=5)
    assert list(model.detector.query_feat.weight.shape) == expected["shape"]
    check_rows(model, expected["source_rows_of_[0,199,200,400,999]"], [0, 199, 200, 400, 999])
    assert model.class_names == expected["class_names"]
    assert capsys.readouterr().out == "weights fitted: queries: 13 groups of 300 -> 5 groups of 200\n"


def test_f_groups_stay_whole_where_the_published_code_mixes_them(coco: Path, recorded: dict[str, Any]) -> None:
    expected = recorded["F_queries_200_no_args"]
    model = opened(coco, num_queries=200)
    assert list(model.detector.query_feat.weight.shape) == expected["shape"]
    mixed = expected["source_rows_of_[0,199,200,400]"]
    assert mixed == [0, 199, 200, 400]
    check_rows(model, [0, 199, 300, 600], mixed)


def check_rows(model: RFDETRNano, sources: list[int], rows: list[int]) -> None:
    state = model.detector.state_dict()
    for name in QUERIES:
        assert torch.equal(state[name][rows], published()[name][sources])


def test_more_queries_begin_again_within_their_group(coco: Path) -> None:
    model = opened(coco, num_queries=350)
    check_rows(model, [0, 299, 0, 49, 300, 599, 300], [0, 299, 300, 349, 350, 649, 650])


def test_a_file_that_says_nothing_is_opened_as_the_size_its_shapes_tell(coco: Path) -> None:
    model = rfdetr.from_checkpoint(coco, device="cpu")
    assert type(model) is RFDETRNano
    assert model.classes == COCO
    state = to_published(model.detector.state_dict())
    assert all(torch.equal(tensor, published()[name]) for name, tensor in state.items())
