"""The three passes under torch's own PassManager: what they say of themselves is true."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_base import PassBase
from torch.fx.passes.infra.pass_manager import PassManager

from fx_passes import Lower, ShareKernels, UnshareKernels, lower, share_kernels, unshare_kernels
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.train.shared_conv import SharedKernelConv2d

pytestmark = pytest.mark.usefixtures("simple_rules")

X = torch.rand(1, 3, 64, 64)


def blurs() -> nn.Module:
    """A site that the rules lower, and one that they leave."""
    torch.manual_seed(0)
    wide, narrow = nn.Conv2d(3, 3, 9, padding=4, groups=3), nn.Conv2d(3, 3, (1, 3), stride=4, groups=3)
    for conv in (wide, narrow):
        conv.weight.data = torch.rand(1, 1, *conv.kernel_size).repeat(3, 1, 1, 1)
        nn.init.constant_(conv.get_parameter("bias"), 0.5)
    return nn.Sequential(wide, narrow).eval()


def exported(model: nn.Module) -> GraphModule:
    module = torch.export.export(model, (X,)).module()
    assert isinstance(module, GraphModule)
    return module


def lowered_calls(graph_module: GraphModule) -> int:
    return sum(isinstance(module, Lowered) for module in graph_module.modules())


def test_lower_does_what_the_function_does() -> None:
    """The same modules and numbers; the graph that was given is left alone, which a second run shows."""
    graph_module = exported(blurs())
    before = graph_module.code, {k: v.clone() for k, v in graph_module.state_dict().items()}
    result = Lower()(graph_module)
    assert result is not None
    assert result.modified
    assert result.graph_module is not graph_module
    expected = lower(graph_module, "static")
    assert result.graph_module.code == expected.code
    assert torch.equal(result.graph_module(X), expected(X))
    assert lowered_calls(result.graph_module) == 1
    assert graph_module.code == before[0]
    assert all(torch.equal(v, before[1][k]) for k, v in graph_module.state_dict().items())


def test_lower_refuses_other_inputs() -> None:
    """The check of the inputs stays in front of what the pass returns."""
    result = Lower()(exported(blurs()))
    assert result is not None
    with pytest.raises(ValueError, match=r"captured for shape \(1, 3, 64, 64\), got \(1, 3, 64, 65\)"):
        result.graph_module(torch.rand(1, 3, 64, 65))


def test_a_pass_that_does_nothing_says_so() -> None:
    """The same object comes back where there is nothing to lower, or to undo."""
    plain = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    passes: list[PassBase] = [Lower(), UnshareKernels(), ShareKernels()]
    for one in passes:
        result = one(plain)
        assert result is not None
        assert result.graph_module is plain
        assert not result.modified


def test_unshare_gives_back_what_share_cut() -> None:
    """Whole weights again; what was given keeps its one kernel."""
    model = blurs()
    shared = share_kernels(model)
    result = UnshareKernels()(shared)
    assert result is not None
    assert result.modified
    state = result.graph_module.state_dict()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert isinstance(shared.get_submodule("0"), SharedKernelConv2d)
    again = UnshareKernels()(result.graph_module)
    assert again is not None
    assert not again.modified


def test_all_three_in_a_pass_manager() -> None:
    """There and back, then lowered: one after the other, as often as the manager likes."""
    model = blurs()
    manager = PassManager([ShareKernels(), UnshareKernels()])
    back = manager(torch.fx.symbolic_trace(model))
    assert back.modified
    assert torch.equal(back.graph_module(X), model(X))
    twice = PassManager([Lower(), Lower()], steps=2)(exported(model))
    assert lowered_calls(twice.graph_module) == 1
    found: Tensor = twice.graph_module(X)
    torch.testing.assert_close(found, model(X), atol=1e-4, rtol=1e-4)


def test_the_function_and_the_pass_undo_the_same() -> None:
    """``unshare_kernels`` and the pass give the same model."""
    shared = share_kernels(blurs())
    one, other = unshare_kernels(shared), UnshareKernels()(shared)
    assert other is not None
    assert one.code == other.graph_module.code
    pairs = zip(one.state_dict().items(), other.graph_module.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)
