import pickle

import pytest

from rfdetr.evaluation.block import Block


@pytest.mark.parametrize("pieces", [[], [b""], [b"one", b"", b"three", bytes(1000)]])
def test_pieces_come_back_as_they_were_added(pieces: list[bytes]) -> None:
    block = Block()
    for piece in pieces:
        block.append(piece)
    assert list(block) == list(block) == pieces
    assert list(pickle.loads(pickle.dumps(block))) == pieces
