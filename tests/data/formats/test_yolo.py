import os
from pathlib import Path

import pytest

from rfdetr.data.formats import yolo

from .dirty import objects, read_split, write

YAML = "train: train/images\nnames: [cat, dog]\n"


def dataset(root: Path, labels: str | bytes, yaml: str = YAML) -> Path:
    """One picture `a.jpg` with these labels."""
    return write(root, {"data.yaml": yaml, "train/images/a.jpg": "", "train/labels/a.txt": labels})


def test_boxes_are_fractions_from_the_left_top(tmp_path: Path) -> None:
    raw, problems = read_split(yolo, dataset(tmp_path, "1 0.5 0.5 0.2 0.4\n0 0.25 0.75 0.5 0.5\n"))
    assert objects(raw) == [("a.jpg", "dog", [0.4, 0.3, 0.2, 0.4]), ("a.jpg", "cat", [0, 0.5, 0.5, 0.5])]
    assert raw.unit == "fractions"
    assert [raw.place(raw, row) for row in (0, 1)] == ["train/labels/a.txt line 1", "train/labels/a.txt line 2"]
    assert problems == []


def test_boxes_and_polygons_may_be_mixed(tmp_path: Path) -> None:
    raw, problems = read_split(
        yolo, dataset(tmp_path, "0 .1 .2 .5 .2 .3 .6\n1 .5 .5 .2 .4\n1 0 0 1 0 1 1 0 1\n"), masks=True
    )
    assert [box for *_, box in objects(raw)] == [[0.1, 0.2, 0.4, 0.4], [0.4, 0.3, 0.2, 0.4], [0, 0, 1, 1]]
    assert list(raw.has_outline) == [1, 0, 1]
    assert raw.outlines is not None
    assert list(raw.outlines.polygons) == [1, 0, 1]
    assert list(raw.outlines.points) == [3, 4]
    assert list(raw.outlines.coordinates) == [0.1, 0.2, 0.5, 0.2, 0.3, 0.6, 0, 0, 1, 0, 1, 1, 0, 1]
    assert len(raw.outlines.code_lengths) == 3
    assert len(raw.outlines.code_sizes) == 6
    assert problems == []


def test_outlines_of_lines_that_are_left_out_go_with_them(tmp_path: Path) -> None:
    lines = "0 .1 .2 .5 .2 .3 .6\n1 0 0 nan 0 1 1\n1 3 3 9 3 9 9\n1 .5 .5 .2 .4\n0 0 0 1 0 1 1 0 1\n"
    raw, problems = read_split(yolo, dataset(tmp_path, lines), masks=True)
    assert list(raw.object_ids) == [1, 4, 5]
    assert raw.outlines is not None
    assert list(raw.outlines.points) == [3, 4]
    assert list(raw.outlines.coordinates)[-8:] == [0, 0, 1, 0, 1, 1, 0, 1]
    assert len(problems) == 2


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param("0 .5 .5 .2 .2", id="no line end"),
        pytest.param("0 .5 .5 .2 .2\r\n\r\n", id="Windows line ends"),
        pytest.param("\n\n0\t.5\t.5\t.2 .2  \t\n  \n", id="tabs, blanks and empty lines"),
        pytest.param(b"\xef\xbb\xbf0 .5 .5 .2 .2\n", id="byte order mark"),
        pytest.param("0.0 0.50000 5e-1 .2 +.2\n", id="numbers in other forms"),
    ],
)
def test_what_is_read_quietly(tmp_path: Path, labels: str | bytes) -> None:
    raw, problems = read_split(yolo, dataset(tmp_path, labels))
    assert objects(raw) == [("a.jpg", "cat", [0.4, 0.4, 0.2, 0.2])]
    assert problems == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        pytest.param(
            "0,.5,.5,.2,.2",
            "something else than numbers separated by blanks (left out) (1): train/labels/a.txt line 2 has "
            "'0,.5,.5,.2,.2'",
            id="commas",
        ),
        pytest.param(
            "cat .5 .5 .2 .2",
            "something else than numbers separated by blanks (left out) (1): train/labels/a.txt line 2 has "
            "'cat .5 .5 .2 .2'",
            id="a name for the index",
        ),
        pytest.param(
            "0 .5 .5 .2",
            "another count of numbers than `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...` (left out) (1): "
            "train/labels/a.txt line 2 has 4",
            id="too few numbers",
        ),
        pytest.param(
            "0 .1 .1 .2 .2 .3 .3 .4",
            "another count of numbers than `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...` (left out) (1): "
            "train/labels/a.txt line 2 has 8",
            id="a polygon with half a point",
        ),
        pytest.param(
            "0 .5 .5 .2 .2 .97",
            "six numbers, as predictions with scores have them; labels are `class cx cy w h` or "
            "`class x1 y1 x2 y2 x3 y3 ...` (left out) (1): train/labels/a.txt line 2 has '0 0.5 0.5 0.2 0.2 0.97'",
            id="a prediction with its score",
        ),
        pytest.param(
            "0 nan .5 .2 .2",
            "numbers that are not finite (left out) (1): train/labels/a.txt line 2 has '0 nan 0.5 0.2 0.2'",
            id="not a number",
        ),
        pytest.param(
            "0 .5 .5 inf .2",
            "numbers that are not finite (left out) (1): train/labels/a.txt line 2 has '0 0.5 0.5 inf 0.2'",
            id="infinite",
        ),
        pytest.param(
            "1.5 .5 .5 .2 .2",
            "a class index that is not a whole number (left out) (1): train/labels/a.txt line 2 has "
            "'1.5 0.5 0.5 0.2 0.2'",
            id="half a class",
        ),
        pytest.param(
            "0 1.02 .5 .2 .2",
            "boxes outside of the image (numbers are fractions of its sides, 0 to 1) (left out) (1): "
            "train/labels/a.txt line 2 has '0 1.02 0.5 0.2 0.2'",
            id="its centre outside",
        ),
        pytest.param(
            "0 120 80 60 40",
            "boxes outside of the image (numbers are fractions of its sides, 0 to 1) (left out) (1): "
            "train/labels/a.txt line 2 has '0 120 80 60 40'",
            id="pixels",
        ),
    ],
)
def test_lines_left_out(tmp_path: Path, line: str, complaint: str) -> None:
    raw, problems = read_split(yolo, dataset(tmp_path, f"0 .5 .5 .2 .2\n{line}\n1 .5 .5 .2 .2\n"))
    assert list(raw.object_ids) == [1, 3]
    assert problems == [f"warning train/labels/a.txt: lines with {complaint}"]


def test_a_thousand_equal_defects_are_one_line(tmp_path: Path) -> None:
    files = {f"train/labels/{i}.txt": "0 .5 .5 .2\n0 .5 .5 .2 .2" for i in range(1000)}
    pictures = {f"train/images/{i}.jpg": "" for i in range(1000)}
    raw, problems = read_split(yolo, write(tmp_path, {"data.yaml": YAML, **files, **pictures}))
    assert len(raw) == 1000
    assert len(problems) == 1
    assert problems[0].endswith(
        "(1000): train/labels/0.txt line 1 has 4, train/labels/1.txt line 1 has 4, "
        "train/labels/10.txt line 1 has 4, ..."
    )


def test_boxes_past_the_edge_are_left_to_the_rules_for_all_formats(tmp_path: Path) -> None:
    raw, problems = read_split(yolo, dataset(tmp_path, "0 .099 .5 .2 .2\n0 1.005 .5 .2 .2\n"))
    assert [box for *_, box in objects(raw)] == [[-0.001, 0.4, 0.2, 0.2], [0.905, 0.4, 0.2, 0.2]]
    assert problems == []


def test_empty_and_negative_boxes_are_left_to_the_rules_for_all_formats(tmp_path: Path) -> None:
    raw, problems = read_split(yolo, dataset(tmp_path, "0 .5 .5 0 .2\n0 .5 .5 -.2 .2\n"))
    assert [box[2:] for *_, box in objects(raw)] == [[0, 0.2], [-0.2, 0.2]]
    assert problems == []


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        pytest.param(
            "0 .5 .5 .2 .2\n2 .5 .5 .2 .2\n1 .5 .5 .2 .2\n",
            "class indices without a name (data.yaml has 2 names, indices 0 to 1) (1): "
            "train/labels/a.txt line 2 has '2 0.5 0.5 0.2 0.2'",
            id="too large",
        ),
        pytest.param(
            "1 .5 .5 .2 .2\n2 .5 .5 .2 .2\n",
            "class indices without a name (data.yaml has 2 names, indices 0 to 1). They go from 1 to 2, but counting "
            "starts at 0: subtract 1 from each (1): train/labels/a.txt line 2 has '2 0.5 0.5 0.2 0.2'",
            id="counted from 1",
        ),
        pytest.param(
            "-1 .5 .5 .2 .2\n",
            "class indices without a name (data.yaml has 2 names, indices 0 to 1) (1): "
            "train/labels/a.txt line 1 has '-1 0.5 0.5 0.2 0.2'",
            id="negative",
        ),
    ],
)
def test_class_indices_without_a_name_are_an_error(tmp_path: Path, lines: str, complaint: str) -> None:
    assert read_split(yolo, dataset(tmp_path, lines))[1] == [f"error train/labels/a.txt: {complaint}"]


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        pytest.param("0,.5,.5,.2,.2\n" * 2 + "0 .5 .5 .2 .2\n", "2 of 3 lines", id="lines"),
        pytest.param(b"\xff", "1 of 1 images", id="images"),
    ],
)
def test_where_most_cannot_be_used_that_is_an_error(tmp_path: Path, labels: str | bytes, complaint: str) -> None:
    _, problems = read_split(yolo, dataset(tmp_path, labels))
    assert problems[0] == f"error train/labels: {complaint} cannot be used: see the warnings for why"


def test_pixels_all_over_are_an_error(tmp_path: Path) -> None:
    raw, problems = read_split(yolo, dataset(tmp_path, "0 120 80 60 40\n" * 4 + "0 .5 .5 .2 .2\n"))
    assert len(raw.images) == 1
    assert problems == [
        "error train/labels: 4 of 5 lines are in pixels, it seems. YOLO's numbers are fractions of the image's sides, "
        "0 to 1: train/labels/a.txt line 1 has '0 120 80 60 40', train/labels/a.txt line 2 has '0 120 80 60 40', "
        "train/labels/a.txt line 3 has '0 120 80 60 40'"
    ]


def test_corners_all_over_are_suspected(tmp_path: Path) -> None:
    _, problems = read_split(yolo, dataset(tmp_path, "0 .6 .5 .9 .9\n" * 2 + "0 .1 .1 .2 .2\n" * 3))
    assert problems == [
        "warning train/labels: 2 of 5 boxes leave the image, and none would if the lines were "
        "`class left top right bottom`. YOLO's are `class cx cy w h`"
    ]


def test_no_label_file_and_an_empty_one_make_background(tmp_path: Path) -> None:
    dataset(tmp_path, "0 .5 .5 .2 .2\n")
    raw, problems = read_split(
        yolo, write(tmp_path, {f"train/images/{n}.png": "" for n in "bc"} | {"train/labels/b.txt": " \n"})
    )
    assert raw.names == ["a.jpg", "b.png", "c.png"]
    assert list(raw.images) == [0]
    assert problems == []


def test_no_label_file_at_all_is_said(tmp_path: Path) -> None:
    files = {"data.yaml": YAML, "train/images/a.jpg": "", "train/images/b.jpg": ""}
    assert read_split(yolo, write(tmp_path, files))[1] == [
        "warning train/images: no image has a label file (looked in train/images), so that all 2 are background"
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param("0 .5 .5 .2 .2".encode("utf-16"), "are not text in UTF-8", id="UTF-16"),
        pytest.param(b"0 .5 .5 .2 .2 \xe9", "are not text in UTF-8", id="Latin-1"),
    ],
)
def test_an_image_goes_with_its_unreadable_label_file(tmp_path: Path, content: bytes, complaint: str) -> None:
    write(dataset(tmp_path, content), {"train/images/b.jpg": "", "train/labels/b.txt": "1 .5 .5 .2 .2"})
    raw, problems = read_split(yolo, tmp_path)
    assert objects(raw) == [("b.jpg", "dog", [0.4, 0.4, 0.2, 0.2])]
    assert problems == [
        f"warning train/labels/a.txt: label files that {complaint} (left out with their images) (1): train/labels/a.txt"
    ]


def test_a_label_file_that_is_a_broken_link(tmp_path: Path) -> None:
    dataset(tmp_path, "")
    (tmp_path / "train/labels/a.txt").unlink()
    (tmp_path / "train/labels/a.txt").symlink_to(tmp_path / "gone.txt")
    raw, problems = read_split(yolo, write(tmp_path, {"train/images/b.jpg": "", "train/labels/b.txt": ""}))
    assert raw.names == ["b.jpg"]
    assert problems == [
        "warning train/labels/a.txt: label files that cannot be read (left out with their images) (1): "
        "train/labels/a.txt (No such file or directory)"
    ]


def test_label_files_without_an_image_are_one_warning(tmp_path: Path) -> None:
    dataset(tmp_path, "0 .5 .5 .2 .2")
    _, problems = read_split(yolo, write(tmp_path, {f"train/labels/{name}.txt": "" for name in ("classes", "x", "y")}))
    assert len(problems) == 1
    assert problems[0].startswith("warning train/labels/")
    assert "label files without an image (not used) (2): train/labels/" in problems[0]


def test_images_that_share_a_label_file(tmp_path: Path) -> None:
    write(dataset(tmp_path, "0 .5 .5 .2 .2"), {"train/images/a.png": ""})
    raw, problems = read_split(yolo, tmp_path)
    assert [image for image, *_ in objects(raw)] == ["a.jpg", "a.png"]
    assert problems == [
        "warning train/labels: images that differ in nothing but the suffix, so that they share a label file (1): "
        "a.jpg and a.png"
    ]


def test_names_with_blanks_dots_accents_and_large_suffixes(tmp_path: Path) -> None:
    names = ["a b", "c.rf.12", "é", "日本"]
    files = {f"train/images/{name}.JPG": "" for name in names}
    labels = {f"train/labels/{name}.txt": "0 .5 .5 .2 .2" for name in ("a b", "c.rf.12", "e\u0301", "日本")}
    raw, problems = read_split(yolo, write(tmp_path, {"data.yaml": YAML, **files, **labels}))
    assert [image for image, *_ in objects(raw)] == [f"{name}.JPG" for name in names]
    assert problems == []


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    write(
        dataset(tmp_path, "0 .5 .5 .2 .2"),
        {f"train/images/{name}": "" for name in (".DS_Store", "._a.jpg", "Thumbs.db", "a.npy", "notes.json")},
    )
    raw, problems = read_split(yolo, tmp_path)
    assert raw.names == ["a.jpg"]
    assert problems == []


def test_key_points_are_not_read_as_polygons(tmp_path: Path) -> None:
    yaml = YAML + "kpt_shape: [2, 3]\n"
    raw, problems = read_split(yolo, dataset(tmp_path, "0 .5 .5 .2 .2 .4 .4 2 .6 .6 2\n", yaml))
    assert objects(raw) == [("a.jpg", "cat", [0.4, 0.4, 0.2, 0.2])]
    assert not raw.has_outline[0]
    assert problems == []


def test_label_files_may_end_in_large_letters(tmp_path: Path) -> None:
    files = {"data.yaml": YAML, "train/images/a.jpg": "", "train/labels/a.TXT": "1 .5 .5 .2 .2"}
    raw, problems = read_split(yolo, write(tmp_path, files))
    assert objects(raw) == [("a.jpg", "dog", [0.4, 0.4, 0.2, 0.2])]
    assert problems == []


def test_a_label_file_among_the_images_is_used_where_there_is_no_other(tmp_path: Path) -> None:
    write(dataset(tmp_path, "0 .5 .5 .2 .2"), {f"train/images/{n}.txt": "1 .5 .5 .2 .2" for n in "ab"})
    raw, problems = read_split(yolo, write(tmp_path, {"train/images/b.jpg": ""}))
    assert [(image, name) for image, name, _ in objects(raw)] == [("a.jpg", "cat"), ("b.jpg", "dog")]
    assert problems == [
        "warning train/images/b.txt: label files beside their images, not in train/labels (used) (1): "
        "train/images/b.txt"
    ]


def test_nobody_waits_for_a_label_file_that_is_a_pipe(tmp_path: Path) -> None:
    dataset(tmp_path, "0 .5 .5 .2 .2")
    os.mkfifo(tmp_path / "train/labels/b.txt")
    raw, problems = read_split(yolo, write(tmp_path, {"train/images/b.jpg": ""}))
    assert raw.names == ["a.jpg"]
    assert problems == [
        "warning train/labels/b.txt: label files that cannot be read (left out with their images) (1): "
        "train/labels/b.txt (Not a file)"
    ]


@pytest.mark.parametrize(
    ("lines", "form"),
    [
        ("0 .6 .5 .9 .9\n0 .6 .5 .9 .8\n0 .3 .4 .9 .5\n0 .1 .1 .2 .2\n", "class left top right bottom"),
        ("0 .1 .1 .8 .5\n0 .1 .2 .5 .5\n0 .1 .3 .4 .4\n0 .5 .5 .2 .2\n", "class left top width height"),
    ],
)
def test_lines_that_begin_with_a_corner_are_refused_where_most_show_it(tmp_path: Path, lines: str, form: str) -> None:
    assert read_split(yolo, dataset(tmp_path, lines))[1] == [
        f"error train/labels: 3 of 4 boxes leave the image, and none would if the lines were `{form}`. YOLO's are "
        "`class cx cy w h`"
    ]
