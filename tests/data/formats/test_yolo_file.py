from pathlib import Path

import pytest

from rfdetr.data.formats import yolo
from rfdetr.data.problems import Problems

from .dirty import texts, write


def names_and_problems(root: Path, content: str | bytes, file: str = "data.yaml") -> tuple[list[str], list[str]]:
    problems = Problems()
    found = yolo.find(write(root, {file: content, "train/images/a.jpg": ""}), problems)
    return list(found["train"].parts.names) if found else [], texts(problems, root)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        pytest.param("names: [cat, dog]", ["cat", "dog"], id="list"),
        pytest.param("names:\n- cat\n- dog\nnc: 2", ["cat", "dog"], id="lines"),
        pytest.param("names:\n  0: cat\n  1: dog", ["cat", "dog"], id="by index"),
        pytest.param("names: {'1': dog, '0': cat}", ["cat", "dog"], id="by index as text, out of order"),
        pytest.param("names: [no, 1, 2.50, null]", ["no", "1", "2.50", "null"], id="names stay text"),
        pytest.param("\ufeffnames: [cat]\r\nnc: 1\r\n", ["cat"], id="byte order mark and Windows line ends"),
        pytest.param("names: [信号, 'traffic light', 'a: b']", ["信号", "traffic light", "a: b"], id="unicode"),
        pytest.param("names: [cat]\nnc:\nroboflow: {license: CC}\ndownload: x", ["cat"], id="other keys"),
    ],
)  # fmt: skip
def test_names(tmp_path: Path, content: str, names: list[str]) -> None:
    assert names_and_problems(tmp_path, content) == (names, [])


LINES = "expected lines `key: value` with `names`, `train` and `val`, got"
LIST = "names: expected a list of names, got"
KEYS = "the keys must be 0, 1, ... without a gap, got"
HOW = "Write the names in the order of their indices: `names: [cat, dog]`"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param("names: [cat, dog\ntrain: x", "not YAML in line 2: expected ',' or ']', but got ':'", id="broken"),
        pytest.param("a: x\n\tb: c", "not YAML in line 2: found character '\\t' that cannot start any token", id="tab"),
        pytest.param("names: [a]\nval: x\nnames: [b]", "not YAML in line 3: 'names' is there twice", id="a key twice"),
        pytest.param("a: b\nc: \x07", "not YAML in line 2: special characters are not allowed", id="control"),
        pytest.param("[" * 500, "not YAML: brackets in brackets without end", id="endless brackets"),
        pytest.param(b"names: [caf\xe9]", "not a text file in UTF-8 (save it with this encoding)", id="Latin-1"),
        pytest.param("cat\ndog", f"{LINES} 'cat dog'", id="text"),
        pytest.param("", f"{LINES} nothing", id="empty"),
        pytest.param("nc: 2", f"no names of classes. {HOW}", id="no names"),
        pytest.param("names:", f"no names of classes. {HOW}", id="names without any"),
        pytest.param("names: []", f"no names of classes. {HOW}", id="an empty list"),
        pytest.param("names: cat", f"{LIST} 'cat'. {HOW}", id="one name"),
        pytest.param("names: [[a, b], c]", f"{LIST} [['a', 'b'], 'c']. {HOW}", id="lists in it"),
        pytest.param("names: {a: 0}", f"names: expected the indices 0, 1, ... as keys, got 'a'. {HOW}", id="reversed"),
        pytest.param("names: {0: a, 2: b}", f"names: no index 1; {KEYS} ['0', '2']", id="a gap"),
        pytest.param("names: {1: a, 2: b}", f"names: no index 0; {KEYS} ['1', '2']", id="from 1"),
        pytest.param("names: {0: a, 00: b}", "names: an index is there twice, got ['0', '00']", id="an index twice"),
        pytest.param("names: [a, ' ']", "names: the one of index 1 is empty", id="an empty name"),
        pytest.param("names: [a, b, a]", "names: 'a' is there more than once (indices 0, 2)", id="a name twice"),
        pytest.param(
            "names: [traffic, light, car]\nnc: 2",
            "nc is '2', but there are 3 names. Mend one of them, or remove `nc`",
            id="another number of names",
        ),
        pytest.param("names: [a]\npath: [x]", "path: expected a folder, got ['x']", id="path no text"),
        pytest.param(
            "names: [a]\nval: {a: b}",
            "val: expected a folder, a text file of image paths or a list of them, got {'a': 'b'}",
            id="split no text",
        ),
        pytest.param("names: [a]\nkpt_shape: 17", "kpt_shape: expected [points, 2 or 3], got '17'", id="key points"),
    ],
)  # fmt: skip
def test_errors(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    assert names_and_problems(tmp_path, content) == ([], [f"error data.yaml: {complaint}"])


def test_all_errors_are_named_at_once(tmp_path: Path) -> None:
    assert names_and_problems(tmp_path, "names: [a, a]\npath: [x]\nkpt_shape: x")[1] == [
        "error data.yaml: names: 'a' is there more than once (indices 0, 1)",
        "error data.yaml: path: expected a folder, got ['x']",
        "error data.yaml: kpt_shape: expected [points, 2 or 3], got 'x'",
    ]


def test_which_yaml_is_read(tmp_path: Path) -> None:
    assert names_and_problems(tmp_path, "names: [only]", "coco8.yaml")[0] == ["only"]
    assert names_and_problems(tmp_path, "- not a mapping", "other.yml")[0] == ["only"]
    assert names_and_problems(tmp_path, "train: x", "second.yml")[0] == []  # which one?
    assert names_and_problems(tmp_path, "names: [yml]", "data.yml")[0] == ["yml"]
    assert names_and_problems(tmp_path, "names: [yaml]", "data.yaml")[0] == ["yaml"]
    assert yolo.find(tmp_path / "coco8.yaml", Problems())["train"].parts.names == ("only",)


@pytest.mark.parametrize("files", [{}, {"train/a.jpg": ""}, {"config.yaml": "lr: 1"}, {"data.yaml/x": ""}])
def test_other_folders_are_none_of_this_format(tmp_path: Path, files: dict[str, str]) -> None:
    problems = Problems()
    assert yolo.find(write(tmp_path, files), problems) == {}
    assert yolo.find(tmp_path / "missing", problems) == {}
    assert problems.found == []
