"""Cases of the lowering ``separable``."""

from __future__ import annotations

from cases import RANK_ONE, Becomes, Tested, make
from refused import LARGE_BLOCK

CASES = Tested(
    examples=[
        make((3, 5), (9, 12), padding=(1, 2), bias="shared"),
        make((4, 4), (9, 8), front=((1, 2), (3, 0)), keep=((0, 2, 1), (1, 1, 1)), scale=0.5),
        make(
            (5, 3), (12, 9), stride=(2, 1), dilation=(1, 2), padding=2, padding_mode="reflect", bias="channel"
        ),
    ],
    refusals=[
        (make((3, 3), (8, 8), rank=1, stuff=(1, 2)), "transposed", "it is transposed"),
        (make((3,), (8,)), "dimensions", "a 1-D kernel is not separated"),
        LARGE_BLOCK,
        (make((1, 3), (8, 8)), "line", "the kernel is a row or a column already"),
        (make((3, 3), (8, 8), rank=2), "rank", "the rank of the kernel is above 1"),
    ],
    steer={**RANK_ONE, "transposed": [False], "stuffed": [False]},
    factored=True,
    beyond=make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0)), rank=1),
    onnx=Becomes(make((5, 5), (12, 32), padding=2, rank=1), {"Conv": 2, "Expand": 2}, 5 + 5),
)
