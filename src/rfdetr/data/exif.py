"""The orientation of a picture's EXIF data set to upright, without touching a pixel."""

import struct
import zlib
from collections.abc import Iterator

_ORIENTATION = 0x0112
_EXIF_OF_JPEG = b"Exif\0\0"
_SCAN = 0xDA  # after this marker of JPEG the pixels begin


def without_orientation(content: bytes) -> bytes:
    """The same file of JPEG, PNG, WebP or TIFF, stating that it is upright; as it is where nothing states otherwise.

    What a damaged file means by its metadata is left as it is, so ask for the orientation of the result.
    """
    patched = bytearray(content)
    try:
        for start in _places(content):
            _set_upright(patched, start)
        if content.startswith(b"\x89PNG"):
            _mend_checksums(patched)
    except struct.error:  # metadata that ends too early
        return content
    return bytes(patched)


def _places(content: bytes) -> Iterator[int]:
    """Where blocks of EXIF data begin: they are little files in TIFF's format."""
    if content.startswith((b"II", b"MM")):
        yield 0
    elif content.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != _SCAN:
            if content.startswith(_EXIF_OF_JPEG, at + 4):
                yield at + 10
            at += 2 + int(struct.unpack_from(">H", content, at + 2)[0])
    elif content.startswith(b"\x89PNG"):
        yield from (start for kind, start, _ in _chunks_of_png(content) if kind == b"eXIf")
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        at = 12
        while at + 8 <= len(content):
            kind, length = struct.unpack_from("<4sI", content, at)
            if kind == b"EXIF":
                # Some programs write it as it is in JPEG.
                yield at + 8 + 6 * content.startswith(_EXIF_OF_JPEG, at + 8)
            at += 8 + length + length % 2


def _set_upright(content: bytearray, start: int) -> None:
    """In the first directory of a block of EXIF data."""
    order = "<" if content[start : start + 2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", content, start + 4)
    (count,) = struct.unpack_from(f"{order}H", content, start + directory)
    for entry in range(start + directory + 2, start + directory + 2 + 12 * count, 12):
        if struct.unpack_from(f"{order}H", content, entry)[0] == _ORIENTATION:
            struct.pack_into(f"{order}HIHH", content, entry + 2, 3, 1, 1, 0)  # one short number: 1


def _chunks_of_png(content: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and length of each."""
    at = 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        yield kind, at + 8, length
        at += 12 + length


def _mend_checksums(content: bytearray) -> None:
    for kind, start, length in _chunks_of_png(content):
        if kind == b"eXIf":
            struct.pack_into(">I", content, start + length, zlib.crc32(content[start - 4 : start + length]))
