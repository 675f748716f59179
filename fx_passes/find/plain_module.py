"""Checks that a module is one of torch's own convolutions, with its weight in place and without hooks."""

from __future__ import annotations

from torch import nn

from fx_passes.find.origin import expected_shape
from fx_passes.graph.torch_internals import ConvNd, has_hooks, has_own_forward, parameters_held
from fx_passes.kernels.repeats import Mismatch
from fx_passes.train.shared_conv import SHARED_CLASSES, SharedKernelConv


def not_plain(module: nn.Module) -> Mismatch | None:
    """Why a module is not torch's own convolution with its weight in place. None if it is."""
    assert isinstance(module, ConvNd)
    name, ours = type(module).__name__, isinstance(module, SharedKernelConv)
    weight = parameters_held(module).get("weight")
    if weight is not None and nn.parameter.is_lazy(weight):
        return Mismatch("lazy", f"the weight of this `{name}` is not initialised; run the model once")
    if type(module) not in (*SHARED_CLASSES, *SHARED_CLASSES.values()):
        return Mismatch("subclass", f"`{name}` is a subclass of a convolution and may compute anything")
    if weight is None:
        return Mismatch("computed-weight", f"the weight of this `{name}` is computed by a hook")
    if has_own_forward(module):
        return Mismatch("patched", f"this `{name}` has its own forward, which may compute anything")
    if has_hooks(module) or (not ours and any(has_hooks(p) for p in module.parameters(recurse=False))):
        return Mismatch("hooks", f"this `{name}` or its parameters have hooks, which are for the full weight")
    channels = [module.out_channels, *([module.out_channels // module.groups] if ours else [])]
    bias_fits = module.bias is None or list(module.bias.shape) in [[count] for count in channels]
    expected = module.kernel_shape if isinstance(module, SharedKernelConv) else expected_shape(module)
    if expected != tuple(weight.shape) or not bias_fits:
        reason = f"the weight {list(weight.shape)} does not fit the channels that this `{name}` states"
        return Mismatch("inconsistent", reason)
    return None
