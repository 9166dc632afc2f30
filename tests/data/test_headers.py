import re
from pathlib import Path

import pytest
from PIL import Image

from rfdetr.data.coco import read_coco
from rfdetr.data.headers import check_headers
from rfdetr.errors import DatasetError

from .tiny_coco import write_coco


def test_good_pictures_pass_whichever_way_their_camera_was_held(tmp_path: Path) -> None:
    annotations = read_coco(write_coco(tmp_path), "train")
    path = annotations.image_path(0)
    height, width = annotations.size_hw(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (height, width)).save(path, exif=exif)
    check_headers(annotations)


def test_pictures_that_would_stop_a_run_are_named_before_it(tmp_path: Path) -> None:
    annotations = read_coco(write_coco(tmp_path), "train")
    path = annotations.image_path(0)
    height, width = annotations.size_hw(0)
    path.write_text("not a picture")
    with pytest.raises(DatasetError, match=re.escape(f"{path.name} is damaged or not an image")):
        check_headers(annotations)
    Image.new("RGB", (5, 7)).save(path)
    with pytest.raises(DatasetError, match=re.escape(f"is 5 x 7 pixels, listed as {width} x {height}")):
        check_headers(annotations)
