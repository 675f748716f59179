"""Cases of the lowering ``separable_polyphase``."""

from __future__ import annotations

from cases import RANK_ONE, Becomes, Tested, make
from refused import HEIGHT, LARGE_BLOCK

CASES = Tested(
    examples=[
        make((5, 5), (12, 40), padding=2, bias="shared"),
        make((3, 5), (9, 20), stride=(2, 3), front=((1, 2), (3, 0)), front_mode="replicate", bias="channel"),
        make((4, 4), (9, 20), transposed=True, stride=(1, 2), padding=1),
    ],
    refusals=[
        LARGE_BLOCK,
        HEIGHT,
        (
            make((3, 3), (8, 8), transposed=True, stride=(1, 3), rank=1),
            "phases",
            "no block of 8, 16 or 32 outputs begins on an input sample at stride 3",
        ),
        (make((3,), (8,)), "dimensions", "a 1-D kernel is not separated"),
        (make((3, 1), (8, 8)), "line", "the kernel is a row or a column already"),
        (make((3, 3), (8, 8), rank=2), "rank", "the rank of the kernel is above 1"),
        (
            make((3, 3), (8, 8), transposed=True, stride=2, rank=1),
            "transposed",
            "it is transposed along the height, where `transposed_polyphase` has few taps left",
        ),
    ],
    steer={**RANK_ONE, "transposed": [False], "stuff": [1, 1, 2]},
    factored=True,
    beyond=make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0)), rank=1),
    onnx=Becomes(make((5, 5), (12, 32), padding=2, rank=1), {"Conv": 2, "Transpose": 1}, 16 * (20 + 5)),
)
