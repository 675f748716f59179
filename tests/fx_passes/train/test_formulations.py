"""Which formulation a module may have, and which one ``auto`` takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared_modules import formulations, image, make
from torch import nn

from fx_passes.train.formulations import static_formulation

REFUSED = [
    (
        nn.Conv2d,
        {"formulation": "fast"},
        "it must be one of auto, grouped, channels_last, polyphase, separable",
    ),
    (nn.Conv1d, {"formulation": "channels_last"}, "a 1-D input has no channels-last order"),
    (nn.ConvTranspose2d, {"formulation": "polyphase"}, "the convolution is transposed"),
    (nn.Conv2d, {"formulation": "polyphase", "blocks": (2, 1)}, "a group has more than one input or output"),
    (nn.Conv1d, {"formulation": "separable"}, "a 1-D kernel is not separated"),
    (nn.Conv3d, {"formulation": "polyphase"}, "a 3-D convolution has no polyphase form"),
]


@pytest.mark.parametrize(("cls", "arguments", "message"), REFUSED, ids=str)
def test_formulations_that_do_not_fit(cls: type[Any], arguments: dict[str, Any], message: str) -> None:
    """The constructor says why."""
    with pytest.raises(ValueError, match=message):
        make(cls, **arguments)


@pytest.mark.parametrize(
    ("cls", "channels", "arguments", "expected"),
    [
        (nn.Conv2d, 3, {}, "channels_last"),
        (nn.Conv2d, 64, {}, "grouped"),
        (nn.Conv2d, 64, {"kernel_size": 7}, "channels_last"),
        (nn.Conv2d, 3, {"kernel_size": 31}, "polyphase"),
        (nn.Conv2d, 3, {"kernel_size": 31, "stride": 2}, "grouped"),
        (nn.Conv2d, 3, {"kernel_size": 7, "blocks": (2, 2)}, "grouped"),
        (nn.Conv1d, 3, {"kernel_size": 31}, "grouped"),
        (nn.ConvTranspose2d, 3, {"kernel_size": 7}, "grouped"),
    ],
)
def test_auto_goes_by_the_geometry(
    cls: type[Any], channels: int, arguments: dict[str, Any], expected: str
) -> None:
    """``auto`` takes the formulation that the rules name. It computes the same as that one."""
    shared = make(cls, groups=channels, **arguments)
    assert static_formulation(shared) == expected
    fixed = make(cls, groups=channels, **arguments, formulation=expected)
    x = image(shared, size=33)
    assert torch.equal(shared(x), fixed(x))


def test_wrong_inputs_are_refused_by_torch() -> None:
    """torch refuses a wrong number of channels, or an image smaller than the kernel, in every formulation."""
    for name in formulations(nn.Conv2d):
        shared = make(nn.Conv2d, formulation=name)
        with pytest.raises(RuntimeError, match="to have 3 channels, but got 6"):
            shared(torch.randn(1, 6, 8, 8, dtype=torch.float64))
        with pytest.raises(RuntimeError, match="size"):
            shared(torch.randn(1, 3, 8, 2, dtype=torch.float64))
