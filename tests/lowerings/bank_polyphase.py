"""Cases of the lowering ``bank_polyphase``."""

from __future__ import annotations

from cases import Becomes, Tested, make
from refused import BANK

CASES = Tested(
    examples=[
        make((3, 3), (9, 20), rows=2, padding=1, bias="shared"),
        make((1, 6), (8, 21), rows=2, stride=(1, 2), front=((0, 0), (4, 3)), front_mode="reflect"),
        make((5,), (30,), rows=3, padding=2, dilation=2, padding_mode="replicate", bias="channel"),
    ],
    refusals=[
        *BANK,
        (make((3, 3), (8, 8), rows=2, transposed=True, stride=2), "transposed", "it is transposed"),
    ],
    steer={"block": [(2, 1), (3, 1)], "transposed": [False], "stuffed": [False], "dim": [1, 2, 2]},
    beyond=make((3, 3), (4, 4), rows=2, padding=7, keep=((0, 1, 0), (12, 1, 0))),
    onnx=Becomes(make((5, 5), (12, 32), rows=2, padding=2), {"Conv": 1, "Transpose": 2}, 2 * 16 * 5 * 20),
)
