"""Delta debugging finds a smallest part, and asks no part twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.reduce.smallest import smallest


@given(st.integers(1, 60), st.data())
def test_what_is_needed_is_found(count: int, data: st.DataObject) -> None:
    """Something fails as long as some items are there together: these are what is left."""
    needed = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=5))
    asked: list[tuple[int, ...]] = []

    def fails(part: tuple[int, ...]) -> bool:
        asked.append(part)
        return needed <= set(part)

    assert smallest(range(count), fails) == tuple(sorted(needed))
    assert len(asked) == len(set(asked))


def test_one_item_can_be_left_out_of_no_result() -> None:
    """Parts that fail need not contain each other: any two of three fail here, and one alone does not."""
    found = smallest(range(3), lambda part: len(part) >= 2)
    assert len(found) == 2


@pytest.mark.parametrize("place", [0, 500, 999])
def test_a_single_item_among_many_takes_few_tries(place: int) -> None:
    """It is found by halves."""
    tries = 0

    def fails(part: tuple[int, ...]) -> bool:
        nonlocal tries
        tries += 1
        return place in part

    assert smallest(range(1000), fails) == (place,)
    assert tries <= 2 * 10
