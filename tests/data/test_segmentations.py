import pickle

import numpy as np

from rfdetr.masks import decode, to_rle

from .packing import pack

TWO_PARTS = [[0, 0, 2, 0, 2, 2], [3.1, 3.2, 5, 3, 5, 5, 3, 5]]
RUNS = {"size": [4, 5], "counts": [7, 2, 11]}
STRING = {"size": [4, 5], "counts": "72;"}
SIZES = np.array([[9, 9], [4, 5], [4, 5], [6, 6]])


def test_each_object_comes_back_in_its_form() -> None:
    packed = pack([TWO_PARTS, RUNS, STRING, None], SIZES)
    polygons, runs, string, nothing = (packed[row] for row in range(4))
    assert isinstance(polygons, list)
    assert [part.tolist() for part in polygons] == [[[0, 0], [2, 0], [2, 2]], [[3.1, 3.2], [5, 3], [5, 5], [3, 5]]]
    assert [runs, string] == [{"size": [4, 5], "counts": b"72;"}] * 2
    assert np.flatnonzero(decode(to_rle(runs, (4, 5))).ravel(order="F")).tolist() == [7, 8]
    assert nothing == []


def test_a_split_without_objects() -> None:
    empty = pack([], SIZES[:0])
    assert empty.points.shape == (0, 2)
    assert empty.polygon_offsets.tolist() == empty.code_offsets.tolist() == empty.point_offsets.tolist() == [0]


def test_what_travels_between_processes_is_little_more_than_the_numbers() -> None:
    packed = pack([[[float(i)] * 40] for i in range(1000)] + [STRING] * 1000, np.full((2000, 2), 100))
    size = len(pickle.dumps(packed))
    assert size < 1000 * 40 * 8 + 2000 * 40
    assert pickle.loads(pickle.dumps(packed))[1999] == packed[1999]
