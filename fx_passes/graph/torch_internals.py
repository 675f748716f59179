"""Every private name of torch that this project uses, each with its reason. No other file uses any.

torch may change any of them. Then its test in ``tests/fx_passes/graph/test_torch_*.py`` fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn

# A backend of torch.compile failed; torch.export cannot keep sizes open, with its suggestions.
from torch._dynamo.exc import BackendCompilerFailed as BackendCompilerFailed
from torch._dynamo.exc import UserError as UserError

# The types of targets that are ATen operators, and not functions or methods.
from torch._ops import OpOverload as OpOverload
from torch._ops import OpOverloadPacket as OpOverloadPacket

# Computes the shapes of a graph without its numbers, although it holds real tensors.
from torch._subclasses import FakeTensorMode as FakeTensorMode
from torch.export import ExportedProgram, _unlift
from torch.fx import Graph, GraphModule, Node

# Returns the values of containers in the order in which a graph takes them.
from torch.fx._pytree import tree_flatten_spec as tree_flatten_spec
from torch.fx.experimental import _config
from torch.utils import _pytree

# Sees every operator that a model runs.
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# Flattens containers of arguments and results as torch.export does.
pytree = _pytree

# --- Operators -------------------------------------------------------------------------------------------
# The operator that make_fx and older exports write for a convolution, and the function that torch calls.
ATEN_CONVOLUTION = torch.ops.aten._convolution.default
TORCH_CONVOLUTION = torch._convolution
# A condition on open sizes, as torch.export leaves it in its graphs.
ATEN_ASSERT_SCALAR = torch.ops.aten._assert_scalar.default
# Checks a tensor without waiting for a GPU and without breaking a graph.
ASSERT_ASYNC = torch._assert_async
# dynamo writes this into a graph if the model switches gradients.
SET_GRAD_ENABLED = torch._C._set_grad_enabled
# Within them, operators are computed without the modes that are on: in a mode's own code.
DisableTorchDispatch = torch._C._DisableTorchDispatch
DisableTorchFunction = torch._C.DisableTorchFunction
# Names, defaults and aliases of arguments: no public way tells what an operator writes to.
schema_of: Callable[[OpOverload], torch.FunctionSchema] = attrgetter("_schema")
# --- Modules of torch.nn ---------------------------------------------------------------------------------
# The base classes of convolutions. Subclasses and lazy modules need not have a public one.
ConvNd = nn.modules.conv._ConvNd
ConvTransposeNd = nn.modules.conv._ConvTransposeNd


def reversed_padding(conv: Any) -> Any:  # dynamo traces no attrgetter
    """The padding of a convolution as ``F.pad`` takes it. torch computes it, also for "same"."""
    return conv._reversed_padding_repeated_twice


def output_padding(conv: Any, input: Tensor, output_size: list[int] | None) -> list[int]:
    """The output padding that gives a transposed convolution ``output_size``, with torch's own errors."""
    sizes = conv.stride, conv.padding, conv.kernel_size, len(conv.kernel_size), conv.dilation
    return conv._output_padding(input, output_size, *sizes)  # type: ignore[no-any-return]


def has_own_forward(conv: nn.Module) -> bool:
    """Whether this one convolution has other code than its class. Two methods hold the code."""
    return not vars(conv).keys().isdisjoint({"forward", "_conv_forward"})


# --- What a module holds ---------------------------------------------------------------------------------
def parameters_held(module: Any) -> Any:
    """The parameters of one module, to read or replace. Attributes may be proxies, iterators skip None."""
    return module._parameters


# Its buffers, for the same reasons. Its children: ``named_children`` leaves out the second name of one.
buffers_held: Callable[[nn.Module], dict[str, Tensor | None]] = attrgetter("_buffers")
modules_held: Callable[[nn.Module], dict[str, nn.Module | None]] = attrgetter("_modules")


def own_registries(module: nn.Module) -> None:
    """Give a module that took over the attributes of another its own registries of tensors and children."""
    for name in ("_parameters", "_buffers", "_modules"):
        module.__dict__[name] = dict(module.__dict__[name])


# The names of its buffers that are in no state_dict: no public way tells them apart.
unsaved_buffers: Callable[[nn.Module], set[str]] = attrgetter("_non_persistent_buffers_set")
# Sets a dotted name as torch.fx does when it traces, with modules on the way: (tensor, module, name).
assign_attribute = torch.fx.graph_module._assign_attr


def storage_id(tensor: Tensor) -> int:
    """Identifies the memory of a tensor. Its address does not: on the meta device every address is 0."""
    return tensor.untyped_storage()._cdata


class BeforeLoading:
    """A module that can change a state_dict before torch loads it. The public hook needs an ``__init__``."""

    def before_loading(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Change the ``state_dict``, in which the names of this module begin with ``prefix``."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.before_loading(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]


# --- Hooks -----------------------------------------------------------------------------------------------
# To see and remove the hooks of others, and to replace one in its place; the public way only registers one.
forward_hooks: Callable[[nn.Module], dict[int, Callable[..., Any]]] = attrgetter("_forward_hooks")
forward_pre_hooks: Callable[[nn.Module], dict[int, Callable[..., Any]]] = attrgetter("_forward_pre_hooks")


def has_backward_hooks(module: nn.Module) -> bool:
    """Whether a module has hooks on the gradients that pass through it."""
    return bool(module._backward_hooks or module._backward_pre_hooks)


def has_hooks(holder: nn.Module | Tensor) -> bool:
    """Whether a module or a parameter has any hook. Such hooks were written for the full tensors."""
    if isinstance(holder, Tensor):
        return bool(holder._backward_hooks or getattr(holder, "_post_accumulate_grad_hooks", None))
    return any(value for key, value in vars(holder).items() if key.endswith("_hooks"))


# The hooks before a state_dict is loaded, by their ``hook``: to remove one that a copy has as well.
load_hooks: Callable[[nn.Module], dict[int, Any]] = attrgetter("_load_state_dict_pre_hooks")


def register_load_hook(module: nn.Module, hook: Callable[..., Any]) -> None:
    """Run ``hook`` before a state_dict is loaded. The public one fails in a copy of a deleted module."""
    module._register_load_state_dict_pre_hook(hook)


# --- Graph modules ---------------------------------------------------------------------------------------
def put_graph(graph_module: GraphModule, graph: Graph) -> None:
    """Set the graph without generating code. The public setter generates it, which may take a second."""
    graph_module._graph = graph
    graph.owning_module = graph_module


# The module with which torch.export checks its assumptions on several sizes.
GuardsFn = _unlift.GuardsFn
# The hook by which it checks the inputs.
INPUT_CHECK = _unlift._check_input_constraints_pre_hook


def guards_of(program: ExportedProgram) -> Callable[..., Any] | None:
    """The conditions of torch.export on several sizes at once, called with all inputs; None: none."""
    return getattr(program.module(), "_guards_fn", None) if program._guards_code else None


def opens_modules(hook: Any) -> bool:
    """Whether ``hook`` is the one that torch.export puts around its check, for inputs that are modules."""
    code = getattr(hook, "__code__", None)
    return code is not None and code in _unlift._create_stateful_graph_module.__code__.co_consts


# The arguments and keywords that a graph of torch.export was captured with.
structure_of_inputs: Callable[[GraphModule], pytree.TreeSpec] = attrgetter("_in_spec")
# How a graph of torch.export takes the arguments of the model apart. ``orig_args``: their names;
# ``in_spec`` and ``out_spec``: the structures of all arguments and of the result.
structure_of_calls: Callable[[GraphModule], Any] = attrgetter("graph._codegen.pytree_info")

# --- Capture ---------------------------------------------------------------------------------------------
# The logger of errors that torch.export also raises.
GUARDS_LOG = "torch._guards"
# Within it, torch.export keeps a size open that is 1 in the example, as torch.onnx.export does.
sizes_of_one_stay_open = partial(_config.patch, backed_size_oblivious=True)  # type: ignore[attr-defined]


@contextmanager
def as_exporting() -> Iterator[None]:
    """``torch.onnx.is_in_onnx_export()`` is true within it: models ask it, and then keep other sizes open."""
    from torch.onnx._internal.exporter import _flags

    before = _flags._is_onnx_exporting
    _flags._is_onnx_exporting = True
    try:
        yield
    finally:
        _flags._is_onnx_exporting = before


# --- torch.compile ---------------------------------------------------------------------------------------
def is_static_input(node: Node) -> bool:
    """Whether dynamo marked an input as a tensor of the model with a fixed address."""
    return "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})


def traced_example(node: Node) -> Any:
    """What dynamo knows of the value of a node of its graph: a tensor without numbers, or an open size."""
    return node.meta.get("example_value")


def options_of_mode(mode: str) -> dict[str, Any]:
    """The inductor options of a ``mode`` of torch.compile. A backend only gets the name."""
    from torch._inductor import list_mode_options

    return list_mode_options(mode)


def inductor(graph_module: GraphModule, inputs: Sequence[Any], options: dict[str, Any]) -> Callable[..., Any]:
    """Compile a graph with inductor. ``torch.compile`` would capture the graph a second time."""
    from torch._inductor.compile_fx import compile_fx

    return cast(Callable[..., Any], compile_fx(graph_module, list(inputs), config_patches=options))


# --- Files of torch.export -------------------------------------------------------------------------------
def operators_on_sizes() -> frozenset[str]:
    """The names of the functions on numbers that a saved program may call."""
    from torch._export.serde.serialize import _SYM_OPS

    return frozenset(function.__name__ for function in _SYM_OPS)


def stored_tensor(described: dict[str, Any]) -> tuple[Any, ...]:
    """dtype, sizes, strides, offset, device and requires_grad of a tensor, by torch's numbering of types."""
    from torch._export.serde import schema, serialize

    meta = serialize._dict_to_dataclass(schema.TensorMeta, described)
    return (
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
    """A program from its description. ``torch.export.load`` would open the file, and run code in it."""
    from torch._export.serde import schema, serialize

    program = serialize._dict_to_dataclass(schema.ExportedProgram, described)
    return serialize.ExportedProgramDeserializer().deserialize(program, weights, constants, inputs)
