"""What stays of every image, in one block of memory."""

from array import array
from collections.abc import Iterator
from itertools import pairwise


class Block:
    """Pieces of bytes, added one by one.

    As objects of their own they would lie between the large, short-lived arrays of the images, and the gaps that these
    leave could not be used again: megabytes for each image.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, piece: bytes) -> None:
        self._bytes += piece
        self._ends.append(len(self._bytes))

    def __iter__(self) -> Iterator[bytes]:
        for start, end in pairwise(self._ends):
            yield bytes(self._bytes[start:end])
