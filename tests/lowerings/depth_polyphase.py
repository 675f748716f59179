"""Cases of the lowering ``depth_polyphase``."""

from __future__ import annotations

from cases import Becomes, Tested, make

CASES = Tested(
    examples=[
        make((3, 3, 3), (6, 9, 8), padding=1, bias="shared"),
        make((3, 3, 3), (9, 7, 8), rows=3, padding=1, padding_mode="replicate", bias="shared"),
        make((3, 2, 3), (11, 6, 7), stride=2, dilation=(2, 1, 2), padding=1, bias="channel"),
        make((2, 3, 1), (5, 6, 7), stride=(1, 2, 1), front=((2, 1), (0, 1), (0, 0)), front_mode="reflect"),
        make((5, 1, 1), (6, 4, 5), padding=(2, 0, 0), padding_mode="circular", rows=2, scale=0.5),
        make((3, 3, 3), (4, 5, 6), block_diagonal=True, keep=((1, 1, 0), (0, 2, 0), (0, 1, 1))),
    ],
    refusals=[
        (make((3,), (8,)), "dimensions", "a 1-D convolution has no depth"),
        (make((3, 3, 3), (4, 4, 4), rows=2, columns=3), "columns", "a group has 3 input channels, not one"),
        (make((3, 3, 3), (4, 4, 4), transposed=True, stride=2), "transposed", "it is transposed"),
        (make((1, 3, 3), (4, 5, 6)), "depth", "its kernel has one tap along the depth"),
    ],
    steer={
        "dim": [3], "block": [(1, 1), (2, 1), (3, 1)], "transposed": [False], "stuffed": [False],
        "taps": [1, 2, 3], "size": [3, 4, 5, 10],
    },
    beyond=make((3, 3, 3), (4, 4, 4), padding=7, keep=((12, 1, 0), (0, 1, 0), (0, 1, 0))),
    onnx=Becomes(
        make((3, 3, 3), (32, 6, 7), rows=2, padding=1),
        {"Pad": 1, "Gather": 1, "Conv": 1, "Transpose": 1},
        2 * 16 * 18 * 3 * 3,
    ),
)  # fmt: skip
