"""Cases of the lowering ``grouped``."""

from __future__ import annotations

from dataclasses import replace

from cases import Becomes, Tested, make
from refused import GROUPED

CASES = Tested(
    examples=[
        make((3, 3), (9, 8), block_diagonal=True, padding=1),
        make((4, 4), (5, 6), block_diagonal=True, transposed=True, stride=2, padding=1, bias="channel"),
        make((5,), (20,), block_diagonal=True, rows=2, columns=2, stride=2, bias="shared"),
    ],
    refusals=[
        (make((3, 3), (8, 8)), "not-block-diagonal", "the convolution is not block-diagonal"),
        *((replace(case, block_diagonal=True), code, reason) for case, code, reason in GROUPED),
    ],
    steer={"dim": [1, 2], "blocked": [True], "stuffed": [False]},
    beyond=make((3, 3), (4, 4), padding=7, keep=((12, 1, 0), (12, 1, 0)), block_diagonal=True),
    onnx=Becomes(make((3, 3), (9, 9), padding=1, block_diagonal=True), {"Conv": 1, "Expand": 1}, 9),
)
