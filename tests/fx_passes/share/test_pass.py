"""The pass as a pass of torch: whether it changed a graph, and what it says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from models_to_share import Net, passed
from torch import Tensor, nn
from torch.fx.passes.infra.pass_manager import PassManager

from fx_passes import ShareKernels, find_shared_kernels, share_kernels


def test_pass_is_idempotent_and_honest_about_modified() -> None:
    """A second run changes nothing and says so. So does a run on a model with nothing to share."""
    traced = torch.fx.symbolic_trace(Net())
    first = passed(ShareKernels(), traced)
    assert first.modified
    assert first.graph_module is not traced
    second = passed(ShareKernels(), first.graph_module)
    assert not second.modified
    assert second.graph_module is first.graph_module
    plain = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert not passed(ShareKernels(), plain).modified


def test_composes_in_a_pass_manager() -> None:
    """A pass manager runs the pass twice, until nothing changes."""
    result = PassManager([ShareKernels(), ShareKernels()], steps=3)(torch.fx.symbolic_trace(Net()))
    assert result.modified
    assert all(f.shared or f.id == "depthwise" for f in find_shared_kernels(result.graph_module))


def test_refusals_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log has each site that is not shared, at level INFO, with the reason."""
    with caplog.at_level("INFO", logger="fx_passes.share.share_kernels"):
        share_kernels(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))
    assert "0 is not shared: group 1 differs from group 0 by " in caplog.text


def test_what_tracing_fixes_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Code that asks for the mode keeps one mode. Hooks of an inlined module are lost. Both are logged."""

    class Net(nn.Module):
        def __init__(self, functional: bool) -> None:
            super().__init__()
            self.functional = functional
            self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5))

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x)
            return F.dropout(x, 0.5, training=self.training) if self.functional else x

    share_kernels(Net(False))
    assert not caplog.records
    share_kernels(Net(True))
    assert "`dropout` computes what the model computes in training mode" in caplog.text
    caplog.clear()
    share_kernels(Net(True).eval())
    assert "in evaluation mode, also after train()" in caplog.text
    caplog.clear()
    model = Net(False)
    model.inner.register_forward_hook(lambda module, args, output: None)
    share_kernels(model)
    assert "the hooks of `inner` do not run" in caplog.text
