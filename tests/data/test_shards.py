import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rfdetr.config.datasets import ConvertConfig
from rfdetr.data.annotations import Annotations
from rfdetr.data.batches import EpochBatches, images_of_rank
from rfdetr.data.loading import evaluation_loader
from rfdetr.data.reading import read_dataset, read_split
from rfdetr.data.shards import PictureShards
from rfdetr.data.writing.convert import convert
from rfdetr.errors import DatasetError, ImageError

from .tiny_coco import annotation, image, write_coco
from .web_folder import served

COUNT = 7
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:webdataset")


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with names of all kinds, one of them turned, some with objects. Not to be changed."""
    root = tmp_path_factory.mktemp("dataset")
    names = ["b/x.v1.jpg", "ü ä.png", "b/x.v2.jpg", "turned.jpg", "a.png", "z.webp", "last.tif"]
    images = [image(n + 10, file_name=name) for n, name in enumerate(names)]
    rows = [
        annotation(n + 1, image_id=10 + n % 3, bbox=[n, 2, 20.5, 9], segmentation=[rectangle(n, 2, 20.5, 9)])
        for n in range(8)
    ]
    for split in ("train", "valid"):
        write_coco(root, split, images, rows)
        (root / split / "b").mkdir()
        for number, name in enumerate(names):
            exif = Image.Exif()
            if name == "turned.jpg":
                exif[0x0112] = 6
            pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / name, exif=exif)
        for number in (1, 2):
            (root / split / f"{number}.png").unlink()
    return root


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in shards of three pictures. Not to be changed."""
    root = tmp_path_factory.mktemp("shards") / "dataset"
    convert(ConvertConfig(dataset_dir=folder, output_dir=root, shards=3))
    return root


@pytest.fixture
def own(shards: Path, tmp_path: Path) -> Path:
    """A copy of them that may be changed."""
    return Path(shutil.copytree(shards, tmp_path / "own"))


def assert_same_split(split: Annotations, other: Annotations) -> None:
    for name, value in vars(split).items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, getattr(other, name)), name
    assert (split.segmentations is None) == (other.segmentations is None)
    for name, value in vars(split.segmentations).items() if split.segmentations else ():
        assert np.array_equal(value, getattr(other.segmentations, name)), name
    assert (split.classes, split.category_id_of) == (other.classes, other.category_id_of)
    for index in range(len(split)):
        assert split.pictures.name(index) == other.pictures.name(index)
        assert np.array_equal(np.asarray(split.pictures.load(index)), np.asarray(other.pictures.load(index)))


@pytest.mark.parametrize("masks", [False, True])
def test_shards_are_the_folder_that_they_were_made_from(folder: Path, shards: Path, masks: bool) -> None:
    expected, found = read_dataset(folder, masks=masks), read_dataset(shards, masks=masks)
    assert found.format == "webdataset"
    assert list(found.splits) == ["train", "valid"]
    for split, annotations in expected.splits.items():
        assert_same_split(annotations, found.splits[split])
        taken = np.array([5, 1])
        assert_same_split(annotations.subset(taken), found.splits[split].subset(taken))
    assert [problem.message for problem in found.problems] == [problem.message for problem in expected.problems]


def test_their_files(shards: Path) -> None:
    assert sorted(path.name for path in (shards / "train").iterdir()) == [
        *("_annotations.coco.json", "_shards.json"),
        *("shard-000000.tar", "shard-000001.tar", "shard-000002.tar"),
    ]
    with tarfile.open(shards / "train/shard-000001.tar") as tar:
        assert tar.getnames() == [f"{key}.{kind}" for key in ("000000003", "000000004", "000000005") for kind in
                                  (("json", "png") if key[-1] == "4" else
                                   ("json", "webp") if key[-1] == "5" else ("jpg", "json"))]  # fmt: skip
        assert {member.mtime for member in tar} == {0}, "the same bytes whenever they are written"


def test_webdataset_reads_them(folder: Path, shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = []
    for path in sorted((shards / "train").glob("*.tar")):
        with path.open("rb") as file:
            files = webdataset.tariterators.tar_file_expander([{"url": str(path), "stream": file}])
            samples += webdataset.tariterators.group_by_keys(files)
    rows = [json.loads(sample["json"]) for sample in samples]
    assert [sample["__key__"] for sample in samples] == [f"{index:09d}" for index in range(COUNT)]
    assert rows[0]["file_name"] == "b/x.v1.jpg"
    assert samples[0]["jpg"] == (folder / "train/b/x.v1.jpg").read_bytes()
    assert [len(row["annotations"]) for row in rows] == [3, 3, 2, 0, 0, 0, 0]
    assert rows[0]["annotations"][0] == {
        "id": 1,
        "image_id": 10,
        "category_id": 3,
        "bbox": [0, 2, 20.5, 9],
        "area": 300,
        "iscrowd": 0,
        "segmentation": [rectangle(0, 2, 20.5, 9)],
        "category": "cat",
    }


def test_they_are_converted_back(folder: Path, shards: Path, tmp_path: Path) -> None:
    convert(ConvertConfig(dataset_dir=shards, output_dir=tmp_path / "back"))
    back = read_dataset(tmp_path / "back", masks=True)
    assert_same_split(read_dataset(folder, masks=True).splits["valid"], back.splits["valid"])
    with pytest.raises(DatasetError, match=r"link=hard: the pictures lie in shards"):
        convert(ConvertConfig(dataset_dir=shards, output_dir=tmp_path / "linked", link="hard"))


def test_without_an_index_they_are_read_anew(folder: Path, own: Path) -> None:
    (own / "train/_shards.json").unlink()
    names = sorted(own.rglob("*"))
    for _ in range(2):  # the second time, from what was kept
        assert_same_split(read_split(folder, "train"), read_split(own, "train"))
    assert sorted(own.rglob("*")) == names, "the dataset stays as it is"


def test_shards_of_pictures_alone_need_no_json(own: Path) -> None:
    (own / "train/_shards.json").unlink()
    for file in (own / "train").glob("*.tar"):
        file.unlink()
    write_coco(own / "plain")
    with tarfile.open(own / "train/any.tar", "w") as tar:
        tar.add(own / "plain/train/1.png", "1.png")
        tar.add(own / "plain/train/2.png", "2.png")
    shutil.copy(own / "plain/train/_annotations.coco.json", own / "train")
    assert_same_split(read_split(own / "plain", "train"), read_split(own, "train"))


def cut(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])


def cut_without_index(folder: Path, length: int) -> None:
    cut(folder / "shard-000001.tar", length)
    (folder / "_shards.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(
            lambda folder: cut(folder / "shard-000001.tar", 5000),
            r"_shards.json: 1 of 3 shards are not as it says: shard-000001.tar has 5000 bytes\. Copy them anew",
            id="cut off",
        ),
        pytest.param(
            lambda folder: (folder / "shard-000002.tar").unlink(),
            r"_shards.json: 1 of 3 shards are not as it says: shard-000002.tar is missing",
            id="missing",
        ),
        pytest.param(
            lambda folder: cut_without_index(folder, 5000),
            r"shard-000001.tar: not a whole tar file: .*Copy it anew",
            id="cut off, without an index",
        ),
        pytest.param(
            lambda folder: cut_without_index(folder, 512 * 4),
            r"shard-000001.tar: not a whole tar file: ",
            id="cut off between blocks, without an index",
        ),
        pytest.param(
            lambda folder: (folder / "_shards.json").write_text("[]"),
            r"_shards.json: expected an object \{\.\.\.\}, got a list",
            id="another index",
        ),
        pytest.param(
            lambda folder: (folder / "_shards.json").write_text('{"shards": [{"name": "../a.tar"}]}'),
            r"_shards.json: not an index of shards. Delete it, and it is made anew from the shards",
            id="not an index",
        ),
        pytest.param(
            lambda folder: (folder / "_annotations.coco.json").unlink(),
            r"train: tar files without _annotations.coco.json, which says what is in their pictures",
            id="without annotations",
        ),
    ],
)
def test_what_is_wrong_with_shards_is_named(damage: Callable[[Path], None], message: str, own: Path) -> None:
    damage(own / "train")
    shutil.rmtree(own / "valid")
    with pytest.raises(DatasetError, match=message):
        read_dataset(own).usable()


def test_a_shard_that_is_damaged_later_is_named_with_the_picture(own: Path) -> None:
    pictures = read_split(own, "train").pictures
    cut(own / "train/shard-000002.tar", 100)
    with pytest.raises(ImageError, match=r"^last.tif: \S*shard-000002.tar is cut off$"):
        pictures.load(6)
    (own / "train/shard-000001.tar").unlink()
    with pytest.raises(ImageError, match=r"^a.png: \S*shard-000001.tar cannot be read: No such file or directory$"):
        pictures.load(4)


@pytest.fixture
def address(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    monkeypatch.setenv("RFDETR_CACHE", str(tmp_path / "cache"))
    with served(own) as (url, asked):
        yield url, asked


def test_a_dataset_at_an_address_is_the_same(folder: Path, own: Path, address: tuple[str, list[str]]) -> None:
    url, asked = address
    found = read_dataset(url, masks=True)
    expected = read_dataset(folder, masks=True)
    assert not [path for path in asked if path.endswith(".tar")]
    found.splits["train"].pictures.load(4)
    assert [path for path in asked if path.endswith(".tar")] == ["/train/shard-000001.tar"], (
        "what is needed, when it is"
    )
    for _ in range(2):
        assert_same_split(expected.splits["train"], found.splits["train"])
    assert Counter(asked)["/train/shard-000001.tar"] == 1
    again = read_dataset(url, masks=True)
    assert_same_split(expected.splits["train"], again.splits["train"])
    assert max(count for path, count in Counter(asked).items() if not path.endswith("_shards.json")) == 1
    assert read_dataset(f"file://{own}").splits["train"].pictures.name(0) == "b/x.v1.jpg"


def test_loader_processes_fetch_what_they_need(folder: Path, address: tuple[str, list[str]]) -> None:
    split = read_split(address[0], "train")
    split.pictures.load(0)  # so that the processes begin with what this one has open
    batches = [
        batch
        for annotations, num_workers in ((read_split(folder, "train"), 0), (split, 2))
        for batch in evaluation_loader(annotations, 32, batch_size=COUNT, num_workers=num_workers)
    ]
    assert torch.equal(batches[0].images, batches[1].images)


def test_other_content_at_an_address_is_noticed(own: Path, address: tuple[str, list[str]]) -> None:
    pictures = read_split(address[0], "train").pictures
    file = own / "train/shard-000000.tar"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(
        ImageError, match=r"^b/x.v1.jpg: \S*/train/shard-000000.tar: is not the file that its index describes"
    ):
        pictures.load(0)
    assert isinstance(pictures, PictureShards)


@pytest.mark.parametrize(
    ("dataset_dir", "message"),
    [
        pytest.param(
            "{}/nothing", r"^\S*/nothing: no train/_shards.json. From an address, datasets of tar shards", id="404"
        ),
        pytest.param(
            "nope://a", r"^nope://a/train/_shards.json: Protocol not known: nope. Known are s3://", id="unknown"
        ),
        pytest.param(
            "s3://a", r"^s3://a/train/_shards.json: the package for this protocol is missing: .*s3fs", id="s3"
        ),
    ],
)
def test_addresses_without_a_dataset(dataset_dir: str, message: str, address: tuple[str, list[str]]) -> None:
    with pytest.raises(DatasetError, match=message):
        read_dataset(dataset_dir.format(address[0]))


SHARD_OF = np.repeat(np.arange(10), 10)


def of_ranks(world_size: int, shards: np.ndarray | None = SHARD_OF, epoch: int = 0) -> list[list[list[int]]]:
    """The images of each step of each rank."""
    return [
        [
            [request.index for request in step]
            for step in EpochBatches(
                100,
                2,
                2,
                seed=3,
                rank=rank,
                world_size=world_size,
                scale_of_step=lambda _: 1,
                shards=shards,
                epoch=epoch,
            )
        ]
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_take_the_images_of_their_own_shards(world_size: int) -> None:
    for epoch in (0, 1):
        ranks = of_ranks(world_size, epoch=epoch)
        seen = Counter(index for rank in ranks for step in rank for index in step)
        assert set(seen) == set(range(100))
        assert len({len(rank) for rank in ranks}) == 1
        assert set(seen.values()) <= {1, 2}, "none again, but to fill the last steps"
        for rank, steps in enumerate(ranks):
            own = {int(SHARD_OF[index]) for step in steps for index in step}
            assert len(own) <= -(-10 // world_size) + 1
            assert own == set(SHARD_OF[images_of_rank(100, rank, world_size, SHARD_OF)].tolist()), "in every epoch"
    assert of_ranks(world_size) == of_ranks(world_size)
    assert of_ranks(world_size) != of_ranks(world_size, epoch=1)


def test_with_one_rank_shards_change_nothing() -> None:
    assert of_ranks(1) == of_ranks(1, shards=None)


def test_an_evaluation_sees_every_image_once() -> None:
    images = [images_of_rank(100, rank, 3, SHARD_OF[::-1]) for rank in range(3)]
    assert sorted(np.concatenate(images).tolist()) == list(range(100))
    assert [len(own) for own in images] == [34, 33, 33]
