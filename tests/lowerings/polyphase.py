"""Cases of the lowering ``polyphase``."""

from __future__ import annotations

from cases import Becomes, Tested, make
from refused import LARGE_BLOCK

CASES = Tested(
    examples=[
        make((3, 3), (9, 40), padding=1, bias="shared"),
        make((5,), (50,), stride=2, front=((3, 1),), front_mode="reflect", keep=((1, 2, 1),), scale=0.5),
        make((3, 4), (9, 20), dilation=2, padding=(0, 2), stride=(2, 3), bias="channel"),
        make((3, 3), (9, 7), padding=1, padding_mode="replicate", block_diagonal=True),
    ],
    refusals=[
        (make((3, 3), (8, 8), transposed=True, stride=2), "transposed", "it is transposed"),
        LARGE_BLOCK,
    ],
    steer={"dim": [1, 2], "block": [(1, 1)], "transposed": [False], "stuffed": [False]},
    beyond=make((3,), (4,), padding=7, keep=((12, 1, 0),)),
    onnx=Becomes(make((5, 5), (12, 32), padding=2), {"Conv": 1, "Transpose": 1}, 16 * 5 * 20),
)
