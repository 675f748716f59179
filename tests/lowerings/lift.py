"""Cases of the lowering ``lift``."""

from __future__ import annotations

from cases import Becomes, Tested, make

CASES = Tested(
    examples=[
        make((5,), (20,), stride=2, padding=2),
        make((4,), (9,), transposed=True, stride=2, padding=1, output_padding=1, bias="channel"),
        make((3,), (12,), rows=2, columns=3, dilation=2, padding=2, padding_mode="replicate", bias="shared"),
        make((3,), (5,), stride=2, padding=2, padding_mode="circular"),
    ],
    refusals=[
        (make((3, 3), (8, 8)), "dimensions", "the convolution has two dimensions"),
        (
            make((3,), (8,), block_diagonal=True),
            "block-diagonal",
            "the convolution is dense; `grouped` lifts it as well",
        ),
        (make((3,), (8,), stuff=(2,), stride=3), "fraction", "it changes the rate by a fraction"),
        (
            make((3,), (8,), transposed=True, stride=2, front=((1, 1),), front_mode="replicate"),
            "padding",
            "its padding is none that a transposed convolution has",
        ),
        (
            make((3,), (8,), transposed=True, stride=2, keep=((3, 1, 0),)),
            "cut",
            "its output is cut as a transposed convolution cannot",
        ),
    ],
    steer={"dim": [1], "blocked": [False]},
    beyond=make((3,), (4,), padding=7, keep=((12, 1, 0),)),
    onnx=Becomes(make((5,), (32,), padding=2), {"Conv": 1, "Expand": 1}, 5),
)
