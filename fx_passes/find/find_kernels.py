"""Finds every convolution that could share a kernel, and judges it: shared, or refused with a reason.

There are three kinds of candidates: convolutions with groups > 1, dense convolutions whose weight is zero
outside equal diagonal blocks, and convolutions with one input and one output channel, which are one kernel
already. For an export, few filters on one channel are candidates as well (``judge.is_bank``). Any other dense
convolution is no candidate and is not listed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from fx_passes.capture.routes import capture
from fx_passes.errors import UsageError
from fx_passes.find.calls import ConvCall, find_calls
from fx_passes.find.judge import judge_call, refuse_unseen
from fx_passes.find.tied_weights import settle_ties
from fx_passes.find.verdict import Verdict
from fx_passes.graph.tensors import State, attribute
from fx_passes.graph.torch_internals import ConvNd
from fx_passes.kernels.repeats import EXACT, Allowed, Force
from fx_passes.records import Finding

# In ``meta`` of a node: the id of its site, for a graph that has names of its own.
SITE_ID = "site_id"


def find_shared_kernels(
    model: nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | None = None,
    *,
    tolerance: float = 0.0,
    force: Force | None = None,
    sites: Collection[str] | None = None,
) -> list[Finding]:
    """Every candidate convolution of ``model``, in program order, shared or refused with a reason.

    Args:
        model: an ``nn.Module``, ``torch.fx.GraphModule`` or ``torch.export.ExportedProgram``.
        example_inputs: positional arguments of ``model``. They are needed if symbolic tracing fails, or if a
            weight depends on the shape of an input.
        tolerance, force, sites: as in :class:`~fx_passes.ShareKernels`.

    Raises:
        CaptureError: no route gave a graph of the model.
        UsageError: the model has no site of a name in ``sites``.

    Example:
        >>> import torch
        >>> conv = nn.Conv2d(3, 3, 3, groups=3)
        >>> _ = conv.weight.data.copy_(torch.rand(1, 1, 3, 3))
        >>> [(f.id, f.shared, f.kernel_shape) for f in find_shared_kernels(conv)]
        [('conv2d', True, (1, 1, 3, 3))]
    """
    graph_module = capture(model, example_inputs).graph_module
    verdicts = judge_graph(graph_module, Allowed(tolerance, force), sites)
    return [verdict.finding for verdict in verdicts]


def judge_graph(
    graph_module: GraphModule,
    allowed: Allowed = EXACT,
    sites: Collection[str] | None = None,
    *,
    frozen: bool = False,
) -> list[Verdict]:
    """A verdict on every candidate of a graph.

    The time is linear in the nodes of the graph and in the bytes of its weights.

    Args:
        allowed: how far repeats may differ.
        sites: ids of the sites that ``allowed`` holds for. None: all sites. At other sites the repeats must
            be equal.
        frozen: the graph is for an export. Trainable tensors are constants, and the order of elements in
            memory does not matter.

    Raises:
        UsageError: the graph has no site of such an id, or ``sites`` is a text.
    """
    if isinstance(sites, str):
        raise UsageError(f"sites must be a collection of ids, not the text {sites!r}")
    state = State(graph_module)
    ids = _SiteIds()
    calls = [(call, ids.of(call.node)) for call in find_calls(graph_module)]
    verdicts = [
        judge_call(call, name, state, allowed if sites is None or name in sites else EXACT, frozen)
        for call, name in calls
    ]
    if sites is not None and (unknown := sorted(set(sites) - {name for _, name in calls})):
        listed = ", ".join(v.finding.id for v in verdicts if v is not None) or "none"
        raise UsageError(f"the model has no convolution `{unknown[0]}`; its candidates are: {listed}")
    settled = settle_ties([v for v in verdicts if v is not None], state)
    return [*settled, *_out_of_reach(graph_module, ids)]


class _SiteIds:
    """Readable ids, unique in the model: the path of a module, or path/node."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = defaultdict(int)

    def of(self, node: Node, prefix: str = "") -> str:
        name = str(node.meta.get(SITE_ID, node.target))
        if node.op != "call_module" and SITE_ID not in node.meta:
            stack = node.meta.get("nn_module_stack") or {}
            path = next(reversed(stack.values()))[0] if stack else ""
            path = path.removeprefix("L['self'].").removeprefix("L__self__.")
            name = f"{path}/{node.name}" if path else node.name
        name = prefix + name
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}#{self._seen[name]}"


def _out_of_reach(graph_module: GraphModule, ids: _SiteIds, path: str = "") -> Iterator[Verdict]:
    """Grouped convolutions that the top-level graph does not show: in inner graphs and leaf modules."""
    for node in graph_module.graph.nodes:
        if node.op not in ("get_attr", "call_module"):
            continue
        inner, where = attribute(graph_module, str(node.target)), f"{path}{node.target}"
        found: Iterator[Verdict | None] = iter(())
        if isinstance(inner, GraphModule):
            found = _inside_graph(inner, where, ids)
        elif node.op == "call_module" and isinstance(inner, nn.Module):
            found = _inside_leaf(node, inner, where)
        yield from (verdict for verdict in found if verdict is not None)


def _inside_graph(body: GraphModule, where: str, ids: _SiteIds) -> Iterator[Verdict | None]:
    reason = f"inside `{where}`, an inner graph; only the top-level graph is rewritten"
    for call in find_calls(body):
        yield refuse_unseen(call, ids.of(call.node, f"{where}/"), "subgraph", reason)
    yield from _out_of_reach(body, ids, f"{where}/")


def _inside_leaf(node: Node, leaf: nn.Module, where: str) -> Iterator[Verdict | None]:
    reason = f"inside `{where}` ({type(leaf).__name__}), which the graph calls as a whole"
    for path, module in leaf.named_modules():
        if path and isinstance(module, ConvNd):
            name = f"{where}.{path}"
            op = f"{'conv_transpose' if module.transposed else 'conv'}{len(module.kernel_size)}d"
            call = ConvCall(node, "module", op, f"{name}.weight", None, {"groups": module.groups})
            weight = getattr(module, "weight", None)
            shape = () if weight is None or nn.parameter.is_lazy(weight) else tuple(weight.shape)
            yield refuse_unseen(call, name, "leaf", reason, shape)
