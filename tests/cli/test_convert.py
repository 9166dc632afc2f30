import subprocess
import sys
from pathlib import Path

import pytest

from rfdetr.cli.main import main


def test_convert_writes_a_dataset_without_loading_torch(shapes: Path, tmp_path: Path) -> None:
    arguments = ["convert", str(shapes), str(tmp_path / "yolo"), "--to", "yolo"]
    command = [sys.executable, "-X", "importtime", "-m", "rfdetr", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.splitlines()[-1] == f"written: {tmp_path / 'yolo'}"
    assert done.stdout.startswith("train: 8 images, ")
    assert (tmp_path / "yolo/data.yaml").is_file()
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "rfdetr.data.reading" in loaded
    assert loaded & {"torch", "webdataset", "fsspec", "tifffile"} == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["data"], "ConvertConfig: output_dir: required. Folder to write, ", id="no output"),
        pytest.param(
            ["data", "new", "--to", "voc"], "ConvertConfig: to: input should be 'coco' or 'yolo'", id="format"
        ),
        pytest.param(
            ["data", "new", "--to", "yolo", "--shards", "10"],
            "ConvertConfig: shards=10 have COCO's annotations; leave out to=yolo",
            id="shards of YOLO",
        ),
        pytest.param(
            ["data", "new", "--shards", "10", "--link", "hard"],
            "ConvertConfig: link=hard is for pictures that are files of their own; leave out shards",
            id="links in shards",
        ),
        pytest.param(["data", "new"], "data: no such folder. Give the folder of a dataset.", id="no dataset"),
    ],
)
def test_what_cannot_be_converted_is_said(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"rfdetr: {message}")
    assert list(tmp_path.iterdir()) == []


def test_shards_are_written_on_request(shapes: Path, tmp_path: Path) -> None:
    assert main(["convert", str(shapes), str(tmp_path / "shards"), "--shards", "3"]) == 0
    assert sorted(path.name for path in (tmp_path / "shards/train").glob("*.tar")) == [
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
    ]
