"""Cases of the lowering ``transposed_separable``."""

from __future__ import annotations

from cases import RANK_ONE, Becomes, Tested, make
from refused import HEIGHT, LARGE_BLOCK

CASES = Tested(
    examples=[
        make((8, 8), (5, 20), transposed=True, stride=4, padding=2, bias="shared"),
        make((3, 4), (6, 9), stuff=(2, 1), front=((2, 1), (2, 1)), bias="channel"),
        make(
            (5, 3), (4, 6), transposed=True, stride=(3, 2), dilation=(2, 3), output_padding=(2, 1), scale=0.5
        ),
    ],
    refusals=[
        LARGE_BLOCK,
        HEIGHT,
        (make((3,), (8,), transposed=True, stride=2), "dimensions", "a 1-D kernel is not separated"),
        (make((3, 1), (8, 8)), "line", "the kernel is a row or a column already"),
        (
            make((3, 3), (8, 8), transposed=True, stride=2, rank=2),
            "rank",
            "the rank of the kernel is above 1",
        ),
        (make((3, 3), (8, 8), rank=1), "not-transposed", "it is not transposed along the height"),
        (
            make((3, 3), (8, 8), transposed=True, stride=(2, 3), rank=1),
            "phases",
            "no block of 8 or 16 outputs begins on an input sample at stride 3",
        ),
    ],
    steer={**RANK_ONE, "transposed": [True], "stride": [2, 4], "step": [1]},
    factored=True,
    beyond=make(
        (4, 4),
        (4, 4),
        transposed=True,
        stride=4,
        front=((0, 0), (0, 3)),
        keep=((0, 1, 0), (17, 1, 0)),
        rank=1,
    ),
    onnx=Becomes(
        make((4, 4), (12, 16), transposed=True, stride=2, padding=1, rank=1),
        # The three rows that a block of outputs sees, side by side; one column, repeated for each group.
        {"Conv": 1, "Transpose": 1, "Slice": 3, "Concat": 1, "Expand": 1, "Tile": 1, "ConvTranspose": 1},
        16 * 10 + 3 * 2,
    ),
)
