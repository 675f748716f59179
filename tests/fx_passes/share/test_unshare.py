"""From a shared model back to a plain one."""

from __future__ import annotations

import pytest
import torch
from models_to_share import ROUTES, Net
from torch import Tensor, nn

from fx_passes import share_kernels, unshare_kernels
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv2d


@pytest.mark.parametrize("route", ROUTES)
def test_unshare_is_the_way_back(route: str) -> None:
    """The convolutions are plain again. The original class loads their state_dict."""
    model = Net().eval()
    x = torch.randn(2, 3, 8, 8)
    given = ROUTES[route](model, x)
    plain = unshare_kernels(share_kernels(given))
    assert torch.equal(plain(x), model(x))
    assert not any(type(m) in SHARED_CLASSES.values() for m in plain.modules())
    # torch.fx.symbolic_trace itself drops the parameter that the graph does not read.
    Net().load_state_dict(plain.state_dict(), strict=route != "graph module")
    for name, tensor in given.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor)


def test_a_kernel_that_is_read_elsewhere_stays_one_kernel() -> None:
    """The model also reads the kernel itself. Unsharing does not change what it computes from it."""

    class Regularised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = SharedKernelConv2d(4, 4, 3, groups=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.conv.weight.sum()

    model, x = Regularised(), torch.randn(1, 4, 8, 8)
    assert torch.equal(unshare_kernels(model)(x), model(x))


def test_unshare_leaves_what_it_cannot_take_apart(caplog: pytest.LogCaptureFixture) -> None:
    """A kernel is tied across numbers of groups, or a hook computes it. It stays, and the log says so."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = SharedKernelConv2d(8, 8, 3, groups=8, bias=False)
            self.b = SharedKernelConv2d(4, 4, 3, groups=4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)[:, :4])

    model, x = Tied(), torch.rand(1, 8, 8, 8)
    torch.testing.assert_close(unshare_kernels(model)(x), model(x))
    assert "`a` stays one kernel" in caplog.text
    assert "`b` stays one kernel" in caplog.text
    caplog.clear()
    normed = nn.Sequential(nn.utils.weight_norm(SharedKernelConv2d(8, 8, 3, groups=8)))
    torch.testing.assert_close(unshare_kernels(normed)(x), normed(x))
    assert "`0` stays one kernel" in caplog.text
    parametrised = nn.Sequential(nn.utils.parametrizations.weight_norm(SharedKernelConv2d(8, 8, 3, groups=8)))
    torch.testing.assert_close(share_kernels(parametrised)(x), parametrised(x))
