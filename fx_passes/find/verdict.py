"""A finding together with the live parts of the graph that rewriting it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from fx_passes.find.calls.call import ConvCall
from fx_passes.find.construction import Construction
from fx_passes.records import Finding, Refusal


@dataclass(frozen=True)
class Verdict:
    """The verdict on one call, and where the kernel of a shared site comes from.

    Args:
        call: the convolution.
        finding: shared, or refused with the reason.
        names: the parameter or buffer, under every name it has, that is to be cut down to ``kernel``.
        construction: how the graph repeats the kernel itself.
        kernel: the values of the kernel, where they are known; a view, not a copy, of a tensor of the model.
        bias_names, bias_kernel: the same for a bias that repeats; empty where it stays per channel.
        literal: the weight is computed from nothing that a user could load, train or replace.
        done: the site is in its shared form already.
    """

    call: ConvCall
    finding: Finding
    names: tuple[str, ...] = ()
    construction: Construction | None = None
    kernel: Tensor | None = None
    bias_names: tuple[str, ...] = ()
    bias_kernel: Tensor | None = None
    literal: bool = False
    done: bool = False


def on_copy(verdict: Verdict, nodes: dict[str, Node]) -> Verdict:
    """The same verdict about a copy of the graph, given its nodes by name."""

    def there(node: Node) -> Node:
        return nodes[node.name]

    call, construction = verdict.call, verdict.construction
    call = replace(
        call,
        node=there(call.node),
        weight=map_arg(call.weight, there),
        bias=map_arg(call.bias, there),
        arguments=map_arg(call.arguments, there),
    )
    if construction is not None:
        construction = replace(construction, source=map_arg(construction.source, there))
    return replace(verdict, call=call, construction=construction)


def refuse_changing(verdict: Verdict) -> Verdict:
    """Refused, if the kernel is computed from what can be loaded or trained, and repeats by its values alone:
    a later value may not."""
    kernel, call = verdict.finding.kernel, verdict.call
    computed = not (verdict.names or verdict.done or verdict.literal or call.form == "module")
    if kernel is None or kernel.proof != "values" or not computed:
        return verdict
    reason = (
        "the weight is computed from what can be loaded or trained, and repeats by its values alone; "
        "repeat one kernel with expand() to train it"
    )
    site = verdict.finding.site
    return Verdict(call, Finding(site, refusal=Refusal(site.id, "repeats", "may-change", reason)))
