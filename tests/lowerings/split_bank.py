"""Cases of the lowering ``split_bank``."""

from __future__ import annotations

from cases import Becomes, Tested, make
from refused import BANK

CASES = Tested(
    examples=[
        make((3, 3), (9, 20), rows=2, padding=1, bias="shared"),
        make((6, 6), (8, 21), rows=4, stride=2, front=((4, 3), (4, 3)), front_mode="reflect"),
        make((5, 2), (30, 9), rows=3, padding=(2, 0), dilation=2, padding_mode="replicate", bias="channel"),
        make((5, 3), (12, 9), rows=3, padding=(2, 0), dilation=(1, 2), stride=(2, 1), rank=1, bias="shared"),
        make((7,), (30,), rows=2, padding=3, bias="channel"),
    ],
    refusals=[
        *BANK,
        (make((3, 3), (8, 8), rows=2, transposed=True, stride=2), "transposed", "it is transposed"),
        (
            make((3, 3), (8, 8), rows=2, groups=1),
            "one-group",
            "it has one group, so that its convolution is dense",
        ),
    ],
    steer={"block": [(2, 1), (4, 1)], "transposed": [False], "stuffed": [False], "rank": [1, 3]},
    onnx=Becomes(
        make((5, 5), (12, 32), rows=2, padding=2, rank=1),
        {"Conv": 2, "Concat": 1, "Expand": 2, "Split": 1},
        2 * 25,
    ),
)
