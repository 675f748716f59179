"""Checkpoints loaded into shared modules that a model was written with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fx_passes import (
    CheckpointError,
    SharedKernelConv2d,
    SharedKernelConvTranspose2d,
    shared_state_dict,
)


def test_shared_modules_load_by_themselves() -> None:
    """They load under any prefix. ``shared_state_dict`` checks all of them before anything is loaded."""
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1),
        SharedKernelConv2d(3, 3, 3, groups=3),
        SharedKernelConvTranspose2d(3, 3, 2, groups=3),
    )
    plain = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, groups=3), nn.ConvTranspose2d(3, 3, 2, groups=3)
    )
    with torch.no_grad():
        for name in "12":
            weight = plain.get_parameter(f"{name}.weight")
            weight.copy_(weight[:1].clone().expand_as(weight))
            plain.get_parameter(f"{name}.bias").fill_(0.5)
    nn.ModuleDict({"net": model}).load_state_dict(nn.ModuleDict({"net": plain}).state_dict())
    x = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(model(x), plain(x))
    plain.get_parameter("2.weight").data[1] += 1
    plain.get_parameter("0.weight").data += 1
    before = model.get_parameter("0.weight").clone()
    with pytest.raises(CheckpointError, match=r"`2.weight`: group 1 differs from group 0 by 1 at"):
        model.load_state_dict(shared_state_dict(model, plain.state_dict()))
    assert torch.equal(model.get_parameter("0.weight"), before)
    with pytest.raises(CheckpointError, match=r"`2.weight`: group 1 differs"):
        model.load_state_dict(plain.state_dict())


def test_nan_repeats_load() -> None:
    """A run has diverged. Its checkpoint still loads, so that one can look into it."""
    model = SharedKernelConv2d(3, 3, 3, groups=3, bias=False)
    model.load_state_dict({"weight": torch.full((3, 1, 3, 3), torch.nan)})
    assert model.weight.isnan().all()
