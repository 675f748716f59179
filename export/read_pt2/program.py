"""The description of a program in a ``.pt2`` (JSON), checked before torch reads it.

torch looks up operators by any path from ``torch`` on (``torch.os.system`` is one). It evaluates sizes and
guards as Python, imports what a structure of inputs names, and writes names into the code that it generates.
So every text is checked here, by its place in the description. A text that is not known to be harmless is
refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import torch

from export.read_pt2.expressions import require_expression, require_guard
from fx_passes.errors import LoadError
from fx_passes.graph.torch_internals import OpOverload, operators_on_sizes, schema_of

_NAMESPACES = ("aten", "prims", "quantized_decomposed", "torchvision")
# Those that call nothing but the graphs they are given.
_HIGHER_ORDER = frozenset(
    "cond while_loop scan map_impl associative_scan wrap_with_set_grad_enabled wrap_with_autocast wrap "
    "strict_mode out_dtype flex_attention hints_wrapper invoke_subgraph tag_activation_checkpoint".split()
)
_VMAP = frozenset(
    "lazy_load_decompositions _add_batch_dim _remove_batch_dim _vmap_increment_nesting "
    "_vmap_decrement_nesting _jvp_increment_nesting _jvp_decrement_nesting _make_dual _unpack_dual "
    "_enter_dual_level _exit_dual_level _unwrap_for_grad".split()
)
_SIZES = operators_on_sizes() | {"getitem"}
_CONTAINERS = (
    "builtins.tuple builtins.list builtins.dict collections.OrderedDict collections.deque torch.Size "
    "torch.fx.immutable_collections.immutable_list torch.fx.immutable_collections.immutable_dict".split()
)
# What of the meta data of a node is kept: texts that nothing evaluates.
_META = ("stack_trace", "nn_module_stack", "torch_fn")
_IDENTIFIER = re.compile(r"([A-Za-z_]\w*)?", re.ASCII)
_RESERVED = re.compile(r"(^|\.)__\w*__(\.|$)")
# The name of a parameter may be anything that generated code can hold between quotes.
_PATH = re.compile(r"[^\"'\\\x00-\x1f\x7f-\x9f\u2028\u2029]*")


def read_program(text: str, what: str) -> dict[str, Any]:
    """The description as data, without the parts that only document a node.

    Args:
        what: the name of the file in an error.

    Raises:
        LoadError: ``torch.export.save`` does not write this, or it holds what torch would run.
    """
    try:
        program = json.loads(text)
        _require(program, "")
        _require_plain_inputs(program)
    except LoadError as error:
        raise LoadError(f"{what}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise LoadError(f"{what}: its program cannot be read: {type(error).__name__}: {error}") from error
    return program  # type: ignore[no-any-return]


def _require(value: Any, key: str) -> None:
    """Check every text in ``value``, which stands under ``key``.

    Raises:
        LoadError: a text is not one of its kind.
    """
    if isinstance(value, list):
        for item in value:
            _require(item, key)
    elif isinstance(value, dict):
        if key == "metadata":
            kept = {name: value[name] for name in _META if isinstance(value.get(name), str)}
            if not kept.get("nn_module_stack", "").isprintable():  # users read it
                raise LoadError("its program holds a path of modules that cannot be printed")
            value.clear()
            value.update(kept)
            return
        for name, item in value.items():
            _require_name(name)
            if name in _OBJECTS and item:
                raise LoadError("it holds an object other than a tensor, which is not opened")
            _require(item, name)
    elif isinstance(value, str):
        _KINDS.get(key, _require_name)(value)


def _require_name(text: str) -> None:
    if not _IDENTIFIER.fullmatch(text) or _RESERVED.search(text):
        raise LoadError(f"its program holds the name {text[:80]!r}, which is none")


def _require_path(text: str) -> None:
    if not _PATH.fullmatch(text) or _RESERVED.search(text):
        raise LoadError(f"its program holds the name {text[:80]!r}, which is none")


def _any_text(text: str) -> None:
    """A text that torch only stores."""


def _require_operator(text: str) -> None:
    """Only operators on tensors and sizes, and operators that call graphs."""
    owner, _, name = text.rpartition(".")
    known = {
        "_operator": _SIZES,
        "math": _SIZES,
        "torch": _SIZES,
        "torch.ops.higher_order": _HIGHER_ORDER,
        "torch._functorch.predispatch": _VMAP,
    }
    if name in known.get(owner, ()):
        return
    parts = text.split(".")
    if len(parts) == 5 and parts[:2] == ["torch", "ops"] and parts[2] in _NAMESPACES:
        overload = getattr(getattr(getattr(torch.ops, parts[2]), parts[3], None), parts[4], None)
        if isinstance(overload, OpOverload) and not _touches_files(overload):
            return
    raise LoadError(f"it calls {text[:80]!r}, which is no operator on tensors that is known here")


def _touches_files(operator: OpOverload) -> bool:
    return any(argument.name == "filename" for argument in schema_of(operator).arguments)


def _require_structure(text: str) -> None:
    """A tree of plain containers. torch would import any other one."""
    stack = [json.loads(text)[1]]
    while stack:
        node = stack.pop()
        if node["type"] not in (None, *_CONTAINERS) or set(node) != {"type", "context", "children_spec"}:
            raise LoadError(f"its inputs or outputs are in a {str(node['type'])[:80]}, which is not opened")
        context = json.loads(node["context"]) if node["context"] is not None else None
        for key in context if isinstance(context, list) else [context]:
            if isinstance(key, str):
                _require_path(key)
            elif key is not None and not isinstance(key, int | float):
                raise LoadError(f"the structure of its inputs or outputs holds {str(key)[:80]!r}")
        stack.extend(node["children_spec"])


def _require_plain_inputs(program: dict[str, Any]) -> None:
    """Texts and keywords among the inputs become part of guards and of a signature, which are code."""
    module = program["graph_module"]
    inputs = [*module["graph"]["inputs"]]
    inputs += [spec.get("constant_input", {}).get("value", {}) for spec in module["signature"]["input_specs"]]
    for given in inputs:
        _require_path(given.get("as_string") or "")
    for call in module["module_call_graph"]:
        if call.get("signature"):
            arguments = json.loads(call["signature"]["in_spec"])[1]["children_spec"]
            keywords = arguments[1]["context"] if len(arguments) == 2 else None
            for name in (json.loads(keywords) if keywords else None) or ():
                if not str(name).isidentifier():
                    raise LoadError(f"its program holds the keyword {str(name)[:80]!r}, which is no name")


# torch would unpickle the values of these keys, or look them up among classes.
_OBJECTS = ("as_custom_obj", "custom_obj_values")
# The kind of a text, by its key. Under any other key it is a name.
_KINDS: dict[str, Callable[[str], None]] = {
    "as_string": _any_text,
    "as_strings": _any_text,
    "torch_version": _any_text,
    "parameter_name": _require_path,
    "buffer_name": _require_path,
    "tensor_constant_name": _require_path,
    "user_input_name": _require_path,
    "fqn": _require_path,
    "target": _require_operator,
    "as_operator": _require_operator,
    "expr_str": require_expression,
    "guards_code": require_guard,
    "in_spec": _require_structure,
    "out_spec": _require_structure,
}
