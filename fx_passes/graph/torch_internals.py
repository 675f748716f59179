"""Every private name of torch that this project touches, and why; no other file of it touches any.

torch may rename or change each of them in any version. ``tests/fx_passes/test_torch_internals.py`` has a test
for each that fails when it does, and none of them belongs here without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

# What torch.export raises where sizes cannot stay open; it holds torch's suggestions.
from torch._dynamo.exc import UserError as UserError

# Targets of nodes that are ATen operators, told from functions and methods.
from torch._ops import OpOverload as OpOverload
from torch._ops import OpOverloadPacket as OpOverloadPacket

# The shapes of a graph without its numbers, though it holds real tensors.
from torch._subclasses import FakeTensorMode as FakeTensorMode
from torch.export import ExportedProgram, _unlift
from torch.fx import Graph, GraphModule, Node

# The values of containers in the order in which a graph takes them.
from torch.fx._pytree import tree_flatten_spec as tree_flatten_spec
from torch.fx.experimental import _config
from torch.fx.graph_module import _assign_attr
from torch.utils import _pytree

# Sees every operator that a model runs, whatever its code is.
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# Containers of arguments and results, taken apart as torch.export takes them.
pytree = _pytree

# --- Operators -------------------------------------------------------------------------------------------
# What make_fx and older exports write for a convolution, and what torch itself calls.
ATEN_CONVOLUTION = torch.ops.aten._convolution.default
TORCH_CONVOLUTION = torch._convolution
# The batch norm of an evaluation, after decomposition.
ATEN_BATCH_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default
# Conditions on open sizes, as torch.export leaves them in its graphs.
ATEN_ASSERT_SCALAR = torch.ops.aten._assert_scalar.default
# A check of a tensor that neither waits for a GPU nor breaks a graph.
ASSERT_ASYNC = torch._assert_async
# What dynamo writes into a graph where a model switches gradients.
SET_GRAD_ENABLED = torch._C._set_grad_enabled


def schema_of(operator: OpOverload) -> torch.FunctionSchema:
    """Names, defaults and aliases of its arguments: no public way tells what an operator writes to."""
    return operator._schema


# --- Modules of torch.nn ---------------------------------------------------------------------------------
# What convolutions and batch norms have in common: subclasses and lazy ones are not all of a public class.
ConvNd = nn.modules.conv._ConvNd
ConvTransposeNd = nn.modules.conv._ConvTransposeNd
BatchNorm = nn.modules.batchnorm._BatchNorm


def reversed_padding(conv: Any) -> list[int]:
    """The padding of a convolution as ``F.pad`` takes it: only torch's own has "same" worked out."""
    padding: list[int] = conv._reversed_padding_repeated_twice
    return padding


def output_padding(conv: Any, input: Tensor, output_size: list[int] | None) -> list[int]:
    """What a transposed convolution adds to get ``output_size``, with torch's own errors."""
    dim = len(conv.kernel_size)
    geometry = conv.stride, conv.padding, conv.kernel_size, dim, conv.dilation
    added: list[int] = conv._output_padding(input, output_size, *geometry)
    return added


def has_own_forward(conv: nn.Module) -> bool:
    """Whether this one convolution was given other code than its class; both methods are its code."""
    return not vars(conv).keys().isdisjoint({"forward", "_conv_forward"})


# --- What a module holds ---------------------------------------------------------------------------------
def parameters_held(module: Any) -> dict[str, nn.Parameter | None]:
    """Its own parameters to read or replace: attributes may be a tracer's proxies, iterators skip None."""
    held: dict[str, nn.Parameter | None] = module._parameters
    return held


def buffers_held(module: nn.Module) -> dict[str, Tensor | None]:
    """Its own buffers, for the same reasons."""
    return module._buffers


def modules_held(module: nn.Module) -> dict[str, nn.Module | None]:
    """Its own children: ``named_children`` leaves out the second name of one."""
    return module._modules


def own_registries(module: nn.Module) -> None:
    """Let a module that took over the attributes of another one hold its tensors and children by itself."""
    for name in ("_parameters", "_buffers", "_modules"):
        module.__dict__[name] = dict(module.__dict__[name])


def unsaved_buffers(module: nn.Module) -> set[str]:
    """The names of its buffers that are in no state_dict: no public way tells them apart."""
    return module._non_persistent_buffers_set


def assign_attribute(value: Tensor, module: nn.Module, name: str) -> None:
    """Set a dotted name as torch.fx does when it traces, with modules on the way to it."""
    _assign_attr(value, module, name)


def storage_id(tensor: Tensor) -> int:
    """The memory of a tensor: on the meta device, every address is 0."""
    return tensor.untyped_storage()._cdata


class BeforeLoading:
    """A module that may change a state_dict before torch loads it; the public hook needs an ``__init__``."""

    def before_loading(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Change the ``state_dict``, in which the names of this module begin with ``prefix``."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.before_loading(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]


# --- Hooks -----------------------------------------------------------------------------------------------
def forward_hooks(module: nn.Module) -> dict[int, Callable[..., Any]]:
    """To see and remove those that others registered; the public way is to register one."""
    return module._forward_hooks


def forward_pre_hooks(module: nn.Module) -> dict[int, Callable[..., Any]]:
    """The same for those in front; a replaced one stays in its place among the others."""
    return module._forward_pre_hooks


def has_backward_hooks(module: nn.Module) -> bool:
    """Whether gradients that pass through a module call anything."""
    return bool(module._backward_hooks or module._backward_pre_hooks)


def has_hooks(holder: nn.Module | Tensor) -> bool:
    """Whether a module or a parameter has any hook: all of them are made for the whole tensors."""
    if isinstance(holder, Tensor):
        return bool(holder._backward_hooks or getattr(holder, "_post_accumulate_grad_hooks", None))
    return any(value for key, value in vars(holder).items() if key.endswith("_hooks"))


def load_hooks(module: nn.Module) -> dict[int, Any]:
    """What runs before a state_dict is loaded, by its ``hook``: to take away one that a copy has as well."""
    return module._load_state_dict_pre_hooks


def register_load_hook(module: nn.Module, hook: Callable[..., Any]) -> None:
    """Run ``hook`` before a state_dict is loaded: the public one fails in copies of a module that is gone."""
    module._register_load_state_dict_pre_hook(hook)


# --- Graph modules ---------------------------------------------------------------------------------------
def put_graph(graph_module: GraphModule, graph: Graph) -> None:
    """Give it ``graph`` without generating its code, which the public way does and may take a second."""
    graph_module._graph = graph
    graph.owning_module = graph_module


# The module by which torch.export checks what it assumed of several sizes.
GuardsFn = _unlift.GuardsFn


def guards_of(program: ExportedProgram) -> Callable[..., Any] | None:
    """What torch.export assumed of several sizes at once, called with all inputs; None: nothing."""
    return getattr(program.module(), "_guards_fn", None) if program._guards_code else None


def checks_inputs(hook: Any) -> bool:
    """Whether ``hook`` is the check that torch.export puts in front of its graphs."""
    return hook is _unlift._check_input_constraints_pre_hook


def opens_modules(hook: Any) -> bool:
    """Whether torch.export put ``hook`` around its check, for inputs that are modules."""
    code = getattr(hook, "__code__", None)
    return code is not None and code in _unlift._create_stateful_graph_module.__code__.co_consts


def structure_of_inputs(graph_module: GraphModule) -> pytree.TreeSpec:
    """The arguments and keywords that a graph of torch.export was captured with."""
    return graph_module._in_spec


def names_of_arguments(graph_module: GraphModule) -> list[str]:
    """The arguments of the model that a graph of torch.export takes apart."""
    return list(graph_module.graph._codegen.pytree_info.orig_args)  # type: ignore[attr-defined]


# --- Capture ---------------------------------------------------------------------------------------------
# The logger of errors that torch.export raises as well.
GUARDS_LOG = "torch._guards"


def sizes_of_one_stay_open() -> Any:
    """Within it, torch.export keeps a size open that is 1 in the example, as torch.onnx.export does."""
    return _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]


@contextmanager
def as_exporting() -> Iterator[None]:
    """Let ``torch.onnx.is_in_onnx_export()`` say yes: models ask that, and then keep other sizes open.

    What is captured for a file has to be what the exporter sees.
    """
    from torch.onnx._internal.exporter import _flags

    before = _flags._is_onnx_exporting
    _flags._is_onnx_exporting = True
    try:
        yield
    finally:
        _flags._is_onnx_exporting = before


# --- torch.compile ---------------------------------------------------------------------------------------
def is_static_input(node: Node) -> bool:
    """Whether dynamo marked an input as a tensor of the model, whose address stays."""
    return "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})


def options_of_mode(mode: str) -> dict[str, Any]:
    """What a ``mode`` of torch.compile means to inductor: a backend gets the name alone."""
    from torch._inductor import list_mode_options

    return list_mode_options(mode)


def inductor(graph_module: GraphModule, inputs: Sequence[Any], options: dict[str, Any]) -> Callable[..., Any]:
    """What a backend hands its graph on to; ``torch.compile`` would capture the graph a second time."""
    from torch._inductor.compile_fx import compile_fx

    return cast(Callable[..., Any], compile_fx(graph_module, list(inputs), config_patches=options))


# --- Modes -----------------------------------------------------------------------------------------------
# Within them, operators are computed without the modes that are on: in a mode's own code.
DisableTorchDispatch = torch._C._DisableTorchDispatch
DisableTorchFunction = torch._C.DisableTorchFunction


# --- Files of torch.export -------------------------------------------------------------------------------
def operators_on_sizes() -> frozenset[str]:
    """The names of the functions on numbers that a saved program may call."""
    from torch._export.serde.serialize import _SYM_OPS

    return frozenset(function.__name__ for function in _SYM_OPS)


class StoredTensor(NamedTuple):
    """A tensor as a saved program describes it."""

    dtype: torch.dtype
    sizes: list[int]
    strides: list[int]
    offset: int
    device: torch.device
    requires_grad: bool


def stored_tensor(described: dict[str, Any]) -> StoredTensor:
    """A description of a tensor, read by torch's own numbering of types."""
    from torch._export.serde import schema, serialize

    meta = serialize._dict_to_dataclass(schema.TensorMeta, described)
    return StoredTensor(
        serialize.deserialize_scalar_type(meta.dtype),
        [size.as_int for size in meta.sizes],
        [stride.as_int for stride in meta.strides],
        meta.storage_offset.as_int,
        serialize.deserialize_device(meta.device),
        bool(meta.requires_grad),
    )


def described_program(
    described: dict[str, Any], weights: dict[str, Tensor], constants: dict[str, Tensor], inputs: Any
) -> ExportedProgram:
    """A program from its description: ``torch.export.load`` would open the file, and run what it brings."""
    from torch._export.serde import schema, serialize

    program = serialize._dict_to_dataclass(schema.ExportedProgram, described)
    return serialize.ExportedProgramDeserializer().deserialize(program, weights, constants, inputs)
