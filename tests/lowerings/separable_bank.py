"""Cases of the lowering ``separable_bank``."""

from __future__ import annotations

from cases import Becomes, Tested, make
from refused import BANK

CASES = Tested(
    examples=[
        make((3, 3), (9, 20), rows=2, padding=1, bias="shared"),
        make((6, 6), (8, 21), rows=4, stride=2, front=((4, 3), (4, 3)), front_mode="reflect"),
        make((5, 2), (30, 9), rows=3, padding=(2, 0), dilation=2, padding_mode="replicate", bias="channel"),
    ],
    refusals=[
        *BANK,
        (make((3, 3), (8, 8), rows=2, transposed=True, stride=2), "transposed", "it is transposed"),
        (make((3,), (8,), rows=2), "dimensions", "a 1-D kernel is not separated"),
        (make((1, 3), (8, 8), rows=2), "line", "the kernel is a row or a column already"),
        (make((3, 3), (8, 8), rows=2), "rank", "one of its kernels is no product of a column and a row"),
    ],
    steer={
        "block": [(2, 1), (4, 1)],
        "transposed": [False],
        "stuffed": [False],
        "dim": [2],
        "rank": [1],
        "taps": [2, 3, 5],
    },
    factored=True,
    beyond=make((3, 3), (4, 4), rows=2, padding=7, keep=((0, 1, 0), (12, 1, 0)), rank=1),
    onnx=Becomes(
        make((5, 5), (12, 32), rows=2, padding=2, rank=1),
        {"Conv": 4, "Transpose": 2, "Concat": 1, "Expand": 2},
        2 * (16 * 20 + 5),
    ),
)
