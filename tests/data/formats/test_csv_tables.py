from pathlib import Path

import pytest

from rfdetr.data.formats import csv_tables
from rfdetr.data.problems import Problems

from .dirty import objects, read_split, write

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
ROW = "a.jpg,60,50,cat,10,20,30,40\n"
CAT = [("a.jpg", "cat", [10, 20, 20, 20])]
FILE = "train/_annotations.csv"


def dataset(root: Path, content: str | bytes) -> Path:
    return write(root, {FILE: content, "train/a.jpg": ""})


def test_a_row_is_an_object(tmp_path: Path) -> None:
    rows = "b.jpg,20,10,dog,1,2,3.5,4\n" + ROW + "b.jpg,20,10,cat,0,0,20,10\n"
    raw, problems = read_split(csv_tables, dataset(tmp_path, HEADER + rows))
    assert objects(raw) == [("b.jpg", "dog", [1, 2, 2.5, 2]), *CAT, ("b.jpg", "cat", [0, 0, 20, 10])]
    assert raw.names == ["b.jpg", "a.jpg"]
    assert list(raw.sizes) == [10, 20, 50, 60]
    assert [category.name for category in raw.categories] == ["cat", "dog"]
    assert raw.place(raw, 1) == "line 3"
    assert raw.unit == "pixels"
    assert problems == []


def test_there_are_no_outlines(tmp_path: Path) -> None:
    raw, _ = read_split(csv_tables, dataset(tmp_path, HEADER + ROW), masks=True)
    assert raw.outlines is not None
    assert list(raw.has_outline) == list(raw.outlines.polygons) == [0]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(HEADER + ROW.strip(), id="no line end"),
        pytest.param("\ufeff" + (HEADER + ROW).replace("\n", "\r\n"), id="byte order mark and Windows line ends"),
        pytest.param((HEADER + ROW).replace(",", ";"), id="semicolons"),
        pytest.param((HEADER + ROW).replace(",", "\t"), id="tabs"),
        pytest.param("sep=;\n" + (HEADER + ROW).replace(",", ";"), id="Excel says the separator"),
        pytest.param(HEADER.replace(",", ";") + "a.jpg;60;50;cat;10,0;20,0;30,0;40,0", id="decimal commas"),
        pytest.param('"filename","class","xmin","ymin","xmax","ymax"\n"a.jpg","cat","10","20","30","40"', id="quoted"),
        pytest.param(" Filename , Class, XMin,YMin,XMax,YMax\n a.jpg , cat, 10, 20, 30, 40 ", id="blanks and capitals"),
        pytest.param("label,image,x1,x2,y1,y2,note\ncat,a.jpg,10,30,20,40,\n", id="other names in another order"),
        pytest.param("xmin,ymin,xmax,ymax,name,image_path\n10,20,30,40,cat,a.jpg\n", id="name is that of the class"),
        pytest.param(HEADER + "\n,,,,,,,\n  \n" + ROW + "\n\n", id="empty rows"),
        pytest.param(HEADER + "a.jpg,60.0,50.0,cat,10.0,2e1,30,40,,\n", id="numbers in other forms"),
        pytest.param(HEADER + "a.jpg,,,,,,,\n" + ROW, id="background that has an object all the same"),
    ],
)  # fmt: skip
def test_what_is_read_quietly(tmp_path: Path, content: str) -> None:
    raw, problems = read_split(csv_tables, dataset(tmp_path, content))
    assert objects(raw) == CAT
    assert problems == []


@pytest.mark.parametrize("row", ["b.jpg,60,50,,,,,", "b.jpg", "b.jpg,60,50"])
def test_a_row_without_an_object_is_background(tmp_path: Path, row: str) -> None:
    raw, problems = read_split(csv_tables, dataset(tmp_path, HEADER + ROW + row))
    assert raw.names == ["a.jpg", "b.jpg"]
    assert objects(raw) == CAT
    assert problems == []


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        pytest.param(
            "a.jpg,60,50,cat,10,20,thirty,40",
            "rows whose box is not four numbers (left out) (1): line 3 has '10 20 thirty 40'",
            id="words",
        ),
        pytest.param(
            "a.jpg,60,50,cat,10,20,30",
            "rows whose box is not four numbers (left out) (1): line 3 has '10 20 30 nothing'",
            id="too short",
        ),
        pytest.param("a.jpg,60,50,,10,20,30,40", "rows without a class (left out) (1): line 3", id="no class"),
        pytest.param(",60,50,cat,10,20,30,40", "rows without a file (left out) (1): line 3", id="no file"),
        pytest.param(
            "a,1.jpg,60,50,cat,10,20,30,40", "rows with more cells than the header (left out) (1): line 3",
            id="a comma in the name",
        ),
        pytest.param(
            HEADER.strip(), "rows whose box is not four numbers (left out) (1): line 3 has 'xmin ymin xmax ymax'",
            id="the header again",
        ),
    ],
)  # fmt: skip
def test_rows_left_out(tmp_path: Path, row: str, complaint: str) -> None:
    raw, problems = read_split(csv_tables, dataset(tmp_path, f"{HEADER}{ROW}{row}\n{ROW}"))
    assert objects(raw) == CAT * 2
    assert list(raw.object_ids) == [2, 4]
    assert problems == [f"warning {FILE}: {complaint}"]


def test_where_most_cannot_be_used_that_is_an_error(tmp_path: Path) -> None:
    _, problems = read_split(csv_tables, dataset(tmp_path, HEADER + ROW + ROW.replace("10", "ten") * 2))
    assert problems[0] == f"error {FILE}: 2 of 3 rows with objects cannot be used: see the warnings for why"


NAMES = "The first line must name filename, class, xmin, ymin, xmax, ymax (width and height are optional), got"
NONE = "no column filename, class, xmin, ymin, xmax, ymax"
ENCODING = "not a text file in UTF-8 (save it with this encoding)"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param("class,file\n", f"no column xmin, ymin, xmax, ymax. {NAMES} 'class,file'", id="missing"),
        pytest.param("a.jpg,cat,1,2,3,4\n", f"{NONE}. {NAMES} 'a.jpg,cat,1,2,3,4'", id="no header"),
        pytest.param("", f"{NONE}. {NAMES} ''", id="empty"),
        pytest.param((HEADER + ROW).encode("utf-16"), ENCODING, id="UTF-16"),
        pytest.param((HEADER + ROW + "b\xe9.jpg").encode("latin-1"), ENCODING, id="Latin-1"),
        pytest.param(
            HEADER + ROW + 'a.jpg,"' + "x,1\n" * 50_000,
            "not a table: field larger than field limit (131072) in line 32771 (a quotation mark without its other?)",
            id="an open quotation mark",
        ),
    ],
)  # fmt: skip
def test_errors(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    assert read_split(csv_tables, dataset(tmp_path, content))[1] == [f"error {FILE}: {complaint}"]


@pytest.mark.parametrize(
    ("table", "picture", "folder"),
    [
        pytest.param("train/_annotations.csv", "train/a.jpg", "train", id="Roboflow"),
        pytest.param("train/_annotations.csv", "train/images/a.jpg", "train/images", id="a folder beside the table"),
        pytest.param("train_labels.csv", "images/train/a.jpg", "images/train", id="TensorFlow's tutorial"),
        pytest.param("train_labels.csv", "images/a.jpg", "images", id="one folder of images"),
        pytest.param("train.csv", "a.jpg", ".", id="in the root"),
        pytest.param("annotations/train.csv", "train/a.jpg", "train", id="a folder of tables"),
        pytest.param("_annotations.csv", "a.jpg", ".", id="no splits"),
        pytest.param("annotations.csv", "images/a.jpg", "images", id="no splits, a folder of images"),
        pytest.param("train.csv", "gone.jpg", "train", id="none of the images"),
    ],
)
def test_layouts(tmp_path: Path, table: str, picture: str, folder: str) -> None:
    write(tmp_path, {table: HEADER + ROW, picture: "", "train/z.jpg": "", "images/z.jpg": ""})
    files = csv_tables.find(tmp_path, Problems())["train"]
    assert files.root == tmp_path / folder
    assert files.file == tmp_path / table


def test_folders_and_tables_in_large_letters(tmp_path: Path) -> None:
    write(tmp_path, {"Train.CSV": HEADER + ROW, "Images/Train/a.jpg": ""})
    files = csv_tables.find(tmp_path, Problems())["train"]
    assert (files.file.name, files.root) == ("Train.CSV", tmp_path / "Images/Train")


def test_images_may_be_listed_with_their_folder(tmp_path: Path) -> None:
    table = HEADER + ROW.replace("a.jpg", "train/a.jpg")
    files = csv_tables.find(write(tmp_path, {"train.csv": table, "train/b.jpg": "", "train/a.jpg": ""}), Problems())
    # By name alone in train/, by path from the root: the rules for all formats find either.
    assert files["train"].root in (tmp_path, tmp_path / "train")


def test_splits_and_other_tables(tmp_path: Path) -> None:
    names = ("train.csv", "val_labels.csv", "test/_annotations.csv")
    found = csv_tables.find(write(tmp_path / "ours", dict.fromkeys(names, HEADER + ROW)), Problems())
    assert {split: files.file.name for split, files in found.items()} == {
        "train": "train.csv",
        "valid": "val_labels.csv",
        "test": "_annotations.csv",
    }
    other = write(tmp_path / "other", {"train.csv": "id,label\n1,cat\n", "train/a.jpg": ""})
    assert csv_tables.find(other, Problems()) == {}
    assert csv_tables.find(tmp_path / "missing", Problems()) == {}
