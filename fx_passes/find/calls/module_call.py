"""Convolutions that the graph calls as modules: ``call_module`` of ``nn.Conv2d`` and its kind."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule, Node

from fx_passes.find.calls.call import ConvCall
from fx_passes.graph.torch_internals import ConvNd
from fx_passes.train.shared_conv import SHARED_CLASSES

_OPS: dict[type[nn.Module], str] = {
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
}
_OPS.update({shared: _OPS[plain] for plain, shared in SHARED_CLASSES.items()})


def match(node: Node, graph_module: GraphModule) -> ConvCall | None:
    """The call, for torch's own classes and ours; subclasses may compute anything, and match by it."""
    if node.op != "call_module":
        return None
    module = graph_module.get_submodule(str(node.target))
    op = next((_OPS[cls] for cls in type(module).__mro__ if cls in _OPS), None)
    if op is None or not isinstance(module, ConvNd):
        return None
    arguments = {
        "stride": module.stride,
        "padding": module.padding,
        "dilation": module.dilation,
        "output_padding": module.output_padding,
        "groups": module.groups,
    }
    bias = f"{node.target}.bias" if module.bias is not None else None
    weight = f"{node.target}.weight"
    return ConvCall(node, "module", op, weight, bias, arguments, module.padding_mode)
