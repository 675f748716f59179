"""Cases of any lowering for several independent sites at once."""

from __future__ import annotations

from cases import Tested, make

CASES = Tested(
    examples=[
        make((3, 3), (9, 8), padding=1, bias="shared", siblings=2),
        make((4,), (9,), transposed=True, stride=2, padding=1, bias="channel", siblings=3),
        make(
            (5, 5), (9, 20), stride=(1, 2), front=((2, 1), (2, 2)), front_mode="reflect", siblings=2, rank=1
        ),
    ],
    refusals=[],
    steer={"siblings": [2, 3], "dim": [1, 2], "block": [(1, 1), (1, 1), (1, 2)]},
)
