"""A finding, the action that sharing takes on it, and the live parts of the graph that the action needs."""

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
    """The weight is one kernel already: it belongs to a shared module, or to a convolution of one channel."""


@dataclass(frozen=True)
class CutTensor:
    """The weight (or the bias) is a tensor of the model. Sharing cuts it to its kernel.

    Args:
        names: every name of the parameter or buffer.
        kernel: the values, as a view of the tensor.
    """

    names: tuple[str, ...]
    kernel: Tensor


@dataclass(frozen=True)
class ExpandConstruction:
    """The graph itself repeats one kernel. Sharing expands the kernel instead.

    Args:
        construction: how the graph repeats the kernel.
        kernel: the values, if they are known.
        literal: the values are computed from nothing that a user could load, train or replace.
    """

    construction: Construction
    kernel: Tensor | None
    literal: bool

    @property
    def expanded(self) -> bool:
        """Whether the graph already expands the kernel."""
        return self.construction.expanded


@dataclass(frozen=True)
class ExpandValue:
    """The graph computes a weight whose values repeat one kernel. Sharing expands the kernel instead.

    Args:
        kernel: the values.
        literal: as in :class:`ExpandConstruction`.
    """

    kernel: Tensor
    literal: bool


@dataclass(frozen=True)
class KeepScaled:
    """The groups repeat one kernel up to a factor for each. Sharing keeps the weight as it is.

    Args:
        kernel: the values.
        factors: one for each group, in float64.
    """

    kernel: Tensor
    factors: Tensor


Action = KeepOne | KeepScaled | CutTensor | ExpandConstruction | ExpandValue


@dataclass(frozen=True)
class Verdict:
    """The verdict on one call, with the live nodes and tensors that sharing needs.

    Args:
        call: the convolution.
        finding: shared, or refused with a reason.
        action: the action on the weight. None: the site is refused.
        bias: the cut of a bias that repeats. None: the bias keeps one number for each channel.
    """

    call: ConvCall
    finding: Finding
    action: Action | None = None
    bias: CutTensor | None = None


def on_copy(verdict: Verdict, nodes: dict[str, Node]) -> Verdict:
    """The same verdict for a copy of the graph.

    Args:
        nodes: the nodes of the copy, by name.
    """

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
    """The verdict, refused if a later value of the weight may not repeat: its kernel is computed from tensors
    that can be loaded or trained, and only its present values repeat."""
    if not isinstance(verdict.action, ExpandValue) or verdict.action.literal:
        return verdict
    reason = (
        "the weight is computed from tensors that can be loaded or trained, and only its present values "
        "repeat; to train it, repeat one kernel with expand()"
    )
    site = verdict.finding.site
    return Verdict(verdict.call, Finding(site, refusal=Refusal(site.id, "repeats", "may-change", reason)))
