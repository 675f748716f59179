"""Cases of the lowering ``fold_channels``."""

from __future__ import annotations

from cases import Becomes, Tested, make
from refused import GROUPED

CASES = Tested(
    examples=[
        make((3, 3), (9, 8), rows=2, columns=2, padding=1, bias="shared"),
        make((3, 3), (9, 8), rows=1, columns=3, stride=2, padding_mode="replicate", padding=2),
        make((4, 4), (5, 6), rows=2, columns=1, transposed=True, stride=2, bias="channel"),
    ],
    refusals=[
        (make((3, 3), (8, 8)), "one-channel", "a group has one channel, and so no dense convolution"),
        *GROUPED,
    ],
    steer={"dim": [1, 2], "block": [(2, 1), (1, 2), (2, 3)], "stuffed": [False]},
    beyond=make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0)), columns=2),
    onnx=Becomes(make((3, 3), (9, 9), padding=1, rows=2, columns=2), {"Conv": 1}, 36),
)
