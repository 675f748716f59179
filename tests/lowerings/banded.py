"""Cases of the lowering ``banded``."""

from __future__ import annotations

from cases import RANK_ONE, Becomes, Tested, make
from refused import LARGE_BLOCK

CASES = Tested(
    examples=[
        make((5,), (20,), stride=2, padding=2, padding_mode="reflect", bias="shared"),
        make(
            (12,),
            (40,),
            transposed=True,
            stride=2,
            front=((5, 5),),
            front_mode="replicate",
            keep=((9, 1, 9),),
        ),
        make(
            (5, 3),
            (12, 9),
            stride=(2, 1),
            dilation=(1, 2),
            padding=2,
            padding_mode="circular",
            rank=1,
            bias="channel",
        ),
        make((4, 4), (6, 9), stuff=(2, 3), stride=(1, 2), front=((2, 1), (2, 1)), scale=0.5, rank=1),
        make((3, 1), (9, 200), padding=(1, 0), padding_mode="reflect", scale=0.5, bias="shared"),
        make((1, 4), (200, 9), stride=(1, 2), padding=(0, 1), bias="channel"),
    ],
    refusals=[
        LARGE_BLOCK,
        (make((1, 1), (8, 8)), "tap", "the kernel is a single tap, and nothing is filtered"),
        (make((3, 3), (8, 8), rank=2), "rank", "the rank of the kernel is above 1"),
        (
            make((3, 3), (8, 97), rank=1),
            "long",
            "lines of 97 samples, more than 96, are mostly zeros in its matrix",
        ),
        (make((3,), (97,)), "long", "lines of 97 samples, more than 96, are mostly zeros in its matrix"),
    ],
    steer={**RANK_ONE, "dim": [1, 2, 2]},
    factored=True,
    open_size=("open-size", "a size is open"),
    beyond=make((3, 3), (4, 4), padding=7, keep=((0, 1, 0), (12, 1, 0)), rank=1),
    onnx=Becomes(make((5, 5), (12, 32), padding=2, rank=1), {"MatMul": 2}, 12 * 12 + 32 * 32),
)
