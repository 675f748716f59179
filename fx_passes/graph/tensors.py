"""The tensors a graph module holds, and every place of the graph that uses each of them.

Tensors are told apart by their storage, so that one parameter under two names, two ``get_attr`` nodes
of one buffer, and a view of a parameter that is registered as a buffer are all seen as what they are.
Built once per graph in time linear in nodes and tensors.
"""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from fx_passes.graph.operators import may_alias, written_nodes
from fx_passes.graph.torch_internals import storage_id, unsaved_buffers
from fx_passes.records import OriginKind


def storage_key(tensor: Tensor) -> int:
    """Identifies the memory of a tensor for as long as it lives, also on the meta device."""
    try:
        return storage_id(tensor)
    except NotImplementedError:  # sparse: nothing can be a view of it
        return id(tensor)


def attribute(module: nn.Module, name: str) -> object:
    """The attribute of a dotted name, or None where there is none."""
    value: object = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


class State:
    """Parameters, buffers and tensor attributes of a graph module, with their uses.

    ``volatile`` has the names of tensors that are in no state_dict: constants, for all a user can tell.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        self.graph_module = graph_module
        self.position = {node: i for i, node in enumerate(graph_module.graph.nodes)}
        self.tensors: dict[str, Tensor] = {}
        self.kinds: dict[str, OriginKind] = {}
        for name, parameter in graph_module.named_parameters(remove_duplicate=False):
            self.tensors[name], self.kinds[name] = parameter, "parameter"
        for name, buffer in graph_module.named_buffers(remove_duplicate=False):
            self.tensors[name], self.kinds[name] = buffer, "buffer"
        self.reads: dict[int, list[Node]] = defaultdict(list)
        self.calls: dict[str, list[Node]] = defaultdict(list)
        for node in self.position:
            if node.op == "call_module":
                self.calls[str(node.target)].append(node)
            elif node.op == "get_attr":
                value = attribute(graph_module, str(node.target))
                if isinstance(value, Tensor):
                    self.tensors.setdefault(str(node.target), value)
                    self.kinds.setdefault(str(node.target), "buffer")
                    self.reads[storage_key(value)].append(node)
        self.volatile: set[str] = set()
        for prefix, module in graph_module.named_modules(remove_duplicate=False):
            for key in unsaved_buffers(module):
                self.volatile.add(f"{prefix}.{key}" if prefix else key)
        self.names: dict[int, list[str]] = defaultdict(list)
        for name, tensor in self.tensors.items():
            if not nn.parameter.is_lazy(tensor):
                self.names[storage_key(tensor)].append(name)

    def read(self, node: Node) -> Tensor | None:
        """The tensor that a ``get_attr`` node reads, or None for any other node."""
        return self.tensors.get(str(node.target)) if node.op == "get_attr" else None

    def writers(self, node: Node) -> list[Node]:
        """Every node that writes into ``node`` or into anything that shares its memory."""
        tensor = self.read(node)
        aliases = [node] if tensor is None else list(self.reads[storage_key(tensor)])
        seen, found = set(aliases), []
        while aliases:
            alias = aliases.pop()
            for user in alias.users:
                if alias in written_nodes(user):
                    found.append(user)
                if user not in seen and may_alias(user, alias):
                    seen.add(user)
                    aliases.append(user)
        return found
