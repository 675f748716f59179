"""The verdict on one convolution: does every group hold the same kernel?"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor, nn
from torch.fx import Node

from fx_passes.find.calls.call import ConvCall
from fx_passes.find.construction import Construction, find_construction
from fx_passes.find.origin import (
    direct_node,
    expected_shape,
    geometry,
    tensor_of,
    weight_origin,
    weight_shape,
)
from fx_passes.find.verdict import Verdict
from fx_passes.graph.constants import NotConstant, fold, literal, quantiser_of, static_value
from fx_passes.graph.tensors import State, storage_key
from fx_passes.graph.torch_internals import ConvNd, has_hooks, has_own_forward, parameters_held
from fx_passes.kernels.block_diagonal import diagonal_blocks, find_diagonal_blocks
from fx_passes.kernels.repeats import Allowed, Mismatch, Repeats, find_repeats, first_nan, output_change
from fx_passes.records import ConvGeometry, ConvSite, Finding, Refusal, SharedKernel, WeightOrigin
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv

SHARED_ALREADY = "already one kernel, expanded"
SINGLE_CHANNEL = "one input and one output channel: already one kernel"


def judge_call(
    call: ConvCall, site_id: str, state: State, allowed: Allowed, frozen: bool = False
) -> Verdict | None:
    """Shared, refused, or None for an ordinary dense convolution, which is no candidate.

    Args:
        frozen: the graph is for an export. Weights are no longer trained, and the order of an output in
            memory does not matter.
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


def refuse_unseen(
    call: ConvCall, site_id: str, code: str, reason: str, shape: tuple[int, ...] = ()
) -> Verdict | None:
    """A refusal where the shapes are not known; None where groups = 1 is."""
    groups = call.groups if isinstance(call.groups, int) else 0
    if groups == 1:
        return None
    unknown = ConvGeometry(call.op, 0, 0, groups, (), (), (), (), ())
    site = ConvSite(site_id, call.form, call.node.name, unknown, shape, WeightOrigin("computed"))
    return _refuse(call, site, code, reason, "site")


def _judge_site(call: ConvCall, site: ConvSite, state: State, allowed: Allowed, frozen: bool) -> Verdict:
    if call.form == "module":
        module = state.graph_module.get_submodule(str(call.node.target))
        if why := _not_plain(module):
            return _refuse(call, site, *why)
        if isinstance(module, SharedKernelConv):
            return _already_shared(call, site, module)
    if site.geometry.groups == 1 and site.weight_shape[:2] == (1, 1):
        kernel = SharedKernel(1, site.weight_shape, proof="construction")
        return Verdict(call, Finding(site, kernel, note=SINGLE_CHANNEL), done=True)
    tensor = tensor_of(call.weight, state)
    if tensor is None:
        verdict = _judge_expression(call, site, state, allowed, frozen)
    else:
        verdict = _judge_tensor(call, site, tensor, state, allowed, frozen)
    return _judge_bias(verdict, state)


def _judge_tensor(
    call: ConvCall, site: ConvSite, tensor: Tensor, state: State, allowed: Allowed, frozen: bool
) -> Verdict:
    """The weight is a parameter or a buffer itself: its numbers decide."""
    names = tuple(state.names[storage_key(tensor)])
    if tensor.is_meta:
        return _refuse(call, site, "meta", f"`{names[0]}` is on the meta device and has no values")
    if isinstance(call.weight, Node) and (writers := state.writers(direct_node(call.weight))):
        reason = f"`{names[0]}` is written to by `{writers[0].name}` while the model runs"
        return _refuse(call, site, "mutated", reason)
    if has_hooks(tensor):
        return _refuse(call, site, "hooks", f"`{names[0]}` has hooks, made for the whole weight")
    if not frozen and _is_channels_last(tensor):
        reason = f"`{names[0]}` is stored channels_last, an order that the output takes over from it"
        return _refuse(call, site, "layout", f"{reason}; share first, then change the memory format")
    return _judge_values(Verdict(call, Finding(site), names), tensor.detach(), allowed)


def _is_channels_last(weight: Tensor) -> bool:
    """Whether torch takes the order of the output from this weight, as it does by the strides alone.

    They grow from the channels to the last dimension, and from there to the first; ``is_contiguous`` holds
    for either order where a group has one input channel.
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
    """The weight is computed: its construction decides, or else its constant value."""
    weight = call.weight
    assert isinstance(weight, Node)
    if (quantiser := quantiser_of(weight, call.node, state)) is not None:
        reason = f"the weight is quantised by `{quantiser.name}`, for kernels of integers"
        return _refuse(call, site, "quantised", reason)
    construction = find_construction(weight, call.node, site.geometry.groups, state)
    if construction is not None:
        return _judge_construction(call, site, construction, state)
    try:
        value = fold(weight, call.node, state, frozen=frozen)
    except NotConstant as not_constant:
        reason = f"the weight is no repeat by construction, and {not_constant.reason}"
        return _refuse(call, site, not_constant.code, reason)
    except Exception as error:  # noqa: BLE001 - the model's own operators, run here on constants
        return _refuse(call, site, "not-foldable", f"the weight could not be computed: {error}")
    verdict = Verdict(call, Finding(site), literal=literal(weight, call.node, state))
    return _judge_values(verdict, value, allowed)


def _judge_construction(call: ConvCall, site: ConvSite, construction: Construction, state: State) -> Verdict:
    assert isinstance(call.weight, Node)
    kernel_node = construction.source or call.weight
    site = replace(site, origin=weight_origin(kernel_node, state))
    values = state.read(kernel_node)
    if values is None:
        try:
            values = fold(kernel_node, call.node, state)
        except Exception:  # noqa: BLE001 - trainable or given at run time: shared whatever the values are
            values = None
    if values is not None and not values.is_meta and (nan := first_nan(values.detach())):
        return _refuse(call, site, nan.code, nan.reason)
    c = construction
    kernel = SharedKernel(c.groups, c.shape, c.block_diagonal, "construction")
    finding = Finding(site, kernel, note=SHARED_ALREADY if c.expanded else None)
    if values is not None:
        values = values.detach()
        values = _block(values, c.shape) if c.source is None else values.reshape(c.shape)
    # What is read from a state_dict, or may be trained some day, is to be read whenever the model runs.
    known = values is not None and literal(kernel_node, call.node, state)
    return Verdict(call, finding, construction=c, kernel=values, literal=known, done=c.expanded)


def _judge_values(verdict: Verdict, weight: Tensor, allowed: Allowed) -> Verdict:
    call, site = verdict.call, verdict.finding.site
    groups, found = site.geometry.groups, None
    block_diagonal = groups == 1
    if not block_diagonal:
        found = find_repeats(weight, groups, allowed)
    elif (diagonal := find_diagonal_blocks(weight, allowed)) is not None:
        groups, found = diagonal
    if found is None:
        return _refuse(call, site, "dense", "the weight is dense")
    if isinstance(found, Mismatch):
        where = f"dense, zero off {groups} diagonal blocks, but " if block_diagonal else ""
        return _refuse(call, site, found.code, where + found.reason, "repeats")
    shape = tuple(found.kernel.shape)
    change = 0.0
    if found.max_difference > 0:
        blocks = diagonal_blocks(weight, groups) if block_diagonal else weight
        change = output_change(blocks, found.kernel, groups, "transpose" in call.op)
    kernel = SharedKernel(groups, shape, block_diagonal, "values", found.max_difference, output_change=change)
    values = found.kernel if verdict.names else found.kernel.clone()
    return replace(verdict, finding=Finding(site, kernel), kernel=values)


def _block(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The first block of ``weight``, copied so that the whole can be freed."""
    return weight[tuple(slice(size) for size in shape)].clone()


def _judge_bias(verdict: Verdict, state: State) -> Verdict:
    """The bias on its own: one per group if its bits repeat, else it stays as it is and stops nothing."""
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
    return replace(verdict, bias_names=names, bias_kernel=found.kernel)


def _already_shared(call: ConvCall, site: ConvSite, module: SharedKernelConv) -> Verdict:
    bias_shared = module.bias is not None and module.bias.shape[0] != module.out_channels
    shape = tuple(module.weight.shape)
    kernel = SharedKernel(
        module.groups, shape, module.block_diagonal, "construction", bias_shared=bias_shared
    )
    return Verdict(call, Finding(site, kernel, note=SHARED_ALREADY), done=True)


def _not_plain(module: nn.Module) -> tuple[str, str] | None:
    """Why a module is not torch's own convolution with its weight in place, or None."""
    assert isinstance(module, ConvNd)
    name, ours = type(module).__name__, isinstance(module, SharedKernelConv)
    weight = parameters_held(module).get("weight")
    if weight is not None and nn.parameter.is_lazy(weight):
        return "lazy", f"the weight of this `{name}` is not initialised; run the model once"
    if type(module) not in (*SHARED_CLASSES, *SHARED_CLASSES.values()):
        return "subclass", f"`{name}` is a subclass of a convolution and may compute anything"
    if weight is None:
        return "computed-weight", f"the weight of this `{name}` is computed by a hook"
    if has_own_forward(module):
        return "patched", f"this `{name}` has a forward of its own, and may compute anything"
    if has_hooks(module) or (not ours and any(has_hooks(p) for p in module.parameters(recurse=False))):
        return "hooks", f"this `{name}` or its parameters have hooks, made for the whole weight"
    channels = [module.out_channels, *([module.out_channels // module.groups] if ours else [])]
    bias_fits = module.bias is None or list(module.bias.shape) in [[count] for count in channels]
    expected = module.kernel_shape if isinstance(module, SharedKernelConv) else expected_shape(module)
    if expected != tuple(weight.shape) or not bias_fits:
        reason = f"the weight {list(weight.shape)} does not fit the channels that this `{name}` states"
        return "inconsistent", reason
    return None


def _refuse(
    call: ConvCall,
    site: ConvSite,
    code: str,
    reason: str,
    stage: Literal["site", "weight", "repeats"] = "weight",
) -> Verdict:
    return Verdict(call, Finding(site, refusal=Refusal(site.id, stage, code, reason)))
