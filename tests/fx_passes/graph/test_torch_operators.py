"""The private operators of torch, and what torch says about an operator."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_programs import graph_of, program, targets
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import Node

from fx_passes.graph import operators
from fx_passes.graph import torch_internals as internals


def test_op_overload() -> None:
    """The operators of an exported graph are overloads, and have a name. Functions and packets are none."""
    found = [t for t in targets(program().module()) if isinstance(t, internals.OpOverload)]
    assert [t.name() for t in found] == ["aten::mul.Tensor", "aten::add.Tensor"]
    assert torch.ops.aten.conv2d.default.name() == "aten::conv2d"
    assert not isinstance(torch.add, internals.OpOverload)


def test_op_overload_packet() -> None:
    """A packet holds all overloads of an operator. An overload knows its packet."""
    packet = torch.ops.aten.conv2d
    assert isinstance(packet, internals.OpOverloadPacket)
    assert not isinstance(packet.default, internals.OpOverloadPacket)
    assert packet.default.overloadpacket is packet


def test_schema_of() -> None:
    """A schema has names, defaults, and the arguments that are written to or viewed."""
    conv = internals.schema_of(torch.ops.aten.conv2d.default).arguments
    assert [a.name for a in conv] == "input weight bias stride padding dilation groups".split()
    assert {a.name: a.default_value for a in conv if a.has_default_value()}["groups"] == 1
    written = internals.schema_of(torch.ops.aten.add_.Tensor).arguments
    assert [bool(a.alias_info and a.alias_info.is_write) for a in written] == [True, False, False]
    viewed = internals.schema_of(torch.ops.aten.expand.default).arguments[0].alias_info
    assert viewed is not None
    assert not viewed.is_write
    assert internals.schema_of(torch.ops.aten.clone.default).arguments[0].alias_info is None


def test_names_of_operators() -> None:
    """Our tables have names of operators as texts. This torch has an operator for each."""
    tables = [operators.LAYOUT, operators.CONVOLUTIONS, operators.SCATTER, operators.RANDOM]
    known = {name for table in tables for name in table if name.startswith("_")}
    known |= {"_assert_tensor_metadata", "_local_scalar_dense"}
    assert {"_to_copy", "_unsafe_view", "_convolution"} <= known
    assert [name for name in sorted(known) if not hasattr(torch.ops.aten, name)] == []
    assert callable(Tensor._is_view)


def test_aten_convolution() -> None:
    """It takes the arguments of ``aten.convolution``, and four flags."""
    x, weight = torch.rand(1, 2, 5), torch.rand(2, 1, 3)
    found = internals.ATEN_CONVOLUTION(
        x, weight, None, [1], [0], [1], False, [0], 2, False, False, False, False
    )
    assert torch.equal(found, F.conv1d(x, weight, groups=2))
    names = [a.name for a in internals.schema_of(internals.ATEN_CONVOLUTION).arguments]
    plain = [a.name for a in internals.schema_of(torch.ops.aten.convolution.default).arguments]
    assert names[:9] == plain


def test_torch_convolution() -> None:
    """The same operator as a function. Symbolic tracing records it as it is."""
    weight = torch.rand(2, 1, 3)

    def call(x: Tensor) -> Tensor:
        return torch._convolution(x, weight, None, [1], [0], [1], False, [0], 2, False, False, False, False)

    assert internals.TORCH_CONVOLUTION in targets(torch.fx.symbolic_trace(call))


class Folds(nn.Module):
    """(n,) -> (n / 2, 2). n is even."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2)


def test_aten_assert_scalar() -> None:
    """A model needs something of an open size. The graph says it as an expression of symbols."""
    with internals.sizes_of_one_stay_open():
        exported = program(
            Folds(),
            torch.rand(6),
            dynamic_shapes=({0: Dim.DYNAMIC},),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    nodes = [node for node in exported.graph.nodes if node.target is internals.ATEN_ASSERT_SCALAR]
    (size,) = (n.meta["val"].shape[0].node.expr for n in exported.graph.nodes if n.op == "placeholder")
    conditions = [n.args[0].meta["val"].node.expr for n in nodes if isinstance(n.args[0], Node)]
    assert any(condition.free_symbols == {size} for condition in conditions)


def test_assert_async() -> None:
    """It raises its message where the tensor is false. It breaks no graph."""
    internals.ASSERT_ASYNC(torch.tensor(True), "never said")
    with pytest.raises(RuntimeError, match="said here"):
        internals.ASSERT_ASYNC(torch.tensor(False), "said here")

    def check(x: Tensor) -> Tensor:
        internals.ASSERT_ASYNC(x.sum() > 0, "said here")
        return x + 1

    assert len(graph_of(check, torch.ones(2))) == 1


def test_set_grad_enabled() -> None:
    """Dynamo writes this target where a function switches gradients."""

    def frozen(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x * 2
        return x + y

    (graph_module,) = graph_of(frozen, torch.ones(2, requires_grad=True))
    assert targets(graph_module).count(internals.SET_GRAD_ENABLED) == 2
    (plain,) = graph_of(torch.sin, torch.ones(2))
    assert internals.SET_GRAD_ENABLED not in targets(plain)
