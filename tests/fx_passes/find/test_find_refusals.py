"""A convolution that is not shared is refused, with a code and a reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from one_convolution import Call, K, only, repeat_first_group
from torch import Tensor, nn


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3, groups=2))


def with_nan() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv.weight.data[:, 0, 1, 1] = torch.nan
    return nn.Sequential(conv)


def hooked() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv.register_forward_hook(lambda module, args, output: output * 2)
    return nn.Sequential(conv)


class Subclass(nn.Conv2d):
    pass


class Tied(nn.Module):
    """A model that uses the weight of its convolution in another place too."""

    def __init__(self) -> None:
        super().__init__()
        self.a = repeat_first_group(nn.Conv2d(4, 4, 1, groups=4, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) * self.a.weight[0]


def patched() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv._conv_forward = lambda input, weight, bias: input  # type: ignore[method-assign]
    return nn.Sequential(conv)


def inconsistent() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    conv.out_channels = 8
    return nn.Sequential(conv)


def channels_last() -> nn.Module:
    conv = repeat_first_group(nn.Conv2d(4, 4, 3, groups=4))
    # The stub of `Module.to` lacks the one argument that is by keyword alone.
    return nn.Sequential(conv).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def mutated(m: Call, x: Tensor) -> Tensor:
    y = F.conv2d(x, m.k, groups=4)
    m.k.mul_(0.5)
    return y


FULL = K.repeat(4, 1, 1, 1)
REFUSALS: dict[str, tuple[nn.Module, str]] = {
    "differs": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), "group 1 differs from group 0 by "),
    "nan": (with_nan(), "the weight is NaN at [0, 0, 1, 1] (4 in all)"),
    "hooks": (hooked(), "this `Conv2d` or its parameters have hooks, which are for the full weight"),
    "subclass": (
        torch.fx.GraphModule(
            nn.Sequential(Subclass(4, 4, 3, groups=4)),
            torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())).graph,
        ),
        "`Subclass` is a subclass of a convolution and may compute anything",
    ),
    "computed-weight": (
        nn.Sequential(nn.utils.weight_norm(nn.Conv2d(4, 4, 3, groups=4))),
        "the weight of this `Conv2d` is computed by a hook",
    ),
    "trainable": (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, groups=4))),
        "computed from the trainable parameter `0.parametrizations.weight.original",
    ),
    "meta": (
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, device="meta")),
        "`0.weight` is on the meta device and has no values",
    ),
    "tied": (Tied(), "`a.weight` is also used by `getitem`"),
    "patched": (patched(), "this `Conv2d` has its own forward, which may compute anything"),
    "inconsistent": (inconsistent(), "the weight [4, 1, 3, 3] does not fit the channels"),
    "layout": (channels_last(), "`0.weight` is stored channels_last, and the output takes over that order"),
    "runtime": (
        Call(lambda m, x: F.conv2d(x, m.k * x.mean(), groups=4), FULL),
        "it depends on the input `x`, not only on its shape",
    ),
    "random": (
        Call(lambda m, x: F.conv2d(x, m.k * torch.rand(4, 1, 1, 1), groups=4), FULL),
        "draws random numbers",
    ),
    "mutated": (Call(mutated, FULL), "`k` is written to by `mul_` while the model runs"),
}
NEEDS_INPUT = ("trainable", "runtime", "random", "mutated")


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_refusals_say_what_where_and_how_much(code: str) -> None:
    """Each refusal has its code, its site and its message."""
    model, reason = REFUSALS[code]
    finding = only(model, *([torch.randn(1, 4, 8, 8)] if code in NEEDS_INPUT else []))
    assert not finding.shared
    assert finding.refusal is not None
    assert finding.refusal.code == code
    assert finding.refusal.site == finding.id
    assert reason in str(finding.reason)


def test_lazy_module_is_refused() -> None:
    """A weight that is not there yet cannot be compared."""
    finding = only(lazy())
    assert finding.refusal is not None
    assert finding.refusal.code == "lazy"
