"""``lower()`` of convolutions that a graph calls as modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from integers import KERNEL
from torch import Tensor, nn
from traced import with_sizes
from two_sites import depthwise, image, lowerings

from fx_passes import SharedKernelConv2d, share_kernels
from fx_passes.lower import lower

pytestmark = pytest.mark.usefixtures("simple_rules")


def test_modules_with_their_own_padding() -> None:
    """A module may have a padding mode, may pad to the ``same`` size, or may be transposed."""
    for conv in (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=4),
        nn.Conv2d(4, 4, 3, padding="same", padding_mode="replicate", groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=(2, 1), padding_mode="circular", groups=4),
        nn.ConvTranspose2d(4, 4, 3, padding=1, stride=2, output_padding=1, groups=4),
    ):
        conv.weight.data = KERNEL.repeat(4, 1, 1, 1)
        if conv.bias is not None:
            conv.bias.data = torch.arange(4.0)
        model, x = nn.Sequential(conv), image()
        for given in (model, with_sizes(model, x)):
            lowered = lower(given, "static", (x,))
            assert len(lowerings(lowered)) == 1
            assert torch.equal(lowered(x), model(x))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_pad_in_front_of_a_padding_mode(mode: Any) -> None:
    """A module pads what the pad in front of it gave, whatever the mode of either."""
    conv = nn.Conv2d(4, 4, 3, padding=2, padding_mode=mode, groups=4)
    conv.weight.data, conv.get_parameter("bias").data = KERNEL.repeat(4, 1, 1, 1), torch.arange(4.0)

    class Padded(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.conv, self.how = conv, how

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.pad(x, [1, 2, 0, 1], mode=self.how))

    for how in ("constant", "reflect", "replicate"):
        model, x = Padded(how), image()
        lowered = lower(with_sizes(model, x))
        assert lowerings(lowered) == ["polyphase"]
        assert torch.equal(lowered(x), model(x))


def test_a_module_of_the_same_name() -> None:
    """The model has a module ``lowered_0`` of its own, and it stays."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lowered_0 = nn.Conv2d(4, 4, 1)
            self.conv = depthwise()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.lowered_0(x))

    model, x = Named(), image()
    torch.testing.assert_close(lower(model, "static", (x,))(x), model(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["subclass", "hook"])
def test_a_shared_module_that_does_more_is_left_alone(kind: str) -> None:
    """A subclass, or a hook, does more than the convolution. It still does so in the lowered model."""

    class Doubled(SharedKernelConv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    made = Doubled if kind == "subclass" else SharedKernelConv2d
    conv = made(3, 3, 9, groups=3, padding=4, bias=False)
    if kind == "hook":
        conv.register_forward_hook(lambda module, args, output: output * 2)
    shared, x = share_kernels(nn.Sequential(conv)), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(lower(shared, "static", (x,))(x), nn.Sequential(conv)(x))
