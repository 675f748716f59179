"""Judges one convolution: does every group hold the same kernel?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from torch.fx import Node

from fx_passes.find.calls.call import ConvCall
from fx_passes.find.construction import Construction, find_construction
from fx_passes.find.judge_values import judge_values, refused
from fx_passes.find.origin import (
    direct_node,
    geometry,
    tensor_of,
    weight_origin,
    weight_shape,
)
from fx_passes.find.plain_module import not_plain
from fx_passes.find.verdict import CutTensor, ExpandConstruction, ExpandValue, KeepOne, Verdict
from fx_passes.graph.constants import NotConstant, fold, literal, quantiser_of, static_value
from fx_passes.graph.tensors import State, storage_key
from fx_passes.graph.torch_internals import has_hooks
from fx_passes.kernels.repeats import Allowed, Repeats, find_repeats, first_nan
from fx_passes.records import ConvGeometry, ConvSite, Finding, SharedKernel, WeightOrigin
from fx_passes.train.shared_conv import SharedKernelConv

SHARED_ALREADY = "already one kernel, expanded"
SINGLE_CHANNEL = "one input channel: already one kernel"
# A dense convolution of one channel with so many outputs, or more, is as fast as any other form of it.
_MANY = 8


def judge_call(
    call: ConvCall, site_id: str, state: State, allowed: Allowed, frozen: bool = False
) -> Verdict | None:
    """The verdict on a call: shared or refused. None for an ordinary dense convolution, which is no
    candidate.

    Args:
        site_id: the id of the site, for the finding.
        allowed: how far repeats may differ.
        frozen: the graph is for an export. Weights are no longer trained, and the memory order of an output
            does not matter.
    """
    try:
        groups = static_value(call.groups)
        shape = weight_shape(call, state)
        site = ConvSite(
            site_id,
            call.form,
            call.node.name,
            geometry(call, groups, shape),
            shape,
            weight_origin(call.weight, state),
        )
    except NotConstant as unknown:
        return refuse_unseen(call, site_id, unknown.code, unknown.reason)
    verdict = _judge_site(call, site, state, allowed, frozen)
    if verdict.finding.refusal and groups == 1 and verdict.finding.refusal.stage != "repeats":
        return None
    return verdict


def is_bank(shape: Sequence[int]) -> bool:
    """Whether a dense convolution with a weight of this shape is a bank: few filters on one channel, such as
    the gradients of a gray image."""
    return len(shape) > 2 and shape[1] == 1 and 1 <= shape[0] < _MANY


def refuse_unseen(
    call: ConvCall, site_id: str, code: str, reason: str, shape: tuple[int, ...] = ()
) -> Verdict | None:
    """A refusal of a call whose shapes are not known. None if its groups are known to be 1."""
    groups = call.groups if isinstance(call.groups, int) else 0
    if groups == 1:
        return None
    unknown = ConvGeometry(call.op, 0, 0, groups, (), (), (), (), ())
    site = ConvSite(site_id, call.form, call.node.name, unknown, shape, WeightOrigin("computed"))
    return refused(call, site, code, reason, "site")


def _judge_site(call: ConvCall, site: ConvSite, state: State, allowed: Allowed, frozen: bool) -> Verdict:
    if call.form == "module":
        module = state.graph_module.get_submodule(str(call.node.target))
        if why := not_plain(module):
            return refused(call, site, why.code, why.reason)
        if isinstance(module, SharedKernelConv):
            return _already_shared(call, site, module)
    bank = frozen and not site.geometry.transposed and is_bank(site.weight_shape)
    if site.geometry.groups == 1 and (site.weight_shape[:2] == (1, 1) or bank):
        kernel = SharedKernel(1, site.weight_shape, proof="construction")
        return Verdict(call, Finding(site, kernel, note=SINGLE_CHANNEL), KeepOne())
    tensor = tensor_of(call.weight, state)
    if tensor is None:
        verdict = _judge_expression(call, site, state, allowed, frozen)
    else:
        verdict = _judge_tensor(call, site, tensor, state, allowed, frozen)
    return _judge_bias(verdict, state)


def _judge_tensor(
    call: ConvCall, site: ConvSite, tensor: Tensor, state: State, allowed: Allowed, frozen: bool
) -> Verdict:
    """The verdict if the weight is itself a parameter or a buffer: its numbers decide."""
    names = tuple(state.names[storage_key(tensor)])
    if tensor.is_meta:
        return refused(call, site, "meta", f"`{names[0]}` is on the meta device and has no values")
    if isinstance(call.weight, Node) and (writers := state.writers(direct_node(call.weight))):
        reason = f"`{names[0]}` is written to by `{writers[0].name}` while the model runs"
        return refused(call, site, "mutated", reason)
    if has_hooks(tensor):
        return refused(call, site, "hooks", f"`{names[0]}` has hooks, which are for the full weight")
    if not frozen and _is_channels_last(tensor):
        reason = f"`{names[0]}` is stored channels_last, and the output takes over that order"
        return refused(call, site, "layout", f"{reason}; share first, then change the memory format")
    return judge_values(call, site, tensor.detach(), allowed, frozen, lambda kernel: CutTensor(names, kernel))


def _is_channels_last(weight: Tensor) -> bool:
    """Whether torch takes the memory order of the output from this weight.

    torch decides by the strides alone: they grow from the channels to the last dimension, and from there to
    the first. ``is_contiguous`` cannot tell: if a group has one input channel, it holds for both orders.
    """
    if weight.ndim not in (4, 5) or weight[0, 0].numel() == 1:
        return False
    reach = 0
    for dim in (1, *range(weight.ndim - 1, 1, -1), 0):
        if weight.stride(dim) < reach:
            return False
        reach = weight.stride(dim) * weight.shape[dim]
    return weight.stride(1) > 0


def _judge_expression(
    call: ConvCall, site: ConvSite, state: State, allowed: Allowed, frozen: bool
) -> Verdict:
    """The verdict if the weight is computed: its construction decides, otherwise its constant value."""
    weight = call.weight
    assert isinstance(weight, Node)
    if (quantiser := quantiser_of(weight, call.node, state)) is not None:
        reason = f"the weight is quantised by `{quantiser.name}` for integer arithmetic"
        return refused(call, site, "quantised", reason)
    construction = find_construction(weight, call.node, site.geometry.groups, state)
    if construction is not None:
        return _judge_construction(call, site, construction, state)
    try:
        value = fold(weight, call.node, state, frozen=frozen)
    except NotConstant as not_constant:
        reason = f"the weight does not repeat a kernel by construction, and {not_constant.reason}"
        return refused(call, site, not_constant.code, reason)
    except Exception as error:  # noqa: BLE001 - this ran the model's own operators
        return refused(call, site, "not-foldable", f"the weight could not be computed: {error}")
    known = literal(weight, call.node, state)
    # A copy of the kernel, so that the full weight can be freed.
    return judge_values(call, site, value, allowed, frozen, lambda kernel: ExpandValue(kernel.clone(), known))


def _judge_construction(call: ConvCall, site: ConvSite, construction: Construction, state: State) -> Verdict:
    assert isinstance(call.weight, Node)
    kernel_node = construction.source or call.weight
    site = replace(site, origin=weight_origin(kernel_node, state))
    values = state.read(kernel_node)
    if values is None:
        try:
            values = fold(kernel_node, call.node, state)
        except Exception:  # noqa: BLE001 - no constant: it is shared for any values
            values = None
    if values is not None and not values.is_meta and (nan := first_nan(values.detach())):
        return refused(call, site, nan.code, nan.reason)
    c = construction
    kernel = SharedKernel(c.groups, c.shape, c.block_diagonal, "construction")
    finding = Finding(site, kernel, note=SHARED_ALREADY if c.expanded else None)
    if values is not None:
        values = values.detach()
        values = _block(values, c.shape) if c.source is None else values.reshape(c.shape)
    # A kernel from a state_dict, or one that may be trained, must be read whenever the model runs.
    known = values is not None and literal(kernel_node, call.node, state)
    return Verdict(call, finding, ExpandConstruction(c, values, known))


def _block(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The first block of ``weight``, copied so that the full weight can be freed."""
    return weight[tuple(slice(size) for size in shape)].clone()


def _judge_bias(verdict: Verdict, state: State) -> Verdict:
    """Adds the verdict on the bias. If its bits repeat, it is cut to one per group. Otherwise it stays as it
    is, and the weight is shared anyway."""
    kernel, bias = verdict.finding.kernel, verdict.call.bias
    tensor = tensor_of(bias, state)
    if kernel is None or tensor is None or tensor.is_meta or tensor.ndim != 1:
        return verdict
    if kernel.groups == 1 or tensor.shape[0] % kernel.groups:
        return verdict
    if has_hooks(tensor) or (isinstance(bias, Node) and state.writers(direct_node(bias))):
        return verdict
    found = find_repeats(tensor.detach(), kernel.groups)
    if not isinstance(found, Repeats):
        return verdict
    names = tuple(state.names[storage_key(tensor)])
    return replace(verdict, bias=CutTensor(names, found.kernel))


def _already_shared(call: ConvCall, site: ConvSite, module: SharedKernelConv) -> Verdict:
    bias_shared = module.bias is not None and module.bias.shape[0] != module.out_channels
    shape = tuple(module.weight.shape)
    kernel = SharedKernel(
        module.groups, shape, module.block_diagonal, "construction", bias_shared=bias_shared
    )
    return Verdict(call, Finding(site, kernel, note=SHARED_ALREADY), KeepOne())
