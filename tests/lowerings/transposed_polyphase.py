"""Cases of the lowering ``transposed_polyphase``."""

from __future__ import annotations

from cases import Becomes, Tested, make
from refused import HEIGHT

CASES = Tested(
    examples=[
        make((4, 4), (5, 20), transposed=True, stride=2, padding=1, bias="shared"),
        make(
            (12,),
            (30,),
            transposed=True,
            stride=4,
            front=((5, 5),),
            front_mode="replicate",
            keep=((9, 1, 9),),
        ),
        make((4, 4), (6, 9), stuff=(2, 2), front=((2, 1), (2, 1)), bias="channel"),
        make((3, 5), (6, 9), stuff=(1, 4), stride=(1, 3), padding=2),
        make((3, 3), (4, 6), transposed=True, stride=(3, 2), dilation=(2, 3), output_padding=2),
    ],
    refusals=[
        (make((3, 3), (8, 8)), "not-transposed", "it is not transposed"),
        (
            make((3, 3), (8, 8), rows=2, transposed=True, stride=2),
            "channels",
            "a group has 1 input and 2 output channels, not one",
        ),
        HEIGHT,
        (
            make((3, 3), (8, 8), transposed=True, stride=(1, 5)),
            "phases",
            "no block of 8, 16 or 32 outputs begins on an input sample at stride 5",
        ),
    ],
    steer={
        "dim": [1, 2],
        "block": [(1, 1)],
        "transposed": [True],
        "stride": [1, 2, 2, 4],
        "step": [1],
    },
    beyond=make((3,), (4,), transposed=True, stride=2, front=((0, 9),), keep=((16, 1, 0),)),
    onnx=Becomes(
        make((4, 4), (12, 16), transposed=True, stride=2, padding=1),
        # The two phases of the height are cut apart and put one after the other.
        {"Conv": 1, "Transpose": 1, "Split": 1, "Concat": 1},
        2 * 16 * 3 * 10,
    ),
)
