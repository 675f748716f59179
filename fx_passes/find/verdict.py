"""A finding together with what sharing is going to do about it, and the live parts of the graph for that."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from fx_passes.find.calls.call import ConvCall
from fx_passes.find.construction import Construction
from fx_passes.records import Finding, Refusal


@dataclass(frozen=True)
class KeepOne:
    """The weight is one kernel already: of a shared module, or of a convolution of one channel."""


@dataclass(frozen=True)
class CutTensor:
    """The weight, or the bias, is a tensor of the model, which is to be cut down to its kernel.

    Args:
        names: every name that the parameter or buffer has.
        kernel: the values; a view, not a copy, of the tensor.
    """

    names: tuple[str, ...]
    kernel: Tensor


@dataclass(frozen=True)
class ExpandConstruction:
    """The graph itself repeats one kernel, which is to be expanded instead.

    Args:
        construction: how it repeats the kernel.
        kernel: the values, where they are known.
        literal: they are computed from nothing that a user could load, train or replace.
    """

    construction: Construction
    kernel: Tensor | None
    literal: bool

    @property
    def expanded(self) -> bool:
        """The graph expands the kernel already."""
        return self.construction.expanded


@dataclass(frozen=True)
class ExpandValue:
    """The graph computes a weight that repeats one kernel by its values; that is to be expanded.

    Args:
        kernel: the values.
        literal: as in :class:`ExpandConstruction`.
    """

    kernel: Tensor
    literal: bool


Action = KeepOne | CutTensor | ExpandConstruction | ExpandValue


@dataclass(frozen=True)
class Verdict:
    """The verdict on one call, with the live nodes and tensors that sharing it needs.

    Args:
        call: the convolution.
        finding: shared, or refused with the reason.
        action: what sharing does about the weight; None where it is refused.
        bias: what sharing does about a bias that repeats; None where it stays one number a channel.
    """

    call: ConvCall
    finding: Finding
    action: Action | None = None
    bias: CutTensor | None = None


def on_copy(verdict: Verdict, nodes: dict[str, Node]) -> Verdict:
    """The same verdict about a copy of the graph, given its nodes by name."""

    def there(node: Node) -> Node:
        return nodes[node.name]

    call, action = verdict.call, verdict.action
    call = replace(
        call,
        node=there(call.node),
        weight=map_arg(call.weight, there),
        bias=map_arg(call.bias, there),
        arguments=map_arg(call.arguments, there),
    )
    if isinstance(action, ExpandConstruction):
        source = map_arg(action.construction.source, there)
        action = replace(action, construction=replace(action.construction, source=source))
    return replace(verdict, call=call, action=action)


def refuse_changing(verdict: Verdict) -> Verdict:
    """Refused, if the kernel is computed from what can be loaded or trained, and repeats by its values alone:
    a later value may not."""
    if not isinstance(verdict.action, ExpandValue) or verdict.action.literal:
        return verdict
    reason = (
        "the weight is computed from what can be loaded or trained, and repeats by its values alone; "
        "repeat one kernel with expand() to train it"
    )
    site = verdict.finding.site
    return Verdict(verdict.call, Finding(site, refusal=Refusal(site.id, "repeats", "may-change", reason)))
