import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from rfdetr.data.images import decode
from rfdetr.data.pixel_cache import CachedPictures, Kind, cached
from rfdetr.data.resampling import Picture, picture_hw
from rfdetr.errors import ConfigError, ImageError

AT_LEAST = 20
RNG = np.random.default_rng(0)


@dataclass
class Folder:
    """Numbered pictures."""

    root: Path
    suffix: str = ".png"

    def name(self, index: int) -> str:
        return f"{index}{self.suffix}"

    def load(self, index: int, at_least: int | None = None) -> Picture:
        return decode(self.root / self.name(index), at_least=at_least, num_channels=3 if self.suffix == ".png" else 2)

    def configured(self, num_channels: int, max_megapixels: float | None) -> "Folder":
        return self

    def take(self, rows: Any) -> "Folder":
        return self


def draw(root: Path, sizes_hw: list[tuple[int, int]]) -> tuple[Folder, Any]:
    for index, (height, width) in enumerate(sizes_hw):
        Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(root / f"{index}.png")
    return Folder(root), np.array(sizes_hw, np.int64)


SIZES = [(40, 60), (41, 25), (90, 200), (10, 10), (7, 30)]


@pytest.fixture(params=["ram", "disk"])
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


def test_a_second_look_needs_no_file(tmp_path: Path, kind: Kind) -> None:
    """`cache`: the same pixels, at the scale that was asked for."""
    folder, sizes_hw = draw(tmp_path, SIZES)
    pictures = cached(folder, sizes_hw, AT_LEAST, kind, tmp_path)
    expected = [folder.load(index, AT_LEAST).tobytes() for index in range(len(SIZES))]
    assert [pictures.load(index, AT_LEAST).tobytes() for index in range(len(SIZES))] == expected
    for file in tmp_path.glob("*.png"):
        file.unlink()
    again = [pictures.load(index, AT_LEAST) for index in range(len(SIZES))]
    assert [picture.tobytes() for picture in again] == expected
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImageError, match=r"0\.png: no such file"):
        pictures.load(0)  # at another scale


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_bit_of_deep_pictures_is_kept(tmp_path: Path, kind: Kind, dtype: Any) -> None:
    pixels = RNG.integers(0, 256, (30, 35, 2)).astype(dtype) / (255 if dtype is np.float32 else 1)
    np.save(tmp_path / "0.npy", pixels.astype(dtype))
    pictures = cached(Folder(tmp_path, ".npy"), np.array([[30, 35]]), AT_LEAST, kind, tmp_path)
    first = pictures.load(0, AT_LEAST)
    (tmp_path / "0.npy").unlink()
    again = pictures.load(0, AT_LEAST)
    assert isinstance(again, np.ndarray)
    assert again.dtype == dtype
    assert (again == first).all()


def test_as_many_as_fit_are_kept_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 2 KiB the five entries take 128 bytes, the smallest two pictures 320 and 640; the next one would take 1856."""
    folder, sizes_hw = draw(tmp_path, SIZES)
    pictures = cached(folder, sizes_hw, AT_LEAST, "ram", max_bytes=2048)
    assert capsys.readouterr().out.startswith("cache: 2 of 5 pictures in memory, 0 MiB at most of 0 MiB: no more")
    assert pictures.cache.num_bytes <= 2048
    loaded = [pictures.load(index, AT_LEAST).tobytes() for index in range(len(SIZES))]
    kept = [index for index in range(len(SIZES)) if pictures.cache.get(index) is not None]
    assert kept == [3, 4]
    assert [pictures.load(index, AT_LEAST).tobytes() for index in range(len(SIZES))] == loaded
    cached(folder, sizes_hw, AT_LEAST, "disk", tmp_path)
    assert capsys.readouterr().out == f"cache: 5 of 5 pictures in a file in {tmp_path}, 0 MiB at most\n"


def test_by_default_half_of_what_is_free_is_the_most(tmp_path: Path) -> None:
    folder, _ = draw(tmp_path, [(40, 60)])
    many = np.full((4000, 2), 30000, np.int64)  # 10 TB, of which nothing is taken yet
    pictures = cached(folder, many, 30000, "ram", num_processes=2)
    assert 0 < pictures.cache.num_bytes <= psutil.virtual_memory().total / 4
    assert pictures.cache.num_places < 4000


def test_a_picture_that_is_not_what_its_header_said_is_not_kept(tmp_path: Path) -> None:
    folder, sizes_hw = draw(tmp_path, [(10, 10), (30, 30)])
    pictures = cached(folder, sizes_hw[[0, 0]], AT_LEAST, "ram")
    assert [picture_hw(pictures.load(1, AT_LEAST)) for _ in range(2)] == [(30, 30)] * 2
    assert pictures.cache.get(1) is None


def test_pictures_that_cannot_be_read_stay_so(tmp_path: Path) -> None:
    folder, sizes_hw = draw(tmp_path, [(10, 10), (30, 30)])
    (tmp_path / "0.png").write_bytes(b"")
    pictures = cached(folder, sizes_hw, AT_LEAST, "ram")
    for _ in range(2):
        with pytest.raises(ImageError, match=r"0\.png: is empty"):
            pictures.load(0, AT_LEAST)


def load_all(pictures: CachedPictures, count: int) -> None:
    for index in range(count):
        pictures.load(index, AT_LEAST)


@pytest.mark.parametrize(("method", "kind"), [("fork", "ram"), ("fork", "disk"), ("forkserver", "ram")])
def test_what_one_process_decodes_all_can_read(tmp_path: Path, method: str, kind: Kind) -> None:
    folder, sizes_hw = draw(tmp_path, SIZES)
    pictures = cached(folder, sizes_hw, AT_LEAST, kind, tmp_path)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=load_all, args=(pictures, len(SIZES)))
    process.start()
    process.join()
    assert process.exitcode == 0
    for index in range(len(SIZES)):
        found = pictures.cache.get(index)
        assert found is not None
        assert found.tobytes() == folder.load(index, AT_LEAST).tobytes()


def used(process: psutil.Process) -> int:
    """Memory of a process, of what it shares its part."""
    return int(process.memory_full_info().pss)


def test_memory_does_not_grow_with_the_number_of_processes(tmp_path: Path) -> None:
    """150 MB of pictures, read by three processes."""
    Image.fromarray(RNG.integers(0, 256, (1000, 1000, 3), dtype=np.uint8)).save(tmp_path / "0.png", compress_level=1)
    for index in range(1, 50):
        (tmp_path / f"{index}.png").hardlink_to(tmp_path / "0.png")
    pictures = cached(Folder(tmp_path), np.full((50, 2), 1000), 1000, "ram")
    context = multiprocessing.get_context("fork")
    done, over = context.Barrier(4), context.Event()

    def work() -> None:
        for index in range(50):
            pictures.load(index, 1000)
        done.wait()
        over.wait()

    before = used(psutil.Process())
    workers = [context.Process(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    done.wait()
    after = used(psutil.Process()) + sum(used(psutil.Process(worker.pid)) for worker in workers)
    over.set()
    for worker in workers:
        worker.join()
    assert after - before < 2 * 150e6


def test_a_full_disk_ends_the_filling_and_not_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, sizes_hw = draw(tmp_path, SIZES)
    pictures = cached(folder, sizes_hw, AT_LEAST, "disk", tmp_path)
    file = Path("/dev/full")
    if not file.exists():
        pytest.skip("needs /dev/full")
    os.dup2(os.open(file, os.O_RDWR), pictures.cache._file.descriptor)
    for _ in range(2):
        assert [pictures.load(index, AT_LEAST).tobytes() for index in range(5)] == [
            folder.load(index, AT_LEAST).tobytes() for index in range(5)
        ]
    assert capfd.readouterr().err == (
        "rfdetr: warning: cache: No space left on device; pictures that are not there yet are decoded each time\n"
    )


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    folder, sizes_hw = draw(tmp_path, [(10, 10)])
    with pytest.raises(ConfigError, match=r"^cache='disk': no file can be made in /proc/self: "):
        cached(folder, sizes_hw, AT_LEAST, "disk", Path("/proc/self"))
