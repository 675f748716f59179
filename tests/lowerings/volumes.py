"""Cases of a site of three dimensions as two: any lowering for its planes, another one for its lines."""

from __future__ import annotations

from cases import Tested, make

CASES = Tested(
    examples=[
        make((3, 5, 5), (6, 12, 20), padding=(1, 2, 2), bias="shared", rank=1),
        make(
            (3, 3, 4), (5, 6, 9), stride=(2, 1, 2), padding=1, padding_mode="reflect", bias="channel", rank=1
        ),
        make((2, 4, 4), (3, 5, 6), transposed=True, stride=2, padding=1, output_padding=1, rank=1),
        make((4, 2, 3), (5, 6, 7), stuff=(1, 2, 2), front=((1, 0), (2, 1), (0, 2)), scale=0.5, rank=1),
        make((1, 3, 3), (2, 8, 9), padding=(0, 1, 1), padding_mode="circular", bias="channel"),
        make(
            (3, 1, 1),
            (6, 4, 5),
            padding=(2, 0, 0),
            front_mode="replicate",
            front=((1, 2), (0, 0), (0, 0)),
            seed=5,
        ),
    ],
    refusals=[
        (
            make((3, 3, 3), (4, 4, 4)),
            "rank",
            "its kernel is no product of a line along the depth and a plane",
        ),
        (
            make((3, 3, 3), (4, 4, 4), rows=2, columns=3, rank=1),
            "channels",
            "a group has 3 input and 2 output channels, not one",
        ),
        (
            make((3, 3, 3), (97, 4, 4), transposed=True, stride=2, rank=1),
            "depth",
            "no lowering computes the lines along its depth",
        ),
    ],
    steer={"dim": [3], "block": [(1, 1)], "rank": [1, 1, 2], "taps": [1, 2, 3]},
    factored=True,
    beyond=make((3, 3, 3), (4, 4, 4), padding=7, keep=((12, 1, 0), (0, 1, 0), (0, 1, 0)), rank=1),
)
