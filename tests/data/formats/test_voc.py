from pathlib import Path

import pytest

from rfdetr.data.formats import voc
from rfdetr.data.problems import Problems

from .dirty import objects, read_split, write


def thing(name: str = "cat", box: str = "10 20 30 40", more: str = "") -> str:
    corners = "".join(
        f"<{tag}>{n}</{tag}>" for tag, n in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    )
    return f"<object><name>{name}</name><difficult>1</difficult><bndbox>{corners}</bndbox>{more}</object>\n"


def xml(*things: str, filename: str = "a.jpg", size: str = "<width>60</width><height>50</height>") -> str:
    return f"<annotation>\n<filename>{filename}</filename><size>{size}</size>\n{''.join(things)}</annotation>\n"


CAT = [("a.jpg", "cat", [10, 20, 20, 20])]


def dataset(root: Path, content: str | bytes) -> Path:
    return write(root, {"train/a.xml": content, "train/a.jpg": ""})


def test_boxes_are_corners_in_pixels_and_difficult_objects_are_objects(tmp_path: Path) -> None:
    content = xml(thing("dog", "1 2 3.5 4"), thing("cat"), thing("dog", "0 0 60 50"))
    raw, problems = read_split(voc, dataset(tmp_path, content))
    assert objects(raw) == [("a.jpg", "dog", [1, 2, 2.5, 2]), *CAT, ("a.jpg", "dog", [0, 0, 60, 50])]
    assert [category.name for category in raw.categories] == ["cat", "dog"]
    assert list(raw.sizes) == [50, 60]
    assert raw.unit == "pixels"
    assert raw.place(raw, 1) == "train/a.xml object 2"
    assert problems == []


def test_polygons(tmp_path: Path) -> None:
    polygon = "<polygon><x1>10</x1><y1>20</y1><x2>30</x2><y2>20</y2><y3>40</y3><x3>10.5</x3></polygon>"
    content = xml(thing(more=polygon), thing(), f"<object><name>cat</name>{polygon}</object>")
    raw, problems = read_split(voc, dataset(tmp_path, content), masks=True)
    assert objects(raw) == CAT * 3
    assert list(raw.has_outline) == [1, 0, 1]
    assert raw.outlines is not None
    assert list(raw.outlines.polygons) == [1, 0, 1]
    assert list(raw.outlines.coordinates) == [10, 20, 30, 20, 10.5, 40] * 2
    assert problems == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("\ufeff" + xml(thing()), id="byte order mark"),
        pytest.param(xml(thing()).replace("\n", "\r\n"), id="Windows line ends"),
        pytest.param(xml(thing()).replace(">", ">\n  ").replace("<", "  <"), id="blanks everywhere"),
        pytest.param(f'<?xml version="1.0" encoding="utf-16"?>{xml(thing())}'.encode("utf-16"), id="UTF-16"),
        pytest.param(xml(thing(), filename=""), id="no file name"),
        pytest.param(xml(thing(), filename="gone.png"), id="a file name of another time"),
        pytest.param(xml(thing(), filename="C:\\pictures\\a.jpg"), id="a path of Windows"),
        pytest.param(xml(thing(), filename="a"), id="a file name without suffix"),
        pytest.param(xml(thing(), size=""), id="no size"),
        pytest.param(xml(thing(more="<part><name>head</name><bndbox/></part>")), id="parts"),
    ],
)  # fmt: skip
def test_what_is_read_quietly(tmp_path: Path, content: str | bytes) -> None:
    raw, problems = read_split(voc, dataset(tmp_path, content))
    assert objects(raw) == CAT
    assert problems == []


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        pytest.param(
            thing(box="10 20 thirty 40"),
            "objects without a box `<bndbox>` of four numbers (left out) (1): train/a.xml object 1 has "
            "'10 20 thirty 40'",
            id="a box of words",
        ),
        pytest.param(
            "<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>",
            "objects without a box `<bndbox>` of four numbers (left out) (1): train/a.xml object 1 has "
            "'1 nothing nothing nothing'",
            id="half a box",
        ),
        pytest.param(
            "<object><name>cat</name></object>",
            "objects without a box `<bndbox>` of four numbers (left out) (1): train/a.xml object 1 has none",
            id="no box",
        ),
        pytest.param(
            thing(name=" "), "objects without a name (left out) (1): train/a.xml object 1", id="no name"
        ),
    ],
)  # fmt: skip
def test_objects_left_out(tmp_path: Path, bad: str, complaint: str) -> None:
    raw, problems = read_split(voc, dataset(tmp_path, xml(bad, thing())))
    assert objects(raw) == CAT
    assert problems == [f"warning train/a.xml: {complaint}"]


@pytest.mark.parametrize(
    ("points", "given"),
    [
        ("<x1>1</x1><y1>2</y1><x2>3</x2><y2>4</y2><x3>5</x3>", "x1 y1 x2 y2 x3"),
        ("<x1>1</x1><y1>2</y1><x2>3</x2><y2>4</y2><x3>5</x3><y3>nan</y3>", "1 2 3 4 5 nan"),
    ],
)
def test_a_box_outlives_its_broken_polygon(tmp_path: Path, points: str, given: str) -> None:
    raw, problems = read_split(voc, dataset(tmp_path, xml(thing(more=f"<polygon>{points}</polygon>"))), masks=True)
    assert objects(raw) == CAT
    assert list(raw.has_outline) == [0]
    assert problems == [
        "warning train/a.xml: polygons that are not `<x1>`, `<y1>`, `<x2>`, ... (not used) (1): "
        f"train/a.xml object 1 has {given!r}"
    ]


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        pytest.param(xml(thing()).replace("</object>", ""), "that are broken", "line 4 (mismatched tag)", id="broken"),
        pytest.param("", "that are broken", "line 1 (no element found)", id="empty"),
        pytest.param("<kml/>", "of another kind than Pascal VOC's", "(<kml> for <annotation>)", id="another kind"),
        pytest.param(
            '<!DOCTYPE a [<!ENTITY e "boom">]><annotation>&e;</annotation>',
            "that cannot be used",
            "(it defines entities)",
            id="entities",
        ),
        pytest.param(
            '<?xml version="1.0" encoding="klingon"?><annotation/>',
            "that cannot be used",
            "(unknown encoding: klingon)",
            id="an encoding that nobody knows",
        ),
    ],
)
def test_an_image_goes_with_its_broken_file(tmp_path: Path, content: str, kind: str, reason: str) -> None:
    write(dataset(tmp_path, xml(thing())), {"train/b.jpg": "", "train/b.xml": content})
    raw, problems = read_split(voc, tmp_path)
    assert raw.names == ["a.jpg"]
    assert problems == [f"warning train/b.xml: XML files {kind} (left out with their images) (1): train/b.xml {reason}"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(xml(thing(""), thing(""), thing()), "2 of 3 objects", id="objects"),
        pytest.param("<annotation>", "1 of 1 XML files", id="files"),
    ],
)
def test_where_most_cannot_be_used_that_is_an_error(tmp_path: Path, content: str, complaint: str) -> None:
    _, problems = read_split(voc, dataset(tmp_path, content))
    assert problems[0] == f"error train: {complaint} cannot be used: see the warnings for why"


def test_an_image_without_objects_is_background(tmp_path: Path) -> None:
    raw, problems = read_split(voc, dataset(tmp_path, xml()))
    assert raw.names == ["a.jpg"]
    assert len(raw.images) == 0
    assert problems == []


def test_the_name_of_the_file_counts_more_than_the_name_in_it(tmp_path: Path) -> None:
    write(tmp_path, {"train/a.xml": xml(thing(), filename="b.jpg"), "train/a.jpg": "", "train/b.jpg": ""})
    raw, problems = read_split(voc, tmp_path)
    assert raw.names == ["a.jpg"]
    assert problems == [
        "warning train/a.xml: XML files that name another picture than that of their own name (which is used) (1): "
        "train/a.xml names b.jpg"
    ]


@pytest.mark.parametrize(
    ("picture", "filename", "name"),
    [
        pytest.param("a.png", "a.jpg", "a.png", id="another suffix"),
        pytest.param("other.jpg", "other.jpg", "other.jpg", id="no picture of its own name"),
        pytest.param("other.jpg", "", "a.jpg", id="no picture: left to the rules for all formats"),
        pytest.param("é.jpg", "é.jpg", "é.jpg", id="accents"),
    ],
)
def test_which_picture_is_meant(tmp_path: Path, picture: str, filename: str, name: str) -> None:
    raw, problems = read_split(voc, write(tmp_path, {"train/a.xml": xml(filename=filename), f"train/{picture}": ""}))
    assert raw.names == [name]
    assert problems == []


def test_of_two_pictures_the_named_one(tmp_path: Path) -> None:
    raw, _ = read_split(
        voc, write(tmp_path, {"train/a.xml": xml(filename="a.png"), "train/a.jpg": "", "train/a.png": ""})
    )
    assert raw.names == ["a.png"]


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        pytest.param(
            {"train/a.xml": xml(), "val/a.xml": xml(), "test/a.xml": xml()},
            {"train": "train", "valid": "val", "test": "test"},
            id="Roboflow",
        ),
        pytest.param(
            {"train/annotations/a.xml": xml(), "train/images/a.jpg": "", "valid/Annotations/a.xml": xml()}
            | {"valid/a.jpg": ""},
            {"train": "train/images", "valid": "valid"},
            id="two folders for each split",
        ),
        pytest.param({"a.xml": xml(), "a.jpg": ""}, {"train": "."}, id="LabelImg"),
        pytest.param({"annotations/a.xml": xml(), "images/a.png": ""}, {"train": "images"}, id="two folders"),
        pytest.param({"VOCdevkit/VOC2012/Annotations/a.xml": xml(), "VOCdevkit/VOC2012/JPEGImages/a.jpg": ""},
            {"train": "VOCdevkit/VOC2012/JPEGImages"}, id="an unpacked archive"),
        pytest.param({"Train/a.xml": xml(), "Train/a.jpg": ""}, {"train": "Train"}, id="large letters"),
        pytest.param({"ANNOTATIONS/a.xml": xml(), "Images/a.jpg": ""}, {"train": "Images"}, id="others in them"),
        pytest.param({"train/a.xml": "<kml/>", "settings.xml": "<settings/>"}, {}, id="other XML"),
        pytest.param({"train/a.jpg": ""}, {}, id="no XML"),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, files: dict[str, str], splits: dict[str, str]) -> None:
    problems = Problems()
    found = voc.find(write(tmp_path, files), problems)
    assert {split: files.root for split, files in found.items()} == {
        split: tmp_path / folder for split, folder in splits.items()
    }
    assert voc.find(tmp_path / "missing", problems) == {}
    assert problems.found == []


def test_image_sets_of_the_devkit(tmp_path: Path) -> None:
    names = ("2007_1", "2007_2", "a b", "c.d")
    write(tmp_path, {f"Annotations/{name}.xml": xml(thing(), filename=f"{name}.jpg") for name in names})
    write(tmp_path, {f"JPEGImages/{name}.jpg": "" for name in names})
    sets = {"train": "2007_1\r\na b\nc.d\ngone\n\n", "val": "2007_2  1\n"}
    write(tmp_path, {f"ImageSets/Main/{name}.txt": text for name, text in sets.items()})
    train, problems = read_split(voc, tmp_path)
    assert train.names == ["2007_1.jpg", "a b.jpg", "c.d.jpg"]
    assert problems == [
        "warning ImageSets/Main/train.txt: images without an XML file in Annotations (left out) (1): line 4 gone"
    ]
    assert read_split(voc, tmp_path, "valid")[0].names == ["2007_2.jpg"]
    assert "test" not in voc.find(tmp_path, Problems())
