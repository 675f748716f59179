"""The project's seed model: sharing keeps its bits, and it trains as one kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models_to_share import seed_model
from torch import nn
from torch.fx import GraphModule

from fx_passes import share_kernels
from fx_passes.share import rewrite_sites
from fx_passes.share.replace_module import share_module

FORMS = {
    "functional": lambda conv, x: conv,
    "module": lambda conv, x: nn.Sequential(conv),
    "aten": lambda conv, x: torch.export.export(conv, (x,)),
    "graph module": lambda conv, x: torch.fx.symbolic_trace(nn.Sequential(conv)),
}


@pytest.mark.parametrize("form", FORMS)
def test_seed_same_bits_and_summed_gradients(form: str) -> None:
    """The output is the same bit for bit. Gradients are the sums over the groups, not the means."""
    conv, _, x = seed_model()
    expected = conv(x)
    assert torch.allclose(expected.flatten(), torch.tensor([-1.0085, -1.0068, -1.0451]), atol=5e-5)
    shared = share_kernels(FORMS[form](conv, x))
    assert torch.equal(shared(x), expected)
    weight, bias = shared.parameters()
    assert (weight.shape, bias.shape) == ((1, 1, 3, 3), (1,))
    expected.mean().backward()
    shared(x).mean().backward()
    for found, name in ((weight, "weight"), (bias, "bias")):
        full = conv.get_parameter(name).grad
        assert full is not None
        torch.testing.assert_close(found.grad, full.sum(0, keepdim=True), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "optimizer",
    [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.01)],
    ids=["SGD with momentum", "Adam"],
)
@pytest.mark.parametrize("form", FORMS)
def test_seed_trains_as_one_kernel_applied_channel_by_channel(
    form: str, optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    """Ten steps on the shared model are ten steps on the one kernel."""
    conv, kernel, x = seed_model()
    shared = share_kernels(FORMS[form](conv, x))
    target = torch.rand(1, 3, 1, 1)
    ours, theirs = optimizer(shared.parameters()), optimizer(kernel.parameters())
    for _ in range(10):
        for step, output in ((ours, shared(x)), (theirs, torch.cat([kernel(c) for c in x.split(1, 1)], 1))):
            step.zero_grad()
            F.mse_loss(output, target).backward()
            step.step()
    for found, expected in zip(shared.parameters(), kernel.parameters(), strict=True):
        assert not torch.equal(found, torch.zeros_like(found))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "fault",
    ["stride", "padding", "tap"],
)
def test_bitwise_law_fails_on_a_planted_fault(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the output changes if the shared module is wrong."""
    conv, _, _ = seed_model()
    x = torch.rand(1, 3, 9, 9)

    def faulty(graph_module: GraphModule, target: str, *arguments: Any) -> None:
        share_module(graph_module, target, *arguments)
        module: Any = graph_module.get_submodule(target)
        if fault == "stride":
            module.stride = (2, 2)
        elif fault == "padding":
            module.padding = (1, 1)
        else:
            module.weight.data[0, 0, 0, 0] += 1e-6

    monkeypatch.setattr(rewrite_sites, "share_module", faulty)
    assert not torch.equal(share_kernels(nn.Sequential(conv))(x), conv(x))
