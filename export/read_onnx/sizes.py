"""Shapes of ONNX values as the shapes of fake tensors, which the search for sites reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from export.read_onnx.types import ValueType
from fx_passes.graph.torch_internals import FakeTensorMode, OpOverload

_library = torch.library.Library("fx_passes", "FRAGMENT")
_library.define("opaque(Tensor[] inputs, str op) -> Tensor[]")
# Stands for every operator of ONNX that is not translated. It writes nothing and is never run.
OPAQUE = torch.ops.fx_passes.opaque.default


class FakeValues:
    """Gives FX nodes their example values.

    Args:
        types: what is known of the ONNX values; what follows from it is added. An open size of one name is
            one symbol everywhere.
    """

    def __init__(self, types: dict[str, ValueType]) -> None:
        self.types = types
        self._environment = ShapeEnv()
        self._mode = FakeTensorMode(shape_env=self._environment, allow_non_fake_inputs=True)
        self._named: dict[str, Any] = {}

    def give(self, node: Node, value: str | None) -> None:
        """Set the example value of ``node``: that of an ONNX value, or what its operator makes of its
        inputs."""
        if value is not None and self._follows(node) and (made := self._made(node)) is not None:
            node.meta["val"] = made
            self.types[value] = ValueType(made.dtype, tuple(int(size) for size in made.shape))
        elif value is not None and value in self.types:
            kind = self.types[value]
            with self._mode:
                node.meta["val"] = torch.empty([self._size(n) for n in kind.shape], dtype=kind.dtype)
        elif node.op == "call_function" and all("val" in n.meta for n in node.all_input_nodes):
            node.meta["val"] = self._computed(node)

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

    def _size(self, size: int | str | None) -> Any:
        if isinstance(size, int):
            return size
        if size is None:
            return self._environment.create_unbacked_symint()
        if size not in self._named:
            self._named[size] = self._environment.create_unbacked_symint()
        return self._named[size]

    def _computed(self, node: Node) -> Tensor:
        """What an operator gives that keeps the rank of its input. With open sizes, every size is open: torch
        cannot compute with sizes of which it knows nothing."""
        given = node.all_input_nodes[0].meta["val"]
        with self._mode:
            if all(isinstance(size, int) for size in given.shape):
                args = torch.fx.map_arg(node.args, lambda n: n.meta["val"])
                return node.target(*args)  # type: ignore[operator,no-any-return]
            return torch.empty([self._size(None) for _ in given.shape], dtype=given.dtype)
