"""How a shared convolution is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fx_passes import ShareKernels, share_kernels, unshare_kernels


def test_dense_block_diagonal_keeps_its_bits() -> None:
    """A dense convolution stays dense, so NaN spreads as before. Its one parameter is one kernel."""
    dense = nn.Conv2d(4, 4, 3)
    dense.weight.data.zero_()
    dense.weight.data[range(4), range(4)] = torch.randn(3, 3)
    x = torch.randn(1, 4, 8, 8)
    x[0, 0, 0, 0] = torch.inf
    for given in (nn.Sequential(dense), torch.export.export(dense, (x,)).module()):
        shared = share_kernels(given)
        assert torch.equal(shared(x).nan_to_num(), dense(x).nan_to_num())
        assert next(shared.parameters()).shape == (1, 1, 3, 3)


def test_formulation_of_what_is_shared() -> None:
    """The default keeps the bits of the original. Another formulation is taken where the site allows it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 6, 3, groups=3))
    with torch.no_grad():
        for name, rows in (("0.weight", 1), ("1.weight", 2)):
            weight = model.get_parameter(name)
            weight.copy_(weight[:rows].repeat(3, 1, 1, 1))
    x = torch.randn(2, 3, 9, 9)
    assert {share_kernels(model).get_submodule(name).formulation for name in "01"} == {"grouped"}
    shared = share_kernels(model, formulation="polyphase")
    assert [shared.get_submodule(name).formulation for name in "01"] == ["polyphase", "grouped"]
    torch.testing.assert_close(shared(x), model(x))
    plain = unshare_kernels(shared)
    assert type(plain.get_submodule("0")) is nn.Conv2d
    assert not hasattr(plain.get_submodule("0"), "formulation")


def test_a_formulation_that_does_not_exist() -> None:
    """An unknown formulation is an error. No other one replaces it silently."""
    for share in (
        lambda: share_kernels(nn.ReLU(), formulation="polyfase"),  # type: ignore[arg-type]  # what is refused
        lambda: ShareKernels(formulation="fast"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="formulation must be one of"):
            share()
