"""Arguments that an operator only describes: it takes their type or their shape, and no element of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fx_passes import find_shared_kernels, lower, share_kernels
from fx_passes.capture.inference import capture_for_inference
from fx_passes.capture.routes import capture
from fx_passes.records import Refusal
from fx_passes.resample.lowerable import lowerable_sites

pytestmark = pytest.mark.usefixtures("simple_rules")

X = torch.rand(1, 4, 96, 96)
Weight = Callable[["Blur", Tensor], Tensor]


class Blur(nn.Module):
    """``weight`` makes the weight of four groups from a kernel of (1, 1, 9, 9)."""

    def __init__(self, weight: Weight, trainable: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.kernel: Tensor = nn.Parameter(torch.rand(1, 1, 9, 9), requires_grad=trainable)
        self.other = nn.Parameter(torch.rand(4, 1, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(self, x), groups=4)


def four(kernel: Tensor) -> Tensor:
    return kernel.expand(4, -1, -1, -1)


DESCRIBED: dict[str, Weight] = {
    "type_as": lambda m, x: four(m.kernel.type_as(x)),
    "to a tensor": lambda m, x: four(m.kernel.to(x)),
    "to dtype and device": lambda m, x: four(m.kernel.to(x.device, x.dtype)),
    "type of a dtype": lambda m, x: four(m.kernel.type(x.dtype)),
    "type of a type": lambda m, x: four(m.kernel.type(x.type())),
    "type of a trainable weight": lambda m, x: four(m.kernel.type_as(m.other)),
    "expand_as a trainable weight": lambda m, x: m.kernel.expand_as(m.other),
    "expand_as part of the input": lambda m, x: m.kernel.expand_as(x.view(4, 1, 96, 96)[:, :, :9, :9]),
    "view_as": lambda m, x: four(m.kernel.reshape(81).view_as(x[:, :1, :9, :9])),
    "reshape_as": lambda m, x: four(m.kernel.reshape(81).reshape_as(x[:, :1, :9, :9])),
    "broadcast_to": lambda m, x: four(torch.broadcast_to(m.kernel, x[:, :1, :9, :9].shape)),
    "new_tensor": lambda m, x: four(m.kernel * x.new_tensor([2.0])),
    "new_full": lambda m, x: four(m.kernel * x.new_full((1,), 2.0)),
    "new": lambda m, x: four(m.kernel * x.new([2.0])),
    "ones_like": lambda m, x: four(m.kernel * torch.ones_like(x[:, :1, :9, :9])),
    "full_like by keyword": lambda m, x: four(
        m.kernel * torch.full_like(input=x[:, :1, :9, :9], fill_value=2.0)
    ),
    "zeros_like": lambda m, x: four(m.kernel + torch.zeros_like(x)[:, :1, :9, :9]),
    "result_type": lambda m, x: four(m.kernel.to(torch.result_type(m.kernel, x))),
    "type of what is computed": lambda m, x: four(m.kernel.type_as(x.sin())),
}


def chosen(graph_module: nn.Module) -> int:
    """Calls of lowered modules."""
    return sum("lowered" in str(node.target) for node in graph_module.graph.nodes)  # type: ignore[union-attr]


@pytest.mark.parametrize("route", ["torch.export", "symbolic_trace"])
@pytest.mark.parametrize("name", DESCRIBED)
def test_what_is_described_is_not_looked_at(name: str, route: str) -> None:
    """The kernel is a constant, the site is lowered, and the numbers are right: in either form."""
    model = Blur(DESCRIBED[name])
    graph: Any = model if route == "torch.export" else capture(model).graph_module
    lowered = lower(graph, "static", (X,))
    assert chosen(lowered) == 1, lowerable_sites(capture_for_inference(graph, (X,)).graph_module)
    assert torch.allclose(lowered(X), model(X), rtol=1e-4)


READ: dict[str, Weight] = {
    "its mean": lambda m, x: four(m.kernel.type_as(x) * x.mean()),
    "an element": lambda m, x: four(m.kernel * x[0, 0, 0, 0]),
    "itself in its own type": lambda m, x: four(x[:, :1, :9, :9].type_as(m.kernel)),
    "random numbers in its shape": lambda m, x: four(m.kernel * torch.rand_like(x[:, :1, :9, :9])),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_looked_at_is_no_constant(name: str) -> None:
    """The same operators, where an element of the input does get into the kernel."""
    sites, reasons = lowerable_sites(capture_for_inference(Blur(READ[name]), (X,)).graph_module)
    assert sites == []
    assert any(word in str(reasons) for word in ("depends on the input `x`", "draws random numbers"))


def test_an_open_size_stops_what_looks_at_the_shape_alone() -> None:
    """The type of an input whose size is open is known; its shape is not."""
    dynamic = ({2: torch.export.Dim("height", min=32)},)

    def reasons(weight: Weight) -> tuple[int, dict[str, Refusal]]:
        program = torch.export.export(Blur(weight), (X,), dynamic_shapes=dynamic)
        sites, why = lowerable_sites(capture(program).graph_module)
        return len(sites), why

    assert reasons(lambda m, x: four(m.kernel.type_as(x)))[0] == 1
    count, why = reasons(lambda m, x: four(m.kernel * torch.ones_like(x).sum(2, keepdim=True)[:, :1, :, :9]))
    assert count == 0
    assert "computed from the shape or the type of an input" in str(why)


def test_the_shape_of_an_input_is_not_known_without_one() -> None:
    """A weight of an unknown type is shared by its construction; one of unknown values is not."""
    assert find_shared_kernels(capture(Blur(DESCRIBED["type_as"])).graph_module)[0].shared
    by_values = Blur(lambda m, x: m.kernel.repeat(4, 1, 1, 1) * x.new_full((1,), 2.0))
    refusal = find_shared_kernels(capture(by_values).graph_module)[0].refusal
    assert refusal is not None
    assert refusal.code == "dynamic-size"
    assert "give example inputs" in refusal.reason


class Tied(nn.Module):
    """``use`` does something else with the weight of a shared convolution."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, groups=4, bias=False)
        self.conv.weight.data = torch.rand(1, 1, 3, 3).repeat(4, 1, 1, 1)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.conv(x), self.conv.weight)


TYPE_USES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "type_as": lambda y, w: y.type_as(w),
    "to": lambda y, w: y.to(w),
    "new_zeros": lambda y, w: y + w.new_zeros(1),
}


@pytest.mark.parametrize("name", TYPE_USES)
def test_a_use_of_the_type_of_a_weight_needs_no_whole_weight(name: str) -> None:
    """The type is the same after the weight has been cut down; shared, and the same bits."""
    model, x = Tied(TYPE_USES[name]), torch.rand(1, 4, 8, 8)
    shared = share_kernels(model, (x,))
    assert shared.get_parameter("conv.weight").shape == (1, 1, 3, 3)
    assert torch.equal(shared(x), model(x))


def test_a_use_of_the_shape_of_a_weight_needs_the_whole_weight() -> None:
    """What is made like the weight would be smaller afterwards."""
    refusal = find_shared_kernels(Tied(lambda y, w: y + torch.ones_like(w)[0, 0, 0, 0]))[0].refusal
    assert refusal is not None
    assert refusal.code == "tied"
    assert refusal.reason == "`conv.weight` is also used by `ones_like`"


def test_type_as_may_be_the_tensor_itself() -> None:
    """Where the type is the same already, what writes into the result writes into the kernel."""

    def written(m: Blur, x: Tensor) -> Tensor:
        weight = m.kernel.type_as(x)
        weight.mul_(2.0)
        return four(m.kernel)

    (finding,) = find_shared_kernels(Blur(written), (X,))
    assert finding.reason is not None
    assert "`kernel` is written to by `mul_`" in finding.reason
