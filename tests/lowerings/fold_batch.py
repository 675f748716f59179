"""Cases of the lowering ``fold_batch``."""

from __future__ import annotations

from cases import Becomes, Tested, make
from refused import GROUPED

CASES = Tested(
    examples=[
        make((3, 3), (9, 8), padding=1, bias="shared"),
        make((4, 4), (5, 6), transposed=True, stride=2, padding=1, output_padding=1),
        make((5,), (20,), rows=2, columns=2, padding=2, padding_mode="reflect", bias="channel"),
        make((3, 2), (5, 4), stride=2, padding=(2, 1), padding_mode="circular"),
    ],
    refusals=[
        (make((3, 3), (8, 8), batch=0), "empty", "the batch is empty"),
        (make((3, 3), (8, 8), batch=1), "batch", "the batch has one item"),
        *GROUPED,
    ],
    steer={"dim": [1, 2], "batch": [2, 3], "stuffed": [False]},
    open_size=("open-size", "the batch size is open, and the number of groups may not be"),
    beyond=make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0))),
    onnx=Becomes(make((5, 5), (12, 32), padding=2), {"Conv": 1, "Expand": 1}, 25),
)
