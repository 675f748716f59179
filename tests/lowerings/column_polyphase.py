"""Cases of the lowering ``column_polyphase``."""

from __future__ import annotations

from cases import RANK_ONE, Becomes, Tested, make
from refused import HEIGHT, LARGE_BLOCK

CASES = Tested(
    examples=[
        make((5, 5), (40, 12), padding=2, bias="shared"),
        make((3, 5), (20, 9), stride=(2, 3), front=((1, 2), (3, 0)), front_mode="replicate", bias="channel"),
        make(
            (4, 3),
            (33, 20),
            dilation=(2, 1),
            padding=(3, 1),
            padding_mode="reflect",
            keep=((3, 2, 1), (1, 1, 0)),
        ),
        make((5, 1), (40, 12), padding=(2, 0), scale=0.5, bias="shared"),
    ],
    refusals=[
        LARGE_BLOCK,
        HEIGHT,
        (make((3,), (8,)), "dimensions", "a 1-D kernel is not separated"),
        (make((1, 3), (8, 8)), "line", "the kernel is a row"),
        (make((3, 3), (8, 8), rank=2), "rank", "the rank of the kernel is above 1"),
        (make((3, 3), (8, 8), transposed=True, stride=(2, 1), rank=1), "transposed", "it is transposed"),
    ],
    steer={**RANK_ONE, "transposed": [False], "stuffed": [False]},
    factored=True,
    beyond=make((3, 3), (4, 4), padding=7, keep=((12, 1, 0), (0, 1, 0)), rank=1),
    onnx=Becomes(make((5, 5), (32, 12), padding=2, rank=1), {"Conv": 2, "Gather": 1}, 16 * (20 + 5)),
)
