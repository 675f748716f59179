"""Exports each distinct lowered module once, however often the graph calls it.

torch's exporter takes milliseconds for every operator of every call. Equal sites call one module of the
lowered graph. All these modules are exported together, as a library. The graph around them is exported with
one opaque node for each call. Then the nodes of the library replace the opaque ones, and each constant is
stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from fx_passes.graph.clone import clone_module
from fx_passes.lowerings.forms.base import Lowered
from fx_passes.resample.axes import Resample

DOMAIN = "fx_passes"


class _Opaque(nn.Module):
    """Stands for a lowered module while the graph around it is exported."""

    def __init__(self, module: Lowered, index: int) -> None:
        super().__init__()
        self.out_shape, self.index = module.out_shape, index

    def forward(self, x: Tensor) -> Tensor:
        attributes: Any = {"index": self.index}
        shape = self.out_shape(x)
        return torch.onnx.ops.symbolic(f"{DOMAIN}::Lowered", (x,), attributes, dtype=x.dtype, shape=shape)


@dataclass(frozen=True)
class Hidden:
    """A model with opaque nodes in place of lowered modules, these modules, and example inputs for each."""

    model: Any
    modules: tuple[Lowered, ...] = ()
    inputs: tuple[Tensor, ...] = ()


def hide_lowered(model: Any) -> Hidden:
    """A copy of ``model`` with opaque nodes for calls of lowered modules. It can be exported, but not run."""
    if not isinstance(model, GraphModule):
        return Hidden(model)
    calls = [n for n in model.graph.nodes if n.op == "call_module" and _is_lowered(model, str(n.target))]
    if not calls:
        return Hidden(model)
    inputs = {str(node.target): _example(node.args[0].meta["val"]) for node in calls}  # type: ignore[union-attr]
    modules = {name: model.get_submodule(name) for name in inputs}
    hidden = clone_module(model)
    for index, (name, module) in enumerate(modules.items()):
        hidden.set_submodule(name, _Opaque(module, index))  # type: ignore[arg-type]
    return Hidden(hidden, tuple(modules.values()), tuple(inputs.values()))  # type: ignore[arg-type]


def _is_lowered(model: GraphModule, target: str) -> bool:
    return isinstance(model.get_submodule(target), Lowered)


def _example(value: Tensor) -> Tensor:
    """Zeros in the shape of the captured value of a node."""
    sizes = [size if isinstance(size, int) else int(size.node.hint) for size in value.shape]
    return torch.zeros(sizes, dtype=value.dtype)


class Library(nn.Module):
    """All modules side by side, with one input and one output each."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.entries = nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(entry(x) for entry, x in zip(self.entries, inputs, strict=True))


def open_dims(resample: Resample) -> dict[int, Any]:
    """The open sizes of the input of a resampling, as ``torch.export.export`` takes them."""
    return {i: torch.export.Dim.AUTO for i, size in enumerate(resample.in_shape) if size is None}


def splice(model: ir.Model, library: ir.Model) -> None:
    """Replace the opaque nodes of ``model`` by the nodes of ``library``, in place."""
    found: dict[int, Entry] = {}
    stored: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        if node.domain == DOMAIN:
            index = node.attributes["index"].as_int()
            if index not in found:
                found[index] = entry_of(library.graph, index)
            _replace(model.graph, node, found[index], stored)
    model.opset_imports.pop(DOMAIN, None)


@dataclass(frozen=True)
class Entry:
    """One module of a library: its input, its output, and the nodes between them in order."""

    input: ir.Value
    output: ir.Value
    nodes: tuple[ir.Node, ...]


def entry_of(graph: ir.Graph, index: int) -> Entry:
    """The nodes that compute output ``index`` of a library from input ``index``."""
    output = graph.outputs[index]
    needed: set[ir.Node] = set()
    stack = [output.producer()]
    while stack:
        node = stack.pop()
        if node is not None and node not in needed:
            needed.add(node)
            stack.extend(value.producer() for value in node.inputs if value is not None)
    return Entry(graph.inputs[index], output, tuple(node for node in graph if node in needed))


def model_of(library: ir.Model, index: int) -> ir.Model:
    """One entry of a library as a model of its own."""
    entry = entry_of(library.graph, index)
    x = ir.Value(name="x", shape=entry.input.shape, type=entry.input.type)
    graph = ir.Graph([x], [], nodes=[], opset_imports=dict(library.graph.opset_imports), name="entry")
    copies, result = _copies(graph, entry, x, "entry", {})
    graph.extend(copies)
    graph.outputs.append(result)
    return ir.Model(graph, ir_version=library.ir_version)


def _replace(graph: ir.Graph, opaque: ir.Node, entry: Entry, stored: dict[ir.Value, ir.Value]) -> None:
    """Put copies of the nodes of ``entry`` in place of ``opaque``."""
    source = opaque.inputs[0]
    assert source is not None
    prefix = opaque.name or opaque.outputs[0].name or "lowered"
    copies, result = _copies(graph, entry, source, prefix, stored)
    ir.convenience.replace_nodes_and_values(graph, opaque, [opaque], copies, opaque.outputs, [result])


def _copies(
    graph: ir.Graph, entry: Entry, source: ir.Value, prefix: str, stored: dict[ir.Value, ir.Value]
) -> tuple[list[ir.Node], ir.Value]:
    """Copies of the nodes of ``entry`` that read ``source``, and their last value."""
    mapping: dict[ir.Value, ir.Value] = {entry.input: source}
    copies = []
    for node in entry.nodes:
        inputs = [None if v is None else mapping.get(v) or _constant(graph, v, stored) for v in node.inputs]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            node.attributes.values(),
            overload=node.overload,
            num_outputs=len(node.outputs),
            version=node.version,
            name=f"{prefix}/{node.name}",
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.type = f"{prefix}/{old.name}", old.type
            # Open sizes have names that mean something in their own model only.
            new.shape = old.shape if old.shape is not None and old.shape.is_static() else None
            mapping[old] = new
        copies.append(copy)
    return copies, mapping[entry.output]


def _constant(graph: ir.Graph, value: ir.Value, stored: dict[ir.Value, ir.Value]) -> ir.Value:
    """The initializer of the model for one of the library. It is made when it is first needed."""
    if value not in stored:
        name = f"{DOMAIN}/{value.name}"
        stored[value] = ir.Value(name=name, shape=value.shape, type=value.type, const_value=value.const_value)
        graph.register_initializer(stored[value])
    return stored[value]
