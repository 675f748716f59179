"""The numbers of a shared kernel and of its bias, if they are constants."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from fx_passes.find.verdict import KeepScaled, Verdict
from fx_passes.graph.constants import NotConstant, fold
from fx_passes.graph.tensors import State
from fx_passes.records import Refusal


def refuse(verdict: Verdict, code: str, reason: str) -> Refusal:
    """The refusal to lower a shared convolution."""
    return Refusal(verdict.finding.id, "lower", code, reason)


def kernel_and_bias(verdict: Verdict, state: State) -> tuple[Tensor, Tensor | None] | Refusal:
    """The kernel of one group, laid out as in the model, and the bias: of one group if it repeats, else of
    all channels."""
    shared, call = verdict.finding.kernel, verdict.call
    assert shared is not None
    try:
        kernel = _constant(call.weight, call.node, state)
    except NotConstant as unknown:
        return refuse(verdict, "kernel", f"the values of its kernel are not known: {unknown.reason}")
    if isinstance(verdict.action, KeepScaled):
        kernel = verdict.action.kernel
    kernel = kernel[tuple(slice(size) for size in shared.shape)].clone()
    if call.bias is None:
        return kernel, None
    try:
        bias = _constant(call.bias, call.node, state)
    except NotConstant as unknown:
        return refuse(verdict, "bias", f"its bias is no constant: {unknown.reason}")
    rows = shared.shape[verdict.finding.site.geometry.transposed]  # torch's layout has columns first there
    repeats = verdict.finding.groups > 1 and torch.equal(bias, bias[:rows].repeat(len(bias) // rows))
    return kernel, (bias[:rows] if repeats else bias).clone()


def _constant(value: Node | str, conv: Node, state: State) -> Tensor:
    """The value that the convolution gets as ``value``, after all conversions.

    Raises:
        NotConstant: it has no value before the model runs.
    """
    try:
        constant = fold(value, conv, state, frozen=True) if isinstance(value, Node) else state.tensors[value]
    except NotConstant:
        raise
    except Exception as error:
        raise NotConstant("not-foldable", f"computing it failed: {error}") from error
    if constant.is_meta:
        raise NotConstant("meta", "it is on the meta device")
    return constant.detach()
