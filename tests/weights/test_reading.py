import argparse
import os
import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from rfdetr.errors import WeightsError
from rfdetr.weights.reading import read_file

CONTENT: dict[str, Any] = {"model": {"a": torch.arange(1000.0)}, "epoch": 3}


def write_torch(path: Path, content: Any = CONTENT) -> bytes:
    torch.save(content, path)
    return path.read_bytes()


def refusal(path: Path) -> str:
    """What is said of a file, without its name."""
    with pytest.raises(WeightsError) as caught:
        read_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["new.pth", "weights.safetensors", "no suffix"])
def test_a_torch_file_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    write_torch(tmp_path / name)
    content = read_file(tmp_path / name)
    assert content["epoch"] == 3
    assert torch.equal(content["model"]["a"], CONTENT["model"]["a"])


def test_so_is_a_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "named.pth"
    path.write_bytes(save({"a": torch.ones(2)}, {"args": '{"lr": 1}', "note": "{not JSON"}))
    content = read_file(path)
    assert content["args"] == {"lr": 1}
    assert content["note"] == "{not JSON"
    assert torch.equal(content["model"]["a"], torch.ones(2))


def test_a_file_in_the_format_before_zip_is_read(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_file(tmp_path / "old.pth")["epoch"] == 3


@pytest.mark.parametrize("kind", [argparse.Namespace, types.SimpleNamespace])
def test_settings_of_published_files_are_read(tmp_path: Path, kind: type) -> None:
    write_torch(tmp_path / "a.pth", {"args": kind(lr=1)})
    assert read_file(tmp_path / "a.pth")["args"].lr == 1


AGAIN = "; download or copy it again"
DAMAGED = f"damaged, or not a checkpoint of torch{AGAIN}"
PICKLE = pickle.dumps({"model": list(range(1000))}, protocol=2)


def zipped(folder: Path, compression: int, names: tuple[str, ...]) -> bytes:
    with zipfile.ZipFile(folder / "made.zip", "w", compression) as archive:
        for name in names:
            archive.writestr(name, bytes(100_000))
    return (folder / "made.zip").read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda f: b"", f"is empty{AGAIN}", id="empty"),
        pytest.param(
            lambda f: b"\n<!DOCTYPE html><html><body>404</body></html>",
            "is a web page, not weights; its address answered with a page. Download the file itself",
            id="a web page",
        ),
        pytest.param(
            lambda f: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`",
            id="a pointer",
        ),
        pytest.param(lambda f: b"not a checkpoint\n", "is a text file, not weights", id="text"),
        pytest.param(lambda f: "Ω".encode() * 400, "is a text file, not weights", id="text that the sample cuts"),
        pytest.param(
            lambda f: write_torch(f / "b")[:2000], f"is cut short or damaged{AGAIN}", id="half of a torch file"
        ),
        pytest.param(
            lambda f: zipped(f, zipfile.ZIP_STORED, ("photo.png",)),
            "is a zip archive, but not one of weights. If there is a checkpoint in it, unpack that",
            id="a zip archive",
        ),
        pytest.param(
            lambda f: zipped(f, zipfile.ZIP_STORED, ("m/data.pkl", "m/constants.pkl")),
            "is a TorchScript program, not a checkpoint",
            id="TorchScript",
        ),
        pytest.param(
            lambda f: zipped(f, zipfile.ZIP_DEFLATED, ("m/data.pkl", "m/data/0")),
            "is packed in a way that torch never writes; not opened",
            id="an archive that unpacks to any size",
        ),
        pytest.param(
            lambda f: save({"a": torch.ones(2)})[:-3],
            f"damaged, or not a safetensors file{AGAIN}: ",
            id="a safetensors file cut short",
        ),
        pytest.param(
            lambda f: save({"a": torch.ones(2)})[:12],
            f"damaged, or not a safetensors file{AGAIN}: ",
            id="in its header",
        ),
        pytest.param(lambda f: bytes(1000), DAMAGED, id="zeros"),
        pytest.param(lambda f: b"\x89PNG\r\n\x1a\n" + bytes(200), DAMAGED, id="a picture"),
        pytest.param(lambda f: PICKLE, DAMAGED, id="a pickle"),
        pytest.param(lambda f: PICKLE[:500], DAMAGED, id="a pickle cut short"),
        pytest.param(lambda f: pickle.dumps([1], protocol=4), DAMAGED, id="a newer pickle"),
        pytest.param(lambda f: write_torch(f / "b", [1]), "not a checkpoint: it holds a list", id="a list"),
    ],
)
def test_a_file_that_is_no_checkpoint(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(make(tmp_path))
    said = refusal(path)
    assert said.startswith(message) if message.endswith(": ") else said == message


def test_no_such_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.pth") == "no such file"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "is a folder; name the weight file in it"


class RunsCode:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, ("echo this would run",)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "older format"])
@pytest.mark.parametrize(("function", "name"), [(print, "print"), (os.system, "posix.system"), (Path, "pathlib.Path")])
def test_no_code_of_a_file_runs(
    tmp_path: Path, is_zip: bool, function: Any, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": {}, "args": RunsCode(function)}, path, _use_new_zipfile_serialization=is_zip)
    assert refusal(path) == (
        f"wants to run code when it is read: it asks for {name}, which weights do not need. "
        "If you trust where it comes from, open it with trust_checkpoint=True"
    )
    assert capfd.readouterr().out == ""


def test_a_file_that_is_trusted_may_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_torch(tmp_path / "mine.pth", {"model": {}, "args": RunsCode(print)})
    assert read_file(tmp_path / "mine.pth", trust=True)["args"] is None
    assert capsys.readouterr().out == "echo this would run\n"


def test_trust_does_not_mend_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(PICKLE[:500])
    with pytest.raises(WeightsError, match=r"file.pth: damaged, or not a checkpoint of torch \(\w+: .*\); download or"):
        read_file(path, trust=True)
