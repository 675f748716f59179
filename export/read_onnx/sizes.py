"""Shapes of ONNX values as the shapes of fake tensors, which the search for sites reads."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from export.read_onnx.open_shapes import shape_after
from export.read_onnx.size_names import expression_of
from export.read_onnx.types import ValueType
from fx_passes.graph.torch_internals import FakeTensorMode, OpOverload

_library = torch.library.Library("fx_passes", "FRAGMENT")
_library.define("opaque(Tensor[] inputs, str op) -> Tensor[]")
# Stands for every operator of ONNX that is not translated. It writes nothing and is never run.
OPAQUE = torch.ops.fx_passes.opaque.default

Size: TypeAlias = int | torch.SymInt


def open_size(text: str) -> int:
    """Stands for the open size ``text`` in a graph. It is never run."""
    raise NotImplementedError(text)


class FakeValues:
    """Gives FX nodes their example values.

    Args:
        types: what is known of the ONNX values; what follows from it is added. An open size of one name is
            one symbol everywhere.
        inputs: the names of the inputs of the graph. A size that is arithmetic on their open sizes is an
            expression of their symbols.
        least: the smallest values of their open sizes, by name.
    """

    def __init__(
        self, types: dict[str, ValueType], inputs: Iterable[str] = (), least: Mapping[str, int] | None = None
    ) -> None:
        self.types = types
        self._environment = ShapeEnv()
        self._mode = FakeTensorMode(shape_env=self._environment, allow_non_fake_inputs=True)
        given = [types[name].shape for name in inputs if name in types]
        names = dict.fromkeys(size for shape in given for size in shape if isinstance(size, str))
        self._named: dict[str, Any] = {name: self._unknown() for name in names}
        for name in self._named.keys() & (least or {}).keys():
            symbol = self._named[name].node.expr
            self._environment.constrain_symbol_range(symbol, (least or {})[name], sys.maxsize)
        self._symbols = {name: size.node.expr for name, size in self._named.items()}

    def give(self, node: Node, value: str | None) -> None:
        """Set the example value of ``node``: that of an ONNX value, or what its operator makes of its
        inputs."""
        if value is not None and self._follows(node) and (made := self._made(node)) is not None:
            node.meta["val"] = made
            self.types[value] = ValueType(made.dtype, tuple(int(size) for size in made.shape))
        elif value is not None and value in self.types:
            kind = self.types[value]
            node.meta["val"] = self._empty(self._stated(node, kind.shape), kind.dtype)
        elif node.op == "call_function" and all("val" in n.meta for n in node.all_input_nodes):
            node.meta["val"] = self._computed(node)

    def _stated(self, node: Node, shape: Sequence[int | str | None]) -> list[Size]:
        """A shape that the file states. Where a name in it says nothing, the formula of the operator may."""
        formula: list[Any] = [None] * len(shape)
        if node.op == "call_function" and all("val" in n.meta for n in node.all_input_nodes):
            made = shape_after(node, node.all_input_nodes[0].meta["val"].shape)
            formula = made if len(made) == len(shape) else formula
        return [
            self._size(size) if made is None or isinstance(size, int) or self._is_named(size) else made
            for size, made in zip(shape, formula, strict=True)
        ]

    def shape(self, value: str) -> list[Size] | None:
        """The shape of an ONNX value, if each size is a number or follows from the sizes of the inputs."""
        kind = self.types.get(value)
        if kind is None or not all(isinstance(size, int) or self._is_named(size) for size in kind.shape):
            return None
        return [self._size(size) for size in kind.shape]

    def _is_named(self, size: str | None) -> bool:
        return size is not None and expression_of(size, self._symbols) is not None

    def _follows(self, node: Node) -> bool:
        """Whether ``node`` is an operator of torch on values of which every size is known."""
        if node.op != "call_function" or not isinstance(node.target, OpOverload) or node.target is OPAQUE:
            return False
        known = [n.meta.get("val") for n in node.all_input_nodes]
        return all(isinstance(v, Tensor) and all(isinstance(n, int) for n in v.shape) for v in known)

    def _made(self, node: Node) -> Tensor | None:
        """What an operator of torch gives; None if it refuses its inputs. Then the model does so, too."""
        try:
            return self._computed(node)
        except RuntimeError:
            return None

    def _size(self, size: int | str | None) -> Size:
        if isinstance(size, int):
            return size
        if size is None:
            return self._unknown()
        if size not in self._named:
            form = expression_of(size, self._symbols)
            if form is None:
                self._named[size] = self._unknown()
            else:
                integer = int(form) if form.is_Integer else None
                self._named[size] = integer or self._environment.create_symintnode(form, hint=None)
        return self._named[size]

    def _unknown(self) -> Any:
        return self._environment.create_unbacked_symint()

    def _computed(self, node: Node) -> Tensor:
        """What an operator gives that keeps the rank of its input. With open sizes, those that have no
        formula are new ones: torch cannot compute with sizes of which it knows nothing."""
        given = node.all_input_nodes[0].meta["val"]
        if all(isinstance(size, int) for size in given.shape):
            with self._mode:
                args = torch.fx.map_arg(node.args, lambda n: n.meta["val"])
                return node.target(*args)  # type: ignore[operator,no-any-return]
        made = shape_after(node, given.shape)
        return self._empty([self._unknown() if size is None else size for size in made], given.dtype)

    def _empty(self, shape: Sequence[Size], dtype: torch.dtype) -> Tensor:
        with self._mode:
            return torch.empty(shape, dtype=dtype)
