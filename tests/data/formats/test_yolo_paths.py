from pathlib import Path

import pytest

from rfdetr.config.runs import Split
from rfdetr.data.formats import yolo
from rfdetr.data.problems import Problems

from .dirty import objects, read_split, texts, write

NAMES = "names: [cat]\n"
BOX = "0 .5 .5 .2 .2"
ROBOFLOW = {
    f"{split}/{kind}/{split}.{suffix}": BOX
    for split in ("train", "valid", "test")
    for kind, suffix in (("images", "jpg"), ("labels", "txt"))
}
ULTRALYTICS = {
    f"{kind}/{split}/{split}.{suffix}": BOX
    for split in ("train", "val", "test")
    for kind, suffix in (("images", "jpg"), ("labels", "txt"))
}


def images(root: Path) -> tuple[dict[Split, list[str]], list[str]]:
    """Names of the images with a label, by split, and the problems."""
    problems = Problems()
    splits = {
        split: [image for image, *_ in objects(yolo.read(files, False, problems))]
        for split, files in yolo.find(root, problems).items()
    }
    return splits, texts(problems, root)


ALL: dict[Split, list[str]] = {"train": ["train.jpg"], "valid": ["valid.jpg"], "test": ["test.jpg"]}
ALL_OF_ULTRALYTICS: dict[Split, list[str]] = {"train": ["train.jpg"], "valid": ["val.jpg"], "test": ["test.jpg"]}


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param(
            "train: ../train/images\nval: ../valid/images\ntest: ../test/images", id="as Roboflow writes them"
        ),
        pytest.param("train: train/images\nvalid: valid/images\ntest: test/images", id="key valid"),
        pytest.param("train: ./train/images/\nval: valid\\images\ntest: test/images/.", id="dots and backslashes"),
        pytest.param("path: .\ntrain: [train/images]\nval:\n- valid/images\ntest: test/images", id="lists"),
        pytest.param("path: ../datasets/gone\ntrain: train/images\nval: valid/images\ntest: test/images", id="moved"),
        pytest.param("path: /gone\ntrain: train/images\nval: valid/images\ntest: test/images", id="moved, absolute"),
        pytest.param("", id="no keys"),
        pytest.param("train: ~\nval: ''\ntest: null", id="keys without a value"),
    ],
)
def test_roboflow_layout(tmp_path: Path, paths: str) -> None:
    assert images(write(tmp_path, {"data.yaml": NAMES + paths, **ROBOFLOW})) == (ALL, [])


@pytest.mark.parametrize(
    "paths",
    [
        pytest.param("train: images/train\nval: images/val\ntest: images/test", id="no path"),
        pytest.param("path: ROOT\ntrain: images/train\nval: images/val\ntest: images/test", id="absolute path"),
        pytest.param("path: ../NAME\ntrain: images/train\nval: images/val\ntest: images/test", id="path to itself"),
        pytest.param("path: images\ntrain: train\nval: val\ntest: test", id="path inside"),
        pytest.param("train: ROOT/images/train\nval: ROOT/images/val\ntest: ROOT/images/test", id="absolute splits"),
        pytest.param("", id="no keys"),
    ],
)
def test_ultralytics_layout(tmp_path: Path, paths: str) -> None:
    text = paths.replace("ROOT", str(tmp_path)).replace("NAME", tmp_path.name)
    assert images(write(tmp_path, {"data.yaml": NAMES + text, **ULTRALYTICS})) == (ALL_OF_ULTRALYTICS, [])


def test_an_absolute_path_is_the_dataset_wherever_the_yaml_lies(tmp_path: Path) -> None:
    write(tmp_path / "data", ULTRALYTICS)
    file = (
        write(tmp_path, {"configs/my.yaml": f"{NAMES}path: {tmp_path}/data\ntrain: images/train"}) / "configs/my.yaml"
    )
    assert images(file)[0] == ALL_OF_ULTRALYTICS
    assert images(file.parent)[0] == ALL_OF_ULTRALYTICS


def test_a_path_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "datasets/mine", {"data.yaml": NAMES + "path: datasets/mine/sub\ntrain: images/train"})
    write(tmp_path / "datasets/mine/sub", ULTRALYTICS)
    monkeypatch.chdir(tmp_path)
    for root in (Path("datasets/mine"), tmp_path / "datasets/mine"):
        assert images(root) == (ALL_OF_ULTRALYTICS, [])


def test_absolute_paths_of_another_machine(tmp_path: Path) -> None:
    yaml = NAMES + "train: /content/Cats-1/train/images\nval: C:\\Cats-1\\valid\\images"
    found, problems = images(write(tmp_path, {"data.yaml": yaml, **ROBOFLOW}))
    assert found == ALL
    assert problems == [
        "warning data.yaml: train: /content/Cats-1/train/images: no such folder; train/images is read instead",
        "warning data.yaml: val: C:\\Cats-1\\valid\\images: no such folder; valid/images is read instead",
    ]


@pytest.mark.parametrize(
    ("paths", "complaints"),
    [
        pytest.param(
            "train: x/images",
            ["warning data.yaml: train: x/images: no such folder or text file in ROOT. train/images is read instead"],
            id="the usual folder stands in",
        ),
        pytest.param(
            "train: [train/images, more/images]",
            ["error data.yaml: train: more/images: no such folder or text file in ROOT"],
            id="one of several",
        ),
        pytest.param("train: train/images/train.jpg", [
            "warning data.yaml: train: train/images/train.jpg: is neither a folder of images nor a text file (.txt) of "
            "their paths. train/images is read instead"
        ], id="a picture"),
    ],
)  # fmt: skip
def test_what_is_named_and_not_there(tmp_path: Path, paths: str, complaints: list[str]) -> None:
    found, problems = images(write(tmp_path, {"data.yaml": f"{NAMES}{paths}", **ROBOFLOW}))
    assert found["train"] == ["train.jpg"]
    assert problems == complaints


def test_a_missing_training_or_validation_split_is_an_error_and_a_missing_test_split_is_not(tmp_path: Path) -> None:
    yaml = NAMES + "path: /gone\ntrain: a\nval: b\ntest: c"
    found, problems = images(write(tmp_path, {"data.yaml": yaml, "x/a.jpg": ""}))
    assert found == {}
    assert problems == [
        "error data.yaml: train: a: no such folder or text file in ROOT",
        "error data.yaml: val: b: no such folder or text file in ROOT",
        "warning data.yaml: test: c: no such folder or text file in ROOT",
        "warning data.yaml: path: /gone: no such folder inside ROOT. Remove the line, or give the absolute path of the "
        "dataset's folder",
    ]


def test_nothing_to_read_at_all(tmp_path: Path) -> None:
    assert images(write(tmp_path, {"data.yaml": NAMES}))[1] == [
        "error data.yaml: no `train` or `val`, and neither train/images nor images/train beside it. Name the folders "
        "of images: `train: train/images`, `val: valid/images`"
    ]


@pytest.mark.parametrize("path", ["../other/images", "ROOT/../other/images", "x/../../other/images"])
def test_nothing_outside_of_the_dataset_is_read(tmp_path: Path, path: str) -> None:
    root = tmp_path / "mine"
    write(tmp_path, {"other/images/secret.jpg": "", "other/labels/secret.txt": BOX})
    path = path.replace("ROOT", str(root))
    found, problems = images(write(root, {"data.yaml": f"{NAMES}train: {path}"}))
    assert found == {}
    assert problems == [
        f"error data.yaml: train: {path.replace(f'{root}/', '')}: leads to {tmp_path}/other/images, out of the dataset "
        "ROOT. Move it inside, or set `path` to the absolute path of a folder that holds all splits"
    ]


def test_a_neighbour_is_not_taken_for_what_roboflow_means(tmp_path: Path) -> None:
    write(tmp_path, {"train/images/neighbour.jpg": ""})
    yaml = {"data.yaml": NAMES + "train: ../train/images"}
    assert images(write(tmp_path / "mine", yaml | ROBOFLOW)) == (ALL, [])


@pytest.mark.parametrize("path", ["x" * 5000, "x/" * 3000])
def test_paths_that_no_folder_can_have(tmp_path: Path, path: str) -> None:
    yaml = f"{NAMES}path: {path}\ntrain: [train/images, {path}, list.txt]"
    found, problems = images(write(tmp_path, {"data.yaml": yaml, "list.txt": f"{path}\na\0b\n/{path}", **ROBOFLOW}))
    assert found["train"] == ["train/images/train.jpg"]
    assert any("line 2 'a\\x00b'" in problem for problem in problems)
    assert not any("File name too long" in problem for problem in problems)


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, {"store/images/a.jpg": "", "store/labels/a.txt": BOX, "mine/data.yaml": NAMES})
    (tmp_path / "mine/train").symlink_to(tmp_path / "store")
    (tmp_path / "store/images/again").symlink_to(tmp_path / "store/images")
    assert images(tmp_path / "mine") == ({"train": ["a.jpg"]}, [])


@pytest.mark.parametrize(
    ("line", "is_read"),
    [
        pytest.param("./images/train/train.jpg", True, id="from the folder of the text file"),
        pytest.param("images/train/train.jpg", True, id="from the root"),
        pytest.param("ROOT/images/train/train.jpg", True, id="absolute"),
        pytest.param("images\\train\\train.jpg \r", True, id="as Windows writes it"),
        pytest.param("../NAME/images/train/train.jpg", True, id="out and in again"),
        pytest.param("/etc/train.jpg", False, id="absolute, outside"),
        pytest.param("../images/train/train.jpg", False, id="out of the dataset"),
    ],
)
def test_lines_of_a_text_file(tmp_path: Path, line: str, is_read: bool) -> None:
    line = line.replace("ROOT", str(tmp_path)).replace("NAME", tmp_path.name)
    lists = {"train.txt": f"# list\n\n{line}\nimages/val/val.jpg\n"}
    found, problems = images(write(tmp_path, {"data.yaml": NAMES + "train: train.txt", **lists, **ULTRALYTICS}))
    assert found["train"] == ["images/train/train.jpg"] * is_read + ["images/val/val.jpg"]
    assert problems == (
        []
        if is_read
        else [f"warning train.txt: paths that lead out of the dataset ROOT (left out) (1): line 3 {line.strip()!r}"]
    )


def test_text_files_below_the_root_and_lists_of_them(tmp_path: Path) -> None:
    lists = {"lists/a.txt": "./../images/train/train.jpg", "lists/b.txt": "./images/gone.jpg\nimages/val/val.jpg"}
    yaml = NAMES + "train: [lists/a.txt, lists/b.txt]"
    raw, problems = read_split(yolo, write(tmp_path, {"data.yaml": yaml, **lists, **ULTRALYTICS}))
    # What is not there is left to the rules for all formats.
    assert sorted(raw.names) == ["images/train/train.jpg", "images/val/val.jpg", "lists/images/gone.jpg"]
    assert problems == []


@pytest.mark.parametrize(
    ("image", "label"),
    [
        pytest.param("a/images/x/1.jpg", "a/labels/x/1.txt", id="images swapped for labels"),
        pytest.param("images/a/images/1.jpg", "images/a/labels/1.txt", id="the rightmost"),
        pytest.param("images/a/images/1.jpg", "labels/a/images/1.txt", id="the rightmost that has labels"),
        pytest.param("a/1.jpg", "a/labels/1.txt", id="labels among the images"),
        pytest.param("a/1.jpg", "a/1.txt", id="beside the image"),
        pytest.param("images/1.jpg", "images/1.txt", id="beside the image in images"),
    ],
)
def test_where_labels_lie(tmp_path: Path, image: str, label: str) -> None:
    top = image.partition("/")[0]
    raw, problems = read_split(yolo, write(tmp_path, {"data.yaml": f"{NAMES}train: {top}", image: "", label: BOX}))
    assert [name for name, *_ in objects(raw)] == [image.removeprefix(f"{top}/")]
    assert problems == []


def test_several_folders_are_named_from_the_root(tmp_path: Path) -> None:
    yaml = NAMES + "train: [images/train, images/val]"
    files = yolo.find(write(tmp_path, {"data.yaml": yaml, **ULTRALYTICS}), Problems())["train"]
    assert yolo.read(files, False, Problems()).names == ["images/train/train.jpg", "images/val/val.jpg"]
    assert files.file == tmp_path / "data.yaml"
    assert set(files.watched) == {
        tmp_path / part for part in ("data.yaml", "images/train", "images/val", "labels/train", "labels/val")
    }


def test_a_folder_without_images(tmp_path: Path) -> None:
    write(tmp_path, {"data.yaml": NAMES, "train/images/readme.md": ""})
    assert read_split(yolo, tmp_path)[1] == ["warning train/images: no images in it"]


@pytest.mark.parametrize(
    ("files", "yaml", "remark"),
    [
        pytest.param({"Train/Images/a.jpg": "", "Train/Labels/a.txt": BOX}, "", None, id="no keys"),
        pytest.param({"Train/Images/a.jpg": "", "Train/Labels/a.txt": BOX}, "train: Train/Images", None, id="as named"),
        pytest.param(
            {"Train/Images/a.jpg": "", "Train/Labels/a.txt": BOX},
            "train: ../train/images",
            "warning data.yaml: train: ../train/images: no such folder; Train/Images is read instead",
            id="named otherwise",
        ),
        pytest.param({"Images/Train/a.jpg": "", "Labels/Train/a.txt": BOX}, "", None, id="Ultralytics"),
        pytest.param({"train/images/a.jpg": "", "train/Labels/a.txt": BOX}, "", None, id="labels alone"),
    ],
)
def test_folders_in_large_letters(tmp_path: Path, files: dict[str, str], yaml: str, remark: str | None) -> None:
    found, problems = images(write(tmp_path, {"data.yaml": NAMES + yaml, **files}))
    assert found == {"train": ["a.jpg"]}
    assert problems == ([remark] if remark else [])


@pytest.mark.parametrize(
    ("line", "is_said"),
    [("/content/set/images/train/train.jpg", True), ("D:\\set\\images\\train\\train.jpg", True),
     ("data/images/train/train.jpg", False)],
)  # fmt: skip
def test_lists_of_another_machine(tmp_path: Path, line: str, is_said: bool) -> None:
    lists = {"train.txt": f"{line}\n"}
    found, problems = images(write(tmp_path, {"data.yaml": NAMES + "train: train.txt", **lists, **ULTRALYTICS}))
    assert found["train"] == ["images/train/train.jpg"]
    assert [problem.partition(" (1): ")[0] for problem in problems] == [
        "warning train.txt: images that are somewhere else (used)"
    ] * is_said


def test_a_link_that_leads_to_itself_is_no_image(tmp_path: Path) -> None:
    write(tmp_path, {"data.yaml": NAMES, **ROBOFLOW})
    for name in ("train/images/self.jpg", "train/images/folder"):
        (tmp_path / name).symlink_to(tmp_path / name)
    assert images(tmp_path) == (ALL, [])
