"""Puts the files of pictures into a dataset that is written: copied, linked, or as bytes."""

import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import Literal, TypeAlias

from rfdetr.data.annotations import Annotations
from rfdetr.data.exif import without_orientation
from rfdetr.data.headers import read_header
from rfdetr.data.shards import PictureShards
from rfdetr.data.sources import PictureFiles
from rfdetr.errors import DatasetError, ImageError

StoredPictures: TypeAlias = PictureFiles | PictureShards
Link: TypeAlias = Literal["hard", "symbolic"] | None

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}
"""What formats are called where it is not their name."""


def stored(annotations: Annotations) -> StoredPictures:
    """The pictures of a split as what can be copied.

    Raises:
        DatasetError: they are no files.
    """
    pictures = annotations.pictures
    if isinstance(pictures, PictureFiles | PictureShards):
        return pictures
    raise DatasetError(f"{annotations.annotation_file}: only datasets whose pictures are files can be converted")


def content(pictures: StoredPictures, index: int) -> bytes:
    """The file of a picture.

    Raises:
        ImageError: it cannot be read; names it.
    """
    if isinstance(pictures, PictureShards):
        return pictures.read(index)
    try:
        return pictures.path(index).read_bytes()
    except OSError as error:
        raise ImageError(f"{pictures.path(index)}: cannot be read: {error.strerror}") from None


def suffix(pictures: StoredPictures, index: int) -> str:
    """What files of a picture's format are called, with the dot."""
    kind = read_header(BytesIO(content(pictures, index)), pictures.name(index)).format
    return _SUFFIXES.get(kind, f".{kind.lower()}")


def place(pictures: StoredPictures, index: int, target: Path, link: Link) -> None:
    """Put the file of a picture at a new place.

    Raises:
        OSError: it cannot be written.
        ImageError: it cannot be read; names it.
        DatasetError: it cannot be linked; says what to do.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pictures, PictureShards):
        if link is not None:
            raise DatasetError(f"link={link}: the pictures lie in shards, not in files of their own. Leave link out")
        target.write_bytes(content(pictures, index))
        return
    source = os.path.realpath(pictures.path(index))
    if not Path(source).is_file():
        raise ImageError(f"{source}: no such file any more")
    if link is None:
        shutil.copyfile(source, target)
    elif link == "symbolic":
        target.symlink_to(source)
    else:
        try:
            os.link(source, target)
        except OSError as error:
            raise DatasetError(
                f"{source}: cannot be hard-linked to {target.parent}: {error.strerror}. Hard links stay on one disk; "
                "use link=symbolic, or leave it out"
            ) from None


def upright_content(pictures: StoredPictures, index: int) -> bytes | None:
    """The file of a picture without the EXIF orientation, which its boxes ignore. None: it would stay there."""
    name = pictures.name(index)
    upright = without_orientation(content(pictures, index))
    header = read_header(BytesIO(upright), name)
    return upright if header.size_hw == header.upright_size_hw else None
