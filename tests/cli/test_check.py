import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rfdetr.cli.main import main

from ..data.tiny_coco import annotation, image, write_coco

POLYGON = [[10, 20, 40, 20, 40, 30, 10, 30]]


def dataset(root: Path, **train: Any) -> Path:
    write_coco(root, "valid", images=[image(1)])
    return write_coco(root, **train)


def report_of(root: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, Any]]:
    status = main(["check", str(root), "--json", *flags])
    shown = capsys.readouterr()
    assert shown.err == ""
    return status, json.loads(shown.out)


def test_json_says_what_training_would_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crowd = annotation(2, iscrowd=1)
    outside = annotation(3, bbox=[100, 100, 5, 5])
    status, report = report_of(dataset(tmp_path, annotations=[annotation(1), crowd, outside]), capsys)
    assert status == 0
    assert (report["format"], report["classes"]) == ("coco", ["cat", "dog"])
    assert {name: (own["images"], own["objects"]) for name, own in report["splits"].items()} == {
        "train": (2, 1),
        "valid": (1, 1),
    }
    assert report["splits"]["train"]["objects_per_class"] == [1, 0]
    assert report["splits"]["train"]["empty"] == 1
    assert {
        "severity": "warning",
        "file": str(tmp_path / "train" / "_annotations.coco.json"),
        "message": "boxes that lie outside of their image (left out) (1): id 3 has [100, 100, 5, 5]",
    } in report["problems"]
    assert all(line["message"] for line in report["advice"])


def test_errors_end_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (dataset(tmp_path) / "train" / "_annotations.coco.json").write_text('{"images": [')
    status, report = report_of(tmp_path, capsys)
    assert status == 1
    assert "error" in [problem["severity"] for problem in report["problems"]]
    assert report["splits"]["valid"]["images"] == 1, "what can be read is reported"


def test_no_dataset_is_a_problem_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file.txt"
    file.write_text("")
    (tmp_path / "empty").mkdir()
    for given, words in (
        (tmp_path / "missing", "no such folder"),
        (file, "is a file"),
        (tmp_path / "empty", "not a dataset"),
    ):
        status, report = report_of(given, capsys)
        (problem,) = report["problems"]
        assert (status, report["format"], report["classes"], report["splits"]) == (1, None, [], {})
        assert (problem["severity"], problem["file"]) == ("error", str(given))
        assert problem["message"].startswith(words)
        assert main(["check", str(given)]) == 1
        assert capsys.readouterr().out.startswith(f"problems:\n  error: {given}: {words}")


def test_a_missing_validation_split_is_a_warning_and_a_missing_training_split_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = report_of(write_coco(tmp_path / "train_only"), capsys)
    assert status == 0
    assert [problem["message"].split(",")[0] for problem in report["problems"]] == ["no split 'valid'"]
    assert {"valid_fraction": 0.2} in [line["settings"] for line in report["advice"]]
    status, report = report_of(write_coco(tmp_path / "valid_only", "valid"), capsys)
    assert status == 1
    assert "no split 'train'. There is: valid" in [problem["message"] for problem in report["problems"]]


def test_defects_of_outlines_are_warnings_unless_masks_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = [[0, 0, 5, 0, 5, 5]]
    rows = [annotation(1, segmentation=beside), annotation(2, segmentation=beside)]
    root = write_coco(tmp_path, annotations=rows)
    write_coco(tmp_path, "valid", annotations=[annotation(1, segmentation=POLYGON)])
    words = "no object has an outline that can be used"
    for flags, expected in (((), "warning"), (("--masks",), "error"), (("--model", "seg-nano"), "error")):
        status, report = report_of(root, capsys, *flags)
        found = [problem["severity"] for problem in report["problems"] if problem["message"].startswith(words)]
        assert found == [expected]
        assert status == (expected == "error")


def test_a_dataset_of_boxes_has_no_problem_with_outlines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = report_of(dataset(tmp_path), capsys)
    assert [problem for problem in report["problems"] if "outline" in problem["message"]] == []


def test_text_has_splits_classes_boxes_problems_and_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(dataset(tmp_path)), "--model", "nano", "--resolution", "416"]) == 0
    head, splits, classes, boxes, pictures, problems, advice = capsys.readouterr().out.split("\n\n")
    assert head == f"{tmp_path}: COCO, 2 classes, 3 images, 2 objects"
    assert [line.split()[:3] for line in splits.splitlines()[1:3]] == [["train", "2", "1"], ["valid", "1", "1"]]
    assert classes.splitlines()[1].split() == ["0", "cat", "1", "(100%)", "1", "(100%)"]
    assert boxes.startswith("boxes at 416 pixels (nano): ")
    assert pictures.startswith("pictures looked at: all 3; 0 cannot be decoded")
    assert problems.splitlines()[0] == "problems:"
    assert advice.splitlines()[0] == "advice:"


def test_decode_names_pictures_that_are_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = dataset(tmp_path) / "train" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    status, report = report_of(tmp_path, capsys, "--decode")
    assert status == 0
    assert [problem["severity"] for problem in report["problems"] if problem["file"] == str(damaged)] == ["warning"]
    assert [row["file"] for row in report["pictures"]["unreadable"]] == ["train/1.png"]


def test_the_page_holds_all_it_shows_and_runs_nothing_of_the_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "<script>alert(1)</script>"
    categories = [{"id": 3, "name": evil, "supercategory": "none"}]
    rows = [annotation(1, segmentation=POLYGON)]
    root = write_coco(tmp_path / "data", annotations=rows, categories=categories)
    write_coco(root, "valid", annotations=rows, categories=categories)
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    assert main(["check", str(root), "--html", str(page), "--pictures", str(sheet)]) == 0
    text = page.read_text()
    assert evil in capsys.readouterr().out
    assert evil not in text
    assert "&lt;script&gt;" in text
    assert text.count('src="data:image/jpeg;base64,') >= 4
    assert "http" not in text
    with Image.open(sheet) as picture:
        assert picture.width > 900


def test_a_dataset_that_is_none_has_a_page_too(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["check", str(tmp_path / "missing"), "--html", str(page)]) == 1
    assert "no such folder" in page.read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "medum"], "no size 'medum'"),
        (["--resolution", "500"], "resolution=500 is not a multiple of patch_size x num_windows = 32"),
        (["--html", "page.pdf"], "html: page.pdf is not the name of a .html or .htm file"),
        (["--html", "{root}/page.html"], "lies in the dataset, whose files are never changed"),
        (["--pictures", "sheet.gif"], "pictures: sheet.gif is not the name of a .jpg or .jpeg or .png file"),
    ],
)
def test_wrong_settings_are_said_at_once(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path), *(flag.format(root=tmp_path) for flag in flags)]) == 2
    assert words in capsys.readouterr().err


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (Path(os.fsdecode(os.fsencode(root / "train") + b"/extra\xff.png"))).write_bytes(b"")
    for flags in ([], ["--json"]):
        command = [sys.executable, "-X", "importtime", "-m", "rfdetr", "check", str(root), *flags]
        done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})  # noqa: S603
        assert b"extra\\udcff.png" in done.stdout
        loaded = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines()}
        assert loaded & {b"torch", b"supervision", b"torchvision", b"jinja2", b"scipy"} == set(), (
            "a check starts at once"
        )
