"""Nodes of opset 18 at older opsets: each is valid there, and computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest
import torch
from known import TESTED
from onnx import NodeProto, TensorProto, ValueInfoProto
from onnx.numpy_helper import from_array
from oracle import of
from torch import Tensor, nn

from export.runtime.session import Array, open_session, run
from export.write_onnx.exporter import export_program, fold_constants
from export.write_onnx.library import Library
from export.write_onnx.older_opset import at_opset
from export.write_onnx.parts import _part
from export.write_onnx.surgery import Replacement, replace_parts
from fx_passes.errors import ExportError
from fx_passes.lowerings import MODULES, build

OPSETS = (11, 12, 13, 14, 15, 17)
X = np.arange(24.0, dtype=np.float32).reshape(2, 1, 3, 4)
CONSTANTS = {
    name: from_array(np.array(numbers), name)
    for name, numbers in {
        "shape": [-1, 4],
        "zero": [0, 5],
        "sizes": [1, 2],
        "axes": [0, -1],
        "axis": [1],
        "pads": [0, 0, 1, 0, 0, 0, 0, 2],
    }.items()
}
node = oh.make_node


def computed(nodes: Sequence[NodeProto], opset: int, like: Array | None = None) -> Array:
    """What nodes compute of ``X``. They are checked, if it is known what the output is ``like``."""
    x, y = oh.make_tensor_value_info("x", TensorProto.FLOAT, X.shape), ValueInfoProto(name="y")
    if like is not None:
        y = oh.make_tensor_value_info("y", oh.np_dtype_to_tensor_dtype(like.dtype), like.shape)
    graph = oh.make_graph(nodes, "test", [x], [y], list(CONSTANTS.values()))
    proto = oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=8)
    if like is not None:
        onnx.checker.check_model(proto, full_check=True)
    (found,) = run(open_session(proto.SerializeToString(), optimized=False), [X])
    return found


NODES = {
    "reshape": [node("Reshape", ["x", "shape"], ["y"], allowzero=1)],
    "split": [node("Split", ["x", "sizes"], ["a", "b"], axis=2), node("Concat", ["b", "a"], ["y"], axis=2)],
    "halves": [node("Split", ["x"], ["a", "b"], axis=3, num_outputs=2), node("Sub", ["a", "b"], ["y"])],
    "squeeze": [node("Squeeze", ["x", "axis"], ["y"])],
    "squeeze all": [node("Squeeze", ["x"], ["y"])],
    "unsqueeze": [node("Unsqueeze", ["x", "axes"], ["y"])],
    "sum": [node("ReduceSum", ["x", "axes"], ["y"], keepdims=0, noop_with_empty_axes=0)],
    "sum all": [node("ReduceSum", ["x"], ["y"])],
    "pad": [node("Pad", ["x", "pads"], ["y"], mode="reflect")],
    "shape": [node("Shape", ["x"], ["y"], name="s", start=0)],
    "sizes from": [node("Shape", ["x"], ["y"], name="s", start=-2)],
    "sizes to": [node("Shape", ["x"], ["y"], name="s", end=-1)],
    "one size": [node("Shape", ["x"], ["y"], name="s", start=2, end=3)],
}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("what", NODES)
def test_each_operator_that_has_changed(what: str, opset: int) -> None:
    """The nodes are valid at the older opset, and give what they give at opset 18."""
    expected = computed(NODES[what], 18)
    found = computed(at_opset(NODES[what], opset, CONSTANTS), opset, like=expected)
    np.testing.assert_array_equal(found, expected)


def test_from_opset_18_on_nodes_stay_as_they_are() -> None:
    """They are the same objects."""
    for nodes in NODES.values():
        for opset in (18, 23):
            assert list(map(id, at_opset(nodes, opset, CONSTANTS))) == list(map(id, nodes))


REFUSED = {
    "Reshape to a size of zero": node("Reshape", ["x", "zero"], ["y"], allowzero=1),
    "Unsqueeze with a computed parameter": node("Unsqueeze", ["x", "computed"], ["y"]),
    "ReduceSum over no axes": node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1),
    "Pad with axes": node("Pad", ["x", "pads", "", "axis"], ["y"]),
    "Pad in mode wrap": node("Pad", ["x", "pads"], ["y"], mode="wrap"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_form(what: str) -> None:
    """The error says which operator, and at which opset."""
    with pytest.raises(ExportError, match=f"^{what} has no form at opset 12$"):
        at_opset([REFUSED[what]], 12, CONSTANTS)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_computed_shape(opset: int) -> None:
    """A size that a node computes is no zero, unless there are no elements."""
    nodes = [
        node("Shape", ["x"], ["first"], start=0, end=1, name="s"),
        node("Concat", ["first", "minus"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["y"], allowzero=1),
    ]
    minus = node("Constant", [], ["minus"], value=from_array(np.array([-1])))
    found = computed([minus, *at_opset(nodes, opset, CONSTANTS)], opset, like=X.reshape(2, 12))
    np.testing.assert_array_equal(found, X.reshape(2, 12))


@dataclass(frozen=True)
class Sites:
    """Sites of each lowering, all exported together: inputs and outputs in torch, and the exported model."""

    names: list[str]
    inputs: list[Tensor]
    outputs: list[Tensor]
    library: ir.Model
    open: bool


def export_sites(*, open_sizes: bool) -> Sites:
    """All examples of each lowering; with open sizes, one of those that are proposed for them."""
    modules: list[nn.Module] = []
    names, inputs, outputs = [], [], []
    for name in MODULES:
        tested = TESTED[name]
        assert tested.onnx is not None
        for case in [tested.onnx.case] if open_sizes else [tested.onnx.case, *tested.examples]:
            # No node of an ONNX file is read as circular padding.
            if case.geometry.padding_mode == "circular" or case.front_mode == "circular":
                continue
            resample, kernel = case.resample(), case.kernel(torch.float32, True)
            if open_sizes:
                shapes = resample.in_shape, resample.out_shape
                known, made = ((None, shape[1], *[None] * resample.dim) for shape in shapes)
                resample = replace(resample, in_shape=known, out_shape=made)
            for proposal in of(name, resample, kernel)[:1]:
                bias, x = case.bias_of(torch.float32), case.input(torch.float32, True)
                modules.append(build(proposal, resample, kernel, bias))
                names.append(name)
                inputs.append(x)
                outputs.append(case.reference(x, kernel, bias))
    auto = torch.export.Dim.AUTO
    dims = {"inputs": tuple({i: auto for i in range(x.ndim) if i != 1} for x in inputs)}
    library = export_program(Library(modules), inputs, dims if open_sizes else None).model
    fold_constants(library)
    return Sites(names, inputs, outputs, library, open_sizes)


@pytest.fixture(scope="module", params=["fixed", "open"])
def sites(request: pytest.FixtureRequest) -> Sites:
    return export_sites(open_sizes=request.param == "open")


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
def test_every_lowering(opset: int, sites: Sites) -> None:
    """With fixed sizes and with open ones: onnx.checker accepts it at the opset, onnxruntime runs it with
    optimizations and without, and the numbers are those of the convolution."""
    for index, (name, x, expected) in enumerate(zip(sites.names, sites.inputs, sites.outputs, strict=True)):
        dims = [[None] * x.ndim if sites.open else list(value.shape) for value in (x, expected)]
        infos = [
            oh.make_tensor_value_info(value, TensorProto.FLOAT, sizes)
            for value, sizes in zip("xy", dims, strict=True)
        ]
        graph = oh.make_graph([node("Identity", ["x"], ["y"])], "test", infos[:1], infos[1:])
        proto = oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=7)
        replace_parts(proto, [Replacement(name, _part(sites.library, index, opset), ("x",), ("y",))])
        assert [(o.domain, o.version) for o in proto.opset_import] == [("", opset)]
        onnx.checker.check_model(proto, full_check=True)
        for optimized in (True, False):
            (found,) = run(open_session(proto.SerializeToString(), optimized=optimized), [x.numpy()])
            scale = float(expected.abs().max())
            np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5 * scale, err_msg=name)
