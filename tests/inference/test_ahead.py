import threading
from collections.abc import Iterator

import pytest

from rfdetr.inference.ahead import map_ahead


def test_results_come_in_order_and_items_are_taken_no_further_ahead_than_asked() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    for number, result in enumerate(map_ahead(lambda item: item * item, items(), ahead=3)):
        assert result == number * number
        assert len(taken) <= number + 4
    assert len(taken) == 20


def test_work_goes_on_while_the_caller_is_busy() -> None:
    second_begun = threading.Event()

    def work(item: int) -> int:
        if item == 1:
            second_begun.set()
        return item

    results = map_ahead(work, [0, 1], ahead=1)
    assert next(results) == 0
    assert second_begun.wait(timeout=10)
    assert list(results) == [1]


def test_an_error_comes_in_its_turn() -> None:
    results = map_ahead(lambda item: 1 // item, [1, 1, 0, 1], ahead=4)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_one_of_the_items_too(ahead: int) -> None:
    def items() -> Iterator[int]:
        yield from [1, 1]
        raise ConnectionError("no more")

    results = map_ahead(lambda item: 1 // item, items(), ahead)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ConnectionError, match="no more"):
        next(results)


def test_nothing_goes_on_after_the_caller_has_stopped() -> None:
    done: list[int] = []
    before = threading.active_count()
    results = map_ahead(done.append, range(100), ahead=2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(done) <= 4
