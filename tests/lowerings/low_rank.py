"""Cases of the lowering ``low_rank``."""

from __future__ import annotations

from cases import Becomes, Tested, make
from refused import HEIGHT, LARGE_BLOCK

CASES = Tested(
    examples=[
        make((11, 11), (20, 40), padding=5, rank=2, bias="shared"),
        make((12, 12), (14, 20), padding=3, rank=2, stride=2, padding_mode="reflect", bias="channel"),
        make((13, 13), (20, 20), rank=3, front=((2, 1), (3, 4)), keep=((1, 2, 0), (0, 1, 2)), scale=-2.0),
    ],
    refusals=[
        LARGE_BLOCK,
        HEIGHT,
        (make((3,), (8,)), "dimensions", "a 1-D kernel is not separated"),
        (make((1, 3), (8, 8)), "line", "the kernel is a row or a column already"),
        (make((11, 11), (20, 20)), "rank", "the rank of the kernel is above 3"),
        (make((11, 11), (20, 20), rank=2, transposed=True, stride=(1, 2)), "transposed", "it is transposed"),
        (make((11, 11), (20, 20), rank=1), "rank", "the kernel has rank 1"),
        (
            make((6, 5), (8, 8), rank=2),
            "rank",
            "a sum of 2 products takes no fewer multiplications than 6 x 5 taps",
        ),
    ],
    steer={
        "dim": [2],
        "block": [(1, 1)],
        "rank": [2, 3],
        "transposed": [False],
        "stuffed": [False],
        "taps": [10, 11, 12],
        "size": [12, 20, 25],
        "dilation": [1],
    },
    factored=True,
    beyond=make((11, 11), (12, 12), padding=15, keep=((0, 1, 0), (28, 1, 0)), rank=2),
    onnx=Becomes(
        make((13, 13), (20, 32), padding=6, rank=2),
        {"Conv": 2, "Split": 1, "Concat": 1, "ReduceSum": 1, "Transpose": 1},
        2 * 16 * (28 + 13),
    ),
)
