"""Cases that several lowerings refuse."""

from __future__ import annotations

from cases import Refused, make

GROUPED: list[Refused] = [
    (
        make((3,), (8,), rows=2, transposed=True, stride=2, front=((1, 1),)),
        "padding",
        "its padding is none that a transposed convolution has",
    ),
    (make((3, 3), (8, 8), stuff=(2, 2), stride=3, rows=2), "fraction", "it changes the rate by a fraction"),
    (
        make((3, 3), (8, 8), transposed=True, rows=2, stride=2, front=((1, 1), (1, 1)), front_mode="reflect"),
        "padding",
        "its padding is none that a transposed convolution has",
    ),
    (
        make((3, 3), (8, 8), transposed=True, rows=2, stride=2, keep=((0, 1, 3), (0, 1, 3))),
        "cut",
        "its output is cut as a transposed convolution cannot",
    ),
]
LARGE_BLOCK: Refused = (
    make((3, 3), (8, 8), rows=2, columns=3),
    "channels",
    "a group has 3 input and 2 output channels, not one",
)
BANK: list[Refused] = [
    (make((3, 3), (8, 8)), "bank", "a group has 1 input and 1 output channels, not one and several"),
    (
        make((3,), (8,), rows=2, columns=3),
        "bank",
        "a group has 3 input and 2 output channels, not one and several",
    ),
]
HEIGHT: Refused = (
    make((3, 3), (8, 8), stuff=(2, 1), stride=(3, 1)),
    "fraction",
    "it changes the rate of the height by a fraction",
)
